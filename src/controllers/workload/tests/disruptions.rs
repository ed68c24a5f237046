//! PodDisruptionBudgets and evictions against a real API server: the behaviours of the conformance tests.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{EvictParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;

use super::cluster::Cluster;

async fn create_pods(cluster: &Cluster, count: usize) {
    cluster.furnished().await;
    for index in 0..count {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("pod-{index}"), "labels": {"foo": "bar"}},
            "spec": {"containers": [{"name": "c", "image": "v1"}]},
        }))
        .unwrap();
        cluster.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
    }
    cluster
        .eventually::<Pod>("ready pods", |pods| {
            pods.iter().filter(|pod| crate::controllers::workload::pods::is_ready(pod)).count() == count
        })
        .await;
}

async fn create_budget(cluster: &Cluster, spec: Value) {
    let mut body =
        json!({"metadata": {"name": "foo"}, "spec": {"selector": {"matchLabels": {"foo": "bar"}}}});
    json_patch::merge(&mut body["spec"], &spec);
    let budget: PodDisruptionBudget = serde_json::from_value(body).unwrap();
    cluster.api::<PodDisruptionBudget>().create(&PostParams::default(), &budget).await.unwrap();
}

/// Healthy, wanted, expected and allowed.
fn counts(all: &[Arc<PodDisruptionBudget>]) -> Option<[i32; 4]> {
    let budget = all.first()?;
    let status = budget.status.as_ref()?;
    let counts =
        [status.current_healthy, status.desired_healthy, status.expected_pods, status.disruptions_allowed];
    let counts = counts.map(|count| count.unwrap_or(0));
    (status.observed_generation == budget.metadata.generation).then_some(counts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_observe_pod_disruption_budget_status() {
    let cluster = Cluster::start(1).await;
    create_budget(&cluster, json!({"minAvailable": 1})).await;
    cluster
        .eventually::<PodDisruptionBudget>("a budget without pods", |all| counts(all) == Some([0, 1, 0, 0]))
        .await;
    create_pods(&cluster, 3).await;
    cluster
        .eventually::<PodDisruptionBudget>("a budget of three pods", |all| counts(all) == Some([3, 1, 3, 2]))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_block_an_eviction_until_the_pdb_is_updated_to_allow_it() {
    let cluster = Cluster::start(1).await;
    create_budget(&cluster, json!({"minAvailable": 2})).await;
    create_pods(&cluster, 2).await;
    cluster
        .eventually::<PodDisruptionBudget>("a budget that is used up", |all| {
            counts(all) == Some([2, 2, 2, 0])
        })
        .await;
    let api = cluster.api::<Pod>();
    let refused = api.evict("pod-0", &EvictParams::default()).await.unwrap_err();
    assert_eq!(crate::client::error::code(&refused), Some(429), "{refused}");
    let fewer = Patch::Merge(json!({"spec": {"minAvailable": 1}}));
    cluster.api::<PodDisruptionBudget>().patch("foo", &PatchParams::default(), &fewer).await.unwrap();
    cluster
        .eventually::<PodDisruptionBudget>("a budget for one", |all| counts(all) == Some([2, 1, 2, 1]))
        .await;
    api.evict("pod-0", &EvictParams::default()).await.unwrap();
    cluster.eventually::<Pod>("one pod", |pods| pods.len() == 1).await;
    let refused = api.evict("pod-1", &EvictParams::default()).await.unwrap_err();
    assert_eq!(crate::client::error::code(&refused), Some(429), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_update_and_patch_pod_disruption_budget_status_without_losing_what_others_write() {
    let cluster = Cluster::start(1).await;
    create_budget(&cluster, json!({"minAvailable": 1})).await;
    create_pods(&cluster, 1).await;
    cluster
        .eventually::<PodDisruptionBudget>("a budget of one pod", |all| counts(all) == Some([1, 1, 1, 0]))
        .await;
    let disrupted = json!({"status": {"disruptedPods": {"pod-0": "2026-01-01T00:00:00Z"}}});
    let api = cluster.api::<PodDisruptionBudget>();
    let patched = api.patch_status("foo", &PatchParams::default(), &Patch::Merge(disrupted)).await.unwrap();
    assert!(patched.status.unwrap().disrupted_pods.is_some_and(|pods| pods.contains_key("pod-0")));
    // The pod was to go long ago and did not: the entry is dropped again.
    cluster
        .eventually::<PodDisruptionBudget>("no disrupted pods", |all| {
            let status = all.first().and_then(|budget| budget.status.clone()).unwrap_or_default();
            status.disrupted_pods.is_none_or(|pods| pods.is_empty()) && counts(all) == Some([1, 1, 1, 0])
        })
        .await;
}
