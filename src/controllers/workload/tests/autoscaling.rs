//! HorizontalPodAutoscalers against a real API server, on which no kubelet tells what pods use.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::PostParams;
use serde_json::{Value, json};
use std::sync::Arc;

use super::cluster::Cluster;

async fn create_scaler(cluster: &Cluster, target: &str, most: i32) {
    let spec = json!({"minReplicas": 1, "maxReplicas": most,
                      "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}});
    let scaler: HorizontalPodAutoscaler =
        serde_json::from_value(json!({"metadata": {"name": "hpa"}, "spec": spec})).unwrap();
    cluster.api::<HorizontalPodAutoscaler>().create(&PostParams::default(), &scaler).await.unwrap();
}

/// Type, status and reason of the conditions.
fn conditions(all: &[Arc<HorizontalPodAutoscaler>]) -> Vec<Value> {
    let status = all.first().and_then(|scaler| scaler.status.clone()).unwrap_or_default();
    let all = status.conditions.unwrap_or_default();
    all.iter().map(|c| json!([c.type_, c.status, c.reason])).collect()
}

async fn told(cluster: &Cluster, reason: &str, message: &str) {
    cluster
        .eventually::<Event>(message, |events| {
            events.iter().any(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.message.as_deref().unwrap_or_default().starts_with(message)
            })
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_beyond_its_limits_is_scaled_and_without_metrics_the_status_says_why_not() {
    let cluster = Cluster::start(1).await;
    let deployment: Deployment = serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {
        "replicas": 4, "selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "c", "image": "v1", "resources": {"requests": {"cpu": "10m"}}}]}}}}))
    .unwrap();
    cluster.api::<Deployment>().create(&PostParams::default(), &deployment).await.unwrap();
    create_scaler(&cluster, "d", 2).await;
    let size = |all: &[Arc<Deployment>]| all.first()?.spec.as_ref()?.replicas;
    cluster.eventually::<Deployment>("a smaller deployment", |all| size(all) == Some(2)).await;
    told(
        &cluster,
        "SuccessfulRescale",
        "New size: 2; reason: Current number of replicas above Spec.MaxReplicas",
    )
    .await;
    cluster
        .eventually("the rescale in the status", |all| {
            conditions(all) == [json!(["AbleToScale", "True", "SucceededRescale"])]
        })
        .await;
    // Another spec is looked at at once.
    let patch = kube::api::Patch::Merge(json!({"spec": {"maxReplicas": 3}}));
    let api = cluster.api::<HorizontalPodAutoscaler>();
    api.patch("hpa", &Default::default(), &patch).await.unwrap();
    cluster
        .eventually("the missing metrics in the status", |all| {
            conditions(all)
                == [
                    json!(["AbleToScale", "True", "SucceededGetScale"]),
                    json!(["ScalingActive", "False", "FailedGetResourceMetric"]),
                ]
        })
        .await;
    let why = "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from \
               resource metrics API";
    told(&cluster, "FailedGetResourceMetric", why).await;
    told(
        &cluster,
        "FailedComputeMetricsReplicas",
        "invalid metrics (1 invalid out of 1), first error is: failed",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_not_there_is_told_of() {
    let cluster = Cluster::start(0).await;
    create_scaler(&cluster, "nobody", 2).await;
    cluster
        .eventually("the missing target in the status", |all| {
            conditions(all) == [json!(["AbleToScale", "False", "FailedGetScale"])]
        })
        .await;
    told(&cluster, "FailedGetScale", "deployments.apps \"nobody\" not found").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autoscalers_that_select_the_same_pods_do_nothing_and_say_so() {
    let cluster = Cluster::start(1).await;
    let deployment: Deployment = serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "c", "image": "v1"}]}}}}))
    .unwrap();
    cluster.api::<Deployment>().create(&PostParams::default(), &deployment).await.unwrap();
    cluster.eventually::<Pod>("a pod", |pods| pods.len() == 1).await;
    create_scaler(&cluster, "d", 3).await;
    told(&cluster, "FailedComputeMetricsReplicas", "invalid metrics").await;
    let mut second = cluster.api::<HorizontalPodAutoscaler>().get("hpa").await.unwrap();
    second.metadata = kube::api::ObjectMeta { name: Some("second".into()), ..Default::default() };
    cluster.api::<HorizontalPodAutoscaler>().create(&PostParams::default(), &second).await.unwrap();
    let why = "pods by selector app=d are controlled by multiple HPAs: [default/hpa default/second]";
    told(&cluster, "AmbiguousSelector", why).await;
    cluster
        .eventually::<HorizontalPodAutoscaler>("the ambiguity in the status", |all| {
            let second: Vec<_> =
                all.iter().filter(|one| one.metadata.name.as_deref() == Some("second")).cloned().collect();
            conditions(&second).contains(&json!(["ScalingActive", "False", "AmbiguousSelector"]))
        })
        .await;
}
