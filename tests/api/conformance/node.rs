//! `[sig-node]`: what the API alone says of pods, their templates and classes, configuration, leases and devices.

use serde_json::{Value, json};

use super::crud::{Life, includes};
use super::{count, patch, post, put, send_as};
use crate::server::TestServer;

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn server() -> TestServer {
    let server = TestServer::start().await;
    post(&server, "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    server
}

fn pod(name: &str, more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "agnhost", "image": "agnhost"}]});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

async fn lives(group: &str, resource: &str, object: Value, change: Value, status: Value) {
    let server = server().await;
    Life { group, resource, object, change, status }.play(&server, "node").await;
}

#[tokio::test]
async fn a_config_map_runs_through_its_lifecycle() {
    let change = json!({"data": {"valueName": "value1"}});
    let object = json!({"data": {"valueName": "value"}});
    lives("/api/v1", "namespaces/default/configmaps", object, change, Value::Null).await;
}

#[tokio::test]
async fn config_maps_and_secrets_with_an_empty_key_are_refused() {
    let server = server().await;
    for (plural, value) in [("configmaps", "value-1"), ("secrets", "dmFsdWUtMQ==")] {
        let object = json!({"metadata": {"name": "empty-key"}, "data": {"": value}});
        let path = format!("/api/v1/namespaces/default/{plural}");
        let (code, status) = server.send("POST", &path, Some(object)).await;
        assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{status}");
    }
}

/// `[sig-node] Secrets should patch a secret`: its data too, and it is found and deleted by its label.
#[tokio::test]
async fn a_secret_is_patched_and_found_in_all_namespaces() {
    let server = server().await;
    let path = "/api/v1/namespaces/default/secrets";
    let object = json!({"metadata": {"name": "secret-test", "labels": {"testsecret-constant": "true"}},
        "type": "Opaque", "data": {"key": "dmFsdWU="}});
    post(&server, path, object).await;
    let change = json!({"metadata": {"labels": {"testsecret": "true"}}, "data": {"key": "dmFsdWUx"}});
    let strategic = ("application/strategic-merge-patch+json", "application/json");
    let (code, _, patched) =
        send_as(&server, ("PATCH", &format!("{path}/secret-test")), strategic, change.to_string()).await;
    assert_eq!((code, &patched["data"]["key"]), (200, &json!("dmFsdWUx")));
    let everywhere = "/api/v1/secrets?labelSelector=testsecret%3Dtrue";
    assert_eq!(count(&server, everywhere).await, 1);
    let selected = format!("{path}?labelSelector=testsecret%3Dtrue");
    assert_eq!(server.send("DELETE", &selected, None).await.0, 200);
    assert_eq!(count(&server, everywhere).await, 0);
}

#[tokio::test]
async fn the_lease_api_is_available() {
    let spec = json!({"holderIdentity": "holder", "leaseDurationSeconds": 30, "acquireTime": "2026-01-01T00:00:00.000000Z",
        "renewTime": "2026-01-01T00:00:05.000000Z", "leaseTransitions": 0});
    let change = json!({"spec": {"holderIdentity": "holder2", "leaseDurationSeconds": 60, "leaseTransitions": 1,
        "renewTime": "2026-01-01T00:00:05.123456Z"}});
    let path = "namespaces/default/leases";
    lives("/apis/coordination.k8s.io/v1", path, json!({"spec": spec}), change, Value::Null).await;
}

#[tokio::test]
async fn pod_templates_run_through_their_lifecycle() {
    let template = json!({"metadata": {"labels": {"app": "pt"}}, "spec": {"containers": [{"name": "nginx", "image": "nginx"}]}});
    let change = json!({"template": {"metadata": {"annotations": {"updated": "true"}}}});
    lives("/api/v1", "namespaces/default/podtemplates", json!({"template": template}), change, Value::Null)
        .await;
}

#[tokio::test]
async fn runtime_classes_support_api_operations() {
    let change = json!({"overhead": {"podFixed": {"cpu": "10m"}}});
    lives("/apis/node.k8s.io/v1", "runtimeclasses", json!({"handler": "handler"}), change, Value::Null).await;
}

#[tokio::test]
async fn pods_are_rejected_whose_runtime_class_is_not_there_and_get_the_overhead_of_one_that_is() {
    let server = server().await;
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    let overhead = json!({"podFixed": {"cpu": "10m", "memory": "1Mi"}});
    let heavy = json!({"metadata": {"name": "heavy"}, "handler": "test-handler", "overhead": overhead});
    for class in [heavy, json!({"metadata": {"name": "plain"}, "handler": "test-handler"})] {
        post(&server, classes, class).await;
    }
    let made = post(&server, PODS, pod("heavy", json!({"runtimeClassName": "heavy"}))).await;
    assert_eq!(made["spec"]["overhead"], overhead["podFixed"]);
    let made = post(&server, PODS, pod("plain", json!({"runtimeClassName": "plain"}))).await;
    assert!(made["spec"]["overhead"].is_null(), "{made}");
    assert_eq!(server.send("DELETE", &format!("{classes}/plain"), None).await.0, 200);
    for class in ["plain", "nonexistent"] {
        let (code, status) =
            server.send("POST", PODS, Some(pod("late", json!({"runtimeClassName": class})))).await;
        assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")), "{status}");
    }
}

#[tokio::test]
async fn sysctls_whose_names_are_invalid_are_refused_by_name() {
    let server = server().await;
    let sysctls: Vec<Value> = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."]
        .into_iter()
        .map(|name| json!({"name": name, "value": "100000000"}))
        .collect();
    let (code, status) = server
        .send("POST", PODS, Some(pod("sysctls", json!({"securityContext": {"sysctls": sysctls}}))))
        .await;
    let text = status["message"].as_str().unwrap();
    assert_eq!(code, 422, "{text}");
    for (part, there) in [
        ("Invalid value: \"foo-\"", true),
        ("Invalid value: \"bar..\"", true),
        ("safe-and-unsafe", false),
        ("kernel.shmmax", false),
    ] {
        assert_eq!(text.contains(part), there, "{part}: {text}");
    }
}

#[tokio::test]
async fn the_qos_class_is_set_when_the_pod_is_made() {
    let server = server().await;
    let resources =
        json!({"limits": {"cpu": "100m", "memory": "100Mi"}, "requests": {"cpu": "100m", "memory": "100Mi"}});
    let container = json!({"name": "agnhost", "image": "agnhost", "resources": resources});
    let made = post(&server, PODS, pod("qos", json!({"containers": [container]}))).await;
    assert_eq!(made["status"]["qosClass"], "Guaranteed");
}

#[tokio::test]
async fn a_pods_status_is_patched_and_replaced() {
    let server = server().await;
    post(&server, PODS, pod("status", json!({}))).await;
    let status = format!("{PODS}/status/status");
    let change = json!({"metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"message": "Patched by e2e test", "reason": "E2E"}});
    let strategic = ("application/strategic-merge-patch+json", "application/json");
    let (code, _, patched) = send_as(&server, ("PATCH", &status), strategic, change.to_string()).await;
    assert_eq!(code, 200, "{patched}");
    assert!(includes(
        &patched["status"],
        &json!({"message": "Patched by e2e test", "reason": "E2E", "phase": "Pending"})
    ));
    let ready = |status: &str| json!([{"type": "Ready", "status": status}, {"type": "ContainersReady", "status": status}]);
    let mut object = patched;
    for value in ["True", "False"] {
        object["status"]["conditions"] = ready(value);
        object = put(&server, &status, object).await;
        assert!(includes(&object["status"]["conditions"], &ready(value)), "{object}");
    }
    // A gate is a condition of its own beside the others.
    let gate = json!({"status": {"conditions": [{"type": "k8s.io/test-condition1", "status": "True"}]}});
    let (_, _, gated) = send_as(&server, ("PATCH", &status), strategic, gate.to_string()).await;
    assert_eq!(gated["status"]["conditions"].as_array().unwrap().len(), 3, "{gated}");
}

#[tokio::test]
async fn a_pods_generation_starts_at_one_and_grows_with_its_spec_alone() {
    let server = server().await;
    let mut own = pod("generation", json!({"initContainers": [{"name": "init", "image": "busybox"}]}));
    own["metadata"]["generation"] = 100.into();
    let made = post(&server, PODS, own).await;
    assert_eq!(made["metadata"]["generation"], 1);
    let toleration = json!({"key": "foo", "operator": "Equal", "value": "bar", "effect": "NoSchedule"});
    let mut tolerations = made["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    tolerations.push(toleration);
    let one = format!("{PODS}/generation");
    let mut generation = 1;
    for (what, pointer, value, bumps) in [
        ("nothing", "", Value::Null, false),
        ("tolerations", "/spec/tolerations", json!(tolerations), true),
        ("the deadline", "/spec/activeDeadlineSeconds", json!(5000), true),
        ("an image", "/spec/containers/0/image", json!("nginx"), true),
        ("an image of an init container", "/spec/initContainers/0/image", json!("pause"), true),
        ("metadata", "/metadata/annotations", json!({"key": "value"}), false),
        ("the generation", "/metadata/generation", json!(1), false),
    ] {
        let (_, mut object) = server.send("GET", &one, None).await;
        if let Some((parent, field)) = pointer.rsplit_once('/') {
            object.pointer_mut(parent).unwrap()[field] = value;
        }
        let updated = put(&server, &one, object).await;
        generation += i64::from(bumps);
        assert_eq!(updated["metadata"]["generation"], generation, "{what}");
    }
}

#[tokio::test]
async fn a_graceful_deletion_is_a_new_generation() {
    let server = server().await;
    post(&server, PODS, pod("graceful", json!({}))).await;
    let binding = json!({"target": {"kind": "Node", "name": "node-1"}});
    post(&server, &format!("{PODS}/graceful/binding"), binding).await;
    let one = format!("{PODS}/graceful");
    let (code, deleted) = server.send("DELETE", &format!("{one}?gracePeriodSeconds=60"), None).await;
    assert_eq!((code, &deleted["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(60)), "{deleted}");
    assert!(deleted["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(server.send("GET", &one, None).await.1["metadata"]["generation"], 2);
}

#[tokio::test]
async fn ephemeral_containers_are_added_by_patch_and_by_update() {
    let server = server().await;
    post(&server, PODS, pod("ephemeral", json!({}))).await;
    let path = format!("{PODS}/ephemeral/ephemeralcontainers");
    let debugger = json!({"name": "e2e-debugger", "image": "busybox", "command": ["/bin/sh"], "stdin": true, "tty": true});
    let change = json!({"spec": {"ephemeralContainers": [debugger]}});
    let strategic = ("application/strategic-merge-patch+json", "application/json");
    let (code, _, patched) = send_as(&server, ("PATCH", &path), strategic, change.to_string()).await;
    assert_eq!(
        (code, &patched["spec"]["ephemeralContainers"][0]["name"]),
        (200, &json!("e2e-debugger")),
        "{patched}"
    );
    let mut object = server.send("GET", &path, None).await.1;
    let second = json!({"name": "e2e-debugger2", "image": "busybox", "command": ["/bin/sh"]});
    object["spec"]["ephemeralContainers"].as_array_mut().unwrap().push(second);
    let updated = put(&server, &path, object).await;
    assert_eq!(updated["spec"]["ephemeralContainers"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_node_runs_through_its_lifecycle() {
    let ready = json!({"type": "Ready", "status": "True", "reason": "E2E", "message": "Set from e2e test"});
    let object =
        json!({"spec": {"unschedulable": true}, "status": {"phase": "Running", "conditions": [ready]}});
    lives("/api/v1", "nodes", object, Value::Null, json!({"phase": "Running"})).await;
}

fn request() -> Value {
    json!({"devices": {"requests": [{"name": "req-0", "exactly": {"deviceClassName": "dra.example.com"}}]}})
}

/// `[sig-node] [DRA] CRUD Tests`, all four kinds.
#[tokio::test]
async fn kinds_of_devices_support_api_operations() {
    let group = "/apis/resource.k8s.io/v1";
    let selector = |expression: &str| json!({"spec": {"selectors": [{"cel": {"expression": expression}}]}});
    lives(group, "deviceclasses", selector("false"), selector("1 == 0"), Value::Null).await;
    let claims = "namespaces/default/resourceclaims";
    lives(group, claims, json!({"spec": request()}), Value::Null, json!({"allocation": {}})).await;
    let templates = "namespaces/default/resourceclaimtemplates";
    lives(group, templates, json!({"spec": {"spec": request()}}), Value::Null, Value::Null).await;
    let pool = json!({"name": "cluster", "generation": 1, "resourceSliceCount": 1});
    let spec = json!({"driver": "dra.example.com", "pool": pool, "nodeName": "no-such-node"});
    let change = json!({"spec": {"devices": [{"name": "device-0"}]}});
    lives(group, "resourceslices", json!({"spec": spec}), change, Value::Null).await;
}

#[tokio::test]
async fn a_collection_of_pods_is_deleted_by_label() {
    let server = server().await;
    for name in ["test-pod-1", "test-pod-2", "test-pod-3"] {
        let mut own = pod(name, json!({"terminationGracePeriodSeconds": 1}));
        own["metadata"]["labels"] = json!({"type": "Testing"});
        post(&server, PODS, own).await;
    }
    let one = format!("{PODS}/test-pod-1");
    let renamed = patch(&server, &one, json!({"metadata": {"labels": {"time": "2"}}})).await;
    assert_eq!(renamed["metadata"]["labels"]["time"], "2");
    let selected = format!("{PODS}?labelSelector=type%3DTesting");
    let (code, _) = server.send("DELETE", &format!("{selected}&gracePeriodSeconds=1"), None).await;
    assert_eq!((code, count(&server, &selected).await), (200, 0));
}
