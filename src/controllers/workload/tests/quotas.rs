//! ResourceQuotas against a real API server: the behaviours of the conformance tests.

use k8s_openapi::api::core::v1::{Pod, ResourceQuota, Secret};
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use super::cluster::Cluster;

async fn uses(cluster: &Cluster, expected: Value) {
    let used = |quota: &ResourceQuota| {
        let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
        serde_json::to_value(used).unwrap() == expected
    };
    cluster
        .eventually::<ResourceQuota>(&expected.to_string(), |all| {
            all.first().is_some_and(|quota| used(quota))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_create_a_resource_quota_and_capture_the_life_of_a_pod_and_a_secret() {
    let cluster = Cluster::start(1).await;
    let hard = json!({"pods": "2", "requests.cpu": "1", "secrets": "5"});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
    cluster.api::<ResourceQuota>().create(&PostParams::default(), &quota).await.unwrap();
    let none = json!({"pods": "0", "requests.cpu": "0", "secrets": "0"});
    uses(&cluster, none.clone()).await;
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "image": "runs", "resources": {"requests": {"cpu": "250m"}}}]}}))
    .unwrap();
    cluster.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
    let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "s"}})).unwrap();
    cluster.api::<Secret>().create(&PostParams::default(), &secret).await.unwrap();
    uses(&cluster, json!({"pods": "1", "requests.cpu": "250m", "secrets": "1"})).await;
    cluster.api::<Pod>().delete("p", &DeleteParams::default()).await.unwrap();
    cluster.api::<Secret>().delete("s", &DeleteParams::default()).await.unwrap();
    uses(&cluster, none).await;
}
