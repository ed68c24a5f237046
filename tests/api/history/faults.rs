//! Stores that break their promises, for the checker to find.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use kube_lite::store::{
    Batch, Entry, EventKind, ListOptions, ListPage, Revision, Store, StoreError, Usage, WatchStream,
};

/// Which promise is broken, now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Acknowledges an update that it does not make.
    ForgetsWrites,
    /// Updates whatever is there, not what was expected.
    OverwritesBlindly,
    /// Tells reads a revision from before the latest writes, and is late with watches.
    ServesOldState,
    /// Leaves events out of watches.
    DropsEvents,
    /// Sends the events of two batches in the wrong order.
    ReordersEvents,
    /// Sends an event again, as if it had just happened.
    RepeatsEvents,
    /// Makes an update, but says that it was refused.
    RefusesWhatItDid,
    /// Makes half of an update: takes the old value away, and adds the new one in a transaction of its own.
    SplitsUpdates,
}

impl Fault {
    pub const ALL: [Self; 8] = [
        Self::ForgetsWrites,
        Self::OverwritesBlindly,
        Self::ServesOldState,
        Self::DropsEvents,
        Self::ReordersEvents,
        Self::RepeatsEvents,
        Self::RefusesWhatItDid,
        Self::SplitsUpdates,
    ];
}

/// A store with a fault, once it is told to begin.
pub struct Faulty {
    inner: Arc<dyn Store>,
    fault: Fault,
    turns: Turns,
}

/// When the fault strikes.
#[derive(Clone, Default)]
struct Turns {
    begun: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    /// Updates that were made though something else was there than expected.
    overwritten: Arc<AtomicU64>,
}

impl Turns {
    /// True at every `every`th time.
    fn strike(&self, key: &str, every: u64) -> bool {
        is_ours(key)
            && self.begun.load(Ordering::SeqCst)
            && self.count.fetch_add(1, Ordering::SeqCst) % every == every - 1
    }
}

/// Only what the clients of the test write is spoiled.
fn is_ours(key: &str) -> bool {
    key.contains("/configmaps/default/h")
}

impl Faulty {
    pub fn new(inner: Arc<dyn Store>, fault: Fault) -> Self {
        Self { inner, fault, turns: Turns::default() }
    }

    pub fn begin(&self) {
        self.turns.begun.store(true, Ordering::SeqCst);
    }

    /// Whether the fault has had its chance: an update is blind only when another one came before it.
    pub fn had_its_chance(&self) -> bool {
        self.fault != Fault::OverwritesBlindly || self.turns.overwritten.load(Ordering::SeqCst) > 1
    }
}

#[async_trait]
impl Store for Faulty {
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
        mut expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        match self.fault {
            Fault::ForgetsWrites if self.turns.strike(key, 10) => return self.inner.current_revision().await,
            Fault::OverwritesBlindly if is_ours(key) => {
                if let Some(there) = self.inner.get(key, None).await?
                    && there.mod_revision != expected
                {
                    expected = there.mod_revision;
                    let written = self.inner.update(key, value, expected, ttl).await?;
                    self.turns.overwritten.fetch_add(1, Ordering::SeqCst);
                    return Ok(written);
                }
            }
            Fault::SplitsUpdates if self.turns.strike(key, 10) => {
                self.inner.delete(key, expected).await?;
                return self.inner.create(key, value, ttl).await;
            }
            Fault::RefusesWhatItDid if self.turns.strike(key, 10) => {
                self.inner.update(key, value, expected, ttl).await?;
                return Err(StoreError::Conflict { key: key.into(), current: None });
            }
            _ => {}
        }
        self.inner.update(key, value, expected, ttl).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        self.inner.delete(key, expected).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        let (watch, turns, fault) = (self.inner.watch(prefix, after).await?, self.turns.clone(), self.fault);
        let mut held: Option<Batch> = None;
        Ok(WatchStream::new(watch.then(move |batch| {
            let spoiled = batch.map(|batch| spoil(fault, &turns, &mut held, batch));
            let late = fault == Fault::ServesOldState && turns.begun.load(Ordering::SeqCst);
            async move {
                for _ in 0..if late { 300 } else { 0 } {
                    tokio::task::yield_now().await;
                }
                spoiled
            }
        })))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        let current = self.inner.current_revision().await?;
        match self.fault == Fault::ServesOldState && self.turns.begun.load(Ordering::SeqCst) {
            true => Ok(Revision(current.0.saturating_sub(50).max(1))),
            false => Ok(current),
        }
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

fn spoil(fault: Fault, turns: &Turns, held: &mut Option<Batch>, mut batch: Batch) -> Batch {
    match fault {
        Fault::DropsEvents => batch.events.retain(|event| !turns.strike(&event.key, 20)),
        Fault::ReordersEvents => {
            if let Some(before) = held.take() {
                batch.events.extend(before.events);
                return batch;
            }
            if batch.events.iter().any(|event| turns.strike(&event.key, 20)) {
                let nothing = Batch { revision: batch.revision, events: Vec::new() };
                *held = Some(std::mem::replace(&mut batch, nothing));
            }
        }
        Fault::RepeatsEvents => {
            let again = batch.events.iter().find(|event| turns.strike(&event.key, 20)).cloned();
            if let Some(mut again) = again.filter(|event| matches!(event.kind, EventKind::Put { .. })) {
                again.revision = batch.revision;
                batch.events.push(again);
            }
        }
        _ => {}
    }
    batch
}
