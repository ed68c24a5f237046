//! The `Store` contract and its backends. Only this room knows a database.
//!
//! A store is an ordered map from keys to bytes with one global revision that grows with every change. Writes are
//! compare-and-set on the revision of a key; a watch delivers every durable change of a prefix in order. The contract
//! says nothing that etcd v3 or an embedded database could not both keep; `contract` holds the tests that every
//! backend passes.

#[cfg(test)]
pub(crate) mod contract;
pub mod encryption;
pub mod error;
pub mod etcd;
mod metrics;
pub mod sqlite;
pub mod transfer;
pub mod types;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use error::StoreError;
pub use types::{Batch, Entry, Event, EventKind, ListOptions, ListPage, Revision, Usage, WatchStream};

/// An ordered, revisioned, durable map from keys to bytes.
///
/// Guarantees that every backend gives:
/// - A write that returned `Ok` survives a crash of the process and of the machine.
/// - Revisions are strictly increasing over all keys; the revision of a write is greater than that of every write which
///   was acknowledged before it began.
/// - A read without revision sees every write that was acknowledged before the read began.
/// - A write that returned [`StoreError::Unavailable`] may or may not have happened; after every other error it did not.
/// - A watch delivers only durable changes, each exactly once, in the order of their revisions, without holes.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry under `key` now, or as it was at revision `at`.
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<Entry>, StoreError>;

    /// The entries whose keys start with `prefix`, in key order, all as of one revision.
    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<ListPage, StoreError>;

    /// Adds `key`, which must not exist ([`StoreError::Exists`]). With `ttl` the entry is deleted after that time.
    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, StoreError>;

    /// Replaces the value of `key` if its `mod_revision` is `expected`: [`StoreError::NotFound`] when the key does not
    /// exist, [`StoreError::Conflict`] when it has another revision. `ttl` replaces what was said before.
    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, StoreError>;

    /// Removes `key` if its `mod_revision` is `expected`; the result is the revision of the deletion.
    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError>;

    /// Every change under `prefix` with a revision greater than `after`, old ones first, then as they happen.
    ///
    /// `after` may lie in the future. [`StoreError::Compacted`] when changes after `after` have been forgotten. A
    /// consumer that does not keep up is cut off with [`StoreError::Lagged`].
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError>;

    /// The revision of the latest durable write. Cheap: an atomic load where the store is embedded.
    async fn current_revision(&self) -> Result<Revision, StoreError>;

    /// Forgets history: afterwards reads and watches at revisions below `revision` fail with
    /// [`StoreError::Compacted`]. The newest value of every key stays. Never goes backwards.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// Writes a consistent copy of the whole store to the new file `path` while the store is in use; the result is the
    /// revision of the copy.
    async fn snapshot(&self, path: &Path) -> Result<Revision, StoreError>;

    /// Whether writes can succeed, for readiness.
    async fn health(&self) -> Result<(), StoreError>;

    /// Whether the latest operations succeeded, known without waiting.
    fn known_health(&self) -> Result<(), StoreError>;

    /// How large the store is, and what limits it; the metrics show it from then on.
    async fn usage(&self) -> Result<Usage, StoreError>;

    /// Whether other processes may write to it, too.
    fn is_shared(&self) -> bool;

    /// Ends the store where that takes an effort: writes that were accepted are committed, later ones fail with
    /// [`StoreError::Closed`].
    async fn shutdown(&self) {}
}
