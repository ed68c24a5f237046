//! The thread that moves the WAL into the database while the writer goes on.
//!
//! Its checkpoints are passive: they wait for nobody, and neither readers nor the writer wait for them. What the writer
//! appends meanwhile is left for the next one.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags};
use tracing::warn;

use super::errors::io;
use crate::store::StoreError;

/// Handle of the thread.
pub(super) struct Checkpointer {
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        // With FULL the file is flushed before the WAL may be written from its beginning.
        connection.pragma_update(None, "synchronous", "FULL")?;
        // One may wait while one is made; more would find nothing to do.
        let (requests, receiver) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || run(&connection, &receiver))
            .map_err(io)?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Asks for a checkpoint, unless one is waiting already.
    pub(super) fn ask(&self) {
        if let Some(requests) = &self.requests {
            requests.try_send(()).ok();
        }
    }

    /// Waits until the thread has finished what it does.
    pub(super) fn stop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("checkpoints ended by a panic");
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(connection: &Connection, requests: &Receiver<()>) {
    while requests.recv().is_ok() {
        let result = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(0));
        if let Err(error) = result {
            // Nothing is lost: the WAL has everything, and grows until a checkpoint succeeds.
            warn!(%error, "checkpoint failed");
        }
    }
}
