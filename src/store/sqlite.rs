//! The embedded store: one SQLite file in WAL mode.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Entry, ListOptions, ListPage, Revision, Store, StoreError, WatchStream};

/// What can be set about the embedded store.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Most revisions that the log keeps.
    pub log_revisions: u64,
    /// Most bytes of old values that the log keeps.
    pub log_bytes: u64,
    /// Largest value that is accepted.
    pub max_value_bytes: usize,
    /// Most bytes that the database file may have; no limit if absent.
    pub max_file_bytes: Option<u64>,
    /// Connections for concurrent reads.
    pub readers: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            log_revisions: 10_000,
            log_bytes: 32 << 20,
            max_value_bytes: 3 << 20,
            max_file_bytes: None,
            readers: 2,
        }
    }
}

/// A [`Store`] in one file.
#[derive(Debug)]
pub struct SqliteStore {}

impl SqliteStore {
    /// Opens the file, making it and its folder if they do not exist. Blocks on the disk; call it before serving.
    pub fn open(_path: &Path, _options: SqliteOptions) -> Result<Arc<Self>, StoreError> {
        Err(StoreError::Closed)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, _key: &str, _at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        Err(StoreError::Closed)
    }
    async fn list(&self, _prefix: &str, _options: &ListOptions) -> Result<ListPage, StoreError> {
        Err(StoreError::Closed)
    }
    async fn create(
        &self,
        _key: &str,
        _value: Bytes,
        _ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        Err(StoreError::Closed)
    }
    async fn update(
        &self,
        _key: &str,
        _value: Bytes,
        _expected: Revision,
        _ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        Err(StoreError::Closed)
    }
    async fn delete(&self, _key: &str, _expected: Revision) -> Result<Revision, StoreError> {
        Err(StoreError::Closed)
    }
    async fn watch(&self, _prefix: &str, _after: Revision) -> Result<WatchStream, StoreError> {
        Err(StoreError::Closed)
    }
    async fn current_revision(&self) -> Result<Revision, StoreError> {
        Err(StoreError::Closed)
    }
    async fn compact(&self, _revision: Revision) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
    async fn snapshot(&self, _path: &Path) -> Result<Revision, StoreError> {
        Err(StoreError::Closed)
    }
    async fn health(&self) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
}
