//! How the cache follows the store: start, late registrations, restarts, trouble.

use super::*;
use crate::store::{Batch, Entry, ListOptions, ListPage, StoreError, Usage};
use std::path::Path;
use std::sync::Mutex;

#[tokio::test]
async fn what_was_stored_before_the_start_is_there() {
    let world = World::new().await;
    world.create_pod("a/x", "n").await;
    let last = world.create_pod("a/y", "n").await;
    let again = Cache::new(world.store.clone());
    let pods = again.register(pods());
    tokio::spawn(again.clone().run(world.stop.clone()));
    assert_eq!(within(pods.snapshot(Consistency::Any)).await.unwrap().len(), 2);
    assert_eq!(again.revision(), last);
}

#[tokio::test]
async fn a_watch_resumes_from_before_a_restart_of_the_cache() {
    let world = World::new().await;
    let first = world.create_pod("a/x", "n").await;
    let second = world.update_pod("a/x", "m").await;
    let third = world.delete_pod("a/x").await;
    let again = Cache::new(world.store.clone());
    let pods = again.register(pods());
    tokio::spawn(again.clone().run(world.stop.clone()));
    let request = WatchRequest {
        from: WatchFrom::After(first),
        selection: Selection::default(),
        bookmarks: false,
        mark_initial_end: false,
    };
    let mut watch = within(pods.watch(request)).await.unwrap();
    assert_eq!(say(&mut watch).await, format!("MODIFIED a/x {second}"));
    assert_eq!(say(&mut watch).await, format!("DELETED a/x {third}"));
}

#[tokio::test]
async fn a_resource_that_is_registered_late_misses_nothing() {
    let world = World::new().await;
    let spec = ResourceSpec { prefix: "/registry/demo.io/widgets/".into(), ..pods() };
    let store = world.store.clone();
    let writer = tokio::spawn(async move {
        let mut last = Revision(0);
        for i in 0..200 {
            let key = format!("/registry/demo.io/widgets/a/{i}");
            last = store.create(&key, pod(&format!("a/{i}"), "n"), None).await.unwrap();
        }
        last
    });
    let begun = world.store.current_revision().await.unwrap();
    within(world.cache.wait_until(Revision(begun.0 + 20))).await.unwrap();
    let widgets = world.cache.register(spec.clone());
    assert!(Arc::ptr_eq(&widgets, &world.cache.register(spec.clone())));
    let request = WatchRequest {
        from: WatchFrom::State(Consistency::Latest),
        selection: Selection::default(),
        bookmarks: false,
        mark_initial_end: false,
    };
    let mut watch = within(widgets.watch(request)).await.unwrap();
    let last = writer.await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 200 {
        let event = next(&mut watch).await;
        assert_eq!(event.event_type(), EventType::Added);
        assert!(seen.insert(event.object().unwrap().key().to_owned()), "twice");
    }
    assert_eq!(widgets.snapshot(Consistency::NotOlderThan(last)).await.unwrap().len(), 200);
    world.cache.unregister(&spec.prefix);
    assert!(matches!(error(&mut watch).await, CacheError::Stopped));
    assert!(matches!(widgets.snapshot(Consistency::Any).await, Err(CacheError::Stopped)));
    // The prefix is free for another one.
    let anew = world.cache.register(spec);
    assert_eq!(within(anew.snapshot(Consistency::Latest)).await.unwrap().len(), 200);
}

#[tokio::test]
async fn a_value_that_is_no_object_is_not_shown_and_stops_nothing() {
    let world = World::new().await;
    let first = world.create_pod("a/x", "n").await;
    let mut watch = world.watch(WatchFrom::After(first), Selection::default()).await;
    world.store.create("/registry/pods/a/bad", Bytes::from("{"), None).await.unwrap();
    let damaged = world.store.update("/registry/pods/a/x", Bytes::from("[]"), first, None).await.unwrap();
    let good = world.create_pod("a/y", "n").await;
    assert_eq!(say(&mut watch).await, format!("DELETED a/x {damaged}"));
    assert_eq!(say(&mut watch).await, format!("ADDED a/y {good}"));
    assert_eq!(world.keys(Consistency::Latest).await, ["a/y"]);
    assert_eq!(world.pods.undecodable(), 2);
}

#[tokio::test]
async fn after_the_stop_reads_and_watches_end() {
    let world = World::new().await;
    let mut watch = world.watch(WatchFrom::After(world.cache.revision()), Selection::default()).await;
    world.stop.cancel();
    within(world.task).await.unwrap();
    assert!(matches!(error(&mut watch).await, CacheError::Stopped));
    assert!(watch.next().await.is_none());
    assert!(matches!(world.pods.snapshot(Consistency::Any).await, Err(CacheError::Stopped)));
    let late = world.cache.register(ResourceSpec { prefix: "/registry/late/".into(), ..pods() });
    assert!(matches!(late.snapshot(Consistency::Any).await, Err(CacheError::Stopped)));
}

/// A store whose watches a test can break.
struct Breakable {
    inner: Arc<dyn Store>,
    breaks: Mutex<Vec<tokio::sync::oneshot::Sender<StoreError>>>,
    refuse: Mutex<Option<StoreError>>,
}

#[async_trait::async_trait]
impl Store for Breakable {
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key, at).await
    }
    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<ListPage, StoreError> {
        self.inner.list(prefix, options).await
    }
    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, StoreError> {
        self.inner.create(key, value, ttl).await
    }
    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        self.inner.update(key, value, expected, ttl).await
    }
    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        self.inner.delete(key, expected).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<crate::store::WatchStream, StoreError> {
        if let Some(error) = self.refuse.lock().unwrap().take() {
            return Err(error);
        }
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.breaks.lock().unwrap().push(sender);
        let broken = futures::stream::once(async { Err(receiver.await.unwrap_or(StoreError::Closed)) });
        let watch = self.inner.watch(prefix, after).await?;
        type Item = Result<Batch, StoreError>;
        Ok(crate::store::WatchStream::new(futures::stream::select(
            watch,
            Box::pin(broken) as futures::stream::BoxStream<'static, Item>,
        )))
    }
    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.inner.current_revision().await
    }
    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }
    async fn snapshot(&self, path: &Path) -> Result<Revision, StoreError> {
        self.inner.snapshot(path).await
    }
    async fn health(&self) -> Result<(), StoreError> {
        self.inner.health().await
    }
    fn known_health(&self) -> Result<(), StoreError> {
        self.inner.known_health()
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.inner.usage().await
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }
}

async fn breakable() -> (World, Arc<Breakable>) {
    let folder = tempfile::tempdir().unwrap();
    let inner = SqliteStore::open(&folder.path().join("state.db"), SqliteOptions::default()).unwrap();
    let store = Arc::new(Breakable { inner, breaks: Mutex::default(), refuse: Mutex::default() });
    (World::over(store.clone(), folder).await, store)
}

#[tokio::test]
async fn a_lost_watch_of_the_store_is_resumed_unnoticed() {
    let (world, store) = breakable().await;
    let mut watch = world.watch(WatchFrom::After(world.cache.revision()), Selection::default()).await;
    for i in 0..5 {
        let key = format!("a/{i}");
        let revision = world.create_pod(&key, "n").await;
        let breaks = std::mem::take(&mut *store.breaks.lock().unwrap());
        for one in breaks {
            one.send(StoreError::Lagged).ok();
        }
        assert_eq!(say(&mut watch).await, format!("ADDED {key} {revision}"));
    }
}

#[tokio::test]
async fn lost_history_loads_anew_and_ends_the_watches() {
    // A store may tell when it is asked for a watch, or on the watch.
    for told_on_the_watch in [false, true] {
        lose_history(told_on_the_watch).await;
    }
}

async fn lose_history(told_on_the_watch: bool) {
    let (world, store) = breakable().await;
    world.create_pod("a/gone", "n").await;
    let first = world.create_pod("a/x", "n").await;
    world.cache.wait_until(first).await.unwrap();
    let mut watch = world.watch(WatchFrom::After(first), Selection::default()).await;
    let compacted = StoreError::Compacted { oldest: first };
    let breaks = std::mem::take(&mut *store.breaks.lock().unwrap());
    if !told_on_the_watch {
        *store.refuse.lock().unwrap() = Some(compacted.clone());
    }
    for one in breaks {
        one.send(if told_on_the_watch { compacted.clone() } else { StoreError::Lagged }).ok();
    }
    world.delete_pod("a/gone").await;
    let last = world.create_pod("a/y", "n").await;
    assert!(matches!(error(&mut watch).await, CacheError::Reloaded));
    let snapshot = within(world.pods.snapshot(Consistency::NotOlderThan(last))).await.unwrap();
    assert_eq!(snapshot.iter(None, None).map(|o| o.key()).collect::<Vec<_>>(), ["a/x", "a/y"]);
}
