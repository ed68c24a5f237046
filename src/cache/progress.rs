//! How far the cache has followed the store, and who waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::CacheError;
use crate::store::{Revision, Store};

/// How long a read waits for the cache.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Shared by the feed, which moves it, and by all readers.
pub(super) struct Progress {
    store: Arc<dyn Store>,
    /// The same as `changes` holds, to be read without a lock.
    reached: AtomicU64,
    changes: watch::Sender<Revision>,
    attention: Notify,
}

impl Progress {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        let (changes, _) = watch::channel(Revision(0));
        Self { store, reached: AtomicU64::new(0), changes, attention: Notify::new() }
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(super) fn revision(&self) -> Revision {
        Revision(self.reached.load(Ordering::Acquire))
    }

    /// Says that everything up to `revision` can be read from every resource.
    pub(super) fn reach(&self, revision: Revision) {
        if self.reached.fetch_max(revision.0, Ordering::AcqRel) < revision.0 {
            self.changes.send_replace(revision);
        }
    }

    /// Waits, not forever, until `revision` can be read.
    pub(super) async fn wait_until(&self, revision: Revision) -> Result<(), CacheError> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut changes = self.changes.subscribe();
        let wait = changes.wait_for(|reached| *reached >= revision);
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(CacheError::Stopped),
            Err(_) => Err(CacheError::TooNew { requested: revision, current: self.revision() }),
        }
    }

    /// Tells the feed that there is something to do: a registration, a first watcher with bookmarks.
    pub(super) fn attend(&self) {
        self.attention.notify_one();
    }

    pub(super) async fn attention(&self) {
        self.attention.notified().await;
    }
}
