//! Leases.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};

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
        if spec.holder_identity.as_deref() == Some("") {
            errors.push(FieldError::invalid(&at.child("holderIdentity"), "", "must not be empty"));
        }
    }

    fn cells(&self, lease: &Lease, now: Timestamp) -> Vec<Value> {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        vec![name_cell(&lease.metadata), holder.into(), age_cell(&lease.metadata, now)]
    }
}
