//! The objects that are written: a ConfigMap and a pod of about 1.4 KB each, and where they live.

use serde_json::{Value, json};

/// Where everything is made.
pub const NAMESPACE: &str = "load";

/// A collection in [`NAMESPACE`].
pub fn collection(plural: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{plural}")
}

/// `size` characters in which nothing repeats, always the same for a seed: what nobody can make smaller by much.
fn noise(seed: &str, size: usize) -> String {
    let mut state = seed.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        char::from(
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(state >> 58) as usize],
        )
    };
    (0..size).map(|_| next()).collect()
}

/// A ConfigMap whose data is about `size` bytes; they stay the same from round to round.
pub fn config_map(name: &str, size: usize, round: &str) -> Value {
    config_map_with(name, round, noise(name, size))
}

/// The same with other data in each round.
pub fn changed_config_map(name: &str, size: usize, round: &str) -> Value {
    config_map_with(name, round, noise(&format!("{name} {round}"), size))
}

fn config_map_with(name: &str, round: &str, payload: String) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "load", "round": round}},
        "data": {"payload": payload},
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
