//! `node.k8s.io`.

use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::groups::core::pods::validate::{container_amounts, tolerations};
use crate::registry::resource::Resource;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{each, immutable, metadata};

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
        if let Some(amounts) = overhead {
            container_amounts(amounts, &Path::new("overhead"), errors);
        }
        let Some(scheduling) = &class.scheduling else { return };
        let at = Path::new("scheduling");
        if let Some(selector) = &scheduling.node_selector {
            metadata::validate_labels(selector, &at.child("nodeSelector"), errors);
        }
        let (own, at) = (scheduling.tolerations.as_deref().unwrap_or_default(), at.child("tolerations"));
        tolerations(own, &at, errors);
        for (i, toleration) in own.iter().enumerate().filter(|(i, toleration)| own[..*i].contains(toleration))
        {
            errors.push(FieldError::duplicate(&at.index(i), toleration));
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

    #[test]
    fn overheads_and_tolerations_are_those_of_pods() {
        let check = |class: Value| {
            let class: RuntimeClass = serde_json::from_value(class).unwrap();
            let mut errors = FieldErrors::new();
            RuntimeClassStrategy.validate(&class, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let toleration = serde_json::json!({"key": "a", "operator": "Exists"});
        assert_eq!(
            check(serde_json::json!({"handler": "h", "overhead": {"podFixed": {"pods": "1"}}})),
            ["overhead.limits[pods]: Invalid value: \"pods\": must be a standard resource for containers"]
        );
        assert_eq!(
            check(
                serde_json::json!({"handler": "h", "scheduling": {"tolerations": [toleration, toleration]}})
            ),
            ["scheduling.tolerations[1]: Duplicate value: {\"key\":\"a\",\"operator\":\"Exists\"}"]
        );
    }
}
