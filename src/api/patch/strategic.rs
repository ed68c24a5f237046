//! Strategic merge patch: a merge patch that knows, from the schema, which lists merge by key or value, and whose
//! directives (`$patch`, `$retainKeys`, `$deleteFromPrimitiveList/…`, `$setElementOrder/…`) say the rest.
//!
//! Behaviour follows upstream's `strategicpatch`: where a field is unknown to the schema, objects merge and lists
//! are replaced.

mod lists;
mod order;

use serde_json::{Map, Value};

use crate::api::error::ApiError;
use crate::api::schema::Schema;

pub(super) const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

/// Merges `patch` into `live`, an object of the kind that `schema` describes.
pub fn strategic_merge_patch(live: &mut Value, patch: Value, schema: Schema<'_>) -> Result<(), ApiError> {
    let (Value::Object(live), Value::Object(patch)) = (live, patch) else {
        return Err(ApiError::bad_request(
            "error decoding patch: a strategic merge patch must be a JSON object",
        ));
    };
    merge_map(live, patch, Some(schema))
}

/// The complaint about a patch that is malformed in itself.
pub(super) fn bad(message: impl Into<String>) -> ApiError {
    ApiError::bad_request(message)
}

fn unknown_directive(directive: &Value, map: &Map<String, Value>) -> ApiError {
    let map = Value::Object(map.clone());
    bad(format!("unknown patch type found: {} in map: {map}", text_of(directive)))
}

pub(super) fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn merge_map(
    live: &mut Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: Option<Schema<'_>>,
) -> Result<(), ApiError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                *live = patch;
                Ok(())
            }
            Some("delete") => {
                live.clear();
                Ok(())
            }
            _ => Err(unknown_directive(&directive, &patch)),
        };
    }
    if let Some(keys) = patch.remove(RETAIN_KEYS) {
        retain_keys(live, &patch, &keys)?;
    }
    merge_ordered_lists(live, &mut patch, schema)?;
    for (key, value) in patch {
        merge_entry(live, key, value, schema)?;
    }
    Ok(())
}

fn merge_entry(
    live: &mut Map<String, Value>,
    key: String,
    value: Value,
    schema: Option<Schema<'_>>,
) -> Result<(), ApiError> {
    if value.is_null() {
        live.remove(&key);
        return Ok(());
    }
    if let Some(field) = key.strip_prefix(DELETE_PREFIX) {
        return match (live.get_mut(field), value) {
            (Some(Value::Array(list)), Value::Array(gone)) => {
                list.retain(|item| !gone.contains(item));
                Ok(())
            }
            (_, Value::Array(_)) => Ok(()),
            _ => Err(bad("invalid patch format of primitive list")),
        };
    }
    let Some(present) = live.get_mut(&key) else {
        if let Some(value) = without_directives(value) {
            live.insert(key, value);
        }
        return Ok(());
    };
    let below = schema.and_then(|schema| schema.field(&key));
    let strategy = below.map(|below| below.patch_strategy()).unwrap_or_default();
    match (&mut *present, value) {
        (Value::Object(present), Value::Object(patch)) if !strategy.replace => {
            merge_map(present, patch, below)
        }
        (Value::Array(present), Value::Array(patch)) if strategy.merge => {
            lists::merge_list(present, patch, below.and_then(|b| b.patch_merge_key()), below)
        }
        (_, value) => {
            match without_directives(value) {
                Some(value) => *present = value,
                None => {
                    live.remove(&key);
                }
            }
            Ok(())
        }
    }
}

/// Removes from `live` what `$retainKeys` does not name; the patch may set nothing else.
fn retain_keys(
    live: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    keys: &Value,
) -> Result<(), ApiError> {
    const WRONG: &str = "invalid patch format of retainKeys";
    let keys = keys.as_array().ok_or_else(|| bad(WRONG))?;
    let kept = |key: &str| keys.iter().any(|k| k.as_str() == Some(key));
    let directive = |key: &str| key.starts_with(DELETE_PREFIX) || key.starts_with(ORDER_PREFIX);
    if patch.iter().any(|(key, value)| !value.is_null() && !directive(key) && !kept(key)) {
        return Err(bad(WRONG));
    }
    live.retain(|key, _| kept(key));
    Ok(())
}

/// Merges the lists whose order the patch gives, and takes them out of the patch.
fn merge_ordered_lists(
    live: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: Option<Schema<'_>>,
) -> Result<(), ApiError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(ORDER_PREFIX)).cloned().collect();
    for directive in directives {
        let field = &directive[ORDER_PREFIX.len()..];
        let (Some(order), patched) = (patch.remove(&directive), patch.remove(field)) else { continue };
        let Value::Array(order) = order else {
            return Err(bad("invalid patch format of setElementOrder list"));
        };
        if patched.as_ref().is_some_and(Value::is_null) {
            live.remove(field);
            continue;
        }
        let below = schema.and_then(|schema| schema.field(field));
        let key = below.and_then(|below| below.patch_merge_key());
        let patched = match patched {
            None => None,
            Some(Value::Array(list)) => Some(list),
            Some(_) => return Err(bad("invalid patch format of setElementOrder list")),
        };
        if let Some(patched) = &patched {
            order::check(patched, &order, key)?;
        }
        let before = match live.remove(field) {
            Some(Value::Array(list)) => Some(list),
            None => None,
            Some(other) => {
                // Not a list in the object: the patch's list, if any, replaces it.
                live.insert(field.to_owned(), patched.map_or(other, Value::Array));
                continue;
            }
        };
        let merged = match (before.clone(), patched) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(patched)) => lists::without_directives(patched),
            (Some(mut merged), Some(patched)) => {
                if below.is_some_and(|below| below.patch_strategy().merge) {
                    lists::merge_list(&mut merged, patched, key, below)?;
                    merged
                } else {
                    lists::without_directives(patched)
                }
            }
        };
        let sorted = order::arrange(merged, &order, before.as_deref().unwrap_or_default(), key)?;
        live.insert(field.to_owned(), Value::Array(sorted));
    }
    Ok(())
}

/// A value of a patch as it stands in an object: without directives and nulls, and not at all if it says `delete`.
pub(super) fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(mut map) => {
            if map.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
                return None;
            }
            map.retain(|key, value| {
                let directive = key == DIRECTIVE
                    || key == RETAIN_KEYS
                    || key.starts_with(DELETE_PREFIX)
                    || key.starts_with(ORDER_PREFIX);
                !directive && !value.is_null() && clean(value)
            });
            Some(Value::Object(map))
        }
        Value::Array(list) => Some(Value::Array(lists::without_directives(list))),
        other => Some(other),
    }
}

/// Cleans in place; says whether anything is left.
fn clean(value: &mut Value) -> bool {
    if !value.is_object() && !value.is_array() {
        return true;
    }
    match without_directives(value.take()) {
        Some(cleaned) => {
            *value = cleaned;
            true
        }
        None => false,
    }
}

#[cfg(test)]
pub(in crate::api) mod test_values;
#[cfg(test)]
mod tests;
