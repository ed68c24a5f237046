//! Leases.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{each, known, text};

/// The columns of leases.
pub const COLUMNS: &[Column] = &[NAME, column("Holder", "string", "Who holds the lease."), AGE];

/// The strategy of leases.
pub struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    type Object = Lease;

    fn validate(&self, lease: &Lease, errors: &mut FieldErrors) {
        let Some(spec) = &lease.spec else { return };
        let at = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            errors.push(FieldError::invalid(
                &at.child("leaseDurationSeconds"),
                seconds,
                "must be greater than 0",
            ));
        }
        if let Some(count) = spec.lease_transitions.filter(|count| *count < 0) {
            let message = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(&at.child("leaseTransitions"), count, message));
        }
        // A holder that gives its lease up says so by an empty name.
        if let Some(strategy) = spec.strategy.as_deref() {
            let at = at.child("strategy").child("strategy");
            if strategy.contains('/') {
                each(names::is_qualified_name(strategy), strategy, &at, errors);
            } else {
                known(Some(strategy), &["OldestEmulationVersion"], &at, errors);
            }
        }
        if !text(&spec.preferred_holder).is_empty() && text(&spec.strategy).is_empty() {
            let message = "may only be specified if `strategy` is defined";
            errors.push(FieldError::forbidden(&at.child("preferredHolder"), message));
        }
    }

    fn cells(&self, lease: &Lease, now: Timestamp) -> Vec<Value> {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        vec![name_cell(&lease.metadata), holder.into(), age_cell(&lease.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lease_may_be_given_up_and_has_sensible_numbers() {
        for (spec, wanted) in [
            (json!({"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 0}), vec![]),
            (
                json!({"leaseDurationSeconds": 0}),
                vec!["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
            ),
            (
                json!({"leaseTransitions": -1}),
                vec!["spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"preferredHolder": "a"}),
                vec!["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"],
            ),
            (
                json!({"strategy": "Mine"}),
                vec![
                    "spec.strategy.strategy: Unsupported value: \"Mine\": supported values: \"OldestEmulationVersion\"",
                ],
            ),
            (json!({"strategy": "example.com/mine", "preferredHolder": "a"}), vec![]),
        ] {
            let lease: Lease = serde_json::from_value(json!({"spec": spec})).unwrap();
            let mut errors = FieldErrors::new();
            LeaseStrategy.validate(&lease, &mut errors);
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(found, wanted, "{spec}");
        }
    }
}
