//! Watches of one resource: what they ask for and what they get.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;

use super::object::Object;
use super::{CacheError, Consistency};
use crate::store::Revision;

/// A test of an object beyond namespace, name and one field: label and field selectors.
pub type Filter = Arc<dyn Fn(&Object) -> bool + Send + Sync>;

/// Which objects a watch is about. All of `namespace`, `name` and `field` are index keys; `filter` is run on what they
/// let through.
#[derive(Clone, Default)]
pub struct Selection {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only this name.
    pub name: Option<String>,
    /// Only objects whose selectable field (`spec.nodeName`) has this value.
    pub field: Option<(String, String)>,
    /// Only objects that pass this.
    pub filter: Option<Filter>,
}

impl Selection {
    /// Whether an object is selected.
    pub fn matches(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|n| n == object.namespace())
            && self.name.as_deref().is_none_or(|n| n == object.name())
            && self.field.as_ref().is_none_or(|(f, v)| object.field(f) == Some(v))
            && self.filter.as_ref().is_none_or(|f| f(object))
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selection")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("field", &self.field)
            .field("filter", &self.filter.is_some())
            .finish()
    }
}

/// Where a watch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchFrom {
    /// With the first change after this revision.
    After(Revision),
    /// With an `ADDED` for every selected object as of a read of this consistency, then changes: a watch without
    /// `resourceVersion`, with `0`, or with `sendInitialEvents`.
    State(Consistency),
}

/// A watch.
#[derive(Debug, Clone)]
pub struct WatchRequest {
    /// Where it starts.
    pub from: WatchFrom,
    /// Which objects.
    pub selection: Selection,
    /// Whether the client understands bookmarks.
    pub bookmarks: bool,
    /// Whether the end of the initial state is marked by an annotated bookmark (`sendInitialEvents`).
    pub mark_initial_end: bool,
}

/// The type of a watch event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// The object began to match.
    Added,
    /// The object changed and still matches.
    Modified,
    /// The object is gone or no longer matches; it is shown as it was, with the revision of the event.
    Deleted,
    /// Nothing happened up to this revision that the watch selects.
    Bookmark,
}

impl EventType {
    /// As it is called on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
        }
    }
}

/// One event of a watch.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    kind: EventType,
    revision: Revision,
    object: Option<Arc<Object>>,
    line: Bytes,
    initial_end: bool,
}

impl WatchEvent {
    /// What happened.
    pub fn event_type(&self) -> EventType {
        self.kind
    }

    /// The revision that the watch has now reached.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The object; none for a bookmark.
    pub fn object(&self) -> Option<&Arc<Object>> {
        self.object.as_ref()
    }

    /// Whether this is the bookmark that ends the initial state.
    pub fn ends_initial(&self) -> bool {
        self.initial_end
    }

    /// `{"type":…,"object":…}` and a line feed, encoded once however many watchers there are.
    pub fn line(&self) -> Bytes {
        self.line.clone()
    }

    /// The event in another encoding (a table row, metadata only, protobuf), made once for each `encoding` however many
    /// watchers there are.
    pub fn encoded(&self, _encoding: &str, make: impl FnOnce(&Self) -> Bytes) -> Bytes {
        make(self)
    }
}

/// A running watch. An error is the last item. Dropping it ends the watch.
#[derive(Debug)]
pub struct WatchStream {}

impl Stream for WatchStream {
    type Item = Result<WatchEvent, CacheError>;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}
