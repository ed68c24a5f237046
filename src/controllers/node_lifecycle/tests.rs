//! Nodes that fall silent and come back, against the model of the API on a paused clock.

use super::*;
use crate::{
    client::fake::{FakeApi, eventually},
    controllers::testing::{self, Running, meta, node, pod},
};
use k8s_openapi::{
    api::{
        coordination::v1::LeaseSpec,
        core::v1::{Event, NodeStatus, PodStatus},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};

fn start(api: &Arc<FakeApi>) -> Running {
    testing::start(api, |mut context, stop| {
        context.clock = Clock::anchored(Timestamp::UNIX_EPOCH);
        run(context, stop)
    })
}

/// A node whose kubelet last reported `Ready` with this status. All reported conditions are there, since the model
/// merges lists by replacing them.
fn reporting(name: &str, status: &str) -> Node {
    let condition =
        NodeCondition { type_: "Ready".into(), status: status.into(), ..NodeCondition::default() };
    let status = NodeStatus { conditions: Some(vec![condition]), ..NodeStatus::default() };
    Node { status: Some(status), ..node(name) }
}

fn lease(name: &str) -> Lease {
    let spec = LeaseSpec { renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)), ..LeaseSpec::default() };
    Lease { metadata: meta(LEASES, name), spec: Some(spec) }
}

fn renew(api: &FakeApi, name: &str, second: i64) {
    api.update::<Lease>(LEASES, name, |lease| {
        let renewed = MicroTime(Timestamp::from_second(second).unwrap());
        lease.spec.get_or_insert_default().renew_time = Some(renewed);
    });
}

fn ready_of(api: &FakeApi, name: &str) -> Ready {
    taints::ready(&api.get::<Node>("", name).unwrap())
}

fn taints_of(api: &FakeApi, name: &str) -> Vec<String> {
    let taints = api.get::<Node>("", name).unwrap().spec.and_then(|spec| spec.taints).unwrap_or_default();
    taints.iter().map(|taint| format!("{}:{}", taint.key.split_once('/').unwrap().1, taint.effect)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_renews_its_lease_stays_and_one_that_stops_becomes_unknown() {
    let api = FakeApi::new();
    for name in ["n1", "n2"] {
        api.create(&reporting(name, "True"));
        api.create(&lease(name));
    }
    let _running = start(&api);
    for second in 1..12 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        renew(&api, "n1", second);
        let unknown = ready_of(&api, "n2") == Ready::Unknown;
        assert_eq!(unknown, second >= 6, "after {second} times 9 s");
    }
    assert_eq!(ready_of(&api, "n1"), Ready::Yes);
    assert!(taints_of(&api, "n1").is_empty());
    assert_eq!(taints_of(&api, "n2"), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
}

#[tokio::test(start_paused = true)]
async fn the_only_node_is_not_emptied_and_recovers() {
    let api = FakeApi::new();
    api.create(&reporting("n1", "True"));
    let _running = start(&api);
    eventually("it becomes unknown", || ready_of(&api, "n1") == Ready::Unknown).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(taints_of(&api, "n1"), ["unreachable:NoSchedule"]);
    api.update::<Node>("", "n1", |node| node.status = reporting("n1", "True").status);
    eventually("its taint goes", || taints_of(&api, "n1").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_are_emptied_one_after_the_other() {
    let api = FakeApi::new();
    for name in ["n1", "n2", "n3", "n4", "n5"] {
        let status = if matches!(name, "n1" | "n2") { "False" } else { "True" };
        api.create(&reporting(name, status));
        api.create(&lease(name));
    }
    let _running = start(&api);
    let emptied = || ["n1", "n2"].iter().filter(|name| taints_of(&api, name).len() == 2).count();
    eventually("the first is emptied", || emptied() == 1).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(emptied(), 1, "the second has to wait");
    eventually("then the second", || emptied() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_silent_node_are_not_ready() {
    let api = FakeApi::new();
    api.create(&reporting("n1", "True"));
    let ready = PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
    let mut pod = pod("p", "n1");
    pod.status = Some(PodStatus { conditions: Some(vec![ready]), ..PodStatus::default() });
    api.create(&pod);
    let _running = start(&api);
    eventually("the pod is not ready", || {
        let status = api.get::<Pod>("default", "p").unwrap().status.unwrap();
        status.conditions.unwrap()[0].status == "False"
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cordoned_node_is_tainted_and_freed() {
    let api = FakeApi::new();
    api.create(&reporting("n1", "True"));
    api.create(&lease("n1"));
    let _running = start(&api);
    tokio::time::sleep(Duration::from_secs(1)).await;
    api.update::<Node>("", "n1", |node| node.spec.get_or_insert_default().unschedulable = Some(true));
    eventually("tainted", || taints_of(&api, "n1") == ["unschedulable:NoSchedule"]).await;
    api.update::<Node>("", "n1", |node| node.spec.get_or_insert_default().unschedulable = None);
    eventually("freed", || taints_of(&api, "n1").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_come_and_go_are_told_of() {
    let api = FakeApi::new();
    let uid = api.create(&reporting("n1", "True")).metadata.uid;
    let _running = start(&api);
    let told = |reason: &str, message: &str| {
        api.list::<Event>().iter().any(|event| {
            event.reason.as_deref() == Some(reason)
                && event.message.as_deref() == Some(message)
                && event.involved_object.uid == uid
        })
    };
    eventually("it is registered", || {
        told("RegisteredNode", "Node n1 event: Registered Node n1 in Controller")
    })
    .await;
    api.delete::<Node>("", "n1");
    eventually("it is removed", || told("RemovingNode", "Node n1 event: Removing Node n1 from Controller"))
        .await;
}
