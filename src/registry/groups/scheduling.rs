//! `scheduling.k8s.io`.

use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::resource::Resource;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::immutable;

const COLUMNS: &[Column] = &[
    NAME,
    column("Value", "integer", "The priority."),
    column("Global-Default", "boolean", "Whether pods without a class get this one."),
    AGE,
    column("PreemptionPolicy", "string", "Whether pods of the class displace others."),
];

/// The classes that upstream reserves, and their priorities.
const SYSTEM: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const HIGHEST_OF_USERS: i32 = 1_000_000_000;
const POLICIES: [&str; 2] = ["Never", "PreemptLowerPriority"];

struct PriorityClassStrategy;

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![Resource::of(PriorityClassStrategy).columns(COLUMNS).short(&["pc"]).generation()]
}

impl Strategy for PriorityClassStrategy {
    type Object = PriorityClass;

    fn default(&self, class: &mut PriorityClass) {
        class.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
    }

    fn validate(&self, class: &PriorityClass, errors: &mut FieldErrors) {
        let name = class.metadata.name.as_deref().unwrap_or_default();
        let value = class.value.unwrap_or(0);
        if name.starts_with("system-") {
            let problem = match SYSTEM.iter().find(|(own, _)| *own == name) {
                None => Some(format!("{name} is not a known system priority class")),
                Some((_, own)) if *own != value => {
                    Some(format!("value of {name} PriorityClass must be {own}"))
                }
                Some(_) if class.global_default == Some(true) => {
                    Some(format!("globalDefault of {name} PriorityClass must be false"))
                }
                Some(_) => None,
            };
            if let Some(problem) = problem {
                let message = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {problem}"
                );
                errors.push(FieldError::forbidden(&Path::new("metadata").child("name"), message));
            }
        } else if value > HIGHEST_OF_USERS {
            let message = format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
            errors.push(FieldError::forbidden(&Path::new("value"), message));
        }
        let policy = class.preemption_policy.as_deref().unwrap_or_default();
        if !POLICIES.contains(&policy) {
            errors.push(FieldError::not_supported(&Path::new("preemptionPolicy"), policy, &POLICIES));
        }
    }

    fn validate_update(&self, new: &PriorityClass, old: &PriorityClass, errors: &mut FieldErrors) {
        if new.value.unwrap_or(0) != old.value.unwrap_or(0) {
            errors.push(FieldError::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        immutable(&new.preemption_policy, &old.preemption_policy, &Path::new("preemptionPolicy"), errors);
    }

    fn cells(&self, class: &PriorityClass, now: Timestamp) -> Vec<Value> {
        vec![
            name_cell(&class.metadata),
            class.value.unwrap_or(0).into(),
            class.global_default.unwrap_or(false).into(),
            age_cell(&class.metadata, now),
            class.preemption_policy.clone().unwrap_or_default().into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(name: &str, value: i32) -> Vec<String> {
        let mut class: PriorityClass =
            serde_json::from_value(json!({"metadata": {"name": name}, "value": value})).unwrap();
        PriorityClassStrategy.default(&mut class);
        let mut errors = FieldErrors::new();
        PriorityClassStrategy.validate(&class, &mut errors);
        errors.iter().map(|error| error.field.clone()).collect()
    }

    #[test]
    fn the_highest_priorities_are_reserved() {
        assert!(problems("a", 1_000_000_000).is_empty());
        assert_eq!(problems("a", 1_000_000_001), ["value"]);
        assert!(problems("system-node-critical", 2_000_001_000).is_empty());
        assert_eq!(problems("system-node-critical", 1), ["metadata.name"]);
        assert_eq!(problems("system-mine", 1), ["metadata.name"]);
    }
}
