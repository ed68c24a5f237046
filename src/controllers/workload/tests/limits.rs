//! LimitRanges against a real API server: the behaviours of the conformance tests.

use k8s_openapi::api::core::v1::{LimitRange, Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::api::quantity::Quantity;

fn resources(cpu: &str, memory: &str, storage: &str) -> Value {
    let all = [("cpu", cpu), ("memory", memory), ("ephemeral-storage", storage)];
    all.into_iter()
        .filter(|(_, amount)| !amount.is_empty())
        .map(|(name, amount)| (name.to_owned(), json!(amount)))
        .collect()
}

fn limit_range(name: &str) -> LimitRange {
    let most = resources("500m", "500Mi", "500Gi");
    let item = json!({"type": "Container", "min": resources("50m", "100Mi", "100Gi"), "max": most, "default": most,
                      "defaultRequest": resources("100m", "200Mi", "200Gi")});
    let meta = json!({"name": name, "labels": {"e2e-test": name, name: "created"}});
    serde_json::from_value(json!({"metadata": meta, "spec": {"limits": [item]}})).unwrap()
}

async fn create_pod(cluster: &Cluster, name: &str, requests: Value, limits: Value) -> kube::Result<Pod> {
    let containers =
        json!([{"name": "c", "image": "v1", "resources": {"requests": requests, "limits": limits}}]);
    let pod = json!({"metadata": {"name": name}, "spec": {"containers": containers}});
    cluster.api::<Pod>().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await
}

/// The pod's requests and limits are equal to these, however they are spelt.
fn assert_has(pod: &Pod, requests: &Value, limits: &Value) {
    let read = |list: Value| -> Vec<(String, Quantity)> {
        let Value::Object(list) = list else { return vec![] };
        list.into_iter()
            .map(|(name, amount)| (name, Quantity::parse(amount.as_str().unwrap()).unwrap()))
            .collect()
    };
    let found = json!(pod.spec.as_ref().unwrap().containers[0].resources);
    assert_eq!(read(found["requests"].clone()), read(requests.clone()), "{found}");
    assert_eq!(read(found["limits"].clone()), read(limits.clone()), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_range_with_defaults_is_applied_to_pods() {
    let cluster = Cluster::start(0).await;
    cluster.furnished().await;
    let api = cluster.api::<LimitRange>();
    api.create(&PostParams::default(), &limit_range("limit-range")).await.unwrap();
    let (none, most) = (json!({}), resources("500m", "500Mi", "500Gi"));
    let pod = create_pod(&cluster, "pod-no-resources", none.clone(), none.clone()).await.unwrap();
    assert_has(&pod, &resources("100m", "200Mi", "200Gi"), &most);
    let requests = resources("", "150Mi", "150Gi");
    let pod = create_pod(&cluster, "pod-partial", requests, resources("300m", "", "")).await.unwrap();
    assert_has(&pod, &resources("300m", "150Mi", "150Gi"), &resources("300m", "500Mi", "500Gi"));
    let little = || resources("10m", "50Mi", "50Gi");
    let much = || resources("600m", "600Mi", "600Gi");
    // What asks for more than the default limit is invalid before the range is asked.
    for (requests, code) in [(little(), 403), (much(), 422)] {
        let refused = create_pod(&cluster, "refused", requests, none.clone()).await.unwrap_err();
        assert_eq!(crate::client::error::code(&refused), Some(code), "{refused}");
    }
    let mut changed = api.get("limit-range").await.unwrap();
    let least = resources("9m", "49Mi", "49Gi");
    changed.spec.as_mut().unwrap().limits[0].min = serde_json::from_value(least.clone()).unwrap();
    api.replace("limit-range", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(json!(api.get("limit-range").await.unwrap().spec.unwrap().limits[0].min), least);
    create_pod(&cluster, "little", little(), none.clone()).await.unwrap();
    assert!(create_pod(&cluster, "refused", much(), none.clone()).await.is_err());
    api.delete("limit-range", &DeleteParams::default().grace_period(30)).await.unwrap();
    assert!(api.list(&ListParams::default()).await.unwrap().items.is_empty());
    create_pod(&cluster, "much", much(), none).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_ranges_are_listed_patched_and_deleted_by_collection() {
    let cluster = Cluster::start(0).await;
    let other: Namespace = serde_json::from_value(json!({"metadata": {"name": "other"}})).unwrap();
    Api::all(cluster.admin()).create(&PostParams::default(), &other).await.unwrap();
    let here = cluster.api::<LimitRange>();
    let there: Api<LimitRange> = Api::namespaced(cluster.admin(), "other");
    let made = here.create(&PostParams::default(), &limit_range("l")).await.unwrap();
    there.create(&PostParams::default(), &limit_range("l")).await.unwrap();
    let everywhere: Api<LimitRange> = Api::all(cluster.admin());
    let labelled = |selector: &str| ListParams::default().labels(selector);
    assert_eq!(everywhere.list(&labelled("e2e-test=l")).await.unwrap().items.len(), 2);
    let mut limits = made.spec.unwrap().limits;
    let least = resources("9m", "49Mi", "49Gi");
    limits[0].min = serde_json::from_value(least.clone()).unwrap();
    let patch = json!({"metadata": {"creationTimestamp": made.metadata.creation_timestamp, "labels": {"l": "patched"}},
                       "spec": {"limits": limits}});
    let patched = here.patch("l", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    assert_eq!(patched.metadata.labels.unwrap()["l"], "patched");
    let limits = patched.spec.unwrap().limits;
    assert_eq!((limits.len(), json!(limits[0].min)), (1, least));
    here.delete_collection(&DeleteParams::default(), &labelled("l=patched")).await.unwrap();
    assert!(everywhere.list(&labelled("l=patched")).await.unwrap().items.is_empty());
    assert_eq!(everywhere.list(&labelled("e2e-test=l")).await.unwrap().items.len(), 1);
}
