//! Fields of an applied configuration that its kind does not have.

use serde_json::Value;

use super::extract::element;
use crate::api::schema::{Kind, ListType, Schema};

/// What is wrong with each field that the schema does not declare, in upstream's words, such as
/// `.spec.template.bogus: field not declared in schema`.
pub(super) fn undeclared(value: &Value, schema: Schema<'_>) -> Vec<String> {
    let mut found = Vec::new();
    look(value, schema, &mut String::new(), &mut found);
    found
}

fn look(value: &Value, schema: Schema<'_>, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::Object(map) if matches!(schema.kind(), Kind::Struct | Kind::Map) => {
            for (name, value) in map {
                path.push('.');
                path.push_str(name);
                match schema.field(name) {
                    Some(below) => look(value, below, path, found),
                    None => found.push(format!("{path}: field not declared in schema")),
                }
                path.truncate(length);
            }
        }
        Value::Array(items) if schema.kind() == Kind::List => {
            let Some(below) = schema.item() else { return };
            for (i, item) in items.iter().enumerate() {
                path.push_str(&shown(item, i, schema));
                look(item, below, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// An item as upstream's paths name it: by its keys, by its value, or by its place.
fn shown(item: &Value, place: usize, list: Schema<'_>) -> String {
    let list_type = list.list_type();
    if list_type != ListType::Atomic
        && let Ok(element) = element(item, list, list_type)
    {
        if list_type == ListType::Set {
            return format!("[={item}]");
        }
        if let Ok(Value::Object(keys)) = serde_json::from_str(&element[2..]) {
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            return format!("[{}]", keys.join(","));
        }
    }
    format!("[{place}]")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::schema::Schemas;

    #[test]
    fn fields_that_a_kind_does_not_have_are_named_by_path() {
        let schema = Schemas::builtin().for_gvk("apps", "v1", "Deployment").unwrap();
        let spec = |container: Value| {
            json!({"metadata": {"name": "d", "labels": {"any": "thing"}},
            "spec": {"template": {"spec": {"containers": [container]}}}})
        };
        let good = spec(json!({"name": "c", "ports": [{"containerPort": 80}]}));
        assert_eq!(undeclared(&good, schema), Vec::<String>::new());
        let mut bad = spec(json!({"name": "c", "bogus": 1, "ports": [{"containerPort": 80, "other": 1}],
            "tolerations": []}));
        bad["metadata"]["more"] = json!(null);
        let container = r#".spec.template.spec.containers[name="c"]"#;
        let expected = [
            ".metadata.more".to_owned(),
            format!("{container}.bogus"),
            format!(r#"{container}.ports[containerPort=80,protocol="TCP"].other"#),
            format!("{container}.tolerations"),
        ];
        let found = undeclared(&bad, schema);
        assert_eq!(found, expected.map(|path| format!("{path}: field not declared in schema")));
    }
}
