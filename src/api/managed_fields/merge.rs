//! Merging an applied configuration into the live object.

use serde_json::{Map, Value};

use super::extract::{Granularity, ListError, elements, granularity, unique_elements};
use crate::api::schema::{ListType, Schema};

/// The live object with everything that the configuration says.
pub(super) fn merge(live: &Value, applied: &Value, schema: Option<Schema<'_>>) -> Result<Value, ListError> {
    match (granularity(schema, applied), live, applied) {
        (Granularity::Fields, Value::Object(live), Value::Object(applied)) => {
            merge_fields(live, applied, schema).map(Value::Object)
        }
        (Granularity::Items(list_type), Value::Array(live), Value::Array(applied)) => match schema {
            Some(list) => merge_items(live, applied, list, list_type).map(Value::Array),
            None => Ok(Value::Array(applied.clone())),
        },
        _ => Ok(applied.clone()),
    }
}

fn merge_fields(
    live: &Map<String, Value>,
    applied: &Map<String, Value>,
    schema: Option<Schema<'_>>,
) -> Result<Map<String, Value>, ListError> {
    let mut merged = live.clone();
    for (name, value) in applied {
        let value = match live.get(name) {
            Some(present) => merge(present, value, schema.and_then(|schema| schema.field(name)))?,
            None => value.clone(),
        };
        merged.insert(name.clone(), value);
    }
    Ok(merged)
}

/// Items of the configuration keep its order; items that only the live list has keep their place among the others
/// of the live list.
fn merge_items(
    live: &[Value],
    applied: &[Value],
    list: Schema<'_>,
    list_type: ListType,
) -> Result<Vec<Value>, ListError> {
    let Ok(left) = elements(live, list, list_type) else { return Ok(applied.to_vec()) };
    let right = unique_elements(applied, list, list_type)?;
    let mut shared = right.iter().filter(|element| left.contains(element)).peekable();
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut l, mut r) = (0, 0);
    let take_right = |r: usize| match left.iter().position(|element| *element == right[r]) {
        Some(i) => merge(&live[i], &applied[r], list.item()),
        None => Ok(applied[r].clone()),
    };
    while l < left.len() || r < right.len() {
        if l < left.len() {
            let in_right = right.iter().position(|element| *element == left[l]);
            match in_right {
                // Only the live list has it.
                None => {
                    merged.push(live[l].clone());
                    l += 1;
                    continue;
                }
                // It is merged already, or the configuration wants another one first.
                Some(i) if i < r || (i > r && shared.peek().is_some_and(|next| **next != left[l])) => {
                    l += 1;
                    continue;
                }
                Some(i) if i == r => l += 1,
                Some(_) => {}
            }
        }
        if r < right.len() {
            merged.push(take_right(r)?);
            if shared.peek().is_some_and(|next| **next == right[r]) {
                shared.next();
            }
            r += 1;
        }
    }
    Ok(merged)
}
