//! Nodes and pods for tests.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::pod_info::PodInfo;

/// A node with 4 CPUs, 8 GiB and room for 10 pods; `patch` is merged into it.
pub(crate) fn node(name: &str, patch: Value) -> Arc<Node> {
    let resources = json!({"cpu": "4", "memory": "8Gi", "pods": "10", "ephemeral-storage": "10Gi"});
    let mut body = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": resources, "capacity": resources},
    });
    json_patch::merge(&mut body, &patch);
    Arc::new(serde_json::from_value(body).unwrap())
}

/// A pod from a spec: `patch` is merged into a pod with one container and the label `app=web`.
pub(crate) fn pod_with(name: &str, patch: Value) -> Arc<PodInfo> {
    let mut body = json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"app": "web"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set", "controller": true}],
        },
        "spec": {"containers": [{"name": "c"}], "schedulerName": "default-scheduler"},
    });
    json_patch::merge(&mut body, &patch);
    PodInfo::new(Arc::new(serde_json::from_value(body).unwrap()))
}

/// A pending pod with these requests.
pub(crate) fn pod(name: &str, requests: Value) -> Arc<PodInfo> {
    pod_with(name, json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}}))
}

/// A pod with these requests on a node.
pub(crate) fn pod_on(name: &str, node: &str, requests: Value) -> Arc<PodInfo> {
    let containers = json!([{"name": "c", "resources": {"requests": requests}}]);
    pod_with(name, json!({"spec": {"nodeName": node, "containers": containers}}))
}

/// A cluster of these nodes and pods.
pub(crate) fn cluster(nodes: impl IntoIterator<Item = Arc<Node>>, pods: &[Arc<PodInfo>]) -> Cluster {
    let mut cluster = Cluster::default();
    nodes.into_iter().for_each(|node| cluster.set_node(node));
    pods.iter().for_each(|pod| cluster.place(pod.clone()));
    cluster
}
