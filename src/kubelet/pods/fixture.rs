//! Pods and runtime reports for tests.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::kubelet::observed::{ObservedContainer, ObservedPod, ObservedSandbox, RunState};
use crate::kubelet::spec;

/// Second `n` of the test's time.
pub fn at(n: i64) -> Timestamp {
    Timestamp::from_second(n).unwrap()
}

/// A pod from its spec, in JSON.
pub fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
        "spec": spec,
    }))
    .unwrap()
}

/// Containers with these names and an image.
pub fn containers(names: &[&str]) -> serde_json::Value {
    names.iter().map(|n| serde_json::json!({"name": n, "image": "img"})).collect()
}

/// A container in sandbox `s1`.
pub fn container(name: &str, attempt: u32, state: RunState) -> ObservedContainer {
    let wanted = k8s_openapi::api::core::v1::Container {
        name: name.to_owned(),
        image: Some("img".to_owned()),
        ..Default::default()
    };
    let exited = state == RunState::Exited;
    ObservedContainer {
        id: format!("{name}-{attempt}"),
        name: name.to_owned(),
        attempt,
        sandbox_id: "s1".to_owned(),
        state,
        created_at: at(1),
        started_at: (state != RunState::Created).then(|| at(1)),
        finished_at: exited.then(|| at(2)),
        exit_code: 0,
        reason: if exited { "Completed".to_owned() } else { String::new() },
        message: String::new(),
        image: "img".to_owned(),
        image_id: "sha256:img".to_owned(),
        hash: spec::container_hash(&wanted),
        backoff: Duration::ZERO,
        grace: None,
        pre_stop: None,
        resources: None,
        user: None,
        log_path: String::new(),
    }
}

/// A container that ended with this code.
pub fn exited(name: &str, attempt: u32, code: i32) -> ObservedContainer {
    let reason = if code == 0 { "Completed" } else { "Error" };
    ObservedContainer { exit_code: code, reason: reason.into(), ..container(name, attempt, RunState::Exited) }
}

/// A container that runs.
pub fn running(name: &str) -> ObservedContainer {
    container(name, 0, RunState::Running)
}

/// A report with the ready sandbox `s1` and these containers.
pub fn observed(containers: Vec<ObservedContainer>) -> ObservedPod {
    let mut observed = ObservedPod { sandboxes: vec![sandbox("s1", true)], containers };
    observed.sort();
    observed
}

/// A sandbox.
pub fn sandbox(id: &str, ready: bool) -> ObservedSandbox {
    ObservedSandbox {
        id: id.to_owned(),
        attempt: 0,
        ready,
        created_at: at(1),
        ips: vec!["10.42.0.5".to_owned()],
    }
}

/// A configuration for the node `n1`.
pub fn config() -> crate::kubelet::KubeletConfig {
    let server = crate::kubelet::ServerConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        cert_pem: Vec::new(),
        key_pem: Vec::new(),
        client_ca_pem: Vec::new(),
    };
    let ip = "192.168.0.7".parse().unwrap();
    let mut config = crate::kubelet::KubeletConfig::new("n1", ip, "/root-dir".into(), server);
    config.log_dir = "/logs".into();
    config
}

/// A running container in a runtime, for tests of what happens in one; returns its id.
pub async fn running_in(runtime: &crate::cri::fake::FakeRuntime) -> String {
    running_with(runtime, &[]).await
}

/// The same with labels.
pub async fn running_with(runtime: &crate::cri::fake::FakeRuntime, labels: &[(&str, &str)]) -> String {
    use crate::cri::{Runtime as _, v1};
    let metadata = v1::PodSandboxMetadata { name: "web".into(), uid: "u1".into(), ..Default::default() };
    let sandbox = v1::PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
    let sandbox_id = runtime.run_pod_sandbox(sandbox.clone(), "").await.unwrap();
    runtime.add_image("img:1");
    let config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "a".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: "img:1".into(), ..Default::default() }),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..Default::default()
    };
    let id = runtime.create_container(&sandbox_id, config, sandbox).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    id
}
