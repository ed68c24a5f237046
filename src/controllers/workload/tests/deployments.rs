//! Deployments, ReplicaSets and ReplicationControllers: more behaviours of the conformance tests.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController, ResourceQuota};
use kube::Resource;
use kube::api::{Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

use super::cluster::Cluster;

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn deployment(spec: &Value) -> Value {
    let mut body = json!({"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"app": "x"}}}});
    json_patch::merge(&mut body["spec"], spec);
    body
}

fn set(kind_selector: Value, replicas: i32) -> Value {
    let spec = json!({"replicas": replicas, "selector": kind_selector, "template": template("v1")});
    json!({"metadata": {"name": "x-set"}, "spec": spec})
}

async fn create<K>(cluster: &Cluster, body: Value) -> K
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let object: K = serde_json::from_value(body).unwrap();
    cluster.api::<K>().create(&PostParams::default(), &object).await.unwrap()
}

async fn patch<K>(cluster: &Cluster, name: &str, patch: Value)
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
    cluster.api::<K>().patch(name, &parameters, &patch).await.unwrap();
}

/// The sizes of the sets whose pods have an image.
fn sizes(sets: &[Arc<ReplicaSet>], image: &str) -> Vec<i32> {
    let has_image = |set: &&Arc<ReplicaSet>| {
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        let pod = template.and_then(|template| template.spec.as_ref());
        pod.is_some_and(|pod| pod.containers[0].image.as_deref() == Some(image))
    };
    sets.iter().filter(has_image).map(|set| crate::controllers::deployment::sets::replicas(set)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployment_should_support_proportional_scaling() {
    let cluster = Cluster::start(4).await;
    let rolling = json!({"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
    let spec = json!({"replicas": 10, "strategy": rolling, "template": template("v1")});
    create::<Deployment>(&cluster, deployment(&spec)).await;
    let available = |wanted: i32| {
        move |all: &[Arc<Deployment>]| {
            let status = all.first().and_then(|deployment| deployment.status.clone());
            status.is_some_and(|status| status.available_replicas == Some(wanted))
        }
    };
    cluster.eventually::<Deployment>("ten available pods", available(10)).await;
    patch::<Deployment>(&cluster, "x", json!({"spec": {"template": template("broken")}})).await;
    let both = |old: i32, new: i32| {
        move |sets: &[Arc<ReplicaSet>]| sizes(sets, "v1") == [old] && sizes(sets, "broken") == [new]
    };
    cluster.eventually::<ReplicaSet>("a rollout that hangs", both(8, 5)).await;
    patch::<Deployment>(&cluster, "x", json!({"spec": {"replicas": 30}})).await;
    cluster.eventually::<ReplicaSet>("sets that grow in proportion", both(20, 13)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recreate_deployment_should_delete_old_pods_and_create_new_ones() {
    let cluster = Cluster::start(1).await;
    let spec = json!({"replicas": 3, "strategy": {"type": "Recreate"}, "template": template("v1")});
    create::<Deployment>(&cluster, deployment(&spec)).await;
    cluster.eventually::<Pod>("three pods", |pods| pods.len() == 3).await;
    // No pod of the new template may be there while one of the old one is.
    let mixed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = mixed.clone();
    let guard = cluster.watch_pods(move |pods| {
        let image = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
        let images: std::collections::BTreeSet<_> = pods.iter().map(|pod| image(pod)).collect();
        seen.fetch_or(images.len() > 1, std::sync::atomic::Ordering::SeqCst);
    });
    patch::<Deployment>(&cluster, "x", json!({"spec": {"template": template("v2")}})).await;
    cluster
        .eventually::<Deployment>("a complete rollout", |all| {
            let Some(deployment) = all.first() else { return false };
            let status = deployment.status.clone().unwrap_or_default();
            status.observed_generation == deployment.metadata.generation
                && [status.replicas, status.updated_replicas, status.available_replicas] == [Some(3); 3]
        })
        .await;
    drop(guard);
    assert!(!mixed.load(std::sync::atomic::Ordering::SeqCst), "old and new pods at the same time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_update_deployment_should_adopt_a_replica_set_and_count_its_revision_on() {
    let cluster = Cluster::start(1).await;
    let mut old = set(json!({"matchLabels": {"app": "x"}}), 1);
    let revision = "3546343826724305832";
    old["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": revision});
    old["metadata"]["labels"] = json!({"app": "x"});
    create::<ReplicaSet>(&cluster, old).await;
    cluster.eventually::<Pod>("the set's pod", |pods| pods.len() == 1).await;
    create::<Deployment>(&cluster, deployment(&json!({"replicas": 1, "template": template("v2")}))).await;
    cluster
        .eventually::<ReplicaSet>("an adopted set without pods", |sets| {
            let adopted = sets.iter().find(|set| set.metadata.name.as_deref() == Some("x-set"));
            let owners = adopted.and_then(|set| set.metadata.owner_references.clone()).unwrap_or_default();
            owners.len() == 1 && owners[0].kind == "Deployment" && sizes(sets, "v1") == [0]
        })
        .await;
    cluster
        .eventually::<Deployment>("the next revision", |all| {
            let meta = all.first().map(|deployment| deployment.metadata.clone()).unwrap_or_default();
            let annotations = meta.annotations.unwrap_or_default();
            annotations.get("deployment.kubernetes.io/revision").map(String::as_str)
                == Some("3546343826724305833")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployment_should_delete_old_replica_sets() {
    let cluster = Cluster::start(1).await;
    let spec = json!({"replicas": 1, "revisionHistoryLimit": 0, "template": template("v1")});
    create::<Deployment>(&cluster, deployment(&spec)).await;
    cluster.eventually::<ReplicaSet>("the first set", |sets| sizes(sets, "v1") == [1]).await;
    patch::<Deployment>(&cluster, "x", json!({"spec": {"template": template("v2")}})).await;
    cluster
        .eventually::<ReplicaSet>("only the second set", |sets| sets.len() == 1 && sizes(sets, "v2") == [1])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_sets_and_controllers_should_adopt_matching_pods_on_creation_and_release_no_longer_matching_pods()
 {
    let cluster = Cluster::start(1).await;
    let is_owned_by = |pods: &[Arc<Pod>], name: &str, kind: &str| {
        let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name));
        let owners = pod.and_then(|pod| pod.metadata.owner_references.clone()).unwrap_or_default();
        owners.iter().any(|owner| owner.kind == kind && owner.controller == Some(true))
    };
    cluster.furnished().await;
    for kind in ["ReplicaSet", "ReplicationController"] {
        let mut orphan = template("v1");
        orphan["metadata"]["name"] = format!("orphan-{}", kind.to_lowercase()).into();
        let orphan = create::<Pod>(&cluster, orphan).await.metadata.name.unwrap();
        if kind == "ReplicaSet" {
            create::<ReplicaSet>(&cluster, set(json!({"matchLabels": {"app": "x"}}), 1)).await;
        } else {
            create::<ReplicationController>(&cluster, set(json!({"app": "x"}), 1)).await;
        }
        cluster.eventually::<Pod>("an adopted pod", |pods| is_owned_by(pods, &orphan, kind)).await;
        patch::<Pod>(&cluster, &orphan, json!({"metadata": {"labels": {"app": "y"}}})).await;
        cluster
            .eventually::<Pod>("a released pod and another in its place", |pods| {
                pods.len() >= 2 && !is_owned_by(pods, &orphan, kind)
            })
            .await;
        if kind == "ReplicaSet" {
            cluster.api::<ReplicaSet>().delete("x-set", &Default::default()).await.unwrap();
        }
        cluster.api::<Pod>().delete(&orphan, &Default::default()).await.unwrap();
        if kind == "ReplicaSet" {
            cluster.eventually::<Pod>("no pods", <[_]>::is_empty).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replication_controller_should_surface_a_failure_condition_on_a_common_issue_like_exceeded_quota() {
    let cluster = Cluster::start(1).await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}});
    create::<ResourceQuota>(&cluster, quota).await;
    cluster
        .eventually::<ResourceQuota>("the quota in force", |all| {
            all.first().is_some_and(|quota| quota.status.as_ref().is_some_and(|s| s.hard.is_some()))
        })
        .await;
    create::<ReplicationController>(&cluster, set(json!({"app": "x"}), 3)).await;
    let fails = |all: &[Arc<ReplicationController>]| {
        let status = all.first().and_then(|controller| controller.status.as_ref());
        let conditions = status.and_then(|status| status.conditions.clone());
        let failure = conditions.into_iter().flatten().find(|c| c.type_ == "ReplicaFailure");
        failure.is_some_and(|c| c.status == "True" && c.reason.as_deref() == Some("FailedCreate"))
    };
    cluster.eventually::<ReplicationController>("the failure", fails).await;
    patch::<ReplicationController>(&cluster, "x-set", json!({"spec": {"replicas": 2}})).await;
    cluster.eventually::<ReplicationController>("no failure any more", |all| !fails(all)).await;
    cluster
        .eventually::<ReplicationController>("two pods", |all| {
            all[0].status.as_ref().is_some_and(|status| status.ready_replicas == Some(2))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_written_by_others_keep_their_own_conditions_and_lose_wrong_counts() {
    let cluster = Cluster::start(1).await;
    create::<ReplicaSet>(&cluster, set(json!({"matchLabels": {"app": "x"}}), 1)).await;
    let status = |all: &[Arc<ReplicaSet>]| all.first().and_then(|set| set.status.clone()).unwrap_or_default();
    cluster.eventually::<ReplicaSet>("a ready pod", |all| status(all).ready_replicas == Some(1)).await;
    let foreign = json!({"status": {"readyReplicas": 0, "availableReplicas": 0, "conditions": [{"type": "StatusPatched", "status": "True"}]}});
    let (parameters, foreign) = (PatchParams::default(), Patch::Strategic(foreign));
    cluster.api::<ReplicaSet>().patch_status("x-set", &parameters, &foreign).await.unwrap();
    cluster
        .eventually::<ReplicaSet>("the right count beside the foreign condition", |all| {
            let status = status(all);
            let conditions = status.conditions.unwrap_or_default();
            status.ready_replicas == Some(1) && conditions.iter().any(|c| c.type_ == "StatusPatched")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployment_should_support_rollover() {
    let cluster = Cluster::start(1).await;
    let mut old = set(json!({"matchLabels": {"app": "x"}}), 1);
    old["metadata"]["labels"] = json!({"app": "x"});
    create::<ReplicaSet>(&cluster, old).await;
    let ready = |sets: &[Arc<ReplicaSet>]| {
        sets[0].status.as_ref().and_then(|status| status.ready_replicas) == Some(1)
    };
    cluster.eventually::<ReplicaSet>("the set's pod", |sets| sets.len() == 1 && ready(sets)).await;
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    let spec =
        json!({"replicas": 1, "minReadySeconds": 1, "strategy": strategy, "template": template("broken")});
    create::<Deployment>(&cluster, deployment(&spec)).await;
    cluster
        .eventually::<ReplicaSet>("a rollout that hangs", |sets| {
            sizes(sets, "v1") == [1] && sizes(sets, "broken") == [1]
        })
        .await;
    patch::<Deployment>(&cluster, "x", json!({"spec": {"template": template("v2")}})).await;
    cluster
        .eventually::<ReplicaSet>("only the last revision", |sets| {
            [sizes(sets, "v1"), sizes(sets, "broken"), sizes(sets, "v2")] == [vec![0], vec![0], vec![1]]
        })
        .await;
    cluster
        .eventually::<Deployment>("the second revision, complete", |all| {
            let Some(deployment) = all.first() else { return false };
            let revision = deployment
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get("deployment.kubernetes.io/revision").cloned());
            let status = deployment.status.clone().unwrap_or_default();
            revision.as_deref() == Some("2")
                && status.available_replicas == Some(1)
                && status.replicas == Some(1)
        })
        .await;
}
