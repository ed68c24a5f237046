//! Reading connections: a small pool, used on blocking threads.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Transaction};
use tokio::sync::Semaphore;

use super::schema;
use crate::store::StoreError;

/// The pool. A reader waits for a free connection; it never waits for a write.
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(path: &Path, count: usize) -> Result<Self, StoreError> {
        let idle: Vec<_> = (0..count.max(1)).map(|_| schema::open_reader(path)).collect::<Result<_, _>>()?;
        Ok(Self { permits: Arc::new(Semaphore::new(idle.len())), idle: Mutex::new(idle) })
    }

    /// Runs `work` within one read transaction, that is on one state of the database.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.with_connection(move |connection| work(&connection.transaction()?)).await
    }

    /// Runs `work` with a connection of its own.
    pub(super) async fn with_connection<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let this = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let mut connection = this.take()?;
            let result = work(&mut connection);
            this.give_back(connection);
            drop(permit);
            result
        });
        task.await.map_err(|e| StoreError::Unavailable { source: Arc::new(e) })?
    }

    fn take(&self) -> Result<Connection, StoreError> {
        // There are as many permits as connections; only a panic of `work` loses one.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or(StoreError::Closed)
    }

    fn give_back(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}
