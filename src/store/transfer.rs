//! Copies of a store as files, and filling a store from one or from another store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;

use super::error::Cause;
use super::etcd::bolt;
use super::sqlite::{self, SqliteStore};
use super::{Entry, ListOptions, Revision, Store, StoreError};

/// Everything that is kept is below this.
pub const ROOT: &str = "/";
/// Entries that are written at once.
const CONCURRENT: usize = 64;
const PAGE: usize = 1000;
/// Events expire; how long they have been there is not known.
const EVENTS: &str = "/registry/events/";
const EVENT_TTL: Duration = Duration::from_secs(3600);

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A copy of the embedded store.
    Sqlite,
    /// A snapshot of etcd, which `etcdctl snapshot restore` takes as well.
    Etcd,
}

/// Tells what a file is by how it begins.
///
/// # Errors
/// It cannot be read, or is neither.
pub fn format_of(path: &Path) -> Result<Format, StoreError> {
    use std::io::Read as _;
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(sqlite::io)?;
    file.take(64).read_to_end(&mut start).map_err(sqlite::io)?;
    match start {
        start if start.starts_with(b"SQLite format 3\0") => Ok(Format::Sqlite),
        start if bolt::is_bolt(&start) => Ok(Format::Etcd),
        _ => Err(StoreError::Corrupt { detail: "the file is no snapshot".to_owned() }),
    }
}

/// All entries of a snapshot's file, and its revision. Blocks on the disk.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn entries_of(path: &Path) -> Result<(Vec<Entry>, Revision), StoreError> {
    match format_of(path)? {
        Format::Sqlite => SqliteStore::read_copy(path),
        Format::Etcd => bolt::entries(Bytes::from(std::fs::read(path).map_err(sqlite::io)?)),
    }
}

/// All entries of a store at one revision.
///
/// # Errors
/// What the store failed with.
pub async fn entries_in(store: &Arc<dyn Store>) -> Result<(Vec<Entry>, Revision), StoreError> {
    let mut options = ListOptions { limit: Some(PAGE), ..ListOptions::default() };
    let mut entries = Vec::new();
    loop {
        let page = store.list(ROOT, &options).await?;
        options.revision = Some(page.revision);
        options.start_after = page.entries.last().map(|e| e.key.to_string());
        entries.extend(page.entries);
        if !page.more {
            return Ok((entries, page.revision));
        }
    }
}

/// The store that should be filled holds something already.
#[derive(Debug, thiserror::Error)]
#[error("it is not empty: it holds {key}")]
struct NotEmpty {
    key: Arc<str>,
}

/// Writes entries into an empty store. Their revisions are new ones.
///
/// # Errors
/// The store is not empty, or fails; what has been written stays.
pub async fn fill(store: &Arc<dyn Store>, entries: Vec<Entry>) -> Result<(), StoreError> {
    let first = store.list(ROOT, &ListOptions { limit: Some(1), ..ListOptions::default() }).await?;
    if let Some(entry) = first.entries.first() {
        let cause: Cause = Arc::new(NotEmpty { key: entry.key.clone() });
        return Err(StoreError::Unavailable { source: cause });
    }
    futures::stream::iter(entries.into_iter().map(Ok))
        .map_ok(|entry| async move {
            let ttl = entry.key.starts_with(EVENTS).then_some(EVENT_TTL);
            store.create(&entry.key, entry.value, ttl).await.map(|_| ())
        })
        .try_buffer_unordered(CONCURRENT)
        .try_collect()
        .await
}
