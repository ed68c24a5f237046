//! How pods are printed.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::registry::table::duration::age;
use crate::registry::table::{AGE, Column, NAME, column, wide};

/// The columns of pods.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "The aggregate readiness state of this pod for accepting traffic."),
    column("Status", "string", "The aggregate status of the containers in this pod."),
    column("Restarts", "string", "How often the containers of this pod have been restarted, and when last."),
    AGE,
    wide("IP", "string", "Address of the pod."),
    wide("Node", "string", "Node that runs the pod."),
    wide("Nominated Node", "string", "Node that makes room for the pod."),
    wide(
        "Readiness Gates",
        "string",
        "Conditions besides containers that make the pod ready, and how many hold.",
    ),
];

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i32,
    last_restart: Option<Timestamp>,
}

/// The cells of one pod.
pub fn cells(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let mut restarts = summary.restarts.to_string();
    if let Some(at) = summary.last_restart.filter(|_| summary.restarts > 0) {
        restarts = format!("{restarts} ({} ago)", age(Some(at), now));
    }
    let or_none =
        |text: Option<&String>| text.filter(|t| !t.is_empty()).map_or("<none>", String::as_str).to_owned();
    let status = pod.status.as_ref();
    vec![
        pod.metadata.name.clone().into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod.metadata.creation_timestamp.as_ref().map(|t| t.0), now).into(),
        or_none(status.and_then(|s| s.pod_ip.as_ref())).into(),
        or_none(pod.spec.as_ref().and_then(|s| s.node_name.as_ref())).into(),
        or_none(status.and_then(|s| s.nominated_node_name.as_ref())).into(),
        gates(pod).into(),
    ]
}

fn gates(pod: &Pod) -> String {
    let gates: Vec<_> = pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten()).collect();
    if gates.is_empty() {
        return "<none>".into();
    }
    let holds = |kind: &str| {
        let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.any(|c| c.type_ == kind && c.status == "True")
    };
    format!("{}/{}", gates.iter().filter(|g| holds(&g.condition_type)).count(), gates.len())
}

fn summarize(pod: &Pod) -> Summary {
    let empty = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&empty);
    let spec = pod.spec.as_ref();
    let phase = status.phase.clone().unwrap_or_default();
    let init: &[Container] = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let is_sidecar =
        |name: &str| init.iter().any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"));
    let sidecars = init.iter().filter(|c| is_sidecar(&c.name)).count();
    let mut out = Summary {
        ready: 0,
        total: spec.map_or(0, |s| s.containers.len()) + sidecars,
        reason: status.reason.clone().filter(|r| !r.is_empty()).unwrap_or(phase.clone()),
        restarts: 0,
        last_restart: None,
    };
    let condition = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind);
    if condition("PodScheduled").is_some_and(|c| c.reason.as_deref() == Some("SchedulingGated")) {
        out.reason = "SchedulingGated".into();
    }
    let initializing = initialize(&mut out, status, init, &is_sidecar);
    if !initializing || condition("Initialized").is_some_and(|c| c.status == "True") {
        run(&mut out, status, &is_sidecar);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        if status.reason.as_deref() == Some("NodeLost") {
            out.reason = "Unknown".into();
        } else if !matches!(phase.as_str(), "Succeeded" | "Failed") {
            out.reason = "Terminating".into();
        }
    }
    out
}

fn ended_at(status: &ContainerStatus) -> Option<Timestamp> {
    status.last_state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0)
}

fn count(out: &mut Summary, status: &ContainerStatus) {
    out.restarts += status.restart_count;
    out.last_restart = out.last_restart.max(ended_at(status));
}

/// Why a container that has ended did so.
fn end_reason(reason: Option<&String>, signal: Option<i32>, code: i32) -> String {
    match (reason.filter(|r| !r.is_empty()), signal.unwrap_or(0)) {
        (Some(reason), _) => reason.clone(),
        (None, 0) => format!("ExitCode:{code}"),
        (None, signal) => format!("Signal:{signal}"),
    }
}

/// Looks at init containers; the result says whether one of them still runs or has failed.
fn initialize(
    out: &mut Summary,
    status: &PodStatus,
    init: &[Container],
    is_sidecar: &impl Fn(&str) -> bool,
) -> bool {
    for (i, container) in status.init_container_statuses.iter().flatten().enumerate() {
        count(out, container);
        let sidecar = is_sidecar(&container.name);
        let state = container.state.as_ref();
        let terminated = state.and_then(|s| s.terminated.as_ref());
        if terminated.is_some_and(|t| t.exit_code == 0) {
            continue;
        }
        if sidecar && container.started == Some(true) {
            if container.ready {
                out.ready += 1;
            }
            continue;
        }
        let waiting = state.and_then(|s| s.waiting.as_ref()).and_then(|w| w.reason.as_ref());
        out.reason = match (terminated, waiting.filter(|r| !r.is_empty() && *r != "PodInitializing")) {
            (Some(t), _) => format!("Init:{}", end_reason(t.reason.as_ref(), t.signal, t.exit_code)),
            (None, Some(reason)) => format!("Init:{reason}"),
            (None, None) => format!("Init:{i}/{}", init.len()),
        };
        return true;
    }
    false
}

fn run(out: &mut Summary, status: &PodStatus, is_sidecar: &impl Fn(&str) -> bool) {
    out.restarts = 0;
    out.last_restart = None;
    for container in status.init_container_statuses.iter().flatten().filter(|c| is_sidecar(&c.name)) {
        count(out, container);
    }
    let mut running = false;
    for container in status.container_statuses.iter().flatten().rev() {
        count(out, container);
        let state = container.state.as_ref();
        let waiting = state.and_then(|s| s.waiting.as_ref()).and_then(|w| w.reason.as_ref());
        if let Some(reason) = waiting.filter(|r| !r.is_empty()) {
            out.reason.clone_from(reason);
        } else if let Some(t) = state.and_then(|s| s.terminated.as_ref()) {
            out.reason = end_reason(t.reason.as_ref(), t.signal, t.exit_code);
        } else if container.ready && state.is_some_and(|s| s.running.is_some()) {
            running = true;
            out.ready += 1;
        }
    }
    if out.reason == "Completed" && running {
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        out.reason = if ready { "Running".into() } else { "NotReady".into() };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(pod: Value) -> Vec<String> {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        cells(&pod, now).iter().map(|cell| cell.as_str().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn a_running_pod_shows_readiness_and_restarts() {
        let pod = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": "10.42.0.2", "containerStatuses": [
                {"name": "c", "ready": true, "restartCount": 1, "image": "", "imageID": "",
                 "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:09:55Z"}}}]}});
        assert_eq!(
            shown(pod),
            ["a", "1/1", "Running", "1 (5s ago)", "10m", "10.42.0.2", "n", "<none>", "<none>"]
        );
    }

    #[test]
    fn the_status_tells_what_goes_wrong() {
        let container = |state: Value| {
            json!({"phase": "Running", "containerStatuses": [
            {"name": "c", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state}]})
        };
        let init = |state: Value| {
            json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state}]})
        };
        let cases = [
            (container(json!({"waiting": {"reason": "CrashLoopBackOff"}})), "CrashLoopBackOff"),
            (container(json!({"terminated": {"exitCode": 3}})), "ExitCode:3"),
            (container(json!({"terminated": {"exitCode": 0, "reason": "Completed"}})), "Completed"),
            (init(json!({"running": {}})), "Init:0/1"),
            (init(json!({"waiting": {"reason": "ErrImagePull"}})), "Init:ErrImagePull"),
            (init(json!({"terminated": {"exitCode": 1, "reason": "Error"}})), "Init:Error"),
            (json!({"phase": "Pending"}), "Pending"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
        ];
        for (status, expected) in cases {
            let pod = json!({"metadata": {"name": "a"}, "status": status,
                "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}});
            assert_eq!(shown(pod)[2], expected, "{status}");
        }
        let dying = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": []}, "status": {"phase": "Running"}});
        assert_eq!(shown(dying)[2], "Terminating");
    }
}
