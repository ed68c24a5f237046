//! Removing from an object what a set of fields names.

use serde_json::Value;

use super::extract::{Granularity, element, granularity};
use super::set::Set;
use crate::api::schema::Schema;

/// Removes the members of `set`. What becomes empty by that becomes null, and is dropped from its object.
pub(super) fn remove(value: &mut Value, set: &Set, schema: Option<Schema<'_>>) {
    if set.is_empty() {
        return;
    }
    match (granularity(schema, value), &mut *value) {
        (Granularity::Fields, Value::Object(map)) => {
            let before = map.len();
            map.retain(|name, value| {
                let element = format!("f:{name}");
                if set.has(&element) {
                    return false;
                }
                let was_null = value.is_null();
                if let Some(below) = set.below(&element) {
                    remove(value, below, schema.and_then(|schema| schema.field(name)));
                }
                was_null || !value.is_null()
            });
            if map.is_empty() && before > 0 {
                *value = Value::Null;
            }
        }
        (Granularity::Items(list_type), Value::Array(items)) => {
            let Some(list) = schema else { return };
            let before = items.len();
            items.retain_mut(|item| {
                let Ok(element) = element(item, list, list_type) else { return true };
                if set.has(&element) {
                    return false;
                }
                if let Some(below) = set.below(&element) {
                    remove(item, below, list.item());
                }
                !item.is_null()
            });
            if items.is_empty() && before > 0 {
                *value = Value::Null;
            }
        }
        _ => {}
    }
}
