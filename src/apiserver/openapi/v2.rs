//! OpenAPI v2: one document for everything.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::paths::{Answer, Body, Operation, Parameter, Path};
use super::{Served, document, paths};
use crate::api::schema::LoadError;

const PRODUCES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const WATCH: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
/// The media types of patches.
pub(super) const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// The parts of a document, which JSON and protobuf write in their own ways.
pub(super) struct V2 {
    pub(super) paths: Vec<(String, Value)>,
    pub(super) definitions: Vec<(String, Value)>,
}

pub(super) const SECURITY_NAME: &str = "BearerToken";
pub(super) const SECURITY_DESCRIPTION: &str = "Bearer Token authentication";
pub(super) const TITLE: &str = "Kubernetes";
pub(super) const VERSION: &str = "v1.36.0";

/// Makes the document.
pub(super) fn document(served: &[Served]) -> Result<V2, LoadError> {
    let all = document::all(served)?;
    let mut roots = BTreeSet::new();
    let mut entries = Vec::new();
    for path in served.iter().flat_map(paths::of) {
        roots.extend(path.operations.iter().flat_map(Operation::definitions));
        entries.push((path.path.clone(), path_item(&path)));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let names = document::closure(&all, roots);
    let definitions = names
        .into_iter()
        .filter_map(|name| {
            let mut definition = document::definition(&all, &name, served)?;
            strip_defaults(&mut definition);
            if served.iter().any(|row| row.own.as_ref().is_some_and(|own| own.name == name)) {
                published(&mut definition);
            }
            Some((name, definition))
        })
        .collect();
    Ok(V2 { paths: entries, definitions })
}

impl Operation {
    /// The definitions that the operation refers to.
    pub(super) fn definitions(&self) -> Vec<String> {
        const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
        let mut names = Vec::new();
        match &self.body {
            Body::None => {}
            Body::Object(name) => names.push(name.clone()),
            Body::Patch => names.push(format!("{META}.Patch")),
            Body::DeleteOptions => names.push(format!("{META}.DeleteOptions")),
        }
        if let Answer::Definition(name) = &self.answer {
            names.push(name.clone());
        }
        names
    }
}

impl V2 {
    pub(super) fn into_json(self) -> Vec<u8> {
        let object = |list: Vec<(String, Value)>| Value::Object(list.into_iter().collect());
        let document = json!({
            "swagger": "2.0",
            "info": {"title": TITLE, "version": VERSION},
            "paths": object(self.paths),
            "definitions": object(self.definitions),
            "securityDefinitions": {
                SECURITY_NAME: {
                    "type": "apiKey", "name": "authorization", "in": "header", "description": SECURITY_DESCRIPTION,
                },
            },
            "security": [{SECURITY_NAME: []}],
        });
        document.to_string().into_bytes()
    }
}

/// Defaults are not part of v2 documents.
fn strip_defaults(definition: &mut Value) {
    if let Some(Value::Object(properties)) = definition.get_mut("properties") {
        for property in properties.values_mut().filter_map(Value::as_object_mut) {
            property.remove("default");
        }
    }
}

/// The definition of a custom resource as upstream publishes it in v2, for which kubectl's reading of it decides.
fn published(definition: &mut Value) {
    const KINDS: &str = "x-kubernetes-group-version-kind";
    if definition.get(OPEN) == Some(&Value::Bool(true)) {
        // With any field named, kubectl would take all others for wrong.
        *definition = json!({"type": "object", KINDS: definition[KINDS]});
        return;
    }
    simplify(definition);
}

const OPEN: &str = "x-kubernetes-preserve-unknown-fields";

/// Version 2 has no word for some of what schemas of custom resources say; what a client would misread goes.
fn simplify(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for keyword in ["oneOf", "anyOf", "allOf", "not", "default"] {
        map.remove(keyword);
    }
    let nullable = |value: &Value| value.get("nullable") == Some(&Value::Bool(true));
    let open = map.get(OPEN) == Some(&Value::Bool(true));
    if map.remove("nullable") == Some(Value::Bool(true)) {
        map.remove("type");
        map.remove("items");
        map.remove("properties");
    }
    if open {
        map.remove("items");
        map.remove("properties");
    }
    let kind = map.get("type").and_then(Value::as_str).unwrap_or_default();
    if (kind == "array" && !map.contains_key("items")) || (kind == "object" && open) {
        map.remove("type");
    }
    let optional: Vec<String> = map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, property)| nullable(property))
        .map(|(name, _)| name.clone())
        .collect();
    if let Some(Value::Array(required)) = map.get_mut("required") {
        required.retain(|name| !optional.iter().any(|own| name == own));
        if required.is_empty() {
            map.remove("required");
        }
    }
    if map.get("additionalProperties").is_some_and(nullable) {
        map.remove("required");
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(simplify);
    }
    for below in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(below) {
            simplify(below);
        }
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/definitions/{name}")})
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
        "name": parameter.name, "in": parameter.place, "type": parameter.kind, "uniqueItems": true,
        "description": parameter.description,
    });
    if parameter.place == "path" {
        value["required"] = true.into();
    }
    value
}

fn body(operation: &Operation) -> Option<Value> {
    let definition = match &operation.body {
        Body::None => return None,
        Body::Object(name) => name.clone(),
        Body::Patch => "io.k8s.apimachinery.pkg.apis.meta.v1.Patch".to_owned(),
        Body::DeleteOptions => "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions".to_owned(),
    };
    let mut value = json!({"name": "body", "in": "body", "schema": reference(&definition)});
    if operation.body != Body::DeleteOptions {
        value["required"] = true.into();
    }
    Some(value)
}

fn render(operation: &Operation) -> Value {
    let (group, version, kind) = &operation.kind;
    let schema = match &operation.answer {
        Answer::Definition(name) => reference(name),
        Answer::Text => json!({"type": "string"}),
    };
    let mut responses = Map::new();
    for (code, description) in operation.codes {
        responses.insert((*code).to_owned(), json!({"description": description, "schema": schema}));
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    let produces: Vec<&str> = match (&operation.answer, operation.watchable) {
        (Answer::Text, _) => vec!["*/*"],
        (_, true) => PRODUCES.iter().chain(&WATCH).copied().collect(),
        _ => PRODUCES.to_vec(),
    };
    let consumes: &[&str] = if operation.body == Body::Patch { &PATCHES } else { &["*/*"] };
    let parameters: Vec<Value> =
        body(operation).into_iter().chain(operation.parameters.iter().map(parameter)).collect();
    json!({
        "operationId": operation.id,
        "description": operation.description,
        "tags": [operation.tag],
        "schemes": ["https"],
        "consumes": consumes,
        "produces": produces,
        "parameters": parameters,
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    })
}
