//! The decisions of the DaemonSet controller: objects in, names of nodes and pods out.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::place::{self, Fit};
use super::plan::{self, Input, Plan};
use super::status;
use crate::controllers::workload::pods::tests::at;

fn set(strategy: Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "ds", "namespace": "default", "uid": "u", "generation": 3},
        "spec": {"selector": {"matchLabels": {"app": "ds"}}, "updateStrategy": strategy, "minReadySeconds": 5,
                 "template": {"metadata": {"labels": {"app": "ds"}}, "spec": {"nodeSelector": {"pool": "a"},
                              "containers": [{"name": "c"}]}}},
    }))
    .unwrap()
}

fn node(name: &str, pool: &str, taints: Value) -> Arc<Node> {
    let node = json!({"metadata": {"name": name, "labels": {"pool": pool}}, "spec": {"taints": taints}});
    Arc::new(serde_json::from_value(node).unwrap())
}

fn nodes(count: usize) -> Vec<Arc<Node>> {
    (0..count).map(|i| node(&format!("n{i}"), "a", json!([]))).collect()
}

/// A pod of revision `hash` on a node, running and ready since second `ready`.
fn pod(name: &str, node: &str, hash: &str, ready: Option<i64>) -> Pod {
    let mut pod = place::pod_for(&set(Value::Null), node, hash);
    let other = crate::controllers::workload::pods::tests::pod(name, "Running", ready);
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.uid = other.metadata.uid;
    pod.metadata.creation_timestamp = other.metadata.creation_timestamp;
    pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
    pod.status = other.status;
    pod
}

fn planned(set: &DaemonSet, nodes: &[Arc<Node>], pods: Vec<Pod>) -> (Vec<String>, Vec<String>) {
    let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
    let Plan { create, delete, ended } =
        plan::plan(&Input { set, hash: "new", nodes, pods: &pods, now: at(100) });
    let names = delete.into_iter().chain(ended).map(|pod| pod.metadata.name.clone().unwrap());
    (create, names.collect())
}

fn deleting(mut pod: Pod) -> Pod {
    pod.metadata.deletion_timestamp = Some(Time(at(0)));
    pod
}

fn finished(mut pod: Pod, phase: &str) -> Pod {
    pod.status.as_mut().unwrap().phase = Some(phase.to_owned());
    pod
}

#[test]
fn nodes_are_judged_by_labels_and_taints() {
    let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
    for (pool, taints, expected) in [
        ("a", json!([]), Fit::Run),
        ("b", json!([]), Fit::Leave),
        ("a", taint("mine", "NoSchedule"), Fit::Stay),
        ("a", taint("mine", "NoExecute"), Fit::Leave),
        ("a", taint("mine", "PreferNoSchedule"), Fit::Run),
        ("a", taint("node.kubernetes.io/unschedulable", "NoSchedule"), Fit::Run),
        ("a", taint("node.kubernetes.io/unreachable", "NoExecute"), Fit::Run),
        ("a", taint("node.kubernetes.io/network-unavailable", "NoSchedule"), Fit::Stay),
    ] {
        assert_eq!(
            place::fit(&set(Value::Null), &node("n", pool, taints.clone())),
            expected,
            "{pool} {taints}"
        );
    }
}

#[test]
fn a_pod_is_bound_to_its_node_and_keeps_what_else_it_prefers() {
    let set = set(Value::Null);
    let pod = place::pod_for(&set, "n7", "h");
    assert_eq!(place::node_of(&pod), Some("n7"));
    assert!(place::is_updated(&set, &pod, "h") && !place::is_updated(&set, &pod, "other"));
    let mut numbered = set.clone();
    let generation = ("deprecated.daemonset.template.generation".to_owned(), "3".to_owned());
    numbered.metadata.annotations = Some([generation].into());
    let of_generation = place::pod_for(&numbered, "n7", "h");
    assert!(place::is_updated(&numbered, &of_generation, "other"), "the same template under another hash");
    assert!(!place::is_updated(&numbered, &pod, "other"));
    let spec = pod.spec.unwrap();
    assert_eq!((spec.node_name, spec.tolerations.unwrap().len()), (None, 6));
}

#[test]
fn every_suitable_node_gets_one_pod_and_no_other_node_keeps_one() {
    let all = [node("a1", "a", json!([])), node("a2", "a", json!([])), node("b1", "b", json!([]))];
    let pods = vec![pod("x", "a2", "new", Some(0)), pod("y", "b1", "new", Some(0))];
    assert_eq!(planned(&set(Value::Null), &all, pods), (vec!["a1".into()], vec!["y".into()]));
    let twice = vec![pod("p2", "n0", "new", Some(0)), pod("p1", "n0", "new", Some(0))];
    assert_eq!(planned(&set(Value::Null), &nodes(1), twice), (vec![], vec!["p2".into()]));
}

#[test]
fn a_node_waits_for_the_end_of_its_old_pod() {
    let going = vec![deleting(pod("x", "n0", "new", Some(0)))];
    assert_eq!(planned(&set(Value::Null), &nodes(1), going), (vec![], vec![]));
}

#[test]
fn ended_pods_are_removed_so_that_others_follow() {
    for phase in ["Failed", "Succeeded"] {
        let pods = vec![finished(pod("x", "n0", "new", None), phase)];
        assert_eq!(planned(&set(Value::Null), &nodes(1), pods), (vec![], vec!["x".into()]), "{phase}");
    }
}

#[test]
fn a_rolling_update_replaces_broken_pods_first_and_keeps_to_max_unavailable() {
    let rolling =
        set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2, "maxSurge": 0}}));
    let old = |name: &str, node: &str, ready| pod(name, node, "old", ready);
    let pods =
        vec![old("a", "n0", Some(0)), old("b", "n1", None), old("c", "n2", Some(0)), old("d", "n3", Some(0))];
    assert_eq!(planned(&rolling, &nodes(4), pods).1, ["b", "a"]);
    let pods = vec![
        pod("a2", "n0", "new", None),
        pod("b2", "n1", "new", Some(98)),
        old("c", "n2", Some(0)),
        old("d", "n3", Some(0)),
    ];
    assert!(planned(&rolling, &nodes(4), pods).1.is_empty(), "two new pods are not available yet");
}

#[test]
fn a_surging_update_starts_new_pods_first() {
    let surging =
        set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}));
    let old = vec![pod("a", "n0", "old", Some(0)), pod("b", "n1", "old", Some(0))];
    assert_eq!(planned(&surging, &nodes(2), old.clone()), (vec!["n0".into()], vec![]));
    let with = |ready| [old.clone(), vec![pod("a2", "n0", "new", ready)]].concat();
    assert_eq!(planned(&surging, &nodes(2), with(None)), (vec![], vec![]));
    assert_eq!(planned(&surging, &nodes(2), with(Some(0))), (vec![], vec!["a".into()]));
}

#[test]
fn on_delete_leaves_old_pods_alone() {
    let pods = vec![pod("a", "n0", "old", Some(0))];
    assert_eq!(planned(&set(json!({"type": "OnDelete"})), &nodes(1), pods), (vec![], vec![]));
}

#[test]
fn the_status_counts_nodes() {
    let all = [nodes(3), vec![node("b1", "b", json!([]))]].concat();
    let pods: Vec<_> =
        [pod("x", "n0", "new", Some(0)), pod("y", "n1", "old", Some(98)), pod("z", "b1", "old", Some(0))]
            .map(Arc::new)
            .into();
    let set = set(Value::Null);
    let input = Input { set: &set, hash: "new", nodes: &all, pods: &pods, now: at(100) };
    let status = status::status(&input);
    let counts = [
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_misscheduled,
        status.number_ready,
        status.updated_number_scheduled.unwrap(),
        status.number_available.unwrap(),
        status.number_unavailable.unwrap(),
    ];
    assert_eq!((counts, status.observed_generation), ([3, 2, 1, 2, 1, 1, 2], Some(3)));
    assert_eq!(super::status::recheck(&input).unwrap().as_secs(), 3);
}
