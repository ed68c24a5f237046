//! Which pods go, and that only they do.

use super::*;
use crate::{
    client::fake::{FakeApi, eventually},
    controllers::{
        ControllersConfig,
        testing::{self, node, pod},
    },
};
use k8s_openapi::{
    api::core::v1::{NodeCondition, NodeSpec, NodeStatus, PodStatus, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};

#[test]
fn the_fate_of_a_pod_depends_on_its_node_and_deletion() {
    let seconds = Duration::from_secs;
    let gone = Fate::Remove(Some("PodGC: node no longer exists"));
    for (going, state, want) in [
        (false, NodeState::Unbound, Fate::Keep),
        (true, NodeState::Unbound, Fate::Remove(None)),
        (true, NodeState::There, Fate::Keep),
        (false, NodeState::OutOfService, Fate::Keep),
        (true, NodeState::OutOfService, Fate::Remove(None)),
        (false, NodeState::MissingFor(seconds(10)), Fate::Wait(seconds(30))),
        (true, NodeState::MissingFor(seconds(40)), gone),
        (false, NodeState::MissingFor(seconds(41)), gone),
    ] {
        let mut pod = pod("p", "n");
        pod.metadata.deletion_timestamp = going.then_some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(decide(&pod, state), want, "{going} {state:?}");
    }
}

#[test]
fn out_of_service_needs_the_taint_and_a_node_that_is_not_ready() {
    for (key, ready, want) in [
        ("node.kubernetes.io/out-of-service", "False", true),
        ("node.kubernetes.io/out-of-service", "True", false),
        ("node.kubernetes.io/unreachable", "False", false),
    ] {
        let taint = Taint { key: key.into(), ..Taint::default() };
        let condition =
            NodeCondition { type_: "Ready".into(), status: ready.into(), ..NodeCondition::default() };
        let mut node = node("n");
        node.spec = Some(NodeSpec { taints: Some(vec![taint]), ..NodeSpec::default() });
        node.status = Some(NodeStatus { conditions: Some(vec![condition]), ..NodeStatus::default() });
        assert_eq!(is_out_of_service(&node), want, "{key} {ready}");
    }
}

fn finished(name: &str, second: i64) -> Pod {
    let mut pod = pod(name, "n");
    pod.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
    pod.status = Some(PodStatus { phase: Some("Succeeded".into()), ..PodStatus::default() });
    pod
}

#[test]
fn the_oldest_finished_pods_are_surplus() {
    let mut pods: Vec<_> = [("c", 3), ("a", 1), ("b", 2)].map(|(n, t)| Arc::new(finished(n, t))).into();
    pods.push(Arc::new(pod("running", "n")));
    let names = |threshold| -> Vec<_> {
        surplus(&pods, threshold).iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()
    };
    assert_eq!(names(1), ["a", "b"]);
    assert_eq!(names(2), ["a"]);
    assert!(names(3).is_empty() && names(10).is_empty());
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_lost_node_go_after_a_while_and_no_others() {
    let api = FakeApi::new();
    api.create(&node("n1"));
    api.create(&node("n2"));
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", ""), ("d", "never")] {
        api.create(&pod(name, node));
    }
    let _running = testing::start(&api, |mut context, stop| {
        context.clock = Clock::anchored(Timestamp::UNIX_EPOCH);
        run(context, stop)
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    api.delete::<Node>("", "n1");
    tokio::time::sleep(Duration::from_secs(35)).await;
    assert!(api.get::<Pod>("default", "a").is_some(), "the quarantine is not over");
    assert!(api.get::<Pod>("default", "d").is_none(), "a node that never was is as good as gone");
    eventually("the lost node's pod goes", || api.get::<Pod>("default", "a").is_none()).await;
    assert_eq!(api.list::<Pod>().len(), 2);
    assert_eq!(api.requests("PATCH /api/v1/namespaces/default/pods/a/status").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_in_time_keeps_its_pods() {
    let api = FakeApi::new();
    api.create(&node("n1"));
    api.create(&pod("a", "n1"));
    let _running = testing::start(&api, |mut context, stop| {
        context.clock = Clock::anchored(Timestamp::UNIX_EPOCH);
        run(context, stop)
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    api.delete::<Node>("", "n1");
    tokio::time::sleep(Duration::from_secs(20)).await;
    api.create(&node("n1"));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(api.get::<Pod>("default", "a").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_before_it_was_bound_goes() {
    let api = FakeApi::new();
    let mut waiting = pod("w", "");
    waiting.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    api.create(&waiting);
    let _running = testing::start(&api, run);
    eventually("it goes", || api.list::<Pod>().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn finished_pods_are_kept_up_to_the_threshold() {
    let api = FakeApi::new();
    api.create(&node("n"));
    let config = ControllersConfig { terminated_pod_threshold: 2, ..ControllersConfig::default() };
    let _running = testing::start_with(&api, config, run);
    for i in 0..5 {
        api.create(&finished(&format!("p{i}"), i));
    }
    eventually("two are left", || api.list::<Pod>().len() == 2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let left: Vec<_> = api.list::<Pod>().into_iter().map(|pod| pod.metadata.name.unwrap()).collect();
    assert_eq!(left, ["p3", "p4"]);
}
