//! Between JSON and values, with the schema where there is one: a `date-time` is a time, a `duration` a duration.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::value::{Key, Value};
use crate::api::structural::{Structural, Type, parse_duration, parse_time};

/// The value of JSON.
pub fn from_json(json: &Json, schema: Option<&Structural>) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => {
            let double = schema.is_some_and(|schema| schema.kind == Some(Type::Number));
            match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) if !double => Value::Int(whole),
                (None, Some(whole)) if !double => Value::Uint(whole),
                _ => Value::Double(number.as_f64().unwrap_or(0.0)),
            }
        }
        Json::String(text) => string(text, schema),
        Json::Array(list) => {
            let items = schema.and_then(|schema| schema.items.as_deref());
            Value::list(list.iter().map(|item| from_json(item, items)).collect())
        }
        Json::Object(map) => Value::Map(Arc::new(
            map.iter()
                .map(|(name, value)| {
                    let below = schema.and_then(|schema| schema.field(name));
                    (Key::String(name.as_str().into()), from_json(value, below))
                })
                .collect(),
        )),
    }
}

fn string(text: &str, schema: Option<&Structural>) -> Value {
    match schema.map(|schema| schema.limits.format.as_str()) {
        Some("date-time") => parse_time(text).map(Value::Timestamp),
        Some("date") => parse_time(&format!("{text}T00:00:00Z")).map(Value::Timestamp),
        Some("duration") => parse_duration(text).map(Value::Duration),
        Some("byte") => STANDARD.decode(text).ok().map(|bytes| Value::Bytes(bytes.into())),
        _ => None,
    }
    .unwrap_or_else(|| Value::text(text))
}

/// The JSON of a value, if it has one.
pub fn to_json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(number) => (*number).into(),
        Value::Uint(number) => (*number).into(),
        Value::Double(number) => serde_json::Number::from_f64(*number)?.into(),
        Value::String(text) => text.as_ref().into(),
        Value::Bytes(bytes) => STANDARD.encode(bytes).into(),
        Value::List(list) => Json::Array(list.iter().map(to_json).collect::<Option<_>>()?),
        Value::Map(map) => object(map)?,
        Value::Timestamp(time) => time.to_string().into(),
        Value::Duration(duration) => super::strings::duration_text(*duration).into(),
        Value::Optional(Some(value)) => to_json(value)?,
        Value::Type(_) | Value::Optional(None) | Value::Foreign(_) => return None,
    })
}

fn object(map: &BTreeMap<Key, Value>) -> Option<Json> {
    let entries = map.iter().map(|(key, value)| match key {
        Key::String(name) => Some((name.to_string(), to_json(value)?)),
        Key::Bool(_) | Key::Int(_) | Key::Uint(_) => None,
    });
    Some(Json::Object(entries.collect::<Option<_>>()?))
}
