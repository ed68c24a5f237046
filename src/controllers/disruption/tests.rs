//! The status of budgets.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::plan;
use crate::controllers::workload::pods::tests::{at, pod};

fn budget(spec: Value, disrupted: Value) -> PodDisruptionBudget {
    serde_json::from_value(json!({
        "metadata": {"name": "b", "namespace": "default", "generation": 2},
        "spec": spec, "status": {"disruptedPods": disrupted},
    }))
    .unwrap()
}

/// So many ready pods and so many that are not.
fn pods(ready: usize, other: usize) -> Vec<Arc<Pod>> {
    let state = |i: usize| if i < ready { Some(0) } else { None };
    (0..ready + other).map(|i| Arc::new(pod(&format!("p{i}"), "Running", state(i)))).collect()
}

#[test]
fn numbers_and_percentages_become_allowed_disruptions() {
    for (spec, scale, ready, other, expected) in [
        (json!({"minAvailable": 2}), None, 3, 0, [3, 2, 3, 1]),
        (json!({"minAvailable": 2}), None, 1, 2, [1, 2, 3, 0]),
        (json!({"minAvailable": "50%"}), Some(5), 5, 0, [5, 3, 5, 2]),
        (json!({"maxUnavailable": 1}), Some(3), 3, 0, [3, 2, 3, 1]),
        (json!({"maxUnavailable": "30%"}), Some(4), 4, 0, [4, 2, 4, 2]),
        (json!({"maxUnavailable": 5}), Some(3), 3, 0, [3, 0, 3, 3]),
        (json!({"minAvailable": 0}), None, 0, 0, [0, 0, 0, 0]),
    ] {
        let status = plan::plan(&budget(spec.clone(), json!({})), &pods(ready, other), scale, at(0)).status;
        let counts = [
            status.current_healthy,
            status.desired_healthy,
            status.expected_pods,
            status.disruptions_allowed,
        ];
        assert_eq!(counts.map(Option::unwrap), expected, "{spec} {ready} {other}");
        let condition = &status.conditions.unwrap()[0];
        assert_eq!(condition.status == "True", expected[3] > 0, "{spec}");
    }
}

#[test]
fn an_eviction_under_way_counts_as_gone_until_it_times_out() {
    let since = json!({"p0": Time(at(0)), "gone": Time(at(0))});
    let budget = budget(json!({"minAvailable": 1}), since);
    let soon = plan::plan(&budget, &pods(3, 0), None, at(20));
    assert_eq!((soon.status.current_healthy, soon.status.disruptions_allowed), (Some(2), Some(1)));
    assert_eq!(soon.requeue, Some(Duration::from_secs(100)));
    assert_eq!(soon.status.disrupted_pods.unwrap().len(), 1);
    let late = plan::plan(&budget, &pods(3, 0), None, at(120));
    assert_eq!((late.status.current_healthy, late.not_deleted), (Some(3), vec!["p0".to_owned()]));
    assert_eq!(late.status.disrupted_pods, None);
}

#[test]
fn what_cannot_be_computed_allows_nothing() {
    let status = plan::failed(&budget(json!({"maxUnavailable": 1}), json!({})), "why".into(), at(0));
    let condition = &status.conditions.as_ref().unwrap()[0];
    assert_eq!((status.disruptions_allowed, condition.reason.as_str()), (Some(0), "SyncFailed"));
}
