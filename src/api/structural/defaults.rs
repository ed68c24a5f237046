//! Defaulting from the schema.

use serde_json::Value;

use super::{Additional, Structural};

/// Fills in the defaults of absent fields, and of the fields of what is there.
pub(super) fn fill(schema: &Structural, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, below) in &schema.properties {
                if let Some(default) = &below.default
                    && !map.contains_key(name)
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                match (schema.properties.get(name), &schema.additional) {
                    (Some(below), _) => fill(below, value),
                    (None, Some(Additional::Schema(below))) => {
                        if value.is_null()
                            && !below.nullable
                            && let Some(default) = &below.default
                        {
                            *value = default.clone();
                        }
                        fill(below, value);
                    }
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = schema.items.as_deref() else { return };
            for item in list {
                if item.is_null()
                    && !items.nullable
                    && let Some(default) = &items.default
                {
                    *item = default.clone();
                }
                fill(items, item);
            }
        }
        _ => {}
    }
}

/// Drops nulls of fields that have a default and are not nullable, so that the default applies.
pub(super) fn drop_nulls(schema: &Structural, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| {
                !(value.is_null()
                    && schema
                        .properties
                        .get(name)
                        .is_some_and(|below| below.default.is_some() && !below.nullable))
            });
            for (name, value) in map.iter_mut() {
                if let Some(below) = schema.field(name) {
                    drop_nulls(below, value);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.items.as_deref() {
                list.iter_mut().for_each(|item| drop_nulls(items, item));
            }
        }
        _ => {}
    }
}
