//! StorageClasses.

use std::collections::BTreeMap;

use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, or_unset};
use crate::registry::validation::{IMMUTABLE, each};

/// The columns of StorageClasses.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Provisioner", "string", "Who makes the volumes."),
    column("ReclaimPolicy", "string", "What becomes of a volume that nobody claims any more."),
    column("VolumeBindingMode", "string", "When claims are bound."),
    column("AllowVolumeExpansion", "string", "Whether claims can grow."),
    AGE,
];

/// The mark of the class that claims without one get.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const BETA_DEFAULT_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";
const POLICIES: [&str; 2] = ["Delete", "Retain"];
const MODES: [&str; 2] = ["Immediate", "WaitForFirstConsumer"];
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETERS_SIZE: usize = 256 * 1024;

/// The strategy of StorageClasses.
pub struct StorageClassStrategy;

/// Whether claims without a class get this one.
pub fn is_default(class: &StorageClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    [DEFAULT_CLASS, BETA_DEFAULT_CLASS]
        .iter()
        .any(|key| annotations.and_then(|a| a.get(*key)).is_some_and(|value| value == "true"))
}

/// Checks the name of a driver or provisioner.
pub fn driver_name(name: &str, at: &Path, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else {
        each(names::is_qualified_name(&name.to_lowercase()), name, at, errors);
    }
}

/// Checks the parameters of a class.
pub fn parameters(parameters: Option<&BTreeMap<String, String>>, at: &Path, errors: &mut FieldErrors) {
    let Some(parameters) = parameters else { return };
    if parameters.len() > MAX_PARAMETERS {
        errors.push(FieldError::too_long(&at.child("Provisioner Parameters Length"), MAX_PARAMETERS));
        return;
    }
    for key in parameters.keys().filter(|key| key.is_empty()) {
        errors.push(FieldError::invalid(at, key, "field can not be empty."));
    }
    let size: usize = parameters.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_PARAMETERS_SIZE {
        errors.push(FieldError::too_long(at, MAX_PARAMETERS_SIZE));
    }
}

impl Strategy for StorageClassStrategy {
    type Object = StorageClass;

    fn default(&self, class: &mut StorageClass) {
        class.reclaim_policy.get_or_insert_with(|| "Delete".into());
        class.volume_binding_mode.get_or_insert_with(|| "Immediate".into());
    }

    fn validate(&self, class: &StorageClass, errors: &mut FieldErrors) {
        driver_name(&class.provisioner, &Path::new("provisioner"), errors);
        parameters(class.parameters.as_ref(), &Path::new("parameters"), errors);
        let policy = class.reclaim_policy.as_deref().unwrap_or_default();
        if !POLICIES.contains(&policy) {
            errors.push(FieldError::not_supported(&Path::new("reclaimPolicy"), policy, &POLICIES));
        }
        let mode = class.volume_binding_mode.as_deref().unwrap_or_default();
        if !MODES.contains(&mode) {
            errors.push(FieldError::not_supported(&Path::new("volumeBindingMode"), mode, &MODES));
        }
        let at = Path::new("allowedTopologies");
        for (i, term) in class.allowed_topologies.iter().flatten().enumerate() {
            for (j, label) in term.match_label_expressions.iter().flatten().enumerate() {
                let at = at.index(i).child("matchLabelExpressions").index(j);
                each(names::is_qualified_name(&label.key), &label.key, &at.child("key"), errors);
                if label.values.is_empty() {
                    errors.push(FieldError::required(&at.child("values"), ""));
                }
            }
        }
    }

    fn validate_update(&self, new: &StorageClass, old: &StorageClass, errors: &mut FieldErrors) {
        let mut forbid = |field: &'static str, changed: bool| {
            if changed {
                let message = "updates to parameters are forbidden.";
                let message = message.replace("parameters", field);
                errors.push(FieldError::forbidden(&Path::new(field), message));
            }
        };
        let none = BTreeMap::new();
        let params = |class: &StorageClass| class.parameters.clone().unwrap_or(none.clone());
        forbid("parameters", params(new) != params(old));
        forbid("provisioner", new.provisioner != old.provisioner);
        forbid("reclaimPolicy", new.reclaim_policy != old.reclaim_policy);
        if new.volume_binding_mode != old.volume_binding_mode {
            let at = Path::new("volumeBindingMode");
            errors.push(FieldError::invalid(&at, &new.volume_binding_mode, IMMUTABLE));
        }
    }

    fn cells(&self, class: &StorageClass, now: Timestamp) -> Vec<Value> {
        let mut name = class.metadata.name.clone().unwrap_or_default();
        if is_default(class) {
            name.push_str(" (default)");
        }
        vec![
            name.into(),
            class.provisioner.clone().into(),
            class.reclaim_policy.clone().unwrap_or_else(|| "Delete".into()).into(),
            or_unset(class.volume_binding_mode.as_ref()),
            class.allow_volume_expansion.unwrap_or(false).to_string().into(),
            age_cell(&class.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_are_defaulted_and_do_not_change() {
        let mut old: StorageClass = serde_json::from_value(json!({"metadata": {"name": "a",
            "annotations": {DEFAULT_CLASS: "true"}}, "provisioner": "example.com/disk"}))
        .unwrap();
        StorageClassStrategy.default(&mut old);
        let mut errors = FieldErrors::new();
        StorageClassStrategy.validate(&old, &mut errors);
        assert!(errors.is_empty(), "{errors}");
        assert_eq!(StorageClassStrategy.cells(&old, Timestamp::UNIX_EPOCH)[0], "a (default)");
        let mut new = old.clone();
        new.provisioner = "other".into();
        new.volume_binding_mode = Some("WaitForFirstConsumer".into());
        StorageClassStrategy.validate_update(&new, &old, &mut errors);
        let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "provisioner: Forbidden: updates to provisioner are forbidden.",
                "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable"
            ]
        );
    }
}
