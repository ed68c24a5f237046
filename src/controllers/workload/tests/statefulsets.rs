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

/// Makes a running pod ready or not, as its probe would.
async fn probe(cluster: &Cluster, pod: &str, ready: bool) {
    let ready = if ready { "True" } else { "False" };
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
    let (parameters, status) = (PatchParams::default(), Patch::Strategic(status));
    cluster.api::<Pod>().patch_status(pod, &parameters, &status).await.unwrap();
}

async fn has_seen_change(cluster: &Cluster) {
    cluster
        .eventually::<StatefulSet>("an observed change", |all| {
            let status = all[0].status.clone().unwrap_or_default();
            status.observed_generation == all[0].metadata.generation
        })
        .await;
}

fn names(pods: &[std::sync::Arc<Pod>]) -> Vec<&str> {
    pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_should_happen_in_predictable_order_and_halt_if_any_stateful_pod_is_unhealthy() {
    let cluster = Cluster::start(1).await;
    let set = stateful_set(json!({"replicas": 1}));
    cluster.api::<StatefulSet>().create(&PostParams::default(), &set).await.unwrap();
    rolled_out(&cluster, 1).await;
    probe(&cluster, "web-0", false).await;
    change(&cluster, json!({"spec": {"replicas": 3}})).await;
    has_seen_change(&cluster).await;
    assert_eq!(names(&cluster.list::<Pod>()), ["web-0"], "an unhealthy pod holds the others up");
    probe(&cluster, "web-0", true).await;
    rolled_out(&cluster, 3).await;
    probe(&cluster, "web-0", false).await;
    cluster
        .eventually::<StatefulSet>("two ready pods", |all| {
            all[0].status.as_ref().unwrap().ready_replicas == Some(2)
        })
        .await;
    change(&cluster, json!({"spec": {"replicas": 0}})).await;
    has_seen_change(&cluster).await;
    assert!(
        cluster.list::<Pod>().len() >= 2,
        "the highest ordinal goes first, and only while others are healthy"
    );
    probe(&cluster, "web-0", true).await;
    cluster.eventually::<Pod>("no pods", <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn burst_scaling_should_run_to_completion_even_with_unhealthy_pods() {
    let cluster = Cluster::start(1).await;
    let set = stateful_set(json!({"replicas": 1, "podManagementPolicy": "Parallel"}));
    cluster.api::<StatefulSet>().create(&PostParams::default(), &set).await.unwrap();
    rolled_out(&cluster, 1).await;
    probe(&cluster, "web-0", false).await;
    change(&cluster, json!({"spec": {"replicas": 3}})).await;
    cluster.eventually::<Pod>("three pods", |pods| pods.len() == 3).await;
    change(&cluster, json!({"spec": {"replicas": 0}})).await;
    cluster.eventually::<Pod>("no pods", <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_perform_canary_updates_and_phased_rolling_updates_of_template_modifications() {
    let cluster = Cluster::start(1).await;
    let rolling =
        |partition: i32| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
    let set = stateful_set(json!({"updateStrategy": rolling(3)}));
    cluster.api::<StatefulSet>().create(&PostParams::default(), &set).await.unwrap();
    rolled_out(&cluster, 3).await;
    let revision = |pod: &Pod| pod.metadata.labels.as_ref().unwrap()["controller-revision-hash"].clone();
    let old = revision(&cluster.list::<Pod>()[0]);
    change(&cluster, image("v2")).await;
    has_seen_change(&cluster).await;
    let status = cluster.list::<StatefulSet>()[0].status.clone().unwrap();
    assert_eq!(status.current_revision.as_deref(), Some(old.as_str()));
    assert_ne!(status.update_revision, status.current_revision);
    assert!(
        cluster.list::<Pod>().iter().all(|pod| revision(pod) == old),
        "the partition holds all pods back"
    );
    let new = status.update_revision.unwrap();
    let are = |expected: [&String; 3]| {
        let expected = expected.map(String::clone);
        move |pods: &[std::sync::Arc<Pod>]| {
            let running = pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_none());
            running && pods.iter().map(|pod| revision(pod)).eq(expected.iter().cloned())
        }
    };
    change(&cluster, json!({"spec": {"updateStrategy": rolling(2)}})).await;
    cluster.eventually::<Pod>("a canary", are([&old, &old, &new])).await;
    for pod in ["web-0", "web-2"] {
        let gone = cluster.list::<Pod>().iter().find(|p| p.metadata.name.as_deref() == Some(pod)).cloned();
        cluster.api::<Pod>().delete(pod, &Default::default()).await.unwrap();
        cluster
            .eventually::<Pod>("another pod of that name", |pods| {
                let now = pods.iter().find(|p| p.metadata.name.as_deref() == Some(pod));
                now.is_some_and(|now| now.metadata.uid != gone.as_ref().unwrap().metadata.uid)
            })
            .await;
    }
    cluster.eventually::<Pod>("pods restored to the revisions they had", are([&old, &old, &new])).await;
    change(&cluster, json!({"spec": {"updateStrategy": rolling(0)}})).await;
    rolled_out(&cluster, 3).await;
    cluster.eventually::<Pod>("only new pods", are([&new, &new, &new])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_recreate_evicted_statefulset() {
    let cluster = Cluster::start(1).await;
    let set = stateful_set(json!({"replicas": 1}));
    cluster.api::<StatefulSet>().create(&PostParams::default(), &set).await.unwrap();
    rolled_out(&cluster, 1).await;
    let evicted = cluster.list::<Pod>()[0].metadata.uid.clone();
    let failed = Patch::Merge(json!({"status": {"phase": "Failed", "reason": "Evicted"}}));
    cluster.api::<Pod>().patch_status("web-0", &PatchParams::default(), &failed).await.unwrap();
    cluster
        .eventually::<Pod>("another pod in its place", |pods| {
            pods.len() == 1 && pods[0].metadata.uid != evicted
        })
        .await;
    rolled_out(&cluster, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_pending_pods_are_made_again() {
    let cluster = Cluster::start(0).await;
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Mi"}}}}]);
    let set = stateful_set(json!({"replicas": 1, "volumeClaimTemplates": claims}));
    cluster.api::<StatefulSet>().create(&PostParams::default(), &set).await.unwrap();
    cluster.eventually::<Pod>("a pod without a node", |pods| pods.len() == 1).await;
    let uid =
        |all: &[std::sync::Arc<PersistentVolumeClaim>]| all.first().and_then(|c| c.metadata.uid.clone());
    cluster.eventually::<PersistentVolumeClaim>("its claim", |all| all.len() == 1).await;
    let first = uid(&cluster.list::<PersistentVolumeClaim>());
    let api = cluster.api::<PersistentVolumeClaim>();
    api.delete("data-web-0", &Default::default()).await.unwrap();
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("data-web-0", &PatchParams::default(), &none).await.ok();
    cluster.eventually::<PersistentVolumeClaim>("no old claim", |all| uid(all) != first).await;
    // Any event of the pod leads to a look.
    let label = Patch::Merge(json!({"metadata": {"labels": {"touched": "yes"}}}));
    cluster.api::<Pod>().patch("web-0", &PatchParams::default(), &label).await.unwrap();
    cluster
        .eventually::<PersistentVolumeClaim>("another claim", |all| uid(all).is_some() && uid(all) != first)
        .await;
}
