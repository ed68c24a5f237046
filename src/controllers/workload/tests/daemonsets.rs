//! DaemonSets against a real API server: the behaviours of the conformance tests.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::cluster::Cluster;

fn daemon_set(image: &str) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "ds", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "ds"}}, "template": {"metadata": {"labels": {"app": "ds"}},
                 "spec": {"containers": [{"name": "c", "image": image}]}}},
    }))
    .unwrap()
}

async fn change(cluster: &Cluster, patch: serde_json::Value) {
    let (api, patch) = (cluster.api::<DaemonSet>(), Patch::Merge(patch));
    let changed = api.patch("ds", &PatchParams::default(), &patch).await.unwrap();
    // What is asked for next must not be answered from before the change.
    cluster
        .eventually::<DaemonSet>("the change", |all| {
            all[0].metadata.generation >= changed.metadata.generation
        })
        .await;
}

/// Waits until every wanted node runs an available pod of the present template.
async fn rolled_out(cluster: &Cluster, wanted: i32) {
    cluster
        .eventually::<DaemonSet>("a complete rollout", |all| {
            let Some(set) = all.first() else { return false };
            let status = set.status.clone().unwrap_or_default();
            status.observed_generation == set.metadata.generation
                && status.desired_number_scheduled == wanted
                && status.updated_number_scheduled == Some(wanted)
                && status.number_available == Some(wanted)
                && status.number_misscheduled == 0
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_run_and_stop_simple_daemon_and_retry_failed_daemon_pods() {
    let cluster = Cluster::start(2).await;
    cluster.api::<DaemonSet>().create(&PostParams::default(), &daemon_set("v1")).await.unwrap();
    rolled_out(&cluster, 2).await;
    let deleted = cluster.list::<Pod>()[0].clone();
    let name = deleted.metadata.name.as_deref().unwrap();
    cluster.api::<Pod>().delete(name, &Default::default()).await.unwrap();
    cluster
        .eventually::<Pod>("another pod in the place of the deleted one", |pods| {
            pods.len() == 2 && pods.iter().all(|pod| pod.metadata.uid != deleted.metadata.uid)
        })
        .await;
    rolled_out(&cluster, 2).await;
    let failed = cluster.list::<Pod>()[0].clone();
    let status = Patch::Merge(json!({"status": {"phase": "Failed"}}));
    let name = failed.metadata.name.as_deref().unwrap();
    cluster.api::<Pod>().patch_status(name, &PatchParams::default(), &status).await.unwrap();
    cluster
        .eventually::<Pod>("another pod in the place of the failed one", |pods| {
            pods.len() == 2 && pods.iter().all(|pod| pod.metadata.uid != failed.metadata.uid)
        })
        .await;
    rolled_out(&cluster, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_run_and_stop_complex_daemon_when_labels_of_nodes_change() {
    let cluster = Cluster::start(2).await;
    let mut set = daemon_set("v1");
    let spec = set.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    spec.node_selector = Some([("color".to_owned(), "blue".to_owned())].into());
    cluster.api::<DaemonSet>().create(&PostParams::default(), &set).await.unwrap();
    rolled_out(&cluster, 0).await;
    let nodes: Api<Node> = Api::all(cluster.admin());
    let paint = |color: &str| Patch::Merge(json!({"metadata": {"labels": {"color": color}}}));
    nodes.patch("n1", &PatchParams::default(), &paint("blue")).await.unwrap();
    rolled_out(&cluster, 1).await;
    nodes.patch("n1", &PatchParams::default(), &paint("green")).await.unwrap();
    cluster.eventually::<Pod>("no pods", <[_]>::is_empty).await;
    let green = json!({"template": {"spec": {"nodeSelector": {"color": "green"}}}, "updateStrategy": {"type": "RollingUpdate"}});
    change(&cluster, json!({"spec": green})).await;
    rolled_out(&cluster, 1).await;
    assert_eq!(cluster.list::<Pod>()[0].spec.as_ref().unwrap().node_name.as_deref(), Some("n1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_update_pod_when_spec_was_updated_and_rollback_without_unnecessary_restarts() {
    let cluster = Cluster::start(3).await;
    cluster.api::<DaemonSet>().create(&PostParams::default(), &daemon_set("v1")).await.unwrap();
    rolled_out(&cluster, 3).await;
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    change(&cluster, image("broken")).await;
    cluster
        .eventually::<Pod>("one new pod that hangs", |pods| {
            let images = pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.as_deref());
            images.filter(|image| *image == "broken").count() == 1
        })
        .await;
    let old = |pods: &[std::sync::Arc<Pod>]| -> Vec<_> {
        let v1 =
            pods.iter().filter(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("v1"));
        v1.map(|pod| pod.metadata.uid.clone()).collect()
    };
    let survivors = old(&cluster.list::<Pod>());
    assert_eq!(survivors.len(), 2, "one pod at a time");
    change(&cluster, image("v1")).await;
    rolled_out(&cluster, 3).await;
    let now = old(&cluster.list::<Pod>());
    assert!(survivors.iter().all(|uid| now.contains(uid)), "pods of the old revision were restarted");
    cluster
        .eventually::<ControllerRevision>("revisions 2 and 3", |all| {
            let mut numbers: Vec<_> = all.iter().map(|revision| revision.revision).collect();
            numbers.sort_unstable();
            numbers == [2, 3]
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_manage_the_lifecycle_of_a_controller_revision() {
    let cluster = Cluster::start(1).await;
    cluster.api::<DaemonSet>().create(&PostParams::default(), &daemon_set("v1")).await.unwrap();
    rolled_out(&cluster, 1).await;
    let first = cluster.list::<ControllerRevision>()[0].as_ref().clone();
    let pod = cluster.list::<Pod>()[0].metadata.uid.clone();
    let api = cluster.api::<ControllerRevision>();
    let label = |value: &str| Patch::Strategic(json!({"metadata": {"labels": {"e2e": value}}}));
    let name = first.metadata.name.as_deref().unwrap();
    let patched = api.patch(name, &PatchParams::default(), &label("patched")).await.unwrap();
    assert_eq!(patched.metadata.labels.unwrap()["e2e"], "patched");
    let mut second = first.clone();
    second.metadata = serde_json::from_value(json!({
        "name": "ds-another", "namespace": "default", "ownerReferences": first.metadata.owner_references,
        "labels": {"app": "ds", "controller-revision-hash": "another"},
    }))
    .unwrap();
    second.revision = first.revision + 1;
    api.create(&PostParams::default(), &second).await.unwrap();
    let numbers = |all: &[std::sync::Arc<ControllerRevision>]| -> Vec<i64> {
        let mut numbers: Vec<_> = all.iter().map(|revision| revision.revision).collect();
        numbers.sort_unstable();
        numbers
    };
    cluster.eventually::<ControllerRevision>("both", |all| numbers(all) == [1, 2]).await;
    api.delete(first.metadata.name.as_deref().unwrap(), &Default::default()).await.unwrap();
    cluster.eventually::<ControllerRevision>("the second", |all| numbers(all) == [2]).await;
    let mut update = api.get("ds-another").await.unwrap();
    update.metadata.labels.get_or_insert_default().insert("e2e".into(), "updated".into());
    let updated = api.replace("ds-another", &PostParams::default(), &update).await.unwrap();
    assert_eq!(updated.metadata.labels.unwrap()["e2e"], "updated");
    let grace = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}});
    assert_eq!(cluster.list::<Pod>()[0].metadata.uid, pod, "the same template is no reason for another pod");
    change(&cluster, grace).await;
    cluster.eventually::<ControllerRevision>("the next", |all| numbers(all) == [2, 3]).await;
    let labelled = kube::api::ListParams::default().labels("e2e=updated");
    api.delete_collection(&Default::default(), &labelled).await.unwrap();
    cluster.eventually::<ControllerRevision>("the last", |all| numbers(all) == [3]).await;
}
