//! `policy`.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::context::RequestContext;
use crate::registry::groups::apps::rolling::{at_most_all, number_or_percent};
use crate::registry::resource::{Resource, STATUS};
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{conditions, non_negative, selector};

const COLUMNS: &[Column] = &[
    NAME,
    column("Min Available", "string", "Pods that must stay."),
    column("Max Unavailable", "string", "Pods that may be away."),
    column("Allowed Disruptions", "integer", "Pods that may go now."),
    AGE,
];
const POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];

struct BudgetStrategy;

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![
        Resource::of(BudgetStrategy)
            .columns(COLUMNS)
            .short(&["pdb"])
            .with(STATUS)
            .generation()
            .conditional_only(),
    ]
}

fn text(value: Option<&IntOrString>) -> Value {
    match value {
        None => "N/A".into(),
        Some(IntOrString::Int(number)) => number.to_string().into(),
        Some(IntOrString::String(text)) => text.clone().into(),
    }
}

impl Strategy for BudgetStrategy {
    type Object = PodDisruptionBudget;

    fn prepare_for_create(&self, _: &RequestContext, budget: &mut PodDisruptionBudget) {
        budget.status = Some(PodDisruptionBudgetStatus {
            current_healthy: Some(0),
            desired_healthy: Some(0),
            disruptions_allowed: Some(0),
            expected_pods: Some(0),
            ..Default::default()
        });
    }

    fn validate(&self, budget: &PodDisruptionBudget, errors: &mut FieldErrors) {
        let Some(spec) = &budget.spec else { return };
        let at = Path::new("spec");
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            let message = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid(&at, spec, message));
        }
        let amounts = [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)];
        for (field, value) in amounts {
            number_or_percent(value.as_ref(), &at.child(field), errors);
            at_most_all(value.as_ref(), &at.child(field), errors);
        }
        selector(spec.selector.as_ref(), &at.child("selector"), errors);
        let policy = spec.unhealthy_pod_eviction_policy.as_deref();
        if let Some(policy) = policy.filter(|policy| !POLICIES.contains(policy)) {
            let at = at.child("unhealthyPodEvictionPolicy");
            errors.push(FieldError::not_supported(&at, policy, &POLICIES));
        }
    }

    fn validate_status_update(
        &self,
        budget: &PodDisruptionBudget,
        _: &PodDisruptionBudget,
        errors: &mut FieldErrors,
    ) {
        let status = budget.status.clone().unwrap_or_default();
        let at = Path::new("status");
        let counts = [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ];
        for (field, count) in counts {
            non_negative(count.map(i64::from), &at.child(field), errors);
        }
        conditions(status.conditions.as_deref().unwrap_or_default(), &at.child("conditions"), errors);
    }

    fn cells(&self, budget: &PodDisruptionBudget, now: Timestamp) -> Vec<Value> {
        let spec = budget.spec.clone().unwrap_or_default();
        let allowed = budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
        vec![
            name_cell(&budget.metadata),
            text(spec.min_available.as_ref()),
            text(spec.max_unavailable.as_ref()),
            allowed.into(),
            age_cell(&budget.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_budget_says_one_thing() {
        let budget: PodDisruptionBudget = serde_json::from_value(json!({"metadata": {"name": "b"},
            "spec": {"minAvailable": "101%", "maxUnavailable": 1, "unhealthyPodEvictionPolicy": "X"}}))
        .unwrap();
        let mut errors = FieldErrors::new();
        BudgetStrategy.validate(&budget, &mut errors);
        let found: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(found, ["spec", "spec.minAvailable", "spec.unhealthyPodEvictionPolicy"]);
    }
}
