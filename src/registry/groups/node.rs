//! `node.k8s.io`.

use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldErrors, Path};
use crate::api::names;
use crate::registry::resource::Resource;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{each, immutable, metadata, non_negative_quantity};

const COLUMNS: &[Column] =
    &[NAME, column("Handler", "string", "What the container runtime calls the class."), AGE];

struct RuntimeClassStrategy;

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![Resource::of(RuntimeClassStrategy).columns(COLUMNS).conditional_only()]
}

impl Strategy for RuntimeClassStrategy {
    type Object = RuntimeClass;

    fn validate(&self, class: &RuntimeClass, errors: &mut FieldErrors) {
        each(names::is_dns1123_label(&class.handler), &class.handler, &Path::new("handler"), errors);
        let overhead = class.overhead.as_ref().and_then(|overhead| overhead.pod_fixed.as_ref());
        for (name, amount) in overhead.into_iter().flatten() {
            let at = Path::new("overhead").child("podFixed").key(name.clone());
            each(names::is_qualified_name(name), name, &at, errors);
            non_negative_quantity(Some(amount), &at, errors);
        }
        let selector = class.scheduling.as_ref().and_then(|scheduling| scheduling.node_selector.as_ref());
        if let Some(selector) = selector {
            let at = Path::new("scheduling").child("nodeSelector");
            metadata::validate_labels(selector, &at, errors);
        }
    }

    fn validate_update(&self, new: &RuntimeClass, old: &RuntimeClass, errors: &mut FieldErrors) {
        immutable(&new.handler, &old.handler, &Path::new("handler"), errors);
    }

    fn cells(&self, class: &RuntimeClass, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&class.metadata), class.handler.clone().into(), age_cell(&class.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handler_is_a_label_and_stays() {
        let class = |handler: &str| RuntimeClass { handler: handler.into(), ..Default::default() };
        let mut errors = FieldErrors::new();
        RuntimeClassStrategy.validate(&class("runc"), &mut errors);
        assert!(errors.is_empty(), "{errors}");
        RuntimeClassStrategy.validate(&class("Run C"), &mut errors);
        RuntimeClassStrategy.validate_update(&class("a"), &class("b"), &mut errors);
        let found: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(found, ["handler", "handler"]);
    }
}
