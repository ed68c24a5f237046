//! The embedded store: one SQLite file in WAL mode.
//!
//! One thread owns the only writing connection and commits all writes that wait for it in one transaction, so that
//! concurrent writers share a flush to disk (`synchronous=FULL`: nothing is acknowledged before it is durable). Reads
//! run on a few connections of their own and never wait for writes; neither do checkpoints, which have a thread of
//! their own. The file holds the current entries and a bounded log of what each change replaced, from which old revisions
//! and past events are put together.

mod checkpoint;
mod commit;
mod errors;
mod feed;
mod history;
mod packed;
mod readers;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Entry, ListOptions, ListPage, Revision, Store, StoreError, Usage, WatchStream, metrics};
use commit::{Change, Op};
pub(super) use errors::io;
use readers::Readers;
use writer::{Command, Writer};

/// What can be set about the embedded store.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Most revisions that the log keeps.
    pub log_revisions: u64,
    /// Most bytes that old values take in the log.
    pub log_bytes: u64,
    /// Largest value that is accepted.
    pub max_value_bytes: usize,
    /// Most bytes that the database file may have; no limit if absent.
    pub max_file_bytes: Option<u64>,
    /// Connections for concurrent reads.
    pub readers: usize,
    /// Batches that a watch may lag behind before it is cut off.
    pub watch_backlog: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            log_revisions: 10_000,
            log_bytes: 32 << 20,
            max_value_bytes: 3 << 20,
            max_file_bytes: None,
            readers: 2,
            watch_backlog: 256,
        }
    }
}

/// A [`Store`] in one file. Dropping the last handle closes it after the writes that were accepted.
pub struct SqliteStore {
    writer: Arc<Writer>,
    readers: Arc<Readers>,
    options: SqliteOptions,
    path: PathBuf,
}

impl SqliteStore {
    /// Opens the file, making it and its folder if they do not exist. Blocks on the disk; call it before serving.
    ///
    /// [`StoreError::InUse`] if another process has it open, [`StoreError::Corrupt`] if it is damaged.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Arc<Self>, StoreError> {
        let opened = schema::open(path, &options)?;
        let readers = Arc::new(Readers::open(path, options.readers)?);
        let writer = Arc::new(Writer::start(path, opened, &options)?);
        Ok(Arc::new(Self { writer, readers, options, path: path.to_owned() }))
    }

    /// Writes a copy of the file at `path`, which another process may have open, to the new file `to`. Blocks.
    ///
    /// # Errors
    /// As [`Store::snapshot`].
    pub fn copy_file(path: &Path, to: &Path) -> Result<Revision, StoreError> {
        schema::copy_to(&mut schema::open_reader(path)?, to)
    }

    /// All entries of the file at `path`, which another process may have open, and its revision. Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_file(path: &Path) -> Result<(Vec<Entry>, Revision), StoreError> {
        let mut connection = schema::open_reader(path)?;
        let tx = connection.transaction()?;
        let page = history::list(&tx, "", &ListOptions::default())?;
        Ok((page.entries, page.revision))
    }

    /// All entries of a copy, and its revision. Blocks.
    ///
    /// # Errors
    /// The file is damaged, or no copy of a store.
    pub fn read_copy(path: &Path) -> Result<(Vec<Entry>, Revision), StoreError> {
        let connection = schema::open_copy(path)?;
        let page = history::list(&connection, "", &ListOptions::default())?;
        Ok((page.entries, page.revision))
    }

    /// Ends the store: writes that were accepted are committed, later ones fail with [`StoreError::Closed`], watches
    /// end. Blocks until the files are closed for writing.
    pub fn close(&self) {
        self.writer.close();
    }

    /// Pages of the file that are in use, and all of them, as of a moment ago.
    pub fn pages(&self) -> (u64, u64) {
        self.writer.pages()
    }

    async fn write(&self, key: &str, change: Change, ttl: Option<Duration>) -> Result<Revision, StoreError> {
        if let Change::Create(value) | Change::Update { value, .. } = &change
            && value.len() > self.options.max_value_bytes
        {
            return Err(StoreError::TooLarge { size: value.len(), limit: self.options.max_value_bytes });
        }
        let (reply, answer) = oneshot::channel();
        let op = Op { key: Arc::from(key), change, ttl };
        self.writer.send(|permit| Command::Write { op, reply, permit }).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Refuses a read at `at` when it lies outside of the kept history.
    fn check_revision(&self, at: Revision) -> Result<(), StoreError> {
        let (oldest, current) = (self.writer.oldest(), self.writer.current());
        if at > current {
            return Err(StoreError::TooNew { requested: at, current });
        }
        if at < oldest {
            return Err(StoreError::Compacted { oldest });
        }
        Ok(())
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        if let Some(at) = at {
            self.check_revision(at)?;
        }
        let key: Arc<str> = Arc::from(key);
        self.readers.read(move |tx| history::get(tx, &key, at)).await
    }

    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<ListPage, StoreError> {
        if let Some(at) = options.revision {
            self.check_revision(at)?;
        }
        let (prefix, options) = (prefix.to_owned(), options.clone());
        self.readers.read(move |tx| history::list(tx, &prefix, &options)).await
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, StoreError> {
        self.write(key, Change::Create(value), ttl).await
    }

    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        self.write(key, Change::Update { value, expected }, ttl).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        self.write(key, Change::Delete { expected }, None).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        let oldest = self.writer.oldest();
        if after < oldest {
            return Err(StoreError::Compacted { oldest });
        }
        let (watcher, live) = feed::watcher(prefix, after, self.options.watch_backlog);
        let (reply, answer) = oneshot::channel();
        self.writer.send(|permit| Command::Watch { watcher, reply, permit }).await?;
        let begins = answer.await.map_err(|_| StoreError::Closed)?;
        let past = (after < begins).then(|| history::replay(&self.readers, prefix, after, begins));
        Ok(feed::stream(past, live))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.writer.current())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let current = self.writer.current();
        if revision > current {
            return Err(StoreError::TooNew { requested: revision, current });
        }
        let (reply, answer) = oneshot::channel();
        self.writer.send(|permit| Command::Compact { revision, reply, permit }).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn snapshot(&self, path: &Path) -> Result<Revision, StoreError> {
        let path = path.to_owned();
        self.readers.with_connection(move |connection| schema::copy_to(connection, &path)).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.writer.health()
    }

    fn known_health(&self) -> Result<(), StoreError> {
        self.writer.health()
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let (in_use, all) = self.writer.pages();
        let page = self.writer.page_bytes();
        let path = self.path.clone();
        // Asks the file system, which may be busy.
        let left = tokio::task::spawn_blocking(move || {
            nix::sys::statvfs::statvfs(&path).map(|fs| fs.blocks_available() * fs.fragment_size())
        });
        let usage = Usage {
            cluster: "sqlite".to_owned(),
            bytes: all * page,
            in_use: in_use * page,
            quota: self.options.max_file_bytes,
            disk_left: left.await.ok().and_then(Result::ok),
            alarms: Vec::new(),
        };
        metrics::report(&usage);
        Ok(usage)
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn shutdown(&self) {
        let writer = Arc::clone(&self.writer);
        // Closing waits for the disk.
        if let Err(error) = tokio::task::spawn_blocking(move || writer.close()).await {
            tracing::error!(%error, "closing the database ended by a panic");
        }
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("revision", &self.writer.current()).finish_non_exhaustive()
    }
}
