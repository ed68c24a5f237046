//! Merging lists: of scalars by value, of objects by their merge key.

use serde_json::{Map, Value};

use super::{DIRECTIVE, bad, merge_map, order, text_of};
use crate::api::error::ApiError;
use crate::api::schema::Schema;

/// Merges `patch` into `live`; both end in the order of the patch, with what only `live` has where it was.
pub(super) fn merge_list(
    live: &mut Vec<Value>,
    patch: Vec<Value>,
    key: Option<&str>,
    schema: Option<Schema<'_>>,
) -> Result<(), ApiError> {
    let objects = live.iter().chain(&patch).filter(|item| item.is_object()).count();
    if live.iter().chain(&patch).any(Value::is_array) {
        return Err(bad("lists of lists are not supported"));
    }
    if objects == 0 {
        let before = live.clone();
        let order = patch.clone();
        for item in patch {
            if !live.contains(&item) {
                live.push(item);
            }
        }
        *live = order::arrange(std::mem::take(live), &order, &before, None)?;
        return Ok(());
    }
    if objects != live.len() + patch.len() {
        return Err(bad("list element types are not identical"));
    }
    let Some(key) = key else {
        return Err(bad("cannot merge lists without merge key"));
    };
    merge_objects(live, patch, key, schema)
}

fn merge_objects(
    live: &mut Vec<Value>,
    patch: Vec<Value>,
    key: &str,
    schema: Option<Schema<'_>>,
) -> Result<(), ApiError> {
    let mut replace = false;
    let mut items = Vec::with_capacity(patch.len());
    for item in patch {
        let Value::Object(item) = item else { continue };
        let Some(directive) = item.get(DIRECTIVE) else {
            items.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let gone = merge_value(&item, key)?;
                live.retain(|present| present.get(key) != Some(gone));
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(bad("merging lists cannot yet be specified in the patch")),
            _ => {
                let directive = text_of(directive);
                let item = Value::Object(item);
                return Err(bad(format!("unknown patch type found: {directive} in map: {item}")));
            }
        }
    }
    if replace {
        *live = without_directives(items.into_iter().map(Value::Object).collect());
        return Ok(());
    }
    let order = items.iter().map(|item| identity(item, key)).collect::<Result<Vec<_>, _>>()?;
    let before: Vec<Value> = live.iter().filter_map(|item| identity(item.as_object()?, key).ok()).collect();
    let item_schema = schema.and_then(|schema| schema.item());
    for item in items {
        let wanted = merge_value(&item, key)?;
        let present = live.iter_mut().find(|present| present.get(key) == Some(wanted));
        match present {
            Some(Value::Object(present)) => merge_map(present, item, item_schema)?,
            _ => live.extend(super::without_directives(Value::Object(item))),
        }
    }
    *live = order::arrange(std::mem::take(live), &order, &before, Some(key))?;
    Ok(())
}

/// The merge key alone, which is all that ordering needs of an item.
fn identity(item: &Map<String, Value>, key: &str) -> Result<Value, ApiError> {
    let value = merge_value(item, key)?.clone();
    Ok(Value::Object(Map::from_iter([(key.to_owned(), value)])))
}

pub(super) fn merge_value<'a>(item: &'a Map<String, Value>, key: &str) -> Result<&'a Value, ApiError> {
    item.get(key).filter(|value| !value.is_null()).ok_or_else(|| {
        let item = Value::Object(item.clone());
        bad(format!("map: {item} does not contain declared merge key: {key}"))
    })
}

/// The items without directives; items that say `delete` are left out.
pub(super) fn without_directives(list: Vec<Value>) -> Vec<Value> {
    list.into_iter().filter_map(super::without_directives).collect()
}
