//! ResourceClaims and their templates.

use std::collections::BTreeSet;

use k8s_openapi::api::resource::v1::{DeviceClaim, DeviceRequest, ResourceClaim, ResourceClaimTemplate};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::classes::selectors;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{IMMUTABLE, each};

/// The columns of ResourceClaims.
pub const COLUMNS: &[Column] =
    &[NAME, column("State", "string", "Whether devices are allocated and reserved."), AGE];
/// The columns of ResourceClaimTemplates.
pub const TEMPLATE_COLUMNS: &[Column] = &[NAME, AGE];

const MAX_REQUESTS: usize = 32;
const MODES: [&str; 2] = ["All", "ExactCount"];

/// The strategy of ResourceClaims.
pub struct ClaimStrategy;
/// The strategy of ResourceClaimTemplates.
pub struct TemplateStrategy;

fn defaults(claim: Option<&mut DeviceClaim>) {
    for request in claim.into_iter().flat_map(|claim| claim.requests.iter_mut().flatten()) {
        if let Some(exact) = request.exactly.as_mut() {
            let mode = exact.allocation_mode.get_or_insert_with(|| "ExactCount".into());
            if mode == "ExactCount" && exact.count.unwrap_or(0) == 0 {
                exact.count = Some(1);
            }
        }
        for sub in request.first_available.iter_mut().flatten() {
            let mode = sub.allocation_mode.get_or_insert_with(|| "ExactCount".into());
            if mode == "ExactCount" && sub.count.unwrap_or(0) == 0 {
                sub.count = Some(1);
            }
        }
    }
}

fn request<'a>(
    request: &'a DeviceRequest,
    seen: &mut BTreeSet<&'a str>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    each(names::is_dns1123_label(&request.name), &request.name, &at.child("name"), errors);
    if !seen.insert(&request.name) {
        errors.push(FieldError::duplicate(&at.child("name"), &request.name));
    }
    let alternatives = request.first_available.as_deref().unwrap_or_default();
    match (&request.exactly, alternatives.is_empty()) {
        (None, true) => {
            let message = "exactly one of `exactly` or `firstAvailable` is required";
            errors.push(FieldError::required(at, message));
        }
        (Some(_), false) => {
            let message =
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(at, "", message));
        }
        (Some(exact), true) => {
            let at = at.child("exactly");
            mode(exact.allocation_mode.as_deref(), exact.count, &at, errors);
            class(&exact.device_class_name, &at, errors);
            selectors(exact.selectors.as_ref(), &at.child("selectors"), errors);
        }
        (None, false) => {
            for (i, sub) in alternatives.iter().enumerate() {
                let at = at.child("firstAvailable").index(i);
                each(names::is_dns1123_label(&sub.name), &sub.name, &at.child("name"), errors);
                mode(sub.allocation_mode.as_deref(), sub.count, &at, errors);
                class(&sub.device_class_name, &at, errors);
                selectors(sub.selectors.as_ref(), &at.child("selectors"), errors);
            }
        }
    }
}

fn class(name: &str, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("deviceClassName");
    if name.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else {
        each(names::is_dns1123_subdomain(name), name, &at, errors);
    }
}

fn mode(mode: Option<&str>, count: Option<i64>, at: &Path, errors: &mut FieldErrors) {
    let count = count.unwrap_or(0);
    match mode {
        Some("All") if count != 0 => {
            let message = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(&at.child("count"), count, message));
        }
        Some("ExactCount") if count <= 0 => {
            errors.push(FieldError::invalid(&at.child("count"), count, "must be greater than zero"));
        }
        Some("All" | "ExactCount") => {}
        other => errors.push(FieldError::not_supported(&at.child("allocationMode"), other, &MODES)),
    }
}

fn claim(claim: Option<&DeviceClaim>, at: &Path, errors: &mut FieldErrors) {
    let requests = claim.and_then(|claim| claim.requests.as_deref()).unwrap_or_default();
    let at = at.child("devices").child("requests");
    if requests.len() > MAX_REQUESTS {
        errors.push(FieldError::too_many(&at, requests.len(), MAX_REQUESTS));
    }
    let mut seen = BTreeSet::new();
    requests.iter().enumerate().for_each(|(i, one)| request(one, &mut seen, &at.index(i), errors));
}

impl Strategy for ClaimStrategy {
    type Object = ResourceClaim;

    fn default(&self, claim: &mut ResourceClaim) {
        defaults(claim.spec.devices.as_mut());
    }

    fn validate(&self, object: &ResourceClaim, errors: &mut FieldErrors) {
        claim(object.spec.devices.as_ref(), &Path::new("spec"), errors);
    }

    fn validate_update(&self, new: &ResourceClaim, old: &ResourceClaim, errors: &mut FieldErrors) {
        if new.spec != old.spec {
            errors.push(FieldError::invalid(&Path::new("spec"), &new.spec, IMMUTABLE));
        }
    }

    fn validate_status_update(&self, new: &ResourceClaim, old: &ResourceClaim, errors: &mut FieldErrors) {
        let at = Path::new("status");
        let status = new.status.clone().unwrap_or_default();
        let was = old.status.clone().unwrap_or_default();
        let users = status.reserved_for.as_deref().unwrap_or_default();
        if !users.is_empty() && status.allocation.is_none() {
            let message = "may not be specified when `allocated` is not set";
            errors.push(FieldError::forbidden(&at.child("reservedFor"), message));
        }
        let mut uids = BTreeSet::new();
        for (i, user) in users.iter().enumerate() {
            let at = at.child("reservedFor").index(i);
            for (field, value) in [("resource", &user.resource), ("name", &user.name), ("uid", &user.uid)] {
                if value.is_empty() {
                    errors.push(FieldError::required(&at.child(field), ""));
                }
            }
            if !uids.insert(&user.uid) {
                errors.push(FieldError::duplicate(&at.child("uid"), &user.uid));
            }
        }
        if was.allocation.is_some() && status.allocation.is_some() && was.allocation != status.allocation {
            errors.push(FieldError::invalid(&at.child("allocation"), &status.allocation, IMMUTABLE));
        }
    }

    fn cells(&self, claim: &ResourceClaim, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&claim.metadata), state(claim).into(), age_cell(&claim.metadata, now)]
    }
}

fn state(claim: &ResourceClaim) -> String {
    let status = claim.status.clone().unwrap_or_default();
    let mut states = Vec::new();
    if claim.metadata.deletion_timestamp.is_some() {
        states.push("deleted");
    }
    if status.allocation.is_some() {
        states.push("allocated");
    } else if claim.metadata.deletion_timestamp.is_none() {
        states.push("pending");
    }
    if status.reserved_for.is_some_and(|users| !users.is_empty()) {
        states.push("reserved");
    }
    states.join(",")
}

impl Strategy for TemplateStrategy {
    type Object = ResourceClaimTemplate;

    fn default(&self, template: &mut ResourceClaimTemplate) {
        defaults(template.spec.spec.devices.as_mut());
    }

    fn validate(&self, template: &ResourceClaimTemplate, errors: &mut FieldErrors) {
        claim(template.spec.spec.devices.as_ref(), &Path::new("spec").child("spec"), errors);
    }

    fn validate_update(
        &self,
        new: &ResourceClaimTemplate,
        old: &ResourceClaimTemplate,
        errors: &mut FieldErrors,
    ) {
        if new.spec != old.spec {
            errors.push(FieldError::invalid(&Path::new("spec"), &new.spec, IMMUTABLE));
        }
    }

    fn cells(&self, template: &ResourceClaimTemplate, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&template.metadata), age_cell(&template.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_default_to_one_device_and_name_a_class() {
        let mut object: ResourceClaim =
            serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"devices": {
            "requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}, {"name": "r"}]}}}))
            .unwrap();
        ClaimStrategy.default(&mut object);
        let first = &object.spec.devices.as_ref().unwrap().requests.as_ref().unwrap()[0];
        assert_eq!(first.exactly.as_ref().unwrap().count, Some(1));
        let mut errors = FieldErrors::new();
        ClaimStrategy.validate(&object, &mut errors);
        let found: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(found, ["spec.devices.requests[1].name", "spec.devices.requests[1]"]);
        assert_eq!(state(&object), "pending");
    }
}
