//! StatefulSets against a real API server: the behaviours of the conformance tests.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::cluster::Cluster;

fn stateful_set(spec: Value) -> StatefulSet {
    let mut set = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 3, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}},
                              "spec": {"containers": [{"name": "c", "image": "v1"}]}}},
    });
    json_patch::merge(&mut set["spec"], &spec);
    serde_json::from_value(set).unwrap()
}

async fn change(cluster: &Cluster, patch: Value) {
    let (api, patch) = (cluster.api::<StatefulSet>(), Patch::Merge(patch));
    let changed = api.patch("web", &PatchParams::default(), &patch).await.unwrap();
    // What is asked for next must not be answered from before the change.
    cluster
        .eventually::<StatefulSet>("the change", |all| {
            all[0].metadata.generation >= changed.metadata.generation
        })
        .await;
}

async fn rolled_out(cluster: &Cluster, replicas: i32) {
    cluster
        .eventually::<StatefulSet>("a complete rollout", |all| {
            let Some(set) = all.first() else { return false };
            let status = set.status.clone().unwrap_or_default();
            status.observed_generation == set.metadata.generation
                && status.replicas == replicas
                && status.ready_replicas == Some(replicas)
                && status.updated_replicas == Some(replicas)
                && status.current_revision == status.update_revision
        })
        .await;
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_perform_rolling_updates_and_roll_backs_of_template_modifications() {
    let cluster = Cluster::start(1).await;
    cluster.api::<StatefulSet>().create(&PostParams::default(), &stateful_set(json!({}))).await.unwrap();
    rolled_out(&cluster, 3).await;
    let first = cluster.list::<StatefulSet>()[0].status.clone().unwrap().current_revision;
    change(&cluster, image("v2")).await;
    rolled_out(&cluster, 3).await;
    let second = cluster.list::<StatefulSet>()[0].status.clone().unwrap().current_revision;
    assert_ne!(first, second);
    change(&cluster, image("v1")).await;
    rolled_out(&cluster, 3).await;
    assert_eq!(cluster.list::<StatefulSet>()[0].status.clone().unwrap().current_revision, first);
    let names: Vec<_> = cluster.list::<Pod>().iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["web-0", "web-1", "web-2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_are_made_for_pods_and_go_when_the_policy_says_so() {
    let cluster = Cluster::start(1).await;
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Mi"}}}}]);
    let policy = json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    let spec = json!({"volumeClaimTemplates": claims, "persistentVolumeClaimRetentionPolicy": policy,
        "podManagementPolicy": "Parallel", "replicas": 2});
    cluster.api::<StatefulSet>().create(&PostParams::default(), &stateful_set(spec)).await.unwrap();
    let names = |claims: &[std::sync::Arc<PersistentVolumeClaim>]| -> Vec<String> {
        claims.iter().map(|claim| claim.metadata.name.clone().unwrap()).collect()
    };
    cluster.eventually("two claims", |claims| names(claims) == ["data-web-0", "data-web-1"]).await;
    let is_bound = |claim: &PersistentVolumeClaim| {
        claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"))
    };
    cluster.eventually("bound claims", |claims| claims.iter().all(|claim| is_bound(claim))).await;
    change(&cluster, json!({"spec": {"replicas": 1}})).await;
    cluster.eventually("one claim", |claims| names(claims) == ["data-web-0"]).await;
    cluster.api::<StatefulSet>().delete("web", &Default::default()).await.unwrap();
    cluster.eventually::<PersistentVolumeClaim>("no claims", <[_]>::is_empty).await;
}
