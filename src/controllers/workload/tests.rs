//! The workload controllers and the scheduler against a real API server in memory, each with its own identity and rights.
//!
//! A simulated kubelet marks pods of its node Running and Ready (unless their image is `broken`) and removes pods that are
//! being deleted. Tests assert the state of the world.

mod autoscaling;
mod certificates;
mod cluster;
mod cronjobs;
mod daemonsets;
mod deployments;
mod disruptions;
mod faults;
mod faulty;
mod jobs;
mod limits;
mod networking;
mod quotas;
mod resources;
mod scheduling;
mod statefulsets;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use serde_json::{Value, json};

use cluster::Cluster;

fn deployment(replicas: i32, image: &str) -> Deployment {
    serde_json::from_value(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    }))
    .unwrap()
}

fn service() -> Service {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }))
    .unwrap()
}

async fn patch(cluster: &Cluster, patch: Value) {
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
    cluster.api::<Deployment>().patch("web", &parameters, &patch).await.unwrap();
}

fn image_patch(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// Waits until the rollout is complete, as `kubectl rollout status` does.
async fn rolled_out(cluster: &Cluster, replicas: i32) {
    cluster
        .eventually::<Deployment>("a complete rollout", |all| {
            let Some(deployment) = all.first() else { return false };
            let status = deployment.status.clone().unwrap_or_default();
            let counts = [status.replicas, status.updated_replicas, status.available_replicas];
            status.observed_generation == deployment.metadata.generation
                && counts.iter().all(|count| count.unwrap_or(0) == replicas)
        })
        .await;
}

fn images(pods: &[std::sync::Arc<Pod>]) -> Vec<String> {
    let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    pods.iter().map(|pod| image(pod)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_rolled_out_scaled_updated_and_undone() {
    let cluster = Cluster::start(2).await;
    cluster.api::<Deployment>().create(&PostParams::default(), &deployment(3, "v1")).await.unwrap();
    rolled_out(&cluster, 3).await;
    cluster
        .eventually::<Event>("events of every step", |events| {
            let told = |reason: &str, message: &str| {
                events.iter().any(|event| {
                    event.reason.as_deref() == Some(reason)
                        && event.message.as_deref().unwrap_or_default().starts_with(message)
                })
            };
            told("ScalingReplicaSet", "Scaled up replica set web-")
                && told("SuccessfulCreate", "Created pod: web-")
                && told("Scheduled", "Successfully assigned default/web-")
        })
        .await;
    let nodes: std::collections::BTreeSet<_> =
        cluster.list::<Pod>().iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    assert_eq!(nodes.len(), 2, "three pods are spread over two nodes");

    patch(&cluster, json!({"spec": {"replicas": 5}})).await;
    rolled_out(&cluster, 5).await;
    patch(&cluster, image_patch("v2")).await;
    rolled_out(&cluster, 5).await;
    cluster.eventually::<Pod>("only new pods", |pods| images(pods) == ["v2"; 5]).await;
    patch(&cluster, image_patch("v1")).await;
    rolled_out(&cluster, 5).await;
    cluster.eventually::<Pod>("only old pods", |pods| images(pods) == ["v1"; 5]).await;
    let revisions = |sets: &[std::sync::Arc<ReplicaSet>]| -> Vec<i64> {
        let mut revisions: Vec<_> = sets
            .iter()
            .map(|set| crate::controllers::deployment::annotations::revision(&set.metadata))
            .collect();
        revisions.sort_unstable();
        revisions
    };
    cluster
        .eventually::<ReplicaSet>("two sets, of revisions 2 and 3", |sets| revisions(sets) == [2, 3])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_follow_readiness() {
    let cluster = Cluster::start(1).await;
    cluster.api::<Service>().create(&PostParams::default(), &service()).await.unwrap();
    cluster.api::<Deployment>().create(&PostParams::default(), &deployment(3, "v1")).await.unwrap();
    let ready_in_slices = |slices: &[std::sync::Arc<EndpointSlice>]| -> usize {
        let endpoints = slices
            .iter()
            .filter(|slice| slice.metadata.name.as_deref().is_some_and(|name| name.starts_with("web-")))
            .flat_map(|slice| slice.endpoints.iter().flatten());
        endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true)).count()
    };
    let ready_in_object = |objects: &[std::sync::Arc<Endpoints>]| -> usize {
        let web = objects.iter().filter(|object| object.metadata.name.as_deref() == Some("web"));
        let subsets = web.flat_map(|object| object.subsets.iter().flatten());
        subsets.flat_map(|subset| subset.addresses.iter().flatten()).count()
    };
    cluster.eventually::<EndpointSlice>("three ready endpoints", |s| ready_in_slices(s) == 3).await;
    cluster.eventually::<Endpoints>("three ready addresses", |e| ready_in_object(e) == 3).await;

    let pod = cluster.list::<Pod>()[0].metadata.name.clone().unwrap();
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let not_ready = Patch::Strategic(not_ready);
    cluster.api::<Pod>().patch_status(&pod, &PatchParams::default(), &not_ready).await.unwrap();
    cluster.eventually::<EndpointSlice>("two ready endpoints", |s| ready_in_slices(s) == 2).await;
    cluster.eventually::<Endpoints>("two ready addresses", |e| ready_in_object(e) == 2).await;

    cluster.api::<Service>().delete("web", &DeleteParams::default()).await.unwrap();
    cluster.eventually::<EndpointSlice>("no slices of the service", |s| ready_in_slices(s) == 0).await;
    cluster
        .eventually::<Endpoints>("no endpoints of the service", |objects| {
            objects.iter().all(|object| object.metadata.name.as_deref() != Some("web"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_pods_are_replaced_and_deletion_takes_everything_along() {
    let cluster = Cluster::start(1).await;
    cluster.api::<Deployment>().create(&PostParams::default(), &deployment(2, "v1")).await.unwrap();
    rolled_out(&cluster, 2).await;
    let lost = cluster.list::<Pod>()[0].clone();
    let name = lost.metadata.name.as_deref().unwrap();
    cluster.api::<Pod>().delete(name, &DeleteParams::default()).await.unwrap();
    cluster
        .eventually::<Pod>("two pods, none of them the lost one", |pods| {
            pods.len() == 2 && pods.iter().all(|pod| pod.metadata.uid != lost.metadata.uid)
        })
        .await;
    rolled_out(&cluster, 2).await;
    let background =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    cluster.api::<Deployment>().delete("web", &background).await.unwrap();
    cluster.eventually::<ReplicaSet>("no sets", <[_]>::is_empty).await;
    cluster.eventually::<Pod>("no pods", <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_says_why_and_runs_when_there_is_room() {
    let cluster = Cluster::start(1).await;
    let mut big = deployment(1, "v1");
    let containers = &mut big.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers;
    containers[0].resources = serde_json::from_value(json!({"requests": {"cpu": "7"}})).unwrap();
    cluster.api::<Deployment>().create(&PostParams::default(), &big).await.unwrap();
    let expected = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
                    1 Preemption is not helpful for scheduling.";
    cluster
        .eventually::<Pod>("the reason in the pod's conditions", |pods| {
            pods.iter().any(|pod| {
                let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions
                    .clone()
                    .any(|c| c.type_ == "PodScheduled" && c.message.as_deref() == Some(expected))
            })
        })
        .await;
    cluster.add_node("large", "8").await;
    rolled_out(&cluster, 1).await;
}
