//! Lists of type `set` and `map`: no two items are the same, or have the same keys.

use serde_json::Value;

use super::Structural;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::schema::ListType;

/// Reports duplicates in sets and maps, and items without their keys.
pub(super) fn check(schema: &Structural, value: &Value, at: Option<&Path>, errors: &mut FieldErrors) {
    match value {
        Value::Array(list) => {
            if let Some(at) = at {
                match schema.list_type {
                    Some(ListType::Set) => set(list, at, errors),
                    Some(ListType::Map) => map(schema, list, at, errors),
                    _ => {}
                }
            }
            if let (Some(items), Some(at)) = (schema.items.as_deref(), at) {
                for (i, item) in list.iter().enumerate() {
                    check(items, item, Some(&at.index(i)), errors);
                }
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let Some(below) = schema.field(name) else { continue };
                let path = match at {
                    Some(at) if schema.properties.contains_key(name) => at.child(name.clone()),
                    Some(at) => at.key(name.clone()),
                    None => Path::new(name.clone()),
                };
                check(below, value, Some(&path), errors);
            }
        }
        _ => {}
    }
}

fn set(list: &[Value], at: &Path, errors: &mut FieldErrors) {
    let mut told: Vec<&Value> = Vec::new();
    for (i, item) in list.iter().enumerate() {
        if list[..i].contains(item) && !told.contains(&item) {
            told.push(item);
            errors.push(FieldError::duplicate(&at.index(i), item));
        }
    }
}

/// The keys of an item, with defaults; none for a key that is neither there nor defaulted.
pub(super) fn keys_of<'a>(schema: &'a Structural, item: &'a Value) -> Vec<Option<&'a Value>> {
    let items = schema.items.as_deref();
    let default =
        |key: &str| items.and_then(|items| items.properties.get(key)).and_then(|s| s.default.as_ref());
    schema.list_keys.iter().map(|key| item.get(key).or_else(|| default(key))).collect()
}

fn map(schema: &Structural, list: &[Value], at: &Path, errors: &mut FieldErrors) {
    let mut seen: Vec<Vec<Option<&Value>>> = Vec::new();
    for (i, item) in list.iter().enumerate() {
        if !item.is_object() {
            continue;
        }
        let keys = keys_of(schema, item);
        if seen.contains(&keys) {
            let shown: serde_json::Map<String, Value> = schema
                .list_keys
                .iter()
                .zip(&keys)
                .filter_map(|(name, value)| Some((name.clone(), (*value)?.clone())))
                .collect();
            errors.push(FieldError::duplicate(&at.index(i), Value::Object(shown)));
        } else {
            seen.push(keys);
        }
    }
}
