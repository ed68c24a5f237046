//! Attachments as pods come and go.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::plan::{self, FORCE_AFTER};
use crate::client::fake::{FakeApi, eventually};
use crate::controllers::testing::start;

const USED: &str = "kubernetes.io/csi/d^h";

fn object<K: DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).unwrap()
}

fn volume(modes: &[&str]) -> PersistentVolume {
    object(json!({"metadata": {"name": "pv"}, "spec": {
        "accessModes": modes, "csi": {"driver": "d", "volumeHandle": "h"}}}))
}

fn claim() -> PersistentVolumeClaim {
    object(json!({"metadata": {"name": "c", "namespace": "default"},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}))
}

fn pod(name: &str, node: &str) -> Pod {
    object(
        json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"nodeName": node, "containers": [],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}),
    )
}

fn node(name: &str, in_use: &[&str]) -> Node {
    object(json!({"metadata": {"name": name}, "status": {"volumesInUse": in_use,
        "conditions": [{"type": "Ready", "status": "True"}]}}))
}

fn uses(api: &Arc<FakeApi>, name: &str, volumes: &[&str]) {
    let volumes: Vec<String> = volumes.iter().map(|volume| (*volume).to_owned()).collect();
    api.update("", name, |node: &mut Node| node.status.as_mut().unwrap().volumes_in_use = Some(volumes));
}

fn cluster(modes: &[&str]) -> Arc<FakeApi> {
    let api = FakeApi::new();
    api.create(&volume(modes));
    api.create(&claim());
    for name in ["n1", "n2"] {
        api.create(&node(name, &[]));
    }
    api
}

fn nodes_of(api: &Arc<FakeApi>) -> Vec<String> {
    let mut nodes: Vec<String> =
        api.list::<VolumeAttachment>().into_iter().map(|a| a.spec.node_name).collect();
    nodes.sort();
    nodes
}

#[tokio::test]
async fn a_volume_follows_its_pod_and_waits_until_the_node_has_let_go() {
    let api = cluster(&["ReadWriteOnce"]);
    let _running = start(&api, super::run);
    api.create(&pod("one", "n1"));
    eventually("it is attached", || nodes_of(&api) == ["n1"]).await;
    let attachment = &api.list::<VolumeAttachment>()[0];
    assert_eq!(attachment.metadata.name.as_deref(), Some(plan::attachment_name("h", "d", "n1").as_str()));
    uses(&api, "n1", &[USED]);
    api.delete::<Pod>("default", "one");
    api.create(&pod("two", "n2"));
    // The second node's turn comes only when the first one has let go.
    eventually("the wait is told", || {
        !api.requests("POST /apis/events").is_empty()
            || !api.requests("POST /api/v1/namespaces/default/events").is_empty()
    })
    .await;
    assert_eq!(nodes_of(&api), ["n1"]);
    uses(&api, "n1", &[]);
    eventually("it has moved", || nodes_of(&api) == ["n2"]).await;
}

#[tokio::test]
async fn a_shared_volume_is_attached_to_every_node_and_drivers_without_attachment_are_left_alone() {
    let api = cluster(&["ReadWriteMany"]);
    let _running = start(&api, super::run);
    api.create(&pod("one", "n1"));
    api.create(&pod("two", "n2"));
    eventually("it is attached twice", || nodes_of(&api) == ["n1", "n2"]).await;
    api.create(&object::<CSIDriver>(json!({"metadata": {"name": "d"}, "spec": {"attachRequired": false}})));
    eventually("the driver needs none", || nodes_of(&api).is_empty()).await;
}

#[tokio::test]
async fn attachments_of_others_are_left_alone_and_what_is_attached_is_shown() {
    let api = cluster(&["ReadWriteOnce"]);
    let foreign = json!({"metadata": {"name": "mine"}, "spec": {
        "attacher": "x", "nodeName": "n1", "source": {"persistentVolumeName": "other"}}});
    api.create(&object::<VolumeAttachment>(foreign));
    let _running = start(&api, super::run);
    api.create(&pod("one", "n1"));
    eventually("ours is there too", || nodes_of(&api) == ["n1", "n1"]).await;
    let name = plan::attachment_name("h", "d", "n1");
    api.update("", &name, |ours: &mut VolumeAttachment| {
        ours.status = Some(object(json!({"attached": true})))
    });
    eventually("the node is told", || {
        let attached = api.get::<Node>("", "n1").and_then(|node| node.status?.volumes_attached);
        attached.is_some_and(|list| list.len() == 1 && list[0].name == USED)
    })
    .await;
}

#[test]
fn only_a_dead_node_loses_what_it_uses() {
    let attachment: VolumeAttachment = object(
        json!({"spec": {"attacher": "d", "nodeName": "n1", "source": {"persistentVolumeName": "pv"}}}),
    );
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let minutes = |m: i64| Timestamp::from_second(now.as_second() - m * 60).unwrap().to_string();
    let not_ready = |m: i64| {
        let mut node = node("n1", &[USED]);
        let condition = json!([{"type": "Ready", "status": "Unknown", "lastTransitionTime": minutes(m)}]);
        node.status.as_mut().unwrap().conditions = object(condition);
        node
    };
    let mut tainted = node("n1", &[USED]);
    tainted.spec =
        object(json!({"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}));
    for (node, expected) in [
        (None, Ok(())),
        (Some(node("n1", &[])), Ok(())),
        (Some(node("n1", &[USED])), Err(None)),
        (Some(not_ready(1)), Err(Some(FORCE_AFTER - std::time::Duration::from_secs(60)))),
        (Some(not_ready(7)), Ok(())),
        (Some(tainted), Ok(())),
    ] {
        let pv = volume(&["ReadWriteOnce"]);
        assert_eq!(plan::may_detach(&attachment, Some(&pv), node.as_ref(), now), expected, "{node:?}");
        assert_eq!(plan::may_detach(&attachment, None, node.as_ref(), now), expected, "without the volume");
    }
}
