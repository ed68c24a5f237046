//! What users see of a pod in each of its situations.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus, ResourceRequirements};
use serde_json::{Value, json};

use super::derive::{View, derive};
use super::patch::patch;
use crate::kubelet::observed::ObservedPod;
use crate::kubelet::pods::fixture::*;
use crate::kubelet::pods::plan::StartFailure;
use crate::kubelet::pods::state::{Life, Stop, Why};

struct Case {
    pod: Pod,
    life: Life,
    observed: ObservedPod,
    crash_loop: BTreeMap<String, String>,
    failures: HashMap<String, StartFailure>,
    started: HashSet<String>,
    unready: HashSet<String>,
    actuated: BTreeMap<String, ResourceRequirements>,
    resize: Vec<PodCondition>,
}

fn case(spec: Value, observed: ObservedPod) -> Case {
    let started = observed.containers.iter().filter(|c| c.running()).map(|c| c.id.clone()).collect();
    Case {
        pod: pod(spec),
        life: Life::Active,
        observed,
        crash_loop: BTreeMap::new(),
        failures: HashMap::new(),
        started,
        unready: HashSet::new(),
        actuated: BTreeMap::new(),
        resize: Vec::new(),
    }
}

impl Case {
    fn derive(&self) -> PodStatus {
        let ips = ["192.168.0.7".parse::<IpAddr>().unwrap()];
        derive(&View {
            pod: &self.pod,
            life: &self.life,
            observed: &self.observed,
            crash_loop: &self.crash_loop,
            failures: &self.failures,
            started: &self.started,
            unready: &self.unready,
            actuated: &self.actuated,
            resize: &self.resize,
            node_ips: &ips,
            runtime_name: "containerd",
            now: at(100),
        })
    }

    fn stopped(mut self, why: Why) -> Self {
        self.life = Life::Stopped(Stop { why, grace: Duration::from_secs(30), since: at(50) });
        self
    }
}

fn conditions(status: &PodStatus) -> BTreeMap<String, (String, String)> {
    let list = status.conditions.iter().flatten();
    list.map(|c| (c.type_.clone(), (c.status.clone(), c.message.clone().unwrap_or_default()))).collect()
}

fn waiting(status: &PodStatus) -> (String, String) {
    let state = status.container_statuses.as_ref().unwrap()[0].state.clone().unwrap();
    let waiting = state.waiting.unwrap();
    (waiting.reason.unwrap(), waiting.message.unwrap_or_default())
}

#[test]
fn a_new_pod_is_pending_and_creating() {
    let status = case(json!({"containers": containers(&["a"])}), ObservedPod::default()).derive();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&status), ("ContainerCreating".into(), String::new()));
    let c = conditions(&status);
    assert_eq!(c["Ready"], ("False".into(), "containers with unready status: [a]".into()));
    assert_eq!(c["Initialized"].0, "True");
    assert_eq!(c["PodReadyToStartContainers"].0, "False");
    assert_eq!(c["PodScheduled"].0, "True");
    assert_eq!(status.host_ip.as_deref(), Some("192.168.0.7"));
    assert_eq!(status.start_time.unwrap().0, at(100));
}

#[test]
fn a_running_pod_is_ready_with_addresses() {
    let status = case(json!({"containers": containers(&["a"])}), observed(vec![running("a")])).derive();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.42.0.5"));
    let a = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!((a.ready, a.started, a.restart_count), (true, Some(true), 0));
    assert_eq!(a.container_id.as_deref(), Some("containerd://a-0"));
    assert!(conditions(&status).values().all(|(s, _)| s == "True"));
}

#[test]
fn a_failing_readiness_probe_unreadies_the_pod_but_keeps_it_running() {
    let mut case =
        case(json!({"containers": containers(&["a", "b"])}), observed(vec![running("a"), running("b")]));
    case.unready.insert("b-0".into());
    let status = case.derive();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(conditions(&status)["ContainersReady"].1, "containers with unready status: [b]");
}

#[test]
fn init_containers_hold_the_pod_pending() {
    let spec = json!({"initContainers": containers(&["i"]), "containers": containers(&["a"])});
    let status = case(spec, observed(vec![running("i")])).derive();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&status).0, "PodInitializing");
    assert_eq!(conditions(&status)["Initialized"].1, "containers with incomplete status: [i]");
}

#[test]
fn a_back_off_shows_why_and_what_ended() {
    let mut case = case(json!({"containers": containers(&["a"])}), observed(vec![exited("a", 3, 1)]));
    case.crash_loop.insert("a".into(), "back-off 10s".into());
    let status = case.derive();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(waiting(&status), ("CrashLoopBackOff".into(), "back-off 10s".into()));
    let a = &status.container_statuses.as_ref().unwrap()[0];
    let last = a.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((a.restart_count, last.exit_code, last.reason.as_deref()), (3, 1, Some("Error")));
}

#[test]
fn a_failed_start_shows_its_reason() {
    let mut case = case(json!({"containers": containers(&["a"])}), observed(vec![]));
    let failure = StartFailure { reason: "ErrImagePull".into(), message: "m".into(), retry_at: at(1) };
    case.failures.insert("a".into(), failure);
    let status = case.derive();
    assert_eq!(
        (status.phase.as_deref(), waiting(&status)),
        (Some("Pending"), ("ErrImagePull".into(), "m".into()))
    );
}

#[test]
fn ended_pods_succeed_or_fail() {
    for (codes, phase, reason) in [([0, 0], "Succeeded", "PodCompleted"), ([0, 1], "Failed", "PodFailed")] {
        let have = observed(vec![exited("a", 0, codes[0]), exited("b", 0, codes[1])]);
        let spec = json!({"restartPolicy": "Never", "containers": containers(&["a", "b"])});
        let status = case(spec, have).stopped(Why::Completed).derive();
        assert_eq!(status.phase.as_deref(), Some(phase));
        let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some(reason)));
    }
}

#[test]
fn a_final_phase_never_changes() {
    let mut case = case(json!({"containers": containers(&["a"])}), ObservedPod::default());
    case.pod.status = Some(PodStatus { phase: Some("Succeeded".into()), ..PodStatus::default() });
    assert_eq!(case.stopped(Why::Deleted).derive().phase.as_deref(), Some("Succeeded"));
}

#[test]
fn the_node_fails_a_pod_only_when_nothing_runs() {
    let why = Why::Failed { reason: "DeadlineExceeded".into(), message: "m".into() };
    let mut stopping = case(json!({"containers": containers(&["a"])}), observed(vec![running("a")]));
    stopping.life = Life::Stopping(Stop { why: why.clone(), grace: Duration::from_secs(1), since: at(99) });
    assert_eq!(stopping.derive().phase.as_deref(), Some("Running"));
    let stopped =
        case(json!({"containers": containers(&["a"])}), observed(vec![exited("a", 0, 137)])).stopped(why);
    let status = stopped.derive();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
}

#[test]
fn a_lost_container_of_a_deleted_pod_counts_as_killed() {
    let status = case(json!({"containers": containers(&["a"])}), ObservedPod::default())
        .stopped(Why::Deleted)
        .derive();
    let a = &status.container_statuses.as_ref().unwrap()[0];
    let end = a.state.clone().unwrap().terminated.unwrap();
    assert_eq!((end.exit_code, end.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    assert_eq!(status.phase.as_deref(), Some("Failed"));
}

#[test]
fn readiness_gates_count() {
    let spec = json!({"readinessGates": [{"conditionType": "x/y"}], "containers": containers(&["a"])});
    let mut case = case(spec, observed(vec![running("a")]));
    let missing = conditions(&case.derive());
    assert_eq!(missing["ContainersReady"].0, "True");
    assert!(missing["Ready"].1.contains("does not exist"));
    case.pod.status =
        serde_json::from_value(json!({"conditions": [{"type": "x/y", "status": "True"}]})).unwrap();
    assert_eq!(conditions(&case.derive())["Ready"].0, "True");
}

#[test]
fn transition_times_move_only_with_the_status() {
    let mut case = case(json!({"containers": containers(&["a"])}), observed(vec![running("a")]));
    case.pod.status = serde_json::from_value(json!({"conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:05Z"},
        {"type": "ContainersReady", "status": "False", "lastTransitionTime": "1970-01-01T00:00:05Z"}]}))
    .unwrap();
    let status = case.derive();
    let time = |t: &str| {
        let c = status.conditions.iter().flatten().find(|c| c.type_ == t).unwrap();
        c.last_transition_time.clone().unwrap().0.as_second()
    };
    assert_eq!((time("Ready"), time("ContainersReady")), (5, 100));
}

#[test]
fn patches_carry_only_changes_and_the_uid() {
    let before = case(json!({"containers": containers(&["a"])}), observed(vec![running("a")])).derive();
    assert_eq!(patch("u1", &before, &before), None);
    let mut after = before.clone();
    after.message = Some("m".into());
    after.reason = None;
    assert_eq!(
        patch("u1", &before, &after).unwrap(),
        json!({"metadata": {"uid": "u1"}, "status": {"message": "m"}})
    );
}

#[test]
fn patches_merge_lists_and_leave_foreign_conditions_alone() {
    let from: PodStatus = serde_json::from_value(json!({
        "podIPs": [{"ip": "10.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}, {"type": "x/y", "status": "True"}]}))
    .unwrap();
    let to: PodStatus = serde_json::from_value(json!({
        "podIPs": [{"ip": "10.0.0.2"}],
        "conditions": [{"type": "Ready", "status": "True"}]}))
    .unwrap();
    let patch = patch("u1", &from, &to).unwrap();
    assert_eq!(
        patch["status"]["podIPs"],
        json!([{"ip": "10.0.0.2"}, {"ip": "10.0.0.1", "$patch": "delete"}])
    );
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions, &[json!({"type": "Ready", "status": "True", "reason": null})]);
}

#[test]
fn a_resize_shows_what_containers_have_and_what_is_to_come() {
    let spec = json!({"containers": [{"name": "a", "image": "img", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}}]});
    let mut case = case(spec, observed(vec![running("a")]));
    case.actuated =
        [("a-0".to_owned(), serde_json::from_value(json!({"requests": {"cpu": "1"}})).unwrap())].into();
    case.resize = vec![PodCondition {
        type_: "PodResizeInProgress".into(),
        status: "True".into(),
        ..PodCondition::default()
    }];
    let status = case.derive();
    let own = &status.container_statuses.as_ref().unwrap()[0];
    let has = own.resources.as_ref().unwrap().requests.as_ref().unwrap();
    assert_eq!(
        (has["cpu"].0.as_str(), own.allocated_resources.as_ref().unwrap()["cpu"].0.as_str()),
        ("1", "2")
    );
    assert_eq!(own.resources.as_ref().unwrap().limits, None, "a limit that it does not have yet");
    assert_eq!(conditions(&status)["PodResizeInProgress"].0, "True");
    case.resize.clear();
    let done = case.derive();
    assert!(!conditions(&done).contains_key("PodResizeInProgress"));
    let sent = patch("u1", &status, &done).unwrap();
    assert_eq!(sent["status"]["conditions"], json!([{"type": "PodResizeInProgress", "$patch": "delete"}]));
}
