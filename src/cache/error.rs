//! What can go wrong in the watch cache.

use crate::store::{Revision, StoreError};

/// The failure of a read or watch.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// The history that was asked for is gone: 410, the client has to list again.
    #[error("too old resource version: {requested} ({oldest})")]
    Expired {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can still be answered.
        oldest: Revision,
    },
    /// The revision lies in the future and did not come within the patience of the cache.
    #[error("Too large resource version: {requested}, current: {current}")]
    TooNew {
        /// What was asked for.
        requested: Revision,
        /// Where the cache is.
        current: Revision,
    },
    /// A watcher did not keep up and was cut off; the client resumes from the last revision that it saw.
    #[error("watcher is too slow")]
    TooSlow,
    /// The cache lost the store and had to load again; watchers resume if the window allows it.
    #[error("watch cache was reloaded")]
    Reloaded,
    /// The resource has been removed, or the cache has stopped.
    #[error("watch cache has stopped")]
    Stopped,
    /// The resource has not been loaded yet, within the patience of the cache.
    #[error("watch cache is not loaded yet")]
    NotReady,
    /// The store failed.
    #[error("read from the store")]
    Store(#[from] StoreError),
}
