//! Informers over the model API and by hand.

use super::*;
use crate::client::{
    Key,
    fake::{FakeApi, eventually},
};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, OwnerReference},
};
use kube::api::ObjectMeta;
use std::sync::Mutex;
use tokio_util::sync::CancellationToken;

fn pod(namespace: &str, name: &str, version: u64) -> Pod {
    let metadata = ObjectMeta {
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        resource_version: Some(version.to_string()),
        managed_fields: Some(vec![ManagedFieldsEntry::default()]),
        ..ObjectMeta::default()
    };
    Pod { metadata, ..Pod::default() }
}

fn map(name: &str) -> ConfigMap {
    let metadata =
        ObjectMeta { namespace: Some("default".into()), name: Some(name.into()), ..ObjectMeta::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}

fn names<K: kube::Resource>(objects: &[Arc<K>]) -> Vec<String> {
    objects.iter().map(|object| Key::of(object.as_ref()).to_string()).collect()
}

#[test]
fn namespaces_with_a_common_prefix_are_kept_apart() {
    let (informer, writer) = Informer::<Pod>::detached();
    for (namespace, name) in [("a", "z"), ("a-b", "p"), ("a", "b"), ("ab", "p"), ("a.c", "p")] {
        writer.apply(pod(namespace, name, 1));
    }
    assert_eq!(names(&informer.in_namespace("a")), ["a/b", "a/z"]);
    assert_eq!(names(&informer.in_namespace("a-b")), ["a-b/p"]);
    assert!(informer.in_namespace("b").is_empty());
    assert_eq!(informer.len(), 5);
}

#[test]
fn managed_fields_are_not_kept() {
    let (informer, writer) = Informer::<Pod>::detached();
    writer.apply(pod("a", "p", 1));
    assert!(informer.find("a", "p").unwrap().metadata.managed_fields.is_none());
}

#[test]
fn indexes_follow_every_change() {
    let (informer, writer) = Informer::<Pod>::detached();
    let on = |name: &str, version, node: Option<&str>, owner: Option<&str>| {
        let mut pod = pod("a", name, version);
        pod.spec = Some(PodSpec { node_name: node.map(Into::into), ..PodSpec::default() });
        pod.metadata.owner_references =
            owner.map(|uid| vec![OwnerReference { uid: uid.into(), ..OwnerReference::default() }]);
        pod
    };
    writer.apply(on("early", 1, Some("n1"), Some("u1")));
    informer.add_index(index::NODE, index::pod_node);
    informer.add_index(index::NODE, |_| panic!("a known index stays as it is"));
    writer.apply(on("late", 2, None, Some("u1")));
    assert_eq!(names(&informer.by_index(index::NODE, "n1")), ["a/early"]);
    assert_eq!(names(&informer.owned_by("u1")), ["a/early", "a/late"]);
    writer.apply(on("late", 3, Some("n1"), Some("u2")));
    assert_eq!(names(&informer.by_index(index::NODE, "n1")), ["a/early", "a/late"]);
    assert_eq!(names(&informer.owned_by("u1")), ["a/early"]);
    writer.delete(&Key::new("a", "early"), None);
    writer.replace(vec![], 9);
    assert!(informer.by_index(index::NODE, "n1").is_empty() && informer.owned_by("u2").is_empty());
    assert!(informer.by_index("unknown", "n1").is_empty());
}

#[test]
fn handlers_see_present_objects_and_then_each_change_once() {
    let (informer, writer) = Informer::<Pod>::detached();
    writer.apply(pod("a", "old", 1));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let guard = informer.add_handler({
        let seen = seen.clone();
        move |change: &Change<Pod>| {
            let what = match change {
                Change::Added(_) => "+",
                Change::Updated { .. } => "~",
                Change::Deleted(_) => "-",
            };
            seen.lock().unwrap().push(format!("{what}{}", Key::of(change.object().as_ref())));
        }
    });
    writer.apply(pod("a", "new", 2));
    writer.apply(pod("a", "new", 2));
    writer.apply(pod("a", "new", 3));
    writer.replace(vec![pod("a", "new", 3), pod("a", "third", 4)], 5);
    assert_eq!(*seen.lock().unwrap(), ["+a/old", "+a/new", "~a/new", "-a/old", "+a/third"]);
    drop(guard);
    writer.delete(&Key::new("a", "new"), None);
    assert_eq!(seen.lock().unwrap().len(), 5, "a dropped guard ends the handler");
}

#[test]
fn has_seen_follows_objects_deletions_and_lists() {
    let (informer, writer) = Informer::<Pod>::detached();
    assert!(!informer.has_seen("1"));
    writer.apply(pod("a", "p", 4));
    assert!(informer.has_seen("4") && !informer.has_seen("5"));
    writer.delete(&Key::new("a", "p"), Some(pod("a", "p", 6)));
    assert!(informer.has_seen("6"));
    writer.replace(vec![], 8);
    writer.bookmark(9);
    assert!(informer.has_seen("9") && !informer.has_seen("10") && informer.has_seen("not-a-number"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_is_told_to_look_at_everything() {
    let (informer, writer) = Informer::<Pod>::detached();
    let mut changes = informer.subscribe();
    writer.replace(vec![pod("a", "p", 1)], 1);
    assert!(matches!(changes.next().await, Event::Resync));
    writer.apply(pod("a", "p", 2));
    let Event::Change(Change::Updated { old, new }) = changes.next().await else {
        panic!("expected an update")
    };
    assert_eq!((names(&[old]), names(&[new])), (vec!["a/p".into()], vec!["a/p".into()]));
    for version in 0..1000 {
        writer.apply(pod("a", "p", 3 + version));
    }
    assert!(matches!(changes.next().await, Event::Resync));
    writer.delete(&Key::new("a", "p"), None);
    assert!(matches!(changes.next().await, Event::Change(Change::Deleted(_))));
}

#[tokio::test(start_paused = true)]
async fn one_watch_serves_all_users_of_a_kind() {
    let api = FakeApi::new();
    api.create(&map("first"));
    let stop = CancellationToken::new();
    let informers = Informers::new(api.client(), stop.clone());
    let (one, two) = (informers.get::<ConfigMap>(), informers.get::<ConfigMap>());
    one.synced().await;
    two.synced().await;
    api.create(&map("second"));
    eventually("the second object arrives", || two.len() == 2 && one.len() == 2).await;
    api.delete::<ConfigMap>("default", "first");
    eventually("the first object goes", || names(&one.list()) == ["default/second"]).await;
    assert_eq!(api.requests("GET /api/v1/configmaps").len(), 2, "one list and one watch");
    stop.cancel();
    informers.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_goes_on_where_it_ended() {
    let api = FakeApi::new();
    api.create(&map("first"));
    let informers = Informers::new(api.client(), CancellationToken::new());
    let maps = informers.get::<ConfigMap>();
    maps.synced().await;
    api.cut_watches();
    api.create(&map("second"));
    eventually("the second object arrives", || maps.len() == 2).await;
    // One list; the watches before and after the cut.
    assert_eq!(api.requests("GET /api/v1/configmaps").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_expired_revision_leads_to_a_new_list_that_finds_deletions() {
    let api = FakeApi::new();
    api.create(&map("first"));
    let informers = Informers::new(api.client(), CancellationToken::new());
    let maps = informers.get::<ConfigMap>();
    maps.synced().await;
    let deleted = Arc::new(Mutex::new(Vec::new()));
    let _guard = maps.add_handler({
        let deleted = deleted.clone();
        move |change: &Change<ConfigMap>| {
            if let Change::Deleted(object) = change {
                deleted.lock().unwrap().push(Key::of(object.as_ref()).to_string());
            }
        }
    });
    // While the watch is down the object goes, and the history with it.
    let unavailable = crate::client::fake::Status::new(503, "ServiceUnavailable");
    api.fail("GET", "/api/v1/configmaps", 3, unavailable);
    api.cut_watches();
    eventually("the watch fails", || api.requests("GET /api/v1/configmaps").len() > 3).await;
    api.delete::<ConfigMap>("default", "first");
    api.create(&map("second"));
    api.compact();
    eventually("the list is made again", || names(&maps.list()) == ["default/second"]).await;
    assert_eq!(*deleted.lock().unwrap(), ["default/first"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_up_late_is_waited_for() {
    let api = FakeApi::new();
    api.fail("GET", "/api/v1/configmaps", 6, crate::client::fake::Status::new(503, "ServiceUnavailable"));
    let informers = Informers::new(api.client(), CancellationToken::new());
    let maps = informers.get::<ConfigMap>();
    let start = tokio::time::Instant::now();
    maps.synced().await;
    assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_selection_of_one_namespace_sees_no_other() {
    let api = FakeApi::new();
    let mut other = map("other");
    other.metadata.namespace = Some("elsewhere".into());
    api.create(&other);
    api.create(&map("mine"));
    let informers = Informers::new(api.client(), CancellationToken::new());
    let maps = informers.select::<ConfigMap>(Selection::namespace("default"));
    maps.synced().await;
    assert_eq!(names(&maps.list()), ["default/mine"]);
    assert_eq!(api.requests("GET /api/v1/namespaces/default/configmaps").len(), 2, "one list and one watch");
}

#[tokio::test]
async fn a_detached_hub_is_filled_by_hand() {
    let informers = Informers::detached();
    informers.writer::<Pod>().replace(vec![pod("a", "p", 1)], 1);
    assert!(informers.get::<Pod>().has_synced());
    assert_eq!(informers.get::<Pod>().len(), 1);
}
