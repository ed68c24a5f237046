//! Connections: what `exec`, `attach`, `portforward` and `proxy` must pass before anything is connected.

use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::registry::admission::{Operation, Request};
use crate::registry::context::RequestContext;
use crate::registry::custom::object::RawObject;
use crate::registry::resource::Resource;
use crate::registry::service::{Registry, target};

/// The kind of the options of a connection.
fn options_kind(resource: &Resource, part: &str) -> String {
    let part = match part {
        "portforward" => "PortForward".to_owned(),
        other => other.chars().take(1).flat_map(char::to_uppercase).chain(other.chars().skip(1)).collect(),
    };
    format!("{}{part}Options", resource.kind)
}

impl Registry {
    /// Asks admission about a connection; `query` becomes the options that plugins see, and is answered as they changed
    /// it, or `None` when nobody did.
    ///
    /// # Errors
    /// Somebody refuses it.
    pub async fn admit_connect(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        subresource: &str,
        (namespace, name): (&str, &str),
        query: &[(String, String)],
    ) -> Result<Option<Vec<(String, String)>>, ApiError> {
        let target = target(resource, Some(subresource), namespace, name)?;
        let mut options = json!({"apiVersion": "v1", "kind": options_kind(resource, subresource)});
        for (key, value) in query {
            match key.as_str() {
                "command" => match &mut options["command"] {
                    Value::Array(list) => list.push(value.as_str().into()),
                    first => *first = json!([value]),
                },
                "stdin" | "stdout" | "stderr" | "tty" => {
                    options[key.as_str()] =
                        matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True").into();
                }
                _ => options[key.as_str()] = value.as_str().into(),
            }
        }
        let (mut object, _) = RawObject::decode(options).map_err(ApiError::internal)?;
        let request = Request::new(self, cx, &target, Operation::Connect);
        let changed = self.admission().admit(&request, &mut object, None).await?;
        self.admission().validate(&request, Some(&object), None).await?;
        Ok(changed.then(|| options_query(&object.value())))
    }
}

/// Options as the query that says the same.
fn options_query(options: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    let mut query = Vec::new();
    for (key, value) in options.as_object().into_iter().flatten() {
        match value {
            Value::Array(items) => query.extend(items.iter().filter_map(text).map(|one| (key.clone(), one))),
            _ if matches!(key.as_str(), "apiVersion" | "kind" | "metadata") => {}
            _ => query.extend(text(value).map(|one| (key.clone(), one))),
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_what_the_query_said() {
        let options = json!({"apiVersion": "v1", "kind": "PodExecOptions", "metadata": {}, "stdin": true,
            "container": "main", "command": ["sh", "-c", "x"]});
        let pairs = options_query(&options);
        let text: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut sorted = text.clone();
        sorted.sort();
        assert_eq!(sorted, ["command=-c", "command=sh", "command=x", "container=main", "stdin=true"]);
        let commands: Vec<_> = text.iter().filter(|one| one.starts_with("command")).collect();
        assert_eq!(commands, ["command=sh", "command=-c", "command=x"], "in their order");
    }
}
