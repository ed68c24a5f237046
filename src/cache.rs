//! The watch cache: a persistent ordered map per resource, an event window and the watchers of it.
//!
//! One watch of the store feeds every registered resource. Reads come from snapshots that cost O(1), watches from a
//! bounded window of events; both hand out the encoded bytes that are kept, never a decoded tree. Registrations that
//! happen before [`Cache::run`] starts can resume watches from before a restart as far back as the store's log
//! reaches; later ones (custom resources) load by themselves.

pub mod error;
mod feed;
pub mod fields;
mod load;
mod metrics;
pub mod object;
pub(crate) mod parse;
mod progress;
pub mod resource;
#[cfg(test)]
mod tests;
mod texts;
pub mod watch;
mod watchers;
mod window;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

pub use error::CacheError;
pub use fields::SelectableField;
pub use object::Object;
pub use resource::{Consistency, ResourceCache, ResourceSpec, Snapshot};
pub use watch::{EventType, Filter, Selection, WatchEvent, WatchFrom, WatchRequest, WatchStream};

use crate::store::{Revision, Store};
use feed::Feed;
use progress::Progress;
use resource::Phase;
use window::Budget;

/// Bytes of past changes that are remembered unless told otherwise.
const WINDOW_BYTES: usize = 64 << 20;

/// The watch cache over one store.
pub struct Cache {
    progress: Arc<Progress>,
    registered: Mutex<Registered>,
    budget: Arc<Budget>,
    ready: tokio::sync::watch::Sender<bool>,
}

/// What has been registered.
#[derive(Default)]
struct Registered {
    all: Vec<Arc<ResourceCache>>,
    /// Not yet taken up by the feed.
    added: Vec<Arc<ResourceCache>>,
    removed: Vec<String>,
    stopped: bool,
}

impl Cache {
    /// A cache that begins to load when [`Cache::run`] is called.
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Self::with_window(store, WINDOW_BYTES)
    }

    /// [`Self::new`], with another limit for the bytes of past changes that are remembered for watches.
    pub fn with_window(store: Arc<dyn Store>, bytes: usize) -> Arc<Self> {
        let (ready, _) = tokio::sync::watch::channel(false);
        let (progress, budget) = (Arc::new(Progress::new(store)), Budget::new(bytes));
        let cache = Arc::new(Self { progress, registered: Mutex::default(), budget, ready });
        metrics::export(&cache);
        cache
    }

    /// Adds a resource, before or after the start. Never waits: reads of the resource wait until it is loaded. A
    /// prefix that is registered already gives the cache that is there.
    pub fn register(&self, spec: ResourceSpec) -> Arc<ResourceCache> {
        let mut registered = self.lock_registered();
        if let Some(known) = registered.all.iter().find(|r| r.spec().prefix == spec.prefix) {
            return known.clone();
        }
        let resource = Arc::new(ResourceCache::new(spec, self.progress.clone(), self.budget.clone()));
        if registered.stopped {
            resource.enter(Phase::Ended);
        }
        registered.all.push(resource.clone());
        registered.added.push(resource.clone());
        drop(registered);
        self.progress.attend();
        resource
    }

    /// Removes a resource; its watches end.
    pub fn unregister(&self, prefix: &str) {
        let mut registered = self.lock_registered();
        registered.all.retain(|r| r.spec().prefix != prefix);
        let waiting = registered.added.iter().position(|r| r.spec().prefix == prefix);
        match waiting {
            Some(at) => registered.added.remove(at).enter(Phase::Ended),
            None => registered.removed.push(prefix.to_owned()),
        }
        drop(registered);
        self.progress.attend();
    }

    /// Loads and follows the store until `stop`; the caller spawns this once and owns the task. Afterwards reads fail
    /// with [`CacheError::Stopped`] and watches have ended.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(Feed::new(&self).run()).await;
        let mut registered = self.lock_registered();
        registered.stopped = true;
        for resource in &registered.all {
            resource.enter(Phase::Ended);
        }
    }

    /// Waits until everything that was registered before the start is loaded.
    pub async fn ready(&self) -> Result<(), CacheError> {
        let ready = self.ready.subscribe().wait_for(|ready| *ready).await.is_ok();
        if ready { Ok(()) } else { Err(CacheError::Stopped) }
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.progress.store()
    }

    /// How many objects there are of each resource, as `resource.group`.
    pub fn counts(&self) -> Vec<(String, usize)> {
        let all = self.lock_registered().all.clone();
        all.iter().map(|resource| (metrics::qualified(resource), resource.figures().objects)).collect()
    }

    /// How far the cache has followed the store.
    pub fn revision(&self) -> Revision {
        self.progress.revision()
    }

    /// Waits, not forever, until the cache has followed the store to `revision`.
    pub async fn wait_until(&self, revision: Revision) -> Result<(), CacheError> {
        self.progress.wait_until(revision).await
    }

    fn lock_registered(&self) -> MutexGuard<'_, Registered> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("revision", &self.revision()).finish_non_exhaustive()
    }
}
