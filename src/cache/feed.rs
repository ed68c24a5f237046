//! The task that follows the store: one watch, its changes handed to the resources they belong to.
//!
//! A resource is loaded by a list of its own while the changes that arrive in the meantime are set aside; then these
//! are applied, as far as the list does not show them, and from then on every batch as it comes. What was registered
//! before the start is listed as of some revisions ago, so that watches can resume from there.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rand::Rng;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, info, warn};

use super::load::load;
use super::parse::parse;
use super::resource::{Objects, Phase, ResourceCache, Update};
use super::{Cache, CacheError};
use crate::store::{Batch, Event, EventKind, Revision, StoreError, WatchStream};

/// How many revisions before the start the windows reach back.
const HISTORY: u64 = 2000;
/// Bookmarks come about this often.
const BOOKMARKS: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(10);
/// All keys of objects.
const ROOT: &str = "/registry/";

type Loaded = (Arc<ResourceCache>, Result<(Revision, Objects), CacheError>);

/// A resource as the feed sees it.
enum Route {
    /// Being listed; the changes that came since the list began. Bounded by the time that one list takes.
    Loading(Arc<ResourceCache>, Vec<Event>),
    Following(Arc<ResourceCache>),
}

/// The feed. Everything here belongs to one task.
pub(super) struct Feed<'c> {
    cache: &'c Cache,
    /// By prefix.
    routes: BTreeMap<String, Route>,
    loads: JoinSet<Loaded>,
    /// Loaded, but not as far as the store was at the start.
    catching_up: Vec<Arc<ResourceCache>>,
    /// Where the store was at the start, and where the first lists were made.
    target: Revision,
    base: Revision,
    bookmarks_at: Option<Instant>,
}

/// What woke the feed.
enum Wake {
    Batch(Option<Result<Batch, StoreError>>),
    Loaded(Result<Loaded, JoinError>),
    Attention,
    Bookmarks,
}

impl<'c> Feed<'c> {
    pub(super) fn new(cache: &'c Cache) -> Self {
        Self {
            cache,
            routes: BTreeMap::new(),
            loads: JoinSet::new(),
            catching_up: Vec::new(),
            target: Revision(0),
            base: Revision(0),
            bookmarks_at: None,
        }
    }

    /// Follows the store for ever; errors of the store are waited out.
    pub(super) async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        let mut after = None;
        loop {
            match self.connect(after).await {
                Ok(mut stream) => {
                    let begun = self.cache.progress.revision();
                    match self.follow(&mut stream).await {
                        StoreError::Closed => return,
                        StoreError::Compacted { oldest } => self.begin_anew(&mut after, oldest),
                        error => {
                            after = Some(self.cache.progress.revision().max(self.base));
                            warn!(error = %error, "watch of the store ended, starting it again");
                        }
                    }
                    if self.cache.progress.revision() > begun {
                        pause = RETRY_FIRST;
                        continue;
                    }
                }
                Err(StoreError::Compacted { oldest }) => self.begin_anew(&mut after, oldest),
                Err(error) => warn!(error = %error, "store cannot be watched"),
            }
            let jitter = rand::rng().random_range(0.5..1.0);
            sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(RETRY_MOST);
        }
    }

    fn begin_anew(&mut self, after: &mut Option<Revision>, oldest: Revision) {
        info!(%oldest, "history of the store is gone, loading everything again");
        *after = None;
        self.forget();
    }

    /// Starts the watch: where it ended, or else as far back as history is wanted and available.
    async fn connect(&mut self, after: Option<Revision>) -> Result<WatchStream, StoreError> {
        let store = self.cache.progress.store();
        if let Some(after) = after {
            return store.watch(ROOT, after).await;
        }
        self.target = store.current_revision().await?;
        let mut base = Revision(self.target.0.saturating_sub(HISTORY).max(1));
        let stream = match store.watch(ROOT, base).await {
            Err(StoreError::Compacted { oldest }) => {
                base = oldest;
                store.watch(ROOT, base).await?
            }
            other => other?,
        };
        self.base = base;
        self.cache.progress.reach(base);
        self.take_registrations(Some(base));
        Ok(stream)
    }

    /// Drops everything that is known and lists it anew.
    fn forget(&mut self) {
        self.catching_up.clear();
        self.loads.abort_all();
        let routes = std::mem::take(&mut self.routes);
        let mut queue = self.cache.lock_registered();
        for route in routes.into_values() {
            let (Route::Loading(resource, _) | Route::Following(resource)) = route;
            resource.enter(Phase::Loading);
            queue.added.push(resource);
        }
    }

    async fn follow(&mut self, stream: &mut WatchStream) -> StoreError {
        loop {
            self.report_ready();
            match self.wake(stream).await {
                Wake::Batch(Some(Ok(batch))) => self.apply(batch),
                Wake::Batch(Some(Err(error))) => return error,
                Wake::Batch(None) => return StoreError::Closed,
                Wake::Loaded(Ok((resource, result))) => self.loaded(&resource, result),
                Wake::Loaded(Err(error)) if error.is_cancelled() => {}
                Wake::Loaded(Err(error)) => error!(%error, "load of a resource ended by a panic"),
                Wake::Attention => {
                    self.take_registrations(None);
                    self.arm_bookmarks();
                }
                Wake::Bookmarks => self.send_bookmarks(),
            }
        }
    }

    async fn wake(&mut self, stream: &mut WatchStream) -> Wake {
        let bookmarks_at = self.bookmarks_at;
        tokio::select! {
            batch = stream.next() => Wake::Batch(batch),
            Some(loaded) = self.loads.join_next() => Wake::Loaded(loaded),
            () = self.cache.progress.attention() => Wake::Attention,
            () = async { sleep_until(bookmarks_at.unwrap_or_else(Instant::now)).await }, if bookmarks_at.is_some() => {
                Wake::Bookmarks
            }
        }
    }

    /// Begins to load what was registered and lets go of what was removed.
    fn take_registrations(&mut self, at: Option<Revision>) {
        let (added, removed) = {
            let mut queue = self.cache.lock_registered();
            (std::mem::take(&mut queue.added), std::mem::take(&mut queue.removed))
        };
        for prefix in removed {
            if let Some(Route::Loading(resource, _) | Route::Following(resource)) =
                self.routes.remove(&prefix)
            {
                self.catching_up.retain(|r| !Arc::ptr_eq(r, &resource));
                resource.enter(Phase::Ended);
            }
        }
        // What was removed and registered again within one moment is new.
        for resource in added {
            self.begin_load(resource, at, Duration::ZERO);
        }
    }

    fn begin_load(&mut self, resource: Arc<ResourceCache>, at: Option<Revision>, pause: Duration) {
        let prefix = resource.spec().prefix.clone();
        self.routes.insert(prefix.clone(), Route::Loading(resource.clone(), Vec::new()));
        let store = self.cache.progress.store().clone();
        self.loads.spawn(async move {
            sleep(pause).await;
            let result = load(&store, &prefix, resource.names(), at).await;
            (resource, result)
        });
    }

    fn loaded(&mut self, resource: &Arc<ResourceCache>, result: Result<(Revision, Objects), CacheError>) {
        let prefix = &resource.spec().prefix;
        let Some(Route::Loading(current, set_aside)) = self.routes.get_mut(prefix) else { return };
        if !Arc::ptr_eq(current, resource) {
            return;
        }
        let (revision, objects) = match result {
            Ok(loaded) => loaded,
            Err(error) => {
                warn!(%prefix, %error, "resource cannot be loaded, trying again");
                let resource = resource.clone();
                return self.begin_load(resource, None, RETRY_FIRST);
            }
        };
        debug!(%prefix, objects = objects.len(), %revision, "resource loaded");
        let events = std::mem::take(set_aside);
        resource.replace(objects, revision);
        let updates = events.into_iter().filter_map(|event| update_of(resource, event)).collect();
        resource.apply(updates, revision);
        self.routes.insert(prefix.clone(), Route::Following(resource.clone()));
        self.catching_up.push(resource.clone());
    }

    /// Opens the resources that show at least what was there at the start.
    fn report_ready(&mut self) {
        if self.cache.progress.revision() < self.target {
            return;
        }
        for resource in self.catching_up.drain(..) {
            resource.enter(Phase::Ready);
        }
        if !*self.cache.ready.borrow() && !self.routes.values().any(|r| matches!(r, Route::Loading(..))) {
            self.cache.ready.send_replace(true);
        }
    }

    /// Hands the changes of a batch to their resources, then says how far the cache is.
    fn apply(&mut self, batch: Batch) {
        let mut by_route: HashMap<&str, Vec<Event>> = HashMap::new();
        for event in batch.events {
            if let Some(prefix) = self.prefix_of(&event.key) {
                by_route.entry(prefix).or_default().push(event);
            }
        }
        let by_route: Vec<_> = by_route.into_iter().map(|(p, e)| (p.to_owned(), e)).collect();
        for (prefix, events) in by_route {
            match self.routes.get_mut(&prefix) {
                Some(Route::Loading(_, set_aside)) => set_aside.extend(events),
                Some(Route::Following(resource)) => {
                    let updates = events.into_iter().filter_map(|event| update_of(resource, event)).collect();
                    resource.apply(updates, batch.revision);
                }
                None => {}
            }
        }
        self.cache.progress.reach(batch.revision);
    }

    fn prefix_of(&self, key: &str) -> Option<&str> {
        let below = (Bound::Unbounded, Bound::Included(key));
        let (prefix, _) = self.routes.range::<str, _>(below).next_back()?;
        key.starts_with(prefix.as_str()).then_some(prefix)
    }

    fn arm_bookmarks(&mut self) {
        if self.bookmarks_at.is_none() && self.following().any(|r| r.wants_bookmarks()) {
            let jitter = rand::rng().random_range(0.9..1.1);
            self.bookmarks_at = Some(Instant::now() + BOOKMARKS.mul_f64(jitter));
        }
    }

    fn send_bookmarks(&mut self) {
        let revision = self.cache.progress.revision();
        for resource in self.following() {
            resource.bookmark(revision);
        }
        self.bookmarks_at = None;
        self.arm_bookmarks();
    }

    fn following(&self) -> impl Iterator<Item = &Arc<ResourceCache>> {
        self.routes.values().filter_map(|route| match route {
            Route::Following(resource) => Some(resource),
            Route::Loading(..) => None,
        })
    }
}

/// What an event means to its resource. A value that is no object counts as gone, so that nobody sees an old one.
fn update_of(resource: &ResourceCache, event: Event) -> Option<Update> {
    let key: Arc<str> = event.key.get(resource.spec().prefix.len()..)?.into();
    let revision = event.revision;
    let object = match event.kind {
        EventKind::Delete => None,
        EventKind::Put { value, .. } => match parse(key.clone(), &value, revision, resource.names()) {
            Ok(object) => Some(Arc::new(object)),
            Err(error) => {
                warn!(key = %event.key, %error, "stored value is no object");
                resource.count_undecodable(1);
                None
            }
        },
    };
    Some(Update { revision, key, object })
}
