//! The changes of a resource that are remembered, for watches that start in the past.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use super::object::Object;
use super::watch::EventType;
use crate::store::Revision;

/// One change of one object, shared by the window and by every watcher that gets it.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) revision: Revision,
    pub(super) current: Option<Arc<Object>>,
    pub(super) previous: Option<Arc<Object>>,
    removed: OnceLock<Option<Arc<Object>>>,
    lines: [OnceLock<Bytes>; 3],
    encodings: Mutex<Vec<(EventType, Box<str>, Bytes)>>,
}

impl Change {
    pub(super) fn new(
        revision: Revision,
        current: Option<Arc<Object>>,
        previous: Option<Arc<Object>>,
    ) -> Self {
        let (removed, lines, encodings) = Default::default();
        Self { revision, current, previous, removed, lines, encodings }
    }

    /// The object that an event of this type shows: for a deletion the last state with the revision of the change.
    pub(super) fn object(&self, kind: EventType) -> Option<&Arc<Object>> {
        match kind {
            EventType::Added | EventType::Modified => self.current.as_ref(),
            EventType::Deleted => {
                let make = || self.previous.as_ref().map(|p| Arc::new(p.with_revision(self.revision)));
                self.removed.get_or_init(make).as_ref()
            }
            EventType::Bookmark => None,
        }
    }

    /// The event as a line of a watch response, encoded once.
    pub(super) fn line(&self, kind: EventType) -> Bytes {
        let slot = match kind {
            EventType::Added => &self.lines[0],
            EventType::Modified => &self.lines[1],
            EventType::Deleted | EventType::Bookmark => &self.lines[2],
        };
        slot.get_or_init(|| self.object(kind).map_or_else(Bytes::new, |o| encode(kind, o.json()))).clone()
    }

    /// The event in another encoding, made once.
    pub(super) fn encoded(&self, kind: EventType, encoding: &str, make: impl FnOnce() -> Bytes) -> Bytes {
        let known = || self.encodings.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |list: &[(EventType, Box<str>, Bytes)]| {
            list.iter().find(|(k, e, _)| *k == kind && **e == *encoding).map(|(_, _, bytes)| bytes.clone())
        };
        if let Some(bytes) = find(&known()) {
            return bytes;
        }
        let made = make();
        let mut list = known();
        // Another watcher may have been faster: all hold the same bytes.
        find(&list).unwrap_or_else(|| {
            list.push((kind, encoding.into(), made.clone()));
            made
        })
    }

    fn weight(&self) -> usize {
        self.current.as_ref().or(self.previous.as_ref()).map_or(0, |o| o.json().len())
    }
}

/// `{"type":…,"object":…}` and a line feed.
pub(super) fn encode(kind: EventType, json: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(json.len() + 32);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_str().as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(json);
    line.extend_from_slice(b"}\n");
    Bytes::from(line.into_boxed_slice())
}

/// How much a window remembers.
#[derive(Debug, Clone)]
pub(super) struct WindowLimits {
    pub(super) changes: usize,
    /// Bytes of the objects; encoded lines at most double it. A window may have so many whatever the others have.
    pub(super) bytes: usize,
    /// What all windows together may have; one with more than its own share gives way.
    pub(super) budget: Arc<Budget>,
}

/// The memory of all windows of a cache.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) bytes: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { bytes, used: AtomicUsize::new(0) })
    }

    /// What the windows hold.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn is_exceeded(&self) -> bool {
        self.used() > self.bytes
    }
}

/// All changes after `start`, oldest first.
#[derive(Debug)]
pub(super) struct Window {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    start: Revision,
    limits: WindowLimits,
}

impl Window {
    pub(super) fn new(start: Revision, limits: WindowLimits) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, start, limits }
    }

    /// The oldest revision from which a watch can start.
    pub(super) fn start(&self) -> Revision {
        self.start
    }

    /// How many changes are remembered, and how many bytes their objects have.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.changes.len(), self.bytes)
    }

    pub(super) fn push(&mut self, change: Arc<Change>) {
        self.grow(change.weight());
        self.changes.push_back(change);
        while self.changes.len() > self.limits.changes.max(1)
            || (self.bytes > self.limits.bytes && self.limits.budget.is_exceeded() && self.changes.len() > 1)
        {
            let Some(oldest) = self.changes.pop_front() else { return };
            self.shrink(oldest.weight());
            self.start = oldest.revision;
        }
    }

    fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.limits.budget.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrink(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.limits.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The changes after `revision`, oldest first; `None` when some of them are forgotten.
    pub(super) fn since(
        &self,
        revision: Revision,
    ) -> Option<impl DoubleEndedIterator<Item = &Arc<Change>> + ExactSizeIterator> {
        if revision < self.start {
            return None;
        }
        let from = self.changes.partition_point(|c| c.revision <= revision);
        Some(self.changes.range(from..))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fields::FieldSet;
    use crate::cache::parse::parse;

    fn object(revision: u64, padding: usize) -> Arc<Object> {
        let json = format!(r#"{{"metadata":{{"name":"x"}},"pad":"{}"}}"#, "p".repeat(padding));
        let names = Arc::new(FieldSet::new(Vec::new()));
        Arc::new(parse("x".into(), &json.into(), Revision(revision), &names).unwrap())
    }

    fn limits(changes: usize, bytes: usize, budget: usize) -> WindowLimits {
        WindowLimits { changes, bytes, budget: Budget::new(budget) }
    }

    #[test]
    fn windows_share_a_budget_and_the_large_one_gives_way() {
        let limits = WindowLimits { budget: Budget::new(20_000), ..limits(1000, 3000, 0) };
        let mut quiet = Window::new(Revision(1), limits.clone());
        let mut busy = Window::new(Revision(1), limits.clone());
        quiet.push(change(2, 1500));
        for revision in 3..100 {
            busy.push(change(revision, 900));
        }
        let (count, bytes) = busy.size();
        assert!(count > 15 && bytes <= 20_000 - quiet.size().1, "{count} changes of {bytes} bytes");
        assert_eq!(limits.budget.used(), bytes + quiet.size().1);
        drop(busy);
        assert_eq!(limits.budget.used(), quiet.size().1);
    }

    fn change(revision: u64, padding: usize) -> Arc<Change> {
        Arc::new(Change::new(Revision(revision), Some(object(revision, padding)), None))
    }

    fn revisions(window: &Window, since: u64) -> Option<Vec<u64>> {
        window.since(Revision(since)).map(|c| c.map(|c| c.revision.0).collect())
    }

    #[test]
    fn the_window_forgets_the_oldest_by_count() {
        let mut window = Window::new(Revision(10), limits(3, 1 << 20, 1 << 20));
        for revision in [12, 14, 16] {
            window.push(change(revision, 0));
        }
        assert_eq!(revisions(&window, 10), Some(vec![12, 14, 16]));
        assert_eq!(revisions(&window, 13), Some(vec![14, 16]));
        assert_eq!(revisions(&window, 16), Some(vec![]));
        assert_eq!(revisions(&window, 99), Some(vec![]));
        assert_eq!(revisions(&window, 9), None);
        window.push(change(18, 0));
        assert_eq!(window.start(), Revision(12));
        assert_eq!(revisions(&window, 11), None);
        assert_eq!(revisions(&window, 12), Some(vec![14, 16, 18]));
    }

    #[test]
    fn the_window_forgets_the_oldest_by_bytes_but_keeps_the_newest() {
        let mut window = Window::new(Revision(1), limits(100, 3000, 0));
        for revision in 2..=5 {
            window.push(change(revision, 900));
        }
        assert_eq!(revisions(&window, window.start().0), Some(vec![3, 4, 5]));
        window.push(change(6, 10_000));
        assert_eq!(revisions(&window, window.start().0), Some(vec![6]));
        window.push(change(7, 10));
        assert_eq!(revisions(&window, window.start().0), Some(vec![7]));
    }

    #[test]
    fn a_line_is_encoded_once_and_shared() {
        let change = Change::new(Revision(9), Some(object(9, 0)), Some(object(5, 0)));
        let line = change.line(EventType::Modified);
        assert_eq!(
            line,
            &br#"{"type":"MODIFIED","object":{"metadata":{"resourceVersion":"9","name":"x"},"pad":""}}"#[..]
                .iter()
                .chain(b"\n")
                .copied()
                .collect::<Vec<_>>()
        );
        assert_eq!(change.line(EventType::Modified).as_ptr(), line.as_ptr());
        assert!(change.line(EventType::Added).starts_with(br#"{"type":"ADDED""#));
    }

    #[test]
    fn a_deletion_shows_the_last_state_with_its_own_revision() {
        let change = Change::new(Revision(9), None, Some(object(5, 0)));
        let shown = change.object(EventType::Deleted).unwrap();
        assert_eq!(shown.revision(), Revision(9));
        let line = String::from_utf8(change.line(EventType::Deleted).to_vec()).unwrap();
        assert!(line.contains(r#""resourceVersion":"9""#), "{line}");
    }

    #[test]
    fn another_encoding_is_made_once_for_each_type() {
        let change = change(3, 0);
        let mut made = 0;
        for kind in [EventType::Added, EventType::Modified, EventType::Added] {
            let bytes = change.encoded(kind, "table", || {
                made += 1;
                Bytes::from(kind.as_str().to_owned())
            });
            assert_eq!(bytes, kind.as_str());
        }
        assert_eq!(made, 2);
    }
}
