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
    /// Asks admission about a connection; `query` becomes the options that plugins see.
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
    ) -> Result<(), ApiError> {
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
        let (object, _) = RawObject::decode(options).map_err(ApiError::internal)?;
        let request = Request::new(self, cx, &target, Operation::Connect);
        self.admission().validate(&request, Some(&object), None).await
    }
}
