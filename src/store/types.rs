//! The values that pass through the `Store` contract.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;

use super::StoreError;

/// A point in the history of the whole store; the resourceVersion of objects. A fresh store is at revision 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Arc<str>,
    /// The value.
    pub value: Bytes,
    /// When the key was created.
    pub create_revision: Revision,
    /// When the key was last changed.
    pub mod_revision: Revision,
}

/// What happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The key has a new value. It is a creation when `create_revision` equals the revision of the event.
    Put {
        /// The new value.
        value: Bytes,
        /// When the key was created.
        create_revision: Revision,
    },
    /// The key is gone.
    Delete,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: Arc<str>,
    /// What happened.
    pub kind: EventKind,
    /// The value before, absent for a creation.
    pub prev: Option<Bytes>,
    /// When it happened.
    pub revision: Revision,
}

/// Changes that a watch delivers together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The consumer has now seen every change up to and including this revision.
    pub revision: Revision,
    /// The changes, in order; none when the batch only reports progress.
    pub events: Vec<Event>,
}

/// How to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// The revision to read at; now if absent.
    pub revision: Option<Revision>,
    /// At most so many entries; no limit if absent.
    pub limit: Option<usize>,
    /// Only keys greater than this one.
    pub start_after: Option<String>,
}

/// How large a store is, and what limits it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// What metrics call the store.
    pub cluster: String,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes of the files that are in use.
    pub in_use: u64,
    /// Most bytes that may be in use, where that is known.
    pub quota: Option<u64>,
    /// Bytes that are left on the file system, where the files are on this host.
    pub disk_left: Option<u64>,
    /// What the store itself says is wrong with it, such as etcd's alarms.
    pub alarms: Vec<String>,
}

/// The answer to a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// The entries, in key order.
    pub entries: Vec<Entry>,
    /// The revision that the answer shows.
    pub revision: Revision,
    /// Whether the limit cut the answer short.
    pub more: bool,
    /// How many entries follow, where the backend knows.
    pub remaining: Option<u64>,
}

/// A running watch: batches in order until an error, which is the last item. Dropping it ends the watch.
pub struct WatchStream {
    inner: Pin<Box<dyn Stream<Item = Result<Batch, StoreError>> + Send>>,
}

impl WatchStream {
    /// Wraps what a backend produces.
    pub fn new(inner: impl Stream<Item = Result<Batch, StoreError>> + Send + 'static) -> Self {
        Self { inner: Box::pin(inner) }
    }
}

impl Stream for WatchStream {
    type Item = Result<Batch, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").finish_non_exhaustive()
    }
}
