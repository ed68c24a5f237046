//! The set of fields that a value has, and how items of lists are told apart.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::set::Set;
use crate::api::schema::{Kind, ListType, Schema};

/// A list in which two items cannot be told apart, or an item lacks a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ListError {
    #[error(
        "associative list with keys has an element that omits key field {0:?} (and doesn't have default value)"
    )]
    NoKey(String),
    #[error("duplicate entries for key [{0}]")]
    Duplicate(String),
}

/// How a value is owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granularity {
    /// As a whole.
    Leaf,
    /// By its fields.
    Fields,
    /// By its items.
    Items(ListType),
}

/// How a value of this schema is owned; without a schema objects by their fields and lists as a whole.
pub(super) fn granularity(schema: Option<Schema<'_>>, value: &Value) -> Granularity {
    match value {
        Value::Object(_) if !schema.is_some_and(|schema| schema.is_atomic()) => Granularity::Fields,
        Value::Array(_) => match schema.map(|schema| (schema.kind(), schema.list_type())) {
            Some((Kind::List, list_type @ (ListType::Map | ListType::Set))) => Granularity::Items(list_type),
            _ => Granularity::Leaf,
        },
        _ => Granularity::Leaf,
    }
}

/// The path element of an item.
pub(super) fn element(item: &Value, list: Schema<'_>, list_type: ListType) -> Result<String, ListError> {
    if list_type == ListType::Set {
        return Ok(format!("v:{item}"));
    }
    let mut keys = Map::new();
    for key in list.map_keys() {
        let value = match item.get(key) {
            Some(value) if !value.is_null() => value.clone(),
            _ => match list.item().and_then(|schema| schema.key_default(key)) {
                Some(default) => default.into(),
                None => return Err(ListError::NoKey(key.to_owned())),
            },
        };
        keys.insert(key.to_owned(), value);
    }
    Ok(format!("k:{}", Value::Object(keys)))
}

/// The path elements of all items.
pub(super) fn elements(
    items: &[Value],
    list: Schema<'_>,
    list_type: ListType,
) -> Result<Vec<String>, ListError> {
    items.iter().map(|item| element(item, list, list_type)).collect()
}

/// The path elements of all items, which must differ.
pub(super) fn unique_elements(
    items: &[Value],
    list: Schema<'_>,
    list_type: ListType,
) -> Result<Vec<String>, ListError> {
    let elements = elements(items, list, list_type)?;
    let mut seen = BTreeSet::new();
    match elements.iter().find(|element| !seen.insert(element.as_str())) {
        Some(twice) => Err(ListError::Duplicate(twice[2..].to_owned())),
        None => Ok(elements),
    }
}

/// The fields that an applied configuration has.
pub(super) fn fields(value: &Value, schema: Option<Schema<'_>>) -> Result<Set, ListError> {
    let mut set = Set::default();
    match (granularity(schema, value), value) {
        (Granularity::Fields, Value::Object(map)) => {
            let known = schema.is_some_and(|schema| schema.kind() == Kind::Struct);
            for (name, value) in map {
                let schema = schema.and_then(|schema| schema.field(name));
                if known && schema.is_none() {
                    // The field is not stored either.
                    continue;
                }
                let empty = match value {
                    Value::Null => true,
                    Value::Object(map) => map.is_empty(),
                    Value::Array(list) => list.is_empty(),
                    _ => false,
                };
                let leaf = empty || granularity(schema, value) == Granularity::Leaf;
                let below = if leaf { Set::default() } else { fields(value, schema)? };
                set.insert_node(format!("f:{name}"), leaf || !known, below);
            }
        }
        (Granularity::Items(list_type), Value::Array(items)) => {
            let Some(list) = schema else { return Ok(set) };
            for (element, item) in unique_elements(items, list, list_type)?.into_iter().zip(items) {
                let below = if item.is_object() { fields(item, list.item())? } else { Set::default() };
                set.insert_node(element, true, below);
            }
        }
        _ => {}
    }
    Ok(set)
}
