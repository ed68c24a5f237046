//! Printed columns of custom resources: `additionalPrinterColumns`.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::jsonpath::JsonPath;
use crate::registry::table::{NAME, duration};

/// One column.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    path: Option<JsonPath>,
}

/// The columns after the name.
#[derive(Clone, Debug, Default)]
pub struct Columns(Vec<Column>);

impl Columns {
    /// The columns of a version; the age alone when it names none.
    pub fn of(version: &Value) -> Self {
        let given =
            version.get("additionalPrinterColumns").and_then(Value::as_array).filter(|c| !c.is_empty());
        let age = vec![json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": "Time since the object was created."})];
        let columns = given.unwrap_or(&age).iter().map(|column| {
            let text = |key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            Column {
                name: text("name"),
                kind: text("type"),
                format: text("format"),
                description: match text("description") {
                    empty if empty.is_empty() => {
                        "Custom resource definition column (in JSONPath format): ".to_owned()
                            + &text("jsonPath")
                    }
                    given => given,
                },
                priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
                path: JsonPath::parse(&text("jsonPath")).ok(),
            }
        });
        Self(columns.collect())
    }

    /// The definitions, the name first.
    pub fn definitions(&self) -> Vec<Value> {
        let name = json!({"name": NAME.name, "type": NAME.kind, "format": NAME.format,
            "description": NAME.description, "priority": 0});
        let rest = self.0.iter().map(|c| {
            json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description,
                "priority": c.priority})
        });
        std::iter::once(name).chain(rest).collect()
    }

    /// The cells of an object.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object.pointer("/metadata/name").cloned().unwrap_or_default();
        std::iter::once(name).chain(self.0.iter().map(|column| column.cell(object, now))).collect()
    }
}

impl Column {
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(path) = &self.path else { return Value::Null };
        let found = path.find(object);
        let Some(first) = found.first().copied() else { return Value::Null };
        match self.kind.as_str() {
            "integer" => match first {
                Value::Number(n) => n.as_i64().map_or_else(|| whole(n.as_f64()), Value::from),
                _ => Value::Null,
            },
            "number" => {
                if first.is_number() {
                    first.clone()
                } else {
                    Value::Null
                }
            }
            "boolean" => {
                if first.is_boolean() {
                    first.clone()
                } else {
                    Value::Null
                }
            }
            "date" => match first.as_str() {
                Some(text) => match text.parse::<Timestamp>() {
                    Ok(then) => duration::age(Some(then), now).into(),
                    Err(_) => "<invalid>".into(),
                },
                None => Value::Null,
            },
            _ => found.iter().map(|value| shown(value)).collect::<Vec<_>>().join(" ").into(),
        }
    }
}

fn whole(number: Option<f64>) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "a column of integers shows the whole part")]
    number.map_or(Value::Null, |number| Value::from(number as i64))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_follow_their_type() {
        let columns = Columns::of(&json!({"additionalPrinterColumns": [
            {"name": "Spec", "type": "string", "jsonPath": ".spec.cron"},
            {"name": "N", "type": "integer", "jsonPath": ".spec.n", "priority": 1},
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            {"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts"},
        ]}));
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"cron": "* *", "n": 3, "hosts": ["x", "y"]},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        assert_eq!(
            columns.cells(&object, now),
            [json!("a"), json!("* *"), json!(3), json!("True"), json!("60s"), json!("[\"x\",\"y\"]")]
        );
        assert_eq!(columns.cells(&json!({"metadata": {"name": "b"}}), now)[1..], vec![Value::Null; 5]);
        assert_eq!(columns.definitions()[2]["priority"], 1);
        assert_eq!(Columns::of(&json!({})).definitions()[1]["name"], "Age");
    }
}
