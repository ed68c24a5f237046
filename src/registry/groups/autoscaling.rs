//! `autoscaling`: HorizontalPodAutoscalers, stored as `v2` and served as `v1` too.

mod validate;

use k8s_openapi::api::autoscaling::{v1, v2};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::json;
use crate::registry::convert::Conversion;
use crate::registry::resource::{Resource, STATUS};
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::non_negative;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const DEFAULT_CPU: i32 = 80;

const COLUMNS: &[Column] = &[
    NAME,
    column("Reference", "string", "What is scaled."),
    column("Targets", "string", "Present and wanted values of the metrics."),
    column("MinPods", "string", "Fewest pods."),
    column("MaxPods", "string", "Most pods."),
    column("Replicas", "string", "Pods that there are."),
    AGE,
];

/// The rows.
pub fn rows() -> Vec<Resource> {
    let row = |row: Resource| row.short(&["hpa"]).categories(&["all"]).columns(COLUMNS).with(STATUS);
    vec![
        row(Resource::of(Autoscalers)),
        row(Resource::of(OldAutoscalers)).stored_as(&Forms, "/registry/horizontalpodautoscalers/"),
    ]
}

struct Autoscalers;
struct OldAutoscalers;

impl Strategy for Autoscalers {
    type Object = v2::HorizontalPodAutoscaler;

    fn default(&self, scaler: &mut v2::HorizontalPodAutoscaler) {
        let spec = &mut scaler.spec;
        spec.min_replicas.get_or_insert(1);
        if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
            spec.metrics = Some(vec![v2::MetricSpec {
                type_: "Resource".into(),
                resource: Some(v2::ResourceMetricSource {
                    name: "cpu".into(),
                    target: v2::MetricTarget {
                        type_: "Utilization".into(),
                        average_utilization: Some(DEFAULT_CPU),
                        ..Default::default()
                    },
                }),
                ..Default::default()
            }]);
        }
        if let Some(behavior) = &mut spec.behavior {
            default_behavior(behavior);
        }
    }

    fn validate(&self, scaler: &v2::HorizontalPodAutoscaler, errors: &mut FieldErrors) {
        let spec = &scaler.spec;
        limits(spec.min_replicas, spec.max_replicas, errors);
        target(&spec.scale_target_ref.kind, &spec.scale_target_ref.name, errors);
        validate::spec(spec, &Path::new("spec"), errors);
    }

    fn validate_status_update(
        &self,
        scaler: &v2::HorizontalPodAutoscaler,
        _: &v2::HorizontalPodAutoscaler,
        errors: &mut FieldErrors,
    ) {
        let status = scaler.status.clone().unwrap_or_default();
        let counts = [
            ("currentReplicas", status.current_replicas),
            ("desiredReplicas", Some(status.desired_replicas)),
        ];
        for (field, count) in counts {
            non_negative(count.map(i64::from), &Path::new("status").child(field), errors);
        }
    }

    fn cells(&self, scaler: &v2::HorizontalPodAutoscaler, now: Timestamp) -> Vec<Value> {
        let spec = scaler.spec.clone();
        let status = scaler.status.clone().unwrap_or_default();
        let current = status.current_metrics.unwrap_or_default();
        let targets: Vec<String> = spec
            .metrics
            .iter()
            .flatten()
            .enumerate()
            .map(|(i, metric)| target_text(metric, current.get(i)))
            .collect();
        vec![
            name_cell(&scaler.metadata),
            format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name).into(),
            targets_text(&targets).into(),
            spec.min_replicas.map_or_else(|| "<unset>".to_owned(), |n| n.to_string()).into(),
            spec.max_replicas.to_string().into(),
            status.current_replicas.unwrap_or(0).to_string().into(),
            age_cell(&scaler.metadata, now),
        ]
    }
}

impl Strategy for OldAutoscalers {
    type Object = v1::HorizontalPodAutoscaler;

    fn default(&self, scaler: &mut v1::HorizontalPodAutoscaler) {
        scaler.spec.min_replicas.get_or_insert(1);
    }

    fn validate(&self, scaler: &v1::HorizontalPodAutoscaler, errors: &mut FieldErrors) {
        let spec = &scaler.spec;
        limits(spec.min_replicas, spec.max_replicas, errors);
        target(&spec.scale_target_ref.kind, &spec.scale_target_ref.name, errors);
    }

    fn cells(&self, scaler: &v1::HorizontalPodAutoscaler, now: Timestamp) -> Vec<Value> {
        let stored = serde_json::to_value(scaler).map(|own| Forms.to_stored(own)).unwrap_or_default();
        let stored = json::typed_value::<v2::HorizontalPodAutoscaler>(&stored);
        stored.map(|stored| Autoscalers.cells(&stored, now)).unwrap_or_default()
    }
}

fn limits(min: Option<i32>, max: i32, errors: &mut FieldErrors) {
    let at = Path::new("spec");
    if let Some(min) = min.filter(|min| *min < 1) {
        errors.push(FieldError::invalid(&at.child("minReplicas"), min, "must be greater than or equal to 1"));
    }
    if max < 1 {
        errors.push(FieldError::invalid(&at.child("maxReplicas"), max, "must be greater than 0"));
    }
    if min.is_some_and(|min| max < min) {
        let message = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(&at.child("maxReplicas"), max, message));
    }
}

fn target(kind: &str, name: &str, errors: &mut FieldErrors) {
    validate::reference(kind, name, &Path::new("spec").child("scaleTargetRef"), errors);
}

fn targets_text(targets: &[String]) -> String {
    match targets.len() {
        0 => "<none>".into(),
        count if count > SHOWN => format!("{} + {} more...", targets[..SHOWN].join(", "), count - SHOWN),
        _ => targets.join(", "),
    }
}

/// Present and wanted value of a metric, as upstream prints them.
fn target_text(metric: &v2::MetricSpec, current: Option<&v2::MetricStatus>) -> String {
    let now = |pick: fn(&v2::MetricStatus) -> Option<&v2::MetricValueStatus>| {
        current.and_then(pick).cloned().unwrap_or_default()
    };
    if let Some(source) = &metric.resource {
        let now = now(|status| status.resource.as_ref().map(|status| &status.current));
        return format!("{}: {}", source.name, utilization_text(&source.target, now));
    }
    if let Some(source) = &metric.container_resource {
        let now = now(|status| status.container_resource.as_ref().map(|status| &status.current));
        return format!("{}: {}", source.name, utilization_text(&source.target, now));
    }
    if let Some(source) = &metric.pods {
        let now = now(|status| status.pods.as_ref().map(|status| &status.current));
        return ratio_text(now.average_value, source.target.average_value.as_ref());
    }
    let (target, now) = if let Some(source) = &metric.object {
        (&source.target, now(|status| status.object.as_ref().map(|status| &status.current)))
    } else if let Some(source) = &metric.external {
        (&source.target, now(|status| status.external.as_ref().map(|status| &status.current)))
    } else {
        return "<unknown type>".into();
    };
    match &target.average_value {
        Some(wanted) => format!("{} (avg)", ratio_text(now.average_value, Some(wanted))),
        None => ratio_text(now.value, target.value.as_ref()),
    }
}

fn ratio_text(present: Option<Quantity>, wanted: Option<&Quantity>) -> String {
    let text = |quantity: Option<&Quantity>| quantity.map_or("<unknown>".to_owned(), |q| q.0.clone());
    format!("{}/{}", text(present.as_ref()), text(wanted))
}

fn utilization_text(target: &v2::MetricTarget, now: v2::MetricValueStatus) -> String {
    if target.average_value.is_some() {
        return ratio_text(now.average_value, target.average_value.as_ref());
    }
    let percent = |value: Option<i32>, none: &str| value.map_or(none.to_owned(), |value| format!("{value}%"));
    format!(
        "{}/{}",
        percent(now.average_utilization, "<unknown>"),
        percent(target.average_utilization, "<auto>")
    )
}

/// Most metrics that a row shows.
const SHOWN: usize = 2;

/// Fills what a behavior leaves out, as upstream does once any of it is given.
fn default_behavior(behavior: &mut v2::HorizontalPodAutoscalerBehavior) {
    let policy = |kind: &str, value| v2::HPAScalingPolicy { type_: kind.into(), value, period_seconds: 15 };
    let up = behavior.scale_up.get_or_insert_default();
    up.stabilization_window_seconds.get_or_insert(0);
    up.select_policy.get_or_insert("Max".into());
    up.policies.get_or_insert_with(|| vec![policy("Pods", 4), policy("Percent", 100)]);
    let down = behavior.scale_down.get_or_insert_default();
    down.select_policy.get_or_insert("Max".into());
    down.policies.get_or_insert_with(|| vec![policy("Percent", 100)]);
}

/// Between `v1`, which knows only CPU and keeps the rest in annotations, and `v2`, which is stored.
struct Forms;

fn parse_annotation(metadata: &mut Value, key: &str) -> Option<Value> {
    let text = metadata.get_mut("annotations")?.as_object_mut()?.remove(key)?;
    serde_json::from_str(text.as_str()?).ok()
}

fn annotate(metadata: &mut Value, key: &str, value: &Value) {
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = Value::Object(Map::new());
    }
    metadata["annotations"][key] = value.to_string().into();
}

fn is_cpu_utilization(metric: &Value, side: &str) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"][side]["averageUtilization"].is_number()
}

fn remove(value: &mut Value, field: &str) -> Option<Value> {
    value.as_object_mut()?.remove(field)
}

/// Moves the CPU metric of `list` to `field`, and the others to an annotation.
fn split(metadata: &mut Value, part: &mut Value, list: &str, side: &str, field: &str, key: &str) {
    let Some(Value::Array(metrics)) = remove(part, list) else { return };
    let (mut cpu, others): (Vec<Value>, Vec<Value>) =
        metrics.into_iter().partition(|m| is_cpu_utilization(m, side));
    if !cpu.is_empty() {
        part[field] = cpu.swap_remove(0)["resource"][side]["averageUtilization"].take();
    }
    if !others.is_empty() {
        annotate(metadata, key, &Value::Array(others));
    }
}

impl Conversion for Forms {
    fn to_stored(&self, mut own: Value) -> Value {
        let mut metadata = own["metadata"].take();
        own["apiVersion"] = "autoscaling/v2".into();
        let mut metrics =
            parse_annotation(&mut metadata, METRICS).and_then(|m| m.as_array().cloned()).unwrap_or_default();
        if let Some(percent) = remove(&mut own["spec"], "targetCPUUtilizationPercentage") {
            metrics.insert(
                0,
                json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent}}}),
            );
        }
        if metrics.is_empty() {
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": DEFAULT_CPU}}}));
        }
        own["spec"]["metrics"] = metrics.into();
        if let Some(behavior) = parse_annotation(&mut metadata, BEHAVIOR) {
            own["spec"]["behavior"] = behavior;
        }
        let current = parse_annotation(&mut metadata, CURRENT);
        let conditions = parse_annotation(&mut metadata, CONDITIONS);
        if own["status"].is_object() {
            let mut list = current.and_then(|c| c.as_array().cloned()).unwrap_or_default();
            if let Some(percent) = remove(&mut own["status"], "currentCPUUtilizationPercentage") {
                list.insert(
                    0,
                    json!({"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": percent}}}),
                );
            }
            if !list.is_empty() {
                own["status"]["currentMetrics"] = list.into();
            }
            if let Some(conditions) = conditions {
                own["status"]["conditions"] = conditions;
            }
        }
        own["metadata"] = metadata;
        own
    }

    fn restored(&self, mut stored: Value) -> Value {
        let mut metadata = stored["metadata"].take();
        stored["apiVersion"] = "autoscaling/v1".into();
        let mut spec = stored["spec"].take();
        split(&mut metadata, &mut spec, "metrics", "target", "targetCPUUtilizationPercentage", METRICS);
        if let Some(behavior) = remove(&mut spec, "behavior") {
            annotate(&mut metadata, BEHAVIOR, &behavior);
        }
        stored["spec"] = spec;
        if stored["status"].is_object() {
            let mut status = stored["status"].take();
            let field = "currentCPUUtilizationPercentage";
            split(&mut metadata, &mut status, "currentMetrics", "current", field, CURRENT);
            if let Some(conditions) = remove(&mut status, "conditions") {
                annotate(&mut metadata, CONDITIONS, &conditions);
            }
            stored["status"] = status;
        } else {
            remove(&mut stored, "status");
        }
        stored["metadata"] = metadata;
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_as_upstreams() {
        let spec = json!([
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "2"}}},
            {"type": "Object", "object": {"metric": {"name": "m"}, "describedObject": {"kind": "K", "name": "k"},
                "target": {"type": "Value", "value": "5"}}},
            {"type": "External", "external": {"metric": {"name": "m"},
                "target": {"type": "AverageValue", "averageValue": "7"}}}]);
        let status = json!([
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 10}}},
            {"type": "Pods", "pods": {"metric": {"name": "m"}, "current": {"averageValue": "1500m"}}},
            {"type": ""},
            {"type": "External", "external": {"metric": {"name": "m"}, "current": {"averageValue": "3"}}}]);
        let specs: Vec<v2::MetricSpec> = serde_json::from_value(spec).unwrap();
        let statuses: Vec<v2::MetricStatus> = serde_json::from_value(status).unwrap();
        let texts: Vec<_> = specs.iter().zip(&statuses).map(|(a, b)| target_text(a, Some(b))).collect();
        assert_eq!(texts, ["cpu: 10%/50%", "1500m/2", "<unknown>/5", "3/7 (avg)"]);
        assert_eq!(target_text(&specs[0], None), "cpu: <unknown>/50%");
        assert_eq!(targets_text(&texts), "cpu: 10%/50%, 1500m/2 + 2 more...");
    }

    #[test]
    fn a_behavior_is_filled_once_any_of_it_is_given() {
        let mut behavior = serde_json::from_value(json!({"scaleDown": {"selectPolicy": "Min"}})).unwrap();
        default_behavior(&mut behavior);
        let body = serde_json::to_value(&behavior).unwrap();
        assert_eq!(
            body["scaleUp"]["policies"][1],
            json!({"type": "Percent", "value": 100, "periodSeconds": 15})
        );
        assert_eq!(body["scaleDown"]["selectPolicy"], "Min");
        assert_eq!(
            body["scaleDown"]["stabilizationWindowSeconds"],
            Value::Null,
            "the controller has a default"
        );
    }

    #[test]
    fn forms_convert_both_ways() {
        let own = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                "targetCPUUtilizationPercentage": 50}});
        let mut stored = Forms.to_stored(own.clone());
        assert_eq!(stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
        remove(&mut stored, "status");
        assert_eq!(Forms.restored(stored.clone()), own);
        let memory = json!({"type": "Resource", "resource": {"name": "memory",
            "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        stored["spec"]["metrics"].as_array_mut().unwrap().push(memory);
        let shown = Forms.restored(stored.clone());
        assert!(shown["metadata"]["annotations"][METRICS].as_str().unwrap().contains("memory"));
        let mut back = Forms.to_stored(shown);
        remove(&mut back, "status");
        back["metadata"] = stored["metadata"].clone();
        assert_eq!(back, stored);
    }
}
