//! The planner's rules, one test each.

use serde_json::json;

use super::backoff::MAX;
use super::fixture::*;
use super::plan::*;
use super::state::{Life, Stop, Why};
use crate::kubelet::observed::{ObservedPod, RunState};
use crate::kubelet::spec::Kind;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::time::Duration;

fn run(pod: &Pod, observed: &ObservedPod, memory: &Memory, now: i64) -> Plan {
    plan(&Life::Active, Input { pod: Some(pod), observed, memory, now: at(now), longest_wait: MAX })
}

/// The actions as short words.
fn words(plan: &Plan) -> Vec<String> {
    plan.actions
        .iter()
        .map(|a| match a {
            Action::CreateSandbox { attempt } => format!("sandbox#{attempt}"),
            Action::StopSandbox { id } => format!("stop {id}"),
            Action::Start(s) => {
                format!("start {}#{} {:?} +{}s", s.name, s.attempt, s.kind, s.backoff.as_secs())
            }
            Action::Kill(k) => format!("kill {} {}s", k.id, k.grace.as_secs()),
            Action::Remove { id } => format!("remove {id}"),
        })
        .collect()
}

fn planned(pod: &Pod, observed: &ObservedPod) -> Vec<String> {
    words(&run(pod, observed, &Memory::default(), 100))
}

#[test]
fn a_new_pod_gets_a_sandbox_first() {
    let pod = pod(json!({"containers": containers(&["a"])}));
    assert_eq!(planned(&pod, &ObservedPod::default()), ["sandbox#0"]);
}

#[test]
fn all_main_containers_start_in_one_plan() {
    let pod = pod(json!({"containers": containers(&["a", "b"])}));
    assert_eq!(planned(&pod, &observed(vec![])), ["start a#0 Main +0s", "start b#0 Main +0s"]);
    assert!(planned(&pod, &observed(vec![running("a"), running("b")])).is_empty());
}

#[test]
fn init_containers_run_one_after_the_other() {
    let pod = pod(json!({"initContainers": containers(&["i", "j"]), "containers": containers(&["a"])}));
    for (have, want) in [
        (vec![], vec!["start i#0 Init +0s"]),
        (vec![running("i")], vec![]),
        (vec![exited("i", 0, 0)], vec!["start j#0 Init +0s"]),
        (vec![exited("i", 0, 0), exited("j", 0, 0)], vec!["start a#0 Main +0s"]),
        (vec![exited("i", 0, 0), exited("j", 0, 3)], vec!["start j#1 Init +10s"]),
    ] {
        assert_eq!(planned(&pod, &observed(have)), want);
    }
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let pod = pod(json!({"restartPolicy": "Never",
        "initContainers": containers(&["i"]), "containers": containers(&["a"])}));
    let failed = observed(vec![exited("i", 0, 1)]);
    assert!(completed(&pod, &failed));
    assert!(planned(&pod, &failed).is_empty());
}

#[test]
fn a_sidecar_must_have_started_before_the_next_container() {
    let pod = pod(json!({
        "initContainers": [{"name": "s", "image": "img", "restartPolicy": "Always"}],
        "containers": containers(&["a"])}));
    assert_eq!(planned(&pod, &observed(vec![])), ["start s#0 Sidecar +0s"]);
    let up = observed(vec![running("s")]);
    assert!(planned(&pod, &up).is_empty());
    let memory = Memory { started: ["s-0".to_owned()].into(), ..Memory::default() };
    assert_eq!(words(&run(&pod, &up, &memory, 100)), ["start a#0 Main +0s"]);
    let crashed = observed(vec![exited("s", 0, 0), running("a")]);
    assert_eq!(planned(&pod, &crashed), ["start s#1 Sidecar +10s"]);
}

#[test]
fn restart_policies_decide_what_runs_again() {
    for (policy, code, restarts) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 1, false),
    ] {
        let pod = pod(json!({"restartPolicy": policy, "containers": containers(&["a"])}));
        let have = observed(vec![exited("a", 0, code)]);
        assert_eq!(!planned(&pod, &have).is_empty(), restarts, "{policy} {code}");
        assert_eq!(completed(&pod, &have), !restarts, "{policy} {code}");
    }
}

#[test]
fn a_crashing_container_waits_and_says_so() {
    let pod = pod(json!({"containers": containers(&["a"])}));
    let mut crashed = exited("a", 1, 1);
    crashed.backoff = Duration::from_secs(10);
    let have = observed(vec![crashed, exited("a", 0, 1)]);
    let waiting = run(&pod, &have, &Memory::default(), 5);
    assert!(waiting.actions.is_empty());
    assert_eq!(waiting.wake_at, Some(at(12)));
    assert_eq!(waiting.crash_loop["a"], "back-off 10s restarting failed container=a pod=web_default(u1)");
    assert_eq!(words(&run(&pod, &have, &Memory::default(), 12)), ["start a#2 Main +20s"]);
}

#[test]
fn a_dead_sandbox_is_replaced_after_its_containers() {
    let pod = pod(json!({"containers": containers(&["a"])}));
    let mut have = observed(vec![running("a")]);
    have.sandboxes[0].ready = false;
    assert_eq!(planned(&pod, &have), ["kill a-0 30s"]);
    have.containers = vec![exited("a", 0, 137)];
    assert_eq!(planned(&pod, &have), ["sandbox#1"]);
    have.sandboxes = vec![sandbox("s2", true)];
    assert_eq!(planned(&pod, &have), ["start a#1 Main +10s"]);
}

#[test]
fn a_new_sandbox_runs_init_containers_again() {
    let pod = pod(json!({"initContainers": containers(&["i"]), "containers": containers(&["a"])}));
    let mut have = observed(vec![exited("i", 0, 0), exited("a", 0, 137)]);
    have.sandboxes = vec![sandbox("s2", true)];
    assert_eq!(planned(&pod, &have), ["start i#1 Init +0s"]);
}

#[test]
fn a_finished_pod_gets_no_new_sandbox() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": containers(&["a"])}));
    let mut have = observed(vec![exited("a", 0, 0)]);
    have.sandboxes[0].ready = false;
    assert!(planned(&pod, &have).is_empty());
}

#[test]
fn a_sandbox_without_address_is_useless_unless_on_the_host_network() {
    let mut have = observed(vec![]);
    have.sandboxes[0].ips.clear();
    let plain = pod(json!({"containers": containers(&["a"])}));
    assert_eq!(planned(&plain, &have), ["stop s1", "sandbox#1"]);
    let host = pod(json!({"hostNetwork": true, "containers": containers(&["a"])}));
    assert_eq!(planned(&host, &have), ["start a#0 Main +0s"]);
}

#[test]
fn a_new_image_restarts_the_container() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "new"}]}));
    let plan = run(&pod, &observed(vec![running("a")]), &Memory::default(), 100);
    assert_eq!(words(&plan), ["kill a-0 30s"]);
}

#[test]
fn an_unhealthy_container_is_killed_once() {
    let pod = pod(json!({"containers": containers(&["a"])}));
    let have = observed(vec![running("a")]);
    let unhealthy = [("a-0".to_owned(), ("m".to_owned(), Duration::from_secs(7)))].into();
    let mut memory = Memory { unhealthy, ..Memory::default() };
    assert_eq!(words(&run(&pod, &have, &memory, 100)), ["kill a-0 7s"]);
    memory.killing.insert("a-0".to_owned());
    assert!(run(&pod, &have, &memory, 100).actions.is_empty());
}

#[test]
fn a_created_container_is_made_anew_without_counting_a_restart() {
    let pod = pod(json!({"containers": containers(&["a"])}));
    let have = observed(vec![container("a", 2, RunState::Created)]);
    assert_eq!(planned(&pod, &have), ["remove a-2", "start a#2 Main +0s"]);
}

#[test]
fn a_failed_start_waits_for_its_retry_time() {
    let pod = pod(json!({"containers": containers(&["a"])}));
    let failure = StartFailure { reason: "r".into(), message: "m".into(), retry_at: at(50) };
    let memory = Memory { failures: [("a".to_owned(), failure)].into(), ..Memory::default() };
    let early = run(&pod, &observed(vec![]), &memory, 49);
    assert_eq!((early.actions.len(), early.wake_at), (0, Some(at(50))));
    assert_eq!(words(&run(&pod, &observed(vec![]), &memory, 50)), ["start a#0 Main +0s"]);
}

#[test]
fn restart_counts_survive_a_runtime_that_forgot() {
    let mut pod = pod(json!({"containers": containers(&["a"])}));
    pod.status = serde_json::from_value(json!({"containerStatuses": [
        {"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 4, "containerID": "containerd://x"}]}))
    .unwrap();
    assert_eq!(planned(&pod, &observed(vec![])), ["start a#5 Main +0s"]);
}

#[test]
fn ephemeral_containers_start_once() {
    let pod = pod(json!({"containers": containers(&["a"]), "ephemeralContainers": containers(&["d"])}));
    let mut have = vec![running("a")];
    assert_eq!(planned(&pod, &observed(have.clone())), ["start d#0 Ephemeral +0s"]);
    have.push(exited("d", 0, 1));
    assert!(planned(&pod, &observed(have)).is_empty());
}

fn stop(grace: u64, since: i64) -> Stop {
    Stop { why: Why::Deleted, grace: Duration::from_secs(grace), since: at(since) }
}

fn stopping(pod: &Pod, observed: &ObservedPod, now: Timestamp) -> Vec<String> {
    let memory = Memory::default();
    words(&plan(
        &Life::Stopping(stop(30, 100)),
        Input { pod: Some(pod), observed, memory: &memory, now, longest_wait: MAX },
    ))
}

#[test]
fn sidecars_stop_last_and_in_reverse() {
    let pod = pod(json!({
        "initContainers": [{"name": "s", "image": "img", "restartPolicy": "Always"},
                           {"name": "t", "image": "img", "restartPolicy": "Always"}],
        "containers": containers(&["a", "b"])}));
    let mut have = vec![running("s"), running("t"), running("a"), running("b")];
    let all = stopping(&pod, &observed(have.clone()), at(100));
    assert_eq!(all, ["kill a-0 30s", "kill b-0 30s"]);
    have.truncate(2);
    assert_eq!(stopping(&pod, &observed(have.clone()), at(110)), ["kill t-0 20s"]);
    have.truncate(1);
    assert_eq!(stopping(&pod, &observed(have), at(140)), ["kill s-0 2s"], "late ones still get two seconds");
}

#[test]
fn a_stopped_pod_gives_its_sandbox_back() {
    let memory = Memory::default();
    let observed = observed(vec![exited("a", 0, 0)]);
    let input = Input { pod: None, observed: &observed, memory: &memory, now: at(0), longest_wait: MAX };
    assert_eq!(words(&plan(&Life::Stopped(stop(1, 0)), input)), ["stop s1"]);
}

#[test]
fn kinds_follow_the_lists_of_the_spec() {
    let pod = pod(json!({
        "initContainers": [{"name": "s", "image": "img", "restartPolicy": "Always"}, {"name": "i", "image": "img"}],
        "containers": containers(&["a"])}));
    let kinds: Vec<Kind> = crate::kubelet::spec::all_containers(&pod).map(|(k, _)| k).collect();
    assert_eq!(kinds, [Kind::Sidecar, Kind::Init, Kind::Main]);
}

#[test]
fn durations_print_as_in_go() {
    for (s, text) in [(10, "10s"), (160, "2m40s"), (300, "5m0s"), (3600, "1h0m0s")] {
        assert_eq!(go_duration(Duration::from_secs(s)), text);
    }
}
