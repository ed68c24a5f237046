//! The v2 document in protobuf, as old clients ask for it: gnostic's `openapi.v2.Document`, by field numbers.

use serde_json::Value;

use super::message::{Message, wrap};
use super::v2::{self, V2};
use crate::api::schema::LoadError;

/// Writes the document.
pub(super) fn document(document: &V2) -> Result<Vec<u8>, LoadError> {
    let mut out = Message::default();
    out.bytes(1, b"2.0");
    let mut info = Message::default();
    info.bytes(1, v2::TITLE.as_bytes());
    info.bytes(2, v2::VERSION.as_bytes());
    out.message(2, &info);
    let mut paths = Message::default();
    for (name, item) in &document.paths {
        paths.named(2, name, &path_item(item));
    }
    out.message(8, &paths);
    let mut definitions = Message::default();
    for (name, definition) in &document.definitions {
        definitions.named(1, name, &schema(definition));
    }
    out.message(9, &definitions);
    let mut requirement = Message::default();
    requirement.named(1, v2::SECURITY_NAME, &Message::default());
    out.message(12, &requirement);
    out.message(13, &security_definitions());
    Ok(out.0)
}

fn security_definitions() -> Message {
    let mut api_key = Message::default();
    api_key.bytes(1, b"apiKey");
    api_key.bytes(2, b"authorization");
    api_key.bytes(3, b"header");
    api_key.bytes(4, v2::SECURITY_DESCRIPTION.as_bytes());
    let mut definitions = Message::default();
    definitions.named(1, v2::SECURITY_NAME, &wrap(2, &api_key));
    definitions
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, value.get("$ref"));
    out.text(2, value.get("format"));
    out.text(4, value.get("description"));
    out.texts(19, value.get("required"));
    if let Some(additional) = value.get("additionalProperties") {
        out.message(21, &wrap(1, &schema(additional)));
    }
    if let Some(Value::String(kind)) = value.get("type") {
        let mut item = Message::default();
        item.bytes(1, kind.as_bytes());
        out.message(22, &item);
    }
    if let Some(items) = value.get("items") {
        out.message(23, &wrap(1, &schema(items)));
    }
    if let Some(Value::Object(properties)) = value.get("properties") {
        let mut message = Message::default();
        for (name, property) in properties {
            message.named(1, name, &schema(property));
        }
        out.message(25, &message);
    }
    out.extensions(31, value);
    out
}

fn path_item(value: &Value) -> Message {
    let mut out = Message::default();
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(value) = value.get(method) {
            out.message(field, &operation(value));
        }
    }
    for item in value.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        out.message(9, &parameter(item));
    }
    out
}

fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, value.get("tags"));
    out.text(3, value.get("description"));
    out.text(5, value.get("operationId"));
    out.texts(6, value.get("produces"));
    out.texts(7, value.get("consumes"));
    for item in value.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        out.message(8, &parameter(item));
    }
    let mut responses = Message::default();
    for (code, answer) in value.get("responses").and_then(Value::as_object).into_iter().flatten() {
        responses.named(1, code, &wrap(1, &response(answer)));
    }
    out.message(9, &responses);
    out.texts(10, value.get("schemes"));
    out.extensions(13, value);
    out
}

fn response(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, value.get("description"));
    if let Some(answer) = value.get("schema") {
        out.message(2, &wrap(1, &schema(answer)));
    }
    out
}

fn parameter(value: &Value) -> Message {
    let mut out = Message::default();
    let place = value.get("in").and_then(Value::as_str).unwrap_or_default();
    if place == "body" {
        out.text(1, value.get("description"));
        out.text(2, value.get("name"));
        out.text(3, value.get("in"));
        out.flag(4, value.get("required"));
        if let Some(body) = value.get("schema") {
            out.message(5, &schema(body));
        }
        return wrap(1, &wrap(1, &out));
    }
    out.flag(1, value.get("required"));
    out.text(2, value.get("in"));
    out.text(3, value.get("description"));
    out.text(4, value.get("name"));
    // Path parameters have no `allow_empty_value`, so that what follows has other numbers.
    let (of_kind, kind, unique) = if place == "path" { (4, 5, 19) } else { (3, 6, 20) };
    out.text(kind, value.get("type"));
    out.flag(unique, value.get("uniqueItems"));
    wrap(1, &wrap(2, &wrap(of_kind, &out)))
}
