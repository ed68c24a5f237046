//! Checks of resource requests and limits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::registry::validation::{NEGATIVE, each};

pub(super) fn validate(resources: &ResourceRequirements, at: &Path, errors: &mut FieldErrors) {
    let limits = resources.limits.as_ref();
    let requests = resources.requests.as_ref();
    amounts(limits, &at.child("limits"), errors);
    amounts(requests, &at.child("requests"), errors);
    let parsed = |map: Option<&BTreeMap<String, RawQuantity>>, name: &str| {
        map.and_then(|map| map.get(name)).and_then(|amount| Quantity::parse(&amount.0).ok())
    };
    for (name, raw) in requests.into_iter().flatten() {
        let (Some(request), Some(limit)) = (parsed(requests, name), parsed(limits, name)) else { continue };
        let at = at.child("requests");
        if !overcommits(name) && request != limit {
            let message = format!("must be equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(&at, &raw.0, message));
        } else if request > limit {
            let message = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(&at, &raw.0, message));
        }
    }
}

/// Whether less may be requested than is allowed.
fn overcommits(name: &str) -> bool {
    !name.starts_with("hugepages-") && (!name.contains('/') || name.contains("kubernetes.io/"))
}

fn amounts(amounts: Option<&BTreeMap<String, RawQuantity>>, at: &Path, errors: &mut FieldErrors) {
    for (name, raw) in amounts.into_iter().flatten() {
        let at = at.key(name.clone());
        each(names::is_qualified_name(name), name, &at, errors);
        let standard =
            matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if !name.contains('/') && !standard {
            errors.push(FieldError::invalid(&at, name, "must be a standard resource for containers"));
        }
        if Quantity::parse(&raw.0).is_ok_and(|amount| amount.sign() == std::cmp::Ordering::Less) {
            errors.push(FieldError::invalid(&at, &raw.0, NEGATIVE));
        }
    }
}
