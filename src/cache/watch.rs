//! Watches of one resource: what they ask for and what they get.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;

use super::object::Object;
use super::resource::Snapshot;
use super::watchers::Subscription;
use super::window::{Change, encode};
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
    source: Source,
}

/// Where an event comes from, and with it what is shared.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A change; everything made from it is kept with it.
    Change(Arc<Change>),
    /// An object of the initial state.
    Initial(Arc<Object>),
    /// Progress: the line, and whether it ends the initial state.
    Bookmark(Bytes, bool),
}

impl WatchEvent {
    pub(super) fn change(kind: EventType, change: Arc<Change>) -> Self {
        Self { kind, revision: change.revision, source: Source::Change(change) }
    }

    pub(super) fn initial(object: Arc<Object>) -> Self {
        Self { kind: EventType::Added, revision: object.revision(), source: Source::Initial(object) }
    }

    pub(super) fn bookmark(revision: Revision, line: Bytes, ends_initial: bool) -> Self {
        Self { kind: EventType::Bookmark, revision, source: Source::Bookmark(line, ends_initial) }
    }

    /// What happened.
    pub fn event_type(&self) -> EventType {
        self.kind
    }

    /// The revision of the object, or the one that a bookmark tells.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The object; none for a bookmark.
    pub fn object(&self) -> Option<&Arc<Object>> {
        match &self.source {
            Source::Change(change) => change.object(self.kind),
            Source::Initial(object) => Some(object),
            Source::Bookmark(..) => None,
        }
    }

    /// Whether this is the bookmark that ends the initial state.
    pub fn ends_initial(&self) -> bool {
        matches!(self.source, Source::Bookmark(_, true))
    }

    /// `{"type":…,"object":…}` and a line feed; for a change encoded once however many watchers there are.
    pub fn line(&self) -> Bytes {
        match &self.source {
            Source::Change(change) => change.line(self.kind),
            Source::Initial(object) => encode(self.kind, object.json()),
            Source::Bookmark(line, _) => line.clone(),
        }
    }

    /// The event in another encoding (a table row, metadata only, protobuf), for a change made once for each
    /// `encoding` however many watchers there are.
    pub fn encoded(&self, encoding: &str, make: impl FnOnce(&Self) -> Bytes) -> Bytes {
        match &self.source {
            Source::Change(change) => change.encoded(self.kind, encoding, || make(self)),
            Source::Initial(_) | Source::Bookmark(..) => make(self),
        }
    }
}

/// What a selection makes of a change: the object began to match, still matches, no longer matches, or never did.
pub(super) fn judge(selection: &Selection, change: &Change) -> Option<EventType> {
    let is = |object: &Option<Arc<Object>>| object.as_ref().is_some_and(|o| selection.matches(o));
    match (is(&change.previous), is(&change.current)) {
        (false, true) => Some(EventType::Added),
        (true, true) => Some(EventType::Modified),
        (true, false) => Some(EventType::Deleted),
        (false, false) => None,
    }
}

/// Objects of the initial state that are looked up at once.
const CHUNK: usize = 128;

/// The initial state as it is handed out.
pub(super) struct Initial {
    pub(super) snapshot: Snapshot,
    pub(super) selection: Selection,
    /// The bookmark at the end, if it is wanted.
    pub(super) end: Option<WatchEvent>,
    pub(super) chunk: std::vec::IntoIter<Arc<Object>>,
    /// The last key that was looked at; `None` at the beginning.
    pub(super) after: Option<Arc<str>>,
    pub(super) exhausted: bool,
}

impl Initial {
    fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(object) = self.chunk.next() {
                return Some(WatchEvent::initial(object));
            }
            if self.exhausted {
                return self.end.take();
            }
            // Sets `exhausted` when there is nothing left.
            self.fill();
        }
    }

    fn fill(&mut self) {
        let selection = &self.selection;
        let namespace = selection.namespace.as_deref();
        if let (Some(namespace), Some(name)) = (namespace, selection.name.as_deref()) {
            let one = self.snapshot.get(namespace, name).filter(|o| selection.matches(o)).cloned();
            self.chunk = one.into_iter().collect::<Vec<_>>().into_iter();
            self.exhausted = true;
            return;
        }
        let mut chunk = Vec::new();
        let mut last = None;
        for object in self.snapshot.iter(namespace, self.after.as_deref()).take(CHUNK) {
            last = Some(object.key.clone());
            if selection.matches(object) {
                chunk.push(Arc::clone(object));
            }
        }
        self.exhausted = last.is_none();
        self.after = last.or(self.after.take());
        self.chunk = chunk.into_iter();
    }
}

/// A running watch. An error is the last item. Dropping it ends the watch.
pub struct WatchStream {
    pub(super) initial: Option<Initial>,
    pub(super) backlog: std::collections::VecDeque<WatchEvent>,
    pub(super) live: Option<Subscription>,
}

impl WatchStream {
    /// Where the watch began: the revision of the initial state, or the one asked for.
    pub fn initial_revision(&self) -> Option<Revision> {
        self.initial.as_ref().map(|i| i.snapshot.revision())
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchEvent, CacheError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(initial) = &mut this.initial {
            match initial.next() {
                Some(event) => return Poll::Ready(Some(Ok(event))),
                None => this.initial = None,
            }
        }
        if let Some(event) = this.backlog.pop_front() {
            return Poll::Ready(Some(Ok(event)));
        }
        let Some(live) = &mut this.live else { return Poll::Ready(None) };
        match live.poll_next(cx) {
            Poll::Ready(Ok(event)) => Poll::Ready(Some(Ok(event))),
            Poll::Ready(Err(error)) => {
                this.live = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").field("ended", &self.live.is_none()).finish_non_exhaustive()
    }
}
