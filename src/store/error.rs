//! What can go wrong in a store, in terms that do not depend on the backend.

use std::path::PathBuf;
use std::sync::Arc;

use super::types::{Entry, Revision};

/// The cause of a store error as the backend reported it; shared because one failed commit fails many writes.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// The failure of a store operation.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A create found the key taken.
    #[error("key {key} already exists")]
    Exists {
        /// The key.
        key: Arc<str>,
    },
    /// An update or delete found no such key.
    #[error("key {key} does not exist")]
    NotFound {
        /// The key.
        key: Arc<str>,
    },
    /// An update or delete expected another revision.
    #[error("key {key} has been changed by another writer")]
    Conflict {
        /// The key.
        key: Arc<str>,
        /// What is stored under the key now, where the backend knows.
        current: Option<Entry>,
    },
    /// The history that was asked for is gone.
    #[error("revision has been compacted, the oldest available is {oldest}")]
    Compacted {
        /// The oldest revision that reads and watches may still start from.
        oldest: Revision,
    },
    /// A read at a revision that has not been written yet.
    #[error("revision {requested} is in the future, the store is at {current}")]
    TooNew {
        /// What was asked for.
        requested: Revision,
        /// Where the store is.
        current: Revision,
    },
    /// The value exceeds what the store accepts.
    #[error("value of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Size of the value.
        size: usize,
        /// Most that is accepted.
        limit: usize,
    },
    /// A watch consumer did not keep up and was cut off.
    #[error("watch fell behind and was cut off")]
    Lagged,
    /// The disk, or the quota of the store, is full. Nothing was written.
    #[error("no space left for the database")]
    Full {
        /// What the backend said.
        #[source]
        source: Cause,
    },
    /// The operating system failed to read or write the files. A write that it failed has not happened, unless the
    /// machine crashes before the next one succeeds: then it may have.
    #[error("input/output error on the database")]
    Io {
        /// What the backend said.
        #[source]
        source: Cause,
    },
    /// The files are damaged.
    #[error(
        "the database is damaged ({detail}); stop kube-lite and restore a snapshot: kube-lite snapshot list, then kube-lite snapshot restore NAME"
    )]
    Corrupt {
        /// What was found.
        detail: String,
    },
    /// A value is encrypted and cannot be decrypted; it is not handed out.
    #[error("the value of {key} cannot be read: {detail}")]
    Unreadable {
        /// The key.
        key: Arc<str>,
        /// Why.
        detail: String,
    },
    /// Another process uses the files.
    #[error("the database {} is in use by another process", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The files were made by a program that this one cannot replace.
    #[error("the database has format {found}, this program understands {supported}")]
    Format {
        /// What the files say.
        found: i64,
        /// What this program understands.
        supported: i64,
    },
    /// The store cannot be reached or gave no answer. The operation may or may not have happened.
    #[error("the store is not available")]
    Unavailable {
        /// What the backend said.
        #[source]
        source: Cause,
    },
    /// The store has been closed. Nothing was written.
    #[error("the store is closed")]
    Closed,
}
