//! Cascades, orphans and races against the model of the API.

use super::*;
use crate::{
    client::fake::{FakeApi, Kind, Status, eventually},
    controllers::testing::{self, Running, meta},
};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, Event, Namespace, Pod, Secret},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, PropagationPolicy},
};
use serde::{Serialize, de::DeserializeOwned};

fn setup() -> Arc<FakeApi> {
    let kind = |group, kind, plural, namespaced| Kind { group, version: "v1", kind, plural, namespaced };
    let api = FakeApi::new();
    api.serve(vec![
        kind("", "ConfigMap", "configmaps", true),
        kind("", "Event", "events", true),
        kind("", "Namespace", "namespaces", false),
        kind("", "Pod", "pods", true),
        kind("", "Secret", "secrets", true),
        kind("apps", "Deployment", "deployments", true),
        kind("apps", "ReplicaSet", "replicasets", true),
    ]);
    api
}

trait Object: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Default {}
impl<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Default> Object for K {}

fn reference<O: Object>(owner: &O) -> OwnerReference {
    OwnerReference { block_owner_deletion: Some(true), ..owner.controller_owner_ref(&()).unwrap() }
}

fn object<K: Object>(namespace: &str, name: &str, owners: Vec<OwnerReference>) -> K {
    let mut object = K::default();
    *object.meta_mut() = meta(namespace, name);
    object.meta_mut().owner_references = Some(owners).filter(|owners| !owners.is_empty());
    object
}

fn create<K: Object>(api: &FakeApi, name: &str, owners: Vec<OwnerReference>) -> K {
    api.create(&object("ns", name, owners))
}

fn exists<K: Object>(api: &FakeApi, name: &str) -> bool {
    api.get::<K>("ns", name).is_some()
}

/// A deployment with one set of two pods.
fn family(api: &FakeApi) -> Deployment {
    let deployment: Deployment = create(api, "web", vec![]);
    let set: ReplicaSet = create(api, "web-1", vec![reference(&deployment)]);
    for pod in ["web-1-a", "web-1-b"] {
        create::<Pod>(api, pod, vec![reference(&set)]);
    }
    deployment
}

async fn delete<K>(api: &Arc<FakeApi>, name: &str, policy: PropagationPolicy)
where
    K: Object + Clone + std::fmt::Debug + Resource<Scope = kube::core::NamespaceResourceScope>,
{
    let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
    Api::<K>::namespaced(api.client(), "ns").delete(name, &params).await.unwrap();
}

async fn quiet() {
    tokio::time::sleep(Duration::from_secs(300)).await;
}

fn start(api: &Arc<FakeApi>) -> Running {
    testing::start(api, run)
}

#[tokio::test(start_paused = true)]
async fn a_family_goes_when_its_head_is_deleted_in_the_background() {
    let api = setup();
    family(&api);
    create::<Pod>(&api, "single", vec![]);
    let _running = start(&api);
    quiet().await;
    assert_eq!(api.list::<Pod>().len(), 3, "nothing goes while the owners are there");
    assert!(api.requests("DELETE").is_empty() && api.requests("PATCH").is_empty());
    delete::<Deployment>(&api, "web", PropagationPolicy::Background).await;
    eventually("the set and its pods have gone", || {
        !exists::<ReplicaSet>(&api, "web-1") && api.list::<Pod>().len() == 1
    })
    .await;
    quiet().await;
    assert!(exists::<Pod>(&api, "single"));
}

#[tokio::test(start_paused = true)]
async fn what_lost_its_owner_while_nobody_watched_goes_at_the_start() {
    let api = setup();
    family(&api);
    delete::<Deployment>(&api, "web", PropagationPolicy::Background).await;
    let _running = start(&api);
    eventually("all have gone", || api.list::<Pod>().is_empty() && api.list::<ReplicaSet>().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn in_the_foreground_the_head_goes_last() {
    let api = setup();
    family(&api);
    api.update::<Pod>("ns", "web-1-a", |pod| pod.metadata.finalizers = Some(vec!["demo.io/slow".into()]));
    let _running = start(&api);
    delete::<Deployment>(&api, "web", PropagationPolicy::Foreground).await;
    eventually("the quick pod has gone", || !exists::<Pod>(&api, "web-1-b")).await;
    quiet().await;
    let set = api.get::<ReplicaSet>("ns", "web-1").unwrap();
    assert!(set.metadata.deletion_timestamp.is_some(), "the set waits for the slow pod");
    assert!(exists::<Deployment>(&api, "web"), "and the deployment for the set");
    api.update::<Pod>("ns", "web-1-a", |pod| pod.metadata.finalizers = None);
    eventually("all have gone", || {
        api.list::<Pod>().is_empty()
            && !exists::<ReplicaSet>(&api, "web-1")
            && !exists::<Deployment>(&api, "web")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dependent_that_does_not_block_does_not_delay_its_owner() {
    let api = setup();
    let set: ReplicaSet = create(&api, "rs", vec![]);
    let mut lenient = reference(&set);
    lenient.block_owner_deletion = None;
    let mut pod: Pod = object("ns", "p", vec![lenient]);
    pod.metadata.finalizers = Some(vec!["demo.io/slow".into()]);
    api.create(&pod);
    let _running = start(&api);
    delete::<ReplicaSet>(&api, "rs", PropagationPolicy::Foreground).await;
    eventually("the owner has gone", || !exists::<ReplicaSet>(&api, "rs")).await;
    eventually("the pod is deleted", || {
        api.get::<Pod>("ns", "p").unwrap().metadata.deletion_timestamp.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn orphans_stay_without_their_owner() {
    let api = setup();
    family(&api);
    let _running = start(&api);
    quiet().await;
    delete::<ReplicaSet>(&api, "web-1", PropagationPolicy::Orphan).await;
    eventually("the set has gone", || !exists::<ReplicaSet>(&api, "web-1")).await;
    quiet().await;
    let pods = api.list::<Pod>();
    assert_eq!(pods.len(), 2);
    assert!(pods.iter().all(|pod| pod.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)));
}

#[tokio::test(start_paused = true)]
async fn one_owner_that_is_left_keeps_the_object() {
    let api = setup();
    let (one, two): (ReplicaSet, ReplicaSet) = (create(&api, "one", vec![]), create(&api, "two", vec![]));
    create::<Pod>(&api, "p", vec![reference(&one), reference(&two)]);
    let _running = start(&api);
    delete::<ReplicaSet>(&api, "one", PropagationPolicy::Background).await;
    let owners = || api.get::<Pod>("ns", "p").unwrap().metadata.owner_references.unwrap_or_default();
    eventually("the reference is dropped", || owners().len() == 1).await;
    assert_eq!(owners()[0].name, "two");
    delete::<ReplicaSet>(&api, "two", PropagationPolicy::Background).await;
    eventually("the pod goes with its last owner", || !exists::<Pod>(&api, "p")).await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_replaced_under_its_name_is_not_the_owner() {
    let api = setup();
    let old: ReplicaSet = create(&api, "rs", vec![]);
    api.delete::<ReplicaSet>("ns", "rs");
    let new: ReplicaSet = create(&api, "rs", vec![]);
    create::<Pod>(&api, "of-old", vec![reference(&old)]);
    create::<Pod>(&api, "of-new", vec![reference(&new)]);
    let _running = start(&api);
    eventually("the old one's pod has gone", || !exists::<Pod>(&api, "of-old")).await;
    quiet().await;
    assert!(exists::<Pod>(&api, "of-new"));
}

#[tokio::test(start_paused = true)]
async fn an_owner_in_another_namespace_does_not_count() {
    let api = setup();
    let far: ReplicaSet = api.create(&object("elsewhere", "rs", vec![]));
    create::<Pod>(&api, "p", vec![reference(&far)]);
    let _running = start(&api);
    eventually("the pod has gone", || !exists::<Pod>(&api, "p")).await;
    eventually("a warning is given", || {
        api.list::<Event>().iter().any(|event| event.reason.as_deref() == Some("OwnerRefInvalidNamespace"))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_scoped_owner_counts_everywhere_but_a_namespaced_owner_of_it_is_invalid() {
    let api = setup();
    let owner: Namespace = api.create(&object("", "n", vec![]));
    create::<Secret>(&api, "kept", vec![reference(&owner)]);
    let map: ConfigMap = create(&api, "map", vec![]);
    api.create(&object::<Namespace>("", "odd", vec![reference(&map)]));
    let _running = start(&api);
    eventually("a warning is given", || {
        api.list::<Event>().iter().any(|event| event.reason.as_deref() == Some("OwnerRefInvalidNamespace"))
    })
    .await;
    quiet().await;
    assert!(exists::<Secret>(&api, "kept"));
    let odd = api.get::<Namespace>("", "odd").unwrap();
    assert!(odd.metadata.deletion_timestamp.is_none(), "it is left alone");
}

#[tokio::test(start_paused = true)]
async fn an_owner_of_an_unknown_kind_keeps_the_object() {
    let api = setup();
    let unknown = OwnerReference {
        api_version: "demo.io/v1".into(),
        kind: "Widget".into(),
        name: "w".into(),
        uid: "u".into(),
        ..OwnerReference::default()
    };
    create::<Pod>(&api, "p", vec![unknown]);
    let _running = start(&api);
    quiet().await;
    assert!(exists::<Pod>(&api, "p"));
}

#[tokio::test(start_paused = true)]
async fn objects_in_a_circle_can_be_deleted_in_the_foreground() {
    let api = setup();
    let first: ConfigMap = create(&api, "first", vec![]);
    let second: Secret = create(&api, "second", vec![reference(&first)]);
    api.update::<ConfigMap>("ns", "first", |map| {
        map.metadata.owner_references = Some(vec![reference(&second)])
    });
    let _running = start(&api);
    quiet().await;
    assert!(exists::<ConfigMap>(&api, "first") && exists::<Secret>(&api, "second"), "a circle holds itself");
    delete::<ConfigMap>(&api, "first", PropagationPolicy::Foreground).await;
    eventually("both have gone", || !exists::<ConfigMap>(&api, "first") && !exists::<Secret>(&api, "second"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn conflicts_and_failures_are_tried_again_until_all_is_done() {
    let api = setup();
    family(&api);
    let _running = start(&api);
    quiet().await;
    api.fail("DELETE", "/pods/", 3, Status::new(500, "InternalError"));
    api.fail("GET", "/replicasets/web-1", 2, Status::new(503, "ServiceUnavailable"));
    api.lose_answer("DELETE", "/replicasets/", 1, Status::new(409, "Conflict"));
    delete::<Deployment>(&api, "web", PropagationPolicy::Background).await;
    eventually("all have gone", || api.list::<Pod>().is_empty() && api.list::<ReplicaSet>().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_while_nothing_changes() {
    let api = setup();
    family(&api);
    let _running = start(&api);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = api.requests("").len();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(api.requests("").len(), before);
}
