//! The definitions of custom resources in OpenAPI documents.

use serde_json::{Map, Value, json};

const META: &str = "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1";

/// The name of the definition of a kind: the group's labels backwards, the version and the kind.
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let mut labels: Vec<&str> = group.split('.').collect();
    labels.reverse();
    format!("{}.{version}.{kind}", labels.join("."))
}

/// The definition of a kind from the schema of its version.
pub fn definition(group: &str, version: &str, kind: &str, schema: Option<&Value>) -> Value {
    let mut schema = schema
        .cloned()
        .unwrap_or_else(|| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let Value::Object(map) = &mut schema else { return schema };
    let open = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if open && map.get("properties").and_then(Value::as_object).is_none_or(Map::is_empty) {
        // Clients take an object without known fields as it is.
        map.remove("properties");
    }
    map.insert("type".into(), "object".into());
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        resource_fields(properties);
    }
    let kind = json!([{"group": group, "version": version, "kind": kind}]);
    map.insert("x-kubernetes-group-version-kind".into(), kind);
    published(&mut schema);
    schema
}

/// The definition of the list of a kind.
pub fn list_definition(group: &str, version: &str, kind: &str, list_kind: &str) -> Value {
    let item = definition_name(group, version, kind);
    json!({
        "description": format!("{list_kind} is a list of {kind}"),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of the schema of this list."},
            "kind": {"type": "string", "description": "The kind of this list."},
            "metadata": {"$ref": format!("{META}.ListMeta"), "description": "Standard list metadata."},
            "items": {
                "type": "array",
                "items": {"$ref": format!("#/definitions/{item}")},
                "description": format!("The objects of kind {kind}."),
            },
        },
        "x-kubernetes-group-version-kind": [{"group": group, "version": version, "kind": list_kind}],
    })
}

fn resource_fields(properties: &mut Map<String, Value>) {
    let text = |description: &str| json!({"type": "string", "description": description});
    properties.insert("apiVersion".into(), text("The version of the schema of this object."));
    properties.insert("kind".into(), text("The kind of this object."));
    let metadata = json!({"$ref": format!("{META}.ObjectMeta"), "description": "Standard object metadata."});
    properties.insert("metadata".into(), metadata);
}

/// Drops what OpenAPI documents do not say, and describes embedded resources.
fn published(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        map.remove("type");
    }
    if map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true))
        && let Value::Object(properties) = map.entry("properties").or_insert_with(|| json!({}))
    {
        resource_fields(properties);
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(published);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(key) {
            published(below);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_a_kind_with_its_schema() {
        assert_eq!(definition_name("stable.example.com", "v1", "CronTab"), "com.example.stable.v1.CronTab");
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object"}}});
        let found = definition("demo.io", "v1", "Widget", Some(&schema));
        assert_eq!(found["properties"]["spec"], json!({"type": "object"}));
        assert_eq!(found["properties"]["metadata"]["$ref"], format!("{META}.ObjectMeta"));
        assert_eq!(found["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    }
}
