//! Pruning: fields that the schema does not specify are removed.
//!
//! At the root and in embedded resources `apiVersion`, `kind` and `metadata` are always known; metadata is pruned by
//! its own type, elsewhere.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Additional, Structural};

struct Pruner {
    path: String,
    removed: Vec<String>,
}

/// Prunes a custom resource.
pub(super) fn prune(schema: &Structural, object: &mut Value) -> Vec<String> {
    let mut pruner = Pruner { path: String::new(), removed: Vec::new() };
    if let Value::Object(map) = object {
        pruner.object(schema, map, true);
    }
    pruner.removed
}

impl Pruner {
    fn below(&mut self, step: std::fmt::Arguments<'_>, prune: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        let _infallible = self.path.write_fmt(step);
        prune(self);
        self.path.truncate(length);
    }

    fn field(&mut self, name: &str, prune: impl FnOnce(&mut Self)) {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.below(format_args!("{dot}{name}"), prune);
    }

    fn value(&mut self, schema: &Structural, value: &mut Value) {
        match value {
            Value::Object(map) => self.object(schema, map, schema.embedded),
            Value::Array(list) => {
                let nothing = Structural { preserve_unknown: schema.preserve_unknown, ..Default::default() };
                let items = schema.items.as_deref().unwrap_or(&nothing);
                for (i, item) in list.iter_mut().enumerate() {
                    self.below(format_args!("[{i}]"), |pruner| pruner.value(items, item));
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, schema: &Structural, map: &mut Map<String, Value>, resource: bool) {
        // A preserving schema without any field of its own keeps all that is below it.
        if schema.preserve_unknown && schema.properties.is_empty() && schema.additional.is_none() {
            return;
        }
        let names: Vec<String> = map.keys().cloned().collect();
        for name in names {
            if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let below = match (schema.properties.get(&name), &schema.additional) {
                (Some(below), _) => Some(below),
                (None, Some(Additional::Schema(below))) => Some(&**below),
                (None, Some(Additional::Allowed(true))) => continue,
                _ if schema.preserve_unknown => continue,
                _ => None,
            };
            match (below, map.get_mut(&name)) {
                (Some(below), Some(value)) => self.field(&name, |pruner| pruner.value(below, value)),
                _ => {
                    map.remove(&name);
                    self.field(&name, |pruner| pruner.removed.push(pruner.path.clone()));
                }
            }
        }
    }
}
