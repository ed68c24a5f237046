//! The objects that are written: a ConfigMap and a pod of about 1.4 KB each, and where they live.

use serde_json::{Value, json};

/// Where everything is made.
pub const NAMESPACE: &str = "load";

/// A collection in [`NAMESPACE`].
pub fn collection(plural: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{plural}")
}

/// A ConfigMap whose data is about `size` bytes.
pub fn config_map(name: &str, size: usize, round: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "load", "round": round}},
        "data": {"payload": "x".repeat(size)},
    })
}

/// A pod like those of a small web service, about 1.4 KB when stored.
pub fn pod(name: &str) -> Value {
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"app": "load", "tier": "web", "version": "v1"},
            "annotations": {"example.com/owner": "the team that runs the load generator"},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "web",
                "image": "registry.example.com/team/web:1.2.3",
                "ports": [{"containerPort": 8080, "name": "http"}],
                "env": [{"name": "LEVEL", "value": "info"}, {"name": "REGION", "value": "north"}],
                "resources": {
                    "requests": {"cpu": "10m", "memory": "16Mi"},
                    "limits": {"cpu": "100m", "memory": "32Mi"},
                },
                "readinessProbe": probe,
                "livenessProbe": probe,
            }],
        },
    })
}
