//! Checks of what a HorizontalPodAutoscaler measures and how it moves.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec,
    MetricTarget,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::registry::groups::core::pods::validate::container_name;
use crate::registry::validation::{each, known, non_negative_quantity};

const SOURCES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const SELECTIONS: [&str; 3] = ["Disabled", "Max", "Min"];
const POLICIES: [&str; 2] = ["Percent", "Pods"];
/// Seconds.
const MAX_WINDOW: i32 = 3600;
const MAX_PERIOD: i32 = 1800;

/// Checks metrics and movements.
pub(super) fn spec(spec: &HorizontalPodAutoscalerSpec, at: &Path, errors: &mut FieldErrors) {
    for (i, metric) in spec.metrics.iter().flatten().enumerate() {
        source(metric, &at.child("metrics").index(i), errors);
    }
    let Some(behavior) = &spec.behavior else { return };
    let at = at.child("behavior");
    for (field, own) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
        if let Some(own) = own {
            rules(own, &at.child(field), errors);
        }
    }
}

/// Checks what is scaled or measured.
pub(super) fn reference(kind: &str, name: &str, at: &Path, errors: &mut FieldErrors) {
    for (field, value) in [("kind", kind), ("name", name)] {
        let at = at.child(field);
        if value.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else {
            each(names::is_path_segment_name(value), value, &at, errors);
        }
    }
}

fn source(metric: &MetricSpec, at: &Path, errors: &mut FieldErrors) {
    let kind = metric.type_.as_str();
    if kind.is_empty() {
        errors.push(FieldError::required(&at.child("type"), "must specify a metric source type"));
    }
    known(Some(kind), &SOURCES, &at.child("type"), errors);
    let sources = [
        ("Object", "object", metric.object.is_some()),
        ("External", "external", metric.external.is_some()),
        ("Pods", "pods", metric.pods.is_some()),
        ("Resource", "resource", metric.resource.is_some()),
        ("ContainerResource", "containerResource", metric.container_resource.is_some()),
    ];
    let present: Vec<&'static str> =
        sources.iter().filter(|(_, _, set)| *set).map(|(_, field, _)| *field).collect();
    if let Some(first) = present.first() {
        details(first, metric, &at.child(*first), errors);
    }
    let expected = sources.iter().find(|(name, ..)| *name == kind);
    if let Some((_, field, false)) = expected {
        let message = "must populate information for the given metric source";
        errors.push(FieldError::required(&at.child(*field), message));
    }
    if present.len() != 1 {
        for field in present.into_iter().filter(|field| expected.is_none_or(|(_, own, _)| own != field)) {
            let message = "must populate the given metric source only";
            errors.push(FieldError::forbidden(&at.child(field), message));
        }
    }
}

fn details(field: &str, metric: &MetricSpec, at: &Path, errors: &mut FieldErrors) {
    let at_target = at.child("target");
    let at_average = at_target.child("averageValue");
    match (
        field,
        &metric.object,
        &metric.external,
        &metric.pods,
        &metric.resource,
        &metric.container_resource,
    ) {
        ("object", Some(own), ..) => {
            let CrossVersionObjectReference { kind, name, .. } = &own.described_object;
            reference(kind, name, &at.child("describedObject"), errors);
            identifier(&own.metric, &at.child("metric"), errors);
            target(&own.target, &at_target, errors);
            if own.target.value.is_none() && own.target.average_value.is_none() {
                let message = "must set either a target value or a target averageValue";
                errors.push(FieldError::required(&at_average, message));
            }
        }
        ("external", _, Some(own), ..) => {
            identifier(&own.metric, &at.child("metric"), errors);
            target(&own.target, &at_target, errors);
            match (&own.target.value, &own.target.average_value) {
                (None, None) => {
                    let message = "must set either a target value for metric or a per-pod target";
                    errors.push(FieldError::required(&at_average, message));
                }
                (Some(_), Some(_)) => {
                    let message = "may not set both a target value for metric and a per-pod target";
                    errors.push(FieldError::forbidden(&at_target.child("value"), message));
                }
                _ => {}
            }
        }
        ("pods", _, _, Some(own), ..) => {
            identifier(&own.metric, &at.child("metric"), errors);
            target(&own.target, &at_target, errors);
            if own.target.average_value.as_ref().is_none_or(|value| !is_positive(value)) {
                errors.push(FieldError::required(&at_average, "must specify a positive target averageValue"));
            }
        }
        ("resource", _, _, _, Some(own), _) => {
            resource(&own.name, at, errors);
            resource_target(&own.target, &at_target, errors);
        }
        ("containerResource", .., Some(own)) => {
            resource(&own.name, at, errors);
            if own.container.is_empty() {
                errors.push(FieldError::required(&at.child("container"), "must specify a container"));
            }
            resource_target(&own.target, &at_target, errors);
        }
        _ => {}
    }
}

fn resource(name: &str, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("name");
    if name.is_empty() {
        errors.push(FieldError::required(&at, "must specify a resource name"));
    } else {
        container_name(name, &at, errors);
    }
}

fn resource_target(own: &MetricTarget, at: &Path, errors: &mut FieldErrors) {
    target(own, at, errors);
    match (own.average_utilization, &own.average_value) {
        (None, None) => {
            let message = "must set either a target raw value or a target utilization";
            errors.push(FieldError::required(&at.child("averageUtilization"), message));
        }
        (Some(_), Some(_)) => {
            let message = "may not set both a target raw value and a target utilization";
            errors.push(FieldError::forbidden(&at.child("averageValue"), message));
        }
        _ => {}
    }
}

fn is_positive(amount: &RawQuantity) -> bool {
    Quantity::parse(&amount.0).is_ok_and(|amount| amount.sign().is_gt())
}

fn target(own: &MetricTarget, at: &Path, errors: &mut FieldErrors) {
    let at_type = at.child("type");
    if own.type_.is_empty() {
        errors.push(FieldError::required(&at_type, "must specify a metric target type"));
    }
    if !matches!(own.type_.as_str(), "Utilization" | "Value" | "AverageValue") {
        let message = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&at_type, &own.type_, message));
    }
    for (field, amount) in [("value", &own.value), ("averageValue", &own.average_value)] {
        if let Some(amount) = amount.as_ref().filter(|amount| !is_positive(amount)) {
            errors.push(FieldError::invalid(&at.child(field), amount, "must be positive"));
        }
    }
    if let Some(percent) = own.average_utilization.filter(|percent| *percent < 1) {
        errors.push(FieldError::invalid(&at.child("averageUtilization"), percent, "must be greater than 0"));
    }
}

fn identifier(own: &MetricIdentifier, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("name");
    if own.name.is_empty() {
        errors.push(FieldError::required(&at, "must specify a metric name"));
    } else {
        each(names::is_path_segment_name(&own.name), &own.name, &at, errors);
    }
}

fn rules(own: &HPAScalingRules, at: &Path, errors: &mut FieldErrors) {
    let at_window = at.child("stabilizationWindowSeconds");
    match own.stabilization_window_seconds {
        Some(seconds) if seconds < 0 => {
            errors.push(FieldError::invalid(&at_window, seconds, "must be greater than or equal to zero"));
        }
        Some(seconds) if seconds > MAX_WINDOW => {
            let message = format!("must be less than or equal to {MAX_WINDOW}");
            errors.push(FieldError::invalid(&at_window, seconds, message));
        }
        _ => {}
    }
    known(own.select_policy.as_deref(), &SELECTIONS, &at.child("selectPolicy"), errors);
    let policies = own.policies.as_deref().unwrap_or_default();
    let at_policies = at.child("policies");
    if policies.is_empty() {
        errors.push(FieldError::required(&at_policies, "must specify at least one Policy"));
    }
    for (i, policy) in policies.iter().enumerate() {
        let at = at_policies.index(i);
        known(Some(&policy.type_), &POLICIES, &at.child("type"), errors);
        for (field, number) in [("value", policy.value), ("periodSeconds", policy.period_seconds)] {
            if number <= 0 {
                errors.push(FieldError::invalid(&at.child(field), number, "must be greater than zero"));
            }
        }
        if policy.period_seconds > MAX_PERIOD {
            let message = format!("must be less than or equal to {MAX_PERIOD}");
            errors.push(FieldError::invalid(&at.child("periodSeconds"), policy.period_seconds, message));
        }
    }
    non_negative_quantity(own.tolerance.as_ref(), &at.child("tolerance"), errors);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems(metrics: Value, behavior: Value) -> Vec<String> {
        let own = json!({"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
            "metrics": metrics, "behavior": behavior});
        let own: HorizontalPodAutoscalerSpec = serde_json::from_value(own).unwrap();
        let mut errors = FieldErrors::new();
        spec(&own, &Path::new("spec"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn metrics_have_one_source_and_a_target() {
        let at = "spec.metrics[0]";
        let cases = [
            (
                json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}),
                vec![],
            ),
            (
                json!({"type": "Memory"}),
                vec![format!(
                    "{at}.type: Unsupported value: \"Memory\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\""
                )],
            ),
            (
                json!({"type": "Pods"}),
                vec![format!(
                    "{at}.pods: Required value: must populate information for the given metric source"
                )],
            ),
            (
                json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}),
                vec![format!(
                    "{at}.resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization"
                )],
            ),
            (
                json!({"type": "Resource", "resource": {"name": "disk", "target": {"type": "Much", "averageUtilization": 0}}}),
                vec![
                    format!(
                        "{at}.resource.name: Invalid value: \"disk\": must be a standard resource type or fully qualified"
                    ),
                    format!(
                        "{at}.resource.name: Invalid value: \"disk\": must be a standard resource for containers"
                    ),
                    format!(
                        "{at}.resource.target.type: Invalid value: \"Much\": must be either Utilization, Value, or AverageValue"
                    ),
                    format!(
                        "{at}.resource.target.averageUtilization: Invalid value: 0: must be greater than 0"
                    ),
                ],
            ),
            (
                json!({"type": "External", "external": {"metric": {"name": "a/b"},
                    "target": {"type": "Value", "value": "1", "averageValue": "1"}}}),
                vec![
                    format!("{at}.external.metric.name: Invalid value: \"a/b\": may not contain '/'"),
                    format!(
                        "{at}.external.target.value: Forbidden: may not set both a target value for metric and a per-pod target"
                    ),
                ],
            ),
        ];
        for (metric, expected) in cases {
            assert_eq!(problems(json!([metric]), Value::Null), expected);
        }
    }

    #[test]
    fn movements_are_bounded() {
        let at = "spec.behavior.scaleDown";
        let found = problems(
            Value::Null,
            json!({"scaleDown": {"stabilizationWindowSeconds": 3601, "selectPolicy": "Most",
                "policies": [{"type": "Percent", "value": 0, "periodSeconds": 1801}]}}),
        );
        assert_eq!(
            found,
            [
                format!(
                    "{at}.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600"
                ),
                format!(
                    "{at}.selectPolicy: Unsupported value: \"Most\": supported values: \"Disabled\", \"Max\", \"Min\""
                ),
                format!("{at}.policies[0].value: Invalid value: 0: must be greater than zero"),
                format!(
                    "{at}.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"
                ),
            ]
        );
    }
}
