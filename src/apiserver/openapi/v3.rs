//! OpenAPI v3: one document for each group and version.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::paths::{Answer, Body, Operation, Parameter, Path};
use super::{Served, document, group_path, paths, v2};
use crate::api::schema::LoadError;

const MEDIA_TYPES: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const V2_PREFIX: &str = "#/definitions/";
const V3_PREFIX: &str = "#/components/schemas/";

/// Makes the document of the group and version that are served under `group`, such as `apis/apps/v1`.
pub(super) fn document(served: &[Served], group: &str) -> Result<Value, LoadError> {
    let all = document::all(served)?;
    let mut roots = BTreeSet::new();
    let mut items = Map::new();
    for path in served.iter().filter(|row| group_path(row) == group).flat_map(paths::of) {
        roots.extend(path.operations.iter().flat_map(Operation::definitions));
        items.insert(path.path.clone(), path_item(&path));
    }
    let mut schemas = Map::new();
    for name in document::closure(&all, roots) {
        if let Some(definition) = document::definition(&all, &name, served) {
            schemas.insert(name.clone(), convert_definition(&name, definition));
        }
    }
    Ok(json!({
        "openapi": "3.0.0",
        "info": {"title": v2::TITLE, "version": v2::VERSION},
        "paths": items,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                v2::SECURITY_NAME: {
                    "type": "apiKey", "name": "authorization", "in": "header", "description": v2::SECURITY_DESCRIPTION,
                },
            },
        },
    }))
}

/// Two scalars are written as strings or numbers, which only v3 can say.
fn convert_definition(name: &str, mut definition: Value) -> Value {
    let numbers = if name.ends_with(".resource.Quantity") {
        Some("number")
    } else if name.ends_with(".intstr.IntOrString") {
        Some("integer")
    } else {
        None
    };
    if let (Some(number), Some(map)) = (numbers, definition.as_object_mut()) {
        map.remove("type");
        map.insert("oneOf".to_owned(), json!([{"type": number}, {"type": "string"}]));
    }
    convert(&mut definition);
    definition
}

/// References move, and one that has a description beside it is wrapped, since v3 ignores what is beside them.
fn convert(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(Value::String(reference)) = map.remove("$ref") {
        let reference = json!({"$ref": reference.replacen(V2_PREFIX, V3_PREFIX, 1)});
        if map.is_empty() {
            *schema = reference;
        } else {
            map.insert("allOf".to_owned(), Value::Array(vec![reference]));
        }
        return;
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(convert);
    }
    for below in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(below) {
            convert(below);
        }
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("{V3_PREFIX}{name}")})
}

fn path_item(path: &Path) -> Value {
    let mut item = Map::new();
    for operation in &path.operations {
        item.insert(operation.method.to_owned(), render(operation));
    }
    item.insert("parameters".to_owned(), path.parameters.iter().map(parameter).collect());
    Value::Object(item)
}

fn parameter(parameter: &Parameter) -> Value {
    let mut value = json!({
        "name": parameter.name, "in": parameter.place, "description": parameter.description,
        "schema": {"type": parameter.kind, "uniqueItems": true},
    });
    if parameter.place == "path" {
        value["required"] = true.into();
    }
    value
}

fn content(media_types: &[&str], schema: &Value) -> Value {
    media_types
        .iter()
        .map(|name| ((*name).to_owned(), json!({ "schema": schema })))
        .collect::<Map<_, _>>()
        .into()
}

fn request_body(body: &Body) -> Option<Value> {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
    Some(match body {
        Body::None => return None,
        Body::Object(name) => json!({"required": true, "content": content(&["*/*"], &reference(name))}),
        Body::Patch => {
            json!({"required": true, "content": content(&v2::PATCHES, &reference(&format!("{META}.Patch")))})
        }
        Body::DeleteOptions => {
            json!({"content": content(&["*/*"], &reference(&format!("{META}.DeleteOptions")))})
        }
    })
}

fn render(operation: &Operation) -> Value {
    let (group, version, kind) = &operation.kind;
    let answer = match &operation.answer {
        Answer::Definition(name) => content(&MEDIA_TYPES, &reference(name)),
        Answer::Text => content(&["*/*"], &json!({"type": "string"})),
    };
    let mut responses = Map::new();
    for (code, description) in operation.codes {
        responses.insert((*code).to_owned(), json!({"description": description, "content": answer}));
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    let mut value = json!({
        "operationId": operation.id,
        "description": operation.description,
        "tags": [operation.tag],
        "parameters": operation.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    });
    if let Some(body) = request_body(&operation.body) {
        value["requestBody"] = body;
    }
    value
}
