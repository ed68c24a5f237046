//! A v3 document in protobuf, as kubectl asks for it: gnostic's `openapi.v3.Document`, by field numbers.

use serde_json::Value;

use super::message::{Message, wrap};

/// Writes the document.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, document.get("openapi"));
    let mut info = Message::default();
    info.text(1, document["info"].get("title"));
    info.text(6, document["info"].get("version"));
    out.message(2, &info);
    out.message(4, &named(1, &document["paths"], path_item));
    let mut components = Message::default();
    components.message(1, &named(1, &document["components"]["schemas"], schema_or_reference));
    components.message(
        7,
        &named(1, &document["components"]["securitySchemes"], |value| {
            let mut scheme = Message::default();
            scheme.text(1, value.get("type"));
            scheme.text(2, value.get("description"));
            scheme.text(3, value.get("name"));
            scheme.text(4, value.get("in"));
            wrap(1, &scheme)
        }),
    );
    out.message(5, &components);
    out.0
}

/// A message of the entries of an object, each a name and what `write` makes of the value.
fn named(field: u32, object: &Value, write: impl Fn(&Value) -> Message) -> Message {
    let mut out = Message::default();
    for (name, value) in object.as_object().into_iter().flatten() {
        out.named(field, name, &write(value));
    }
    out
}

fn path_item(value: &Value) -> Message {
    let mut out = Message::default();
    for (field, method) in [(4, "get"), (5, "put"), (6, "post"), (7, "delete"), (10, "patch")] {
        if let Some(value) = value.get(method) {
            out.message(field, &operation(value));
        }
    }
    for item in value.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        out.message(13, &parameter(item));
    }
    out
}

fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, value.get("tags"));
    out.text(3, value.get("description"));
    out.text(5, value.get("operationId"));
    for item in value.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        out.message(6, &parameter(item));
    }
    if let Some(body) = value.get("requestBody") {
        let mut message = Message::default();
        message.message(2, &named(1, &body["content"], media_type));
        message.flag(3, body.get("required"));
        out.message(7, &wrap(1, &message));
    }
    out.message(
        8,
        &named(2, &value["responses"], |answer| {
            let mut response = Message::default();
            response.text(1, answer.get("description"));
            if let Some(content) = answer.get("content") {
                response.message(3, &named(1, content, media_type));
            }
            wrap(1, &response)
        }),
    );
    out.extensions(13, value);
    out
}

fn media_type(value: &Value) -> Message {
    value.get("schema").map(|schema| wrap(1, &schema_or_reference(schema))).unwrap_or_default()
}

fn parameter(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, value.get("name"));
    out.text(2, value.get("in"));
    out.text(3, value.get("description"));
    out.flag(4, value.get("required"));
    if let Some(schema) = value.get("schema") {
        out.message(10, &schema_or_reference(schema));
    }
    wrap(1, &out)
}

fn schema_or_reference(value: &Value) -> Message {
    if value.get("$ref").is_some() {
        let mut reference = Message::default();
        reference.text(1, value.get("$ref"));
        return wrap(2, &reference);
    }
    wrap(1, &schema(value))
}

/// A value of any kind: YAML, which JSON is.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, value.to_string().as_bytes());
    out
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    out.flag(1, value.get("nullable"));
    out.text(9, value.get("title"));
    out.double(10, value.get("multipleOf"));
    out.double(11, value.get("maximum"));
    out.flag(12, value.get("exclusiveMaximum"));
    out.double(13, value.get("minimum"));
    out.flag(14, value.get("exclusiveMinimum"));
    out.integer(15, value.get("maxLength"));
    out.integer(16, value.get("minLength"));
    out.text(17, value.get("pattern"));
    out.integer(18, value.get("maxItems"));
    out.integer(19, value.get("minItems"));
    out.flag(20, value.get("uniqueItems"));
    out.integer(21, value.get("maxProperties"));
    out.integer(22, value.get("minProperties"));
    out.texts(23, value.get("required"));
    for item in value.get("enum").and_then(Value::as_array).into_iter().flatten() {
        out.message(24, &any(item));
    }
    out.text(25, value.get("type"));
    for (field, name) in [(26, "allOf"), (27, "oneOf"), (28, "anyOf")] {
        for item in value.get(name).and_then(Value::as_array).into_iter().flatten() {
            out.message(field, &schema_or_reference(item));
        }
    }
    if let Some(not) = value.get("not") {
        out.message(29, &schema(not));
    }
    if let Some(items) = value.get("items") {
        out.message(30, &wrap(1, &schema_or_reference(items)));
    }
    if let Some(properties) = value.get("properties") {
        out.message(31, &named(1, properties, schema_or_reference));
    }
    match value.get("additionalProperties") {
        None => {}
        Some(Value::Bool(allowed)) => {
            let mut item = Message::default();
            item.number(2, u64::from(*allowed));
            out.message(32, &item);
        }
        Some(below) => out.message(32, &wrap(1, &schema_or_reference(below))),
    }
    if let Some(default) = value.get("default").and_then(default) {
        out.message(33, &default);
    }
    out.text(34, value.get("description"));
    out.text(35, value.get("format"));
    out.extensions(36, value);
    out
}

/// A default that is a scalar; others cannot be said.
fn default(value: &Value) -> Option<Message> {
    let mut out = Message::default();
    match value {
        Value::Number(_) => out.double(1, Some(value)),
        Value::Bool(flag) => out.number(2, u64::from(*flag)),
        Value::String(text) => out.bytes(3, text.as_bytes()),
        _ => return None,
    }
    Some(out)
}
