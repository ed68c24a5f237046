//! Tables of what is proposed and of how it is followed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerSpec;
use k8s_openapi::api::core::v1::Pod;

use serde_json::{Value, json};

use super::behavior::{History, normalize, tolerance};
use super::calculate::{
    Goal, Proposal, Sample, Samples, Tolerance, propose, propose_for_ratio, propose_per_pod, requests,
};
use crate::controllers::workload::pods::tests::{at, pod};

/// Pods `p0…` that have long been ready, each with a sample where one is given.
fn measured(values: &[Option<i64>]) -> (Vec<Arc<Pod>>, Samples) {
    let (mut pods, mut samples) = (Vec::new(), Samples::new());
    for (i, value) in values.iter().enumerate() {
        let mut pod = pod(&format!("p{i}"), "Running", Some(0));
        pod.status.as_mut().unwrap().start_time = pod.metadata.creation_timestamp.clone();
        if let Some(value) = value {
            let sample = Sample { value: *value, at: at(1000), window: Duration::from_secs(30) };
            samples.insert(format!("p{i}"), sample);
        }
        pods.push(Arc::new(pod));
    }
    (pods, samples)
}

fn of_utilization(values: &[Option<i64>], percent: i32, request: i64) -> Result<Proposal, String> {
    let (pods, samples) = measured(values);
    let requests: BTreeMap<_, _> = (0..values.len()).map(|i| (format!("p{i}"), request)).collect();
    let goal = Goal::Utilization { percent, requests: &requests };
    let current = i32::try_from(values.len()).unwrap();
    propose(goal, &pods, samples, current, Tolerance::default(), true, at(1000))
}

#[test]
fn pods_are_proposed_in_proportion_to_their_use() {
    for (why, values, percent, expected) in [
        ("scale up", vec![Some(300), Some(500), Some(700)], 30, (5, 50)),
        ("scale down", vec![Some(100), Some(300), Some(500), Some(250), Some(250)], 50, (3, 28)),
        ("within the tolerance", vec![Some(1010), Some(1030), Some(1020)], 100, (3, 102)),
        ("a missing pod does not count upwards", vec![Some(900), Some(900), None], 50, (4, 90)),
        ("a missing pod counts fully downwards", vec![Some(100), Some(100), None], 50, (3, 10)),
        ("no change of direction", vec![Some(600), None, None], 50, (3, 60)),
    ] {
        let proposal = of_utilization(&values, percent, 1000).unwrap();
        assert_eq!((proposal.replicas, proposal.utilization.unwrap()), expected, "{why}");
    }
}

#[test]
fn pods_that_start_fail_or_go_do_not_count() {
    let (mut pods, samples) = measured(&[Some(900), Some(900), Some(900)]);
    let change = |pod: &mut Arc<Pod>, patch: Value| {
        let mut body = serde_json::to_value(pod.as_ref()).unwrap();
        json_patch::merge(&mut body, &patch);
        *pod = Arc::new(serde_json::from_value(body).unwrap());
    };
    change(&mut pods[0], json!({"status": {"phase": "Failed"}}));
    change(&mut pods[1], json!({"status": {"phase": "Pending"}}));
    let average = |pods: &[Arc<Pod>], is_cpu| {
        propose(Goal::Average(500), pods, samples.clone(), 3, Tolerance::default(), is_cpu, at(1000))
    };
    // One pod at 900 and one that counts as 0 need two.
    assert_eq!(average(&pods, true).map(|p| p.replicas), Ok(3), "down although up is wanted: nothing");
    let starting = json!({"status": {"startTime": "2023-11-14T22:28:20Z"}});
    change(&mut pods[2], json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}));
    change(&mut pods[2], starting);
    assert!(average(&pods, true).is_err(), "a pod that starts says nothing about processors");
    assert!(average(&pods, false).is_ok(), "but about everything else");
    assert!(average(&[], true).unwrap_err().starts_with("no pods returned by selector"));
}

#[test]
fn values_that_are_not_of_pods_are_shared_or_compared() {
    let (pods, _) = measured(&[None, None, None]);
    for (usage, current, expected) in [(2.0, 3, 6), (1.05, 3, 3), (0.5, 3, 2), (2.5, 0, 3)] {
        assert_eq!(propose_for_ratio(usage, &pods, current, Tolerance::default()), Ok(expected), "{usage}");
    }
    assert_eq!(propose_per_pod(10_000, 2_000, 3, Tolerance::default()), (5, 3334));
    assert_eq!(propose_per_pod(6_100, 2_000, 3, Tolerance::default()), (3, 2034));
}

#[test]
fn requests_are_those_of_containers_and_all_must_have_them() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "a", "resources": {"requests": {"cpu": "250m"}}},
                       {"name": "b", "resources": {"requests": {"cpu": "1"}}}],
        "initContainers": [{"name": "once"}, {"name": "side", "restartPolicy": "Always",
                            "resources": {"requests": {"cpu": "100m"}}}]}}))
    .unwrap();
    let pods = [Arc::new(pod)];
    assert_eq!(requests(&pods, "cpu", None).unwrap()["p"], 1350);
    assert_eq!(requests(&pods, "cpu", Some("a")).unwrap()["p"], 250);
    let missing = requests(&pods, "memory", None).unwrap_err();
    assert_eq!(missing, "missing request for memory in container a of Pod p");
}

fn spec(patch: Value) -> HorizontalPodAutoscalerSpec {
    let mut body =
        json!({"minReplicas": 2, "maxReplicas": 20, "scaleTargetRef": {"kind": "Deployment", "name": "d"}});
    json_patch::merge(&mut body, &patch);
    serde_json::from_value(body).unwrap()
}

#[test]
fn without_behavior_growth_is_doubling_and_shrinking_waits_five_minutes() {
    let spec = spec(json!({}));
    let mut history = History::default();
    history.begin(4, at(0));
    let mut step = |current, wanted, seconds| {
        let normal = normalize(&spec, &mut history, current, wanted, at(seconds));
        (normal.desired, normal.able.0, normal.limited.0, normal.limited.1)
    };
    assert_eq!(step(4, 15, 15), (8, "ReadyForNewScale", true, "ScaleUpLimit"));
    assert_eq!(step(8, 25, 30), (16, "ReadyForNewScale", true, "ScaleUpLimit"));
    assert_eq!(step(16, 25, 45), (20, "ReadyForNewScale", true, "TooManyReplicas"));
    assert_eq!(step(20, 3, 60), (20, "ScaleDownStabilized", true, "TooManyReplicas"));
    assert_eq!(step(20, 3, 400), (3, "ReadyForNewScale", false, "DesiredWithinRange"));
    assert_eq!(step(3, 1, 800), (2, "ReadyForNewScale", true, "TooFewReplicas"));
}

#[test]
fn behavior_limits_pods_and_percent_per_period() {
    let behavior = json!({"behavior": {
        "scaleUp": {"policies": [{"type": "Pods", "value": 3, "periodSeconds": 60}], "stabilizationWindowSeconds": 0},
        "scaleDown": {"policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
                      "stabilizationWindowSeconds": 0},
    }});
    let spec = spec(behavior);
    let mut history = History::default();
    history.begin(4, at(0));
    let mut step = |current, wanted, seconds| {
        let normal = normalize(&spec, &mut history, current, wanted, at(seconds));
        if normal.desired != current {
            history.scaled(current, normal.desired, at(seconds));
        }
        (normal.desired, normal.limited.1)
    };
    assert_eq!(step(4, 15, 10), (7, "ScaleUpLimit"));
    assert_eq!(step(7, 15, 20), (7, "ScaleUpLimit"), "the period's pods are used up");
    assert_eq!(step(7, 15, 80), (10, "ScaleUpLimit"));
    assert_eq!(step(10, 1, 200), (5, "ScaleDownLimit"));
    assert_eq!(step(5, 1, 210), (5, "ScaleDownLimit"));
    assert_eq!(step(5, 1, 300), (2, "TooFewReplicas"));
}

#[test]
fn behavior_steadies_and_can_be_switched_off() {
    let down = |rules: Value| spec(json!({"behavior": {"scaleDown": rules}}));
    let run = |spec: &HorizontalPodAutoscalerSpec, steps: &[(i32, i64)]| {
        let mut history = History::default();
        history.begin(10, at(0));
        let mut normal = None;
        for (wanted, seconds) in steps {
            normal = Some(normalize(spec, &mut history, 10, *wanted, at(*seconds)));
        }
        let normal = normal.unwrap();
        (normal.desired, normal.able.0)
    };
    assert_eq!(run(&down(json!({})), &[(5, 100)]), (10, "ScaleDownStabilized"), "five minutes by default");
    assert_eq!(run(&down(json!({})), &[(8, 100), (5, 350)]), (8, "ScaleDownStabilized"));
    assert_eq!(run(&down(json!({"stabilizationWindowSeconds": 0})), &[(5, 100)]), (5, "ReadyForNewScale"));
    let disabled = down(json!({"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}));
    assert_eq!(run(&disabled, &[(5, 100)]), (10, "ReadyForNewScale"));
    let up = spec(json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 60}}}));
    assert_eq!(run(&up, &[(11, 100), (15, 130)]), (11, "ScaleUpStabilized"));
    let tolerant = spec(json!({"behavior": {"scaleUp": {"tolerance": "300m"}}}));
    assert_eq!(tolerance(&tolerant), Tolerance { up: 0.3, down: 0.1 });
}
