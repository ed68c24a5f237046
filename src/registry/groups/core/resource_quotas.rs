//! ResourceQuotas.

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::context::RequestContext;
use crate::registry::groups::core::pods::validate::{Amounts, hold_amount, name_shape};
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::IMMUTABLE;

/// The columns of ResourceQuotas.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Request", "string", "Used and allowed amounts, but of limits."),
    column("Limit", "string", "Used and allowed amounts of limits."),
    AGE,
];

/// Resources without a prefix that a quota may name.
const STANDARD: [&str; 17] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
];
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// The strategy of ResourceQuotas.
pub struct QuotaStrategy;

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name)
        || COUNTED.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
        || name.starts_with("limits.hugepages-")
}

/// Whether a scope says anything about a resource.
fn scope_fits(scope: &str, resource: &str) -> bool {
    let compute = matches!(
        resource,
        "cpu"
            | "memory"
            | "requests.cpu"
            | "requests.memory"
            | "limits.cpu"
            | "limits.memory"
            | "ephemeral-storage"
            | "requests.ephemeral-storage"
            | "limits.ephemeral-storage"
    );
    match scope {
        "BestEffort" => resource == "pods",
        "NotBestEffort"
        | "Terminating"
        | "NotTerminating"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => {
            resource == "pods"
                || compute
                || resource.contains("hugepages-")
                || resource.starts_with("requests.")
        }
        "VolumeAttributesClass" => {
            resource == "persistentvolumeclaims" || resource.starts_with("requests.storage")
        }
        _ => true,
    }
}

fn scopes(spec: &ResourceQuotaSpec, at: &Path, errors: &mut FieldErrors) {
    let named = spec.scopes.as_deref().unwrap_or_default();
    let at_scopes = at.child("scopes");
    for scope in named {
        if !SCOPES.contains(&scope.as_str()) {
            errors.push(FieldError::invalid(&at_scopes, named, "unsupported scope"));
        }
        for resource in spec.hard.iter().flatten().map(|(name, _)| name) {
            if is_standard(resource) && !scope_fits(scope, resource) {
                errors.push(FieldError::invalid(&at_scopes, named, "unsupported scope applied to resource"));
            }
        }
    }
    let has = |scope: &str| named.iter().any(|own| own == scope);
    if has("BestEffort") && has("NotBestEffort") || has("Terminating") && has("NotTerminating") {
        errors.push(FieldError::invalid(&at_scopes, named, "conflicting scopes"));
    }
    let expressions = spec.scope_selector.as_ref().and_then(|selector| selector.match_expressions.as_deref());
    let at = at.child("scopeSelector").child("matchExpressions");
    for expression in expressions.unwrap_or_default() {
        if !SCOPES.contains(&expression.scope_name.as_str()) {
            errors.push(FieldError::invalid(
                &at.child("scopeName"),
                &expression.scope_name,
                "unsupported scope",
            ));
        }
        for resource in spec.hard.iter().flatten().map(|(name, _)| name) {
            if is_standard(resource) && !scope_fits(&expression.scope_name, resource) {
                let message = "unsupported scope applied to resource";
                errors.push(FieldError::invalid(&at, &spec.scope_selector, message));
            }
        }
        let operator = expression.operator.as_str();
        let values = expression.values.as_deref().unwrap_or_default();
        let valued = matches!(expression.scope_name.as_str(), "PriorityClass" | "VolumeAttributesClass");
        if !OPERATORS.contains(&operator) {
            errors.push(FieldError::invalid(
                &at.child("operator"),
                operator,
                "not a valid selector operator",
            ));
        } else if !valued && operator != "Exists" {
            let message = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(&at.child("operator"), operator, message));
        }
        if matches!(operator, "In" | "NotIn") && values.is_empty() {
            let message = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(&at.child("values"), message));
        }
        if matches!(operator, "Exists" | "DoesNotExist") && !values.is_empty() {
            let message = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(&at.child("values"), values, message));
        }
    }
}

fn amounts(amounts: Option<&Amounts>, at: &Path, errors: &mut FieldErrors) {
    for (name, raw) in amounts.into_iter().flatten() {
        let at = at.key(name.clone());
        name_shape(name, &at, errors);
        if !name.contains('/') && !is_standard(name) {
            errors.push(FieldError::invalid(&at, name, "must be a standard resource for quota"));
        }
        hold_amount(name, raw, &at, errors);
    }
}

impl Strategy for QuotaStrategy {
    type Object = ResourceQuota;

    fn prepare_for_create(&self, _: &RequestContext, quota: &mut ResourceQuota) {
        quota.status = Some(ResourceQuotaStatus::default());
    }

    fn validate(&self, quota: &ResourceQuota, errors: &mut FieldErrors) {
        let Some(spec) = &quota.spec else { return };
        let at = Path::new("spec");
        amounts(spec.hard.as_ref(), &at.child("hard"), errors);
        scopes(spec, &at, errors);
    }

    fn validate_status_update(&self, quota: &ResourceQuota, _: &ResourceQuota, errors: &mut FieldErrors) {
        let Some(status) = &quota.status else { return };
        let at = Path::new("status");
        amounts(status.hard.as_ref(), &at.child("hard"), errors);
        amounts(status.used.as_ref(), &at.child("used"), errors);
    }

    fn validate_update(&self, new: &ResourceQuota, old: &ResourceQuota, errors: &mut FieldErrors) {
        let scopes = |quota: &ResourceQuota| {
            let mut scopes = quota.spec.as_ref().and_then(|spec| spec.scopes.clone()).unwrap_or_default();
            scopes.sort();
            scopes
        };
        if scopes(new) != scopes(old) {
            let at = Path::new("spec").child("scopes");
            errors.push(FieldError::invalid(&at, scopes(new), IMMUTABLE));
        }
    }

    fn cells(&self, quota: &ResourceQuota, now: Timestamp) -> Vec<Value> {
        let status = quota.status.clone().unwrap_or_default();
        let used = status.used.unwrap_or_default();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in status.hard.iter().flatten() {
            let used = used.get(name).map_or("0", |amount| amount.0.as_str());
            let text = format!("{name}: {used}/{}", hard.0);
            if name.starts_with("limits") { limits.push(text) } else { requests.push(text) }
        }
        vec![
            name_cell(&quota.metadata),
            requests.join(", ").into(),
            limits.join(", ").into(),
            age_cell(&quota.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quotas_name_known_resources_and_fitting_scopes() {
        let cases = [
            (json!({"hard": {"pods": "2", "count/jobs.batch": "1", "requests.nvidia.com/gpu": "1"}}), None),
            (
                json!({"hard": {"foo": "1"}}),
                Some("spec.hard[foo]: Invalid value: \"foo\": must be a standard"),
            ),
            (
                json!({"hard": {"pods": "500m"}}),
                Some("spec.hard[pods]: Invalid value: \"500m\": must be an integer"),
            ),
            (
                json!({"hard": {"pods": "-1"}}),
                Some("spec.hard[pods]: Invalid value: \"-1\": must be greater than"),
            ),
            (
                json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
                Some("spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"),
            ),
            (
                json!({"scopes": ["Terminating", "NotTerminating"]}),
                Some("spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes"),
            ),
        ];
        for (spec, expected) in cases {
            let quota = serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec})).unwrap();
            let mut errors = FieldErrors::new();
            QuotaStrategy.validate(&quota, &mut errors);
            let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
            match expected {
                None => assert!(found.is_empty(), "{spec} {found:?}"),
                Some(start) => {
                    assert!(found.first().is_some_and(|e| e.starts_with(start)), "{spec} {found:?}")
                }
            }
        }
    }
}
