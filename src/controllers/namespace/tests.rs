//! Deletion of whole namespaces against the model of the API.

use super::*;
use crate::{
    client::fake::{FakeApi, Kind, Status, eventually},
    controllers::testing::{self, Running, meta, namespace},
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

fn kind(kind: &'static str, plural: &'static str) -> Kind {
    Kind { group: "", version: "v1", kind, plural, namespaced: true }
}

fn setup() -> (Arc<FakeApi>, Running) {
    let api = FakeApi::new();
    api.serve(vec![kind("ConfigMap", "configmaps"), kind("Pod", "pods"), kind("Secret", "secrets")]);
    api.create(&namespace("one"));
    api.create(&namespace("two"));
    for name in ["a", "b"] {
        api.create(&ConfigMap { metadata: meta("one", name), ..ConfigMap::default() });
    }
    api.create(&Secret { metadata: meta("two", "kept"), ..Secret::default() });
    let running = testing::start(&api, run);
    (api, running)
}

fn pod(name: &str, finalizer: bool) -> Pod {
    let mut metadata = meta("one", name);
    metadata.finalizers = finalizer.then(|| vec!["demo.io/keep".to_owned()]);
    Pod { metadata, ..Pod::default() }
}

fn condition(api: &FakeApi, kind: &str) -> Option<String> {
    let conditions = api.get::<Namespace>("", "one")?.status?.conditions?;
    conditions.into_iter().find(|condition| condition.type_ == kind)?.message
}

#[tokio::test(start_paused = true)]
async fn a_deleted_namespace_takes_its_content_with_it_and_no_other() {
    let (api, _running) = setup();
    api.create(&pod("p", false));
    api.delete::<Namespace>("", "one");
    eventually("the namespace has gone", || api.get::<Namespace>("", "one").is_none()).await;
    assert!(api.list::<ConfigMap>().is_empty() && api.list::<Pod>().is_empty());
    assert!(api.get::<Namespace>("", "two").is_some() && api.get::<Secret>("two", "kept").is_some());
    tokio::time::sleep(Duration::from_secs(600)).await;
    let requests = api.requests("DELETE").len();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(api.requests("DELETE").len(), requests, "nothing happens any more");
}

#[tokio::test(start_paused = true)]
async fn pods_go_first_and_what_is_left_is_told() {
    let (api, _running) = setup();
    api.create(&pod("slow", true));
    api.delete::<Namespace>("", "one");
    eventually("the conditions tell of the pod", || {
        condition(&api, "NamespaceContentRemaining").is_some_and(|text| text.contains("pods. has 1 resource"))
    })
    .await;
    assert!(condition(&api, "NamespaceFinalizersRemaining").unwrap().contains("demo.io/keep in 1"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(api.list::<ConfigMap>().len(), 2, "others wait for the pods");
    api.update::<Pod>("one", "slow", |pod| pod.metadata.finalizers = None);
    let freed = tokio::time::Instant::now();
    eventually("the namespace has gone", || api.get::<Namespace>("", "one").is_none()).await;
    assert!(
        freed.elapsed() < Duration::from_secs(2),
        "the end of a pod is seen at once: {:?}",
        freed.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_and_tried_again() {
    let (api, _running) = setup();
    api.fail("DELETE", "/namespaces/one/configmaps", 5, Status::new(500, "InternalError"));
    api.delete::<Namespace>("", "one");
    eventually("the conditions tell of the failure", || {
        condition(&api, "NamespaceDeletionContentFailure").is_some_and(|text| text.contains("configmaps"))
    })
    .await;
    eventually("the namespace has gone", || api.get::<Namespace>("", "one").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_from_before_the_start_is_finished() {
    let api = FakeApi::new();
    api.serve(vec![kind("ConfigMap", "configmaps")]);
    api.create(&namespace("one"));
    api.delete::<Namespace>("", "one");
    let _running = testing::start(&api, run);
    eventually("the namespace has gone", || api.get::<Namespace>("", "one").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_conflicting_write_delays_but_does_not_stop_the_deletion() {
    let (api, _running) = setup();
    api.fail("PUT", "/namespaces/one/status", 2, Status::new(409, "Conflict"));
    api.fail("PUT", "/namespaces/one/finalize", 2, Status::new(409, "Conflict"));
    api.delete::<Namespace>("", "one");
    eventually("the namespace has gone", || api.get::<Namespace>("", "one").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn other_finalizers_of_the_namespace_are_not_ours() {
    let (api, _running) = setup();
    api.update::<Namespace>("", "one", |namespace| {
        namespace.spec.get_or_insert_default().finalizers =
            Some(vec!["kubernetes".into(), "demo.io/x".into()]);
    });
    api.delete::<Namespace>("", "one");
    eventually("ours is removed", || !has_finalizer(&api.get("", "one").unwrap())).await;
    let left = api.get::<Namespace>("", "one").unwrap().spec.unwrap().finalizers.unwrap();
    assert_eq!(left, ["demo.io/x"]);
}
