//! The watchers of one resource, indexed by what they select, so that a change costs only those who may want it.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::CacheError;
use super::fields::FieldSet;
use super::watch::{Selection, WatchEvent, judge};
use super::window::Change;
use crate::store::Revision;

/// Events that may wait for a watcher; one that lets more pile up is cut off.
const BACKLOG: usize = 1000;

/// One watcher.
struct Watcher {
    id: u64,
    selection: Selection,
    bookmarks: bool,
    sender: mpsc::Sender<WatchEvent>,
    end: Arc<OnceLock<CacheError>>,
}

/// The list that a watcher stands in: the narrowest that its selection allows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    All,
    Namespace(Box<str>),
    Key(Box<str>),
    Field(usize, Box<str>),
}

impl Place {
    fn of(selection: &Selection, namespaced: bool, names: &FieldSet) -> Self {
        match (&selection.namespace, &selection.name) {
            (Some(namespace), Some(name)) if namespaced => {
                return Self::Key(format!("{namespace}/{name}").into());
            }
            (_, Some(name)) if !namespaced => return Self::Key(name.as_str().into()),
            _ => {}
        }
        if let Some((name, value)) = &selection.field
            && let Some(field) = names.position(name)
        {
            return Self::Field(field, value.as_str().into());
        }
        match &selection.namespace {
            Some(namespace) => Self::Namespace(namespace.as_str().into()),
            None => Self::All,
        }
    }
}

type Lists<K> = HashMap<K, Vec<Watcher>>;

/// All watchers of a resource.
#[derive(Default)]
pub(super) struct Watchers {
    next_id: u64,
    all: Vec<Watcher>,
    by_namespace: Lists<Box<str>>,
    by_key: Lists<Box<str>>,
    by_field: HashMap<usize, Lists<Box<str>>>,
    counts: Counts,
}

/// Kept along with the lists.
#[derive(Default)]
struct Counts {
    with_bookmarks: usize,
    /// Watchers that were cut off, since the start.
    dropped: u64,
}

impl Watchers {
    /// How many watchers have been cut off because they were too slow.
    pub(super) fn dropped(&self) -> u64 {
        self.counts.dropped
    }

    /// Adds a watcher of what comes from now on.
    pub(super) fn add(
        shared: &Arc<Mutex<Self>>,
        this: &mut Self,
        selection: Selection,
        bookmarks: bool,
        (namespaced, names): (bool, &FieldSet),
    ) -> Subscription {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let end = Arc::new(OnceLock::new());
        let place = Place::of(&selection, namespaced, names);
        let id = this.next_id;
        this.next_id += 1;
        this.counts.with_bookmarks += usize::from(bookmarks);
        let watcher = Watcher { id, selection, bookmarks, sender, end: end.clone() };
        this.list(&place).push(watcher);
        Subscription { watchers: Arc::downgrade(shared), id, place, receiver, end }
    }

    fn list(&mut self, place: &Place) -> &mut Vec<Watcher> {
        match place {
            Place::All => &mut self.all,
            Place::Namespace(namespace) => self.by_namespace.entry(namespace.clone()).or_default(),
            Place::Key(key) => self.by_key.entry(key.clone()).or_default(),
            Place::Field(field, value) => {
                self.by_field.entry(*field).or_default().entry(value.clone()).or_default()
            }
        }
    }

    /// Hands a change to the watchers that want it; drops those that are too slow.
    pub(super) fn dispatch(&mut self, change: &Arc<Change>) {
        let Some(object) = change.current.as_ref().or(change.previous.as_ref()) else { return };
        let lost = &mut self.counts;
        deliver(&mut self.all, change, lost);
        deliver_in(&mut self.by_namespace, object.namespace(), change, lost);
        deliver_in(&mut self.by_key, object.key(), change, lost);
        for (field, lists) in &mut self.by_field {
            let current = change.current.as_ref().and_then(|object| object.field_at(*field));
            let previous = change.previous.as_ref().and_then(|object| object.field_at(*field));
            if let Some(current) = current {
                deliver_in(lists, current, change, lost);
            }
            if let Some(previous) = previous.filter(|previous| current != Some(*previous)) {
                deliver_in(lists, previous, change, lost);
            }
        }
    }

    /// Tells all who want bookmarks how far they are; who has no room does not get this one.
    pub(super) fn bookmark(&mut self, revision: Revision, line: &Bytes) {
        self.each(&mut |list| {
            for watcher in list.iter().filter(|w| w.bookmarks) {
                watcher.sender.try_send(WatchEvent::bookmark(revision, line.clone(), false)).ok();
            }
        });
    }

    /// Whether anybody wants bookmarks.
    pub(super) fn want_bookmarks(&self) -> bool {
        self.counts.with_bookmarks > 0
    }

    /// Ends all watches.
    pub(super) fn end(&mut self, error: &CacheError) {
        self.each(&mut |list| {
            for watcher in list.drain(..) {
                watcher.end.get_or_init(|| error.clone());
            }
        });
        let counts = Counts { with_bookmarks: 0, dropped: self.counts.dropped };
        *self = Self { next_id: self.next_id, counts, ..Self::default() };
    }

    /// How many there are.
    pub(super) fn len(&mut self) -> usize {
        let mut count = 0;
        self.each(&mut |list| count += list.len());
        count
    }

    fn each(&mut self, visit: &mut dyn FnMut(&mut Vec<Watcher>)) {
        visit(&mut self.all);
        let fields = self.by_field.values_mut().flat_map(HashMap::values_mut);
        self.by_namespace.values_mut().chain(self.by_key.values_mut()).chain(fields).for_each(visit);
    }

    fn remove(&mut self, place: &Place, id: u64) {
        let list = self.list(place);
        if let Some(at) = list.iter().position(|w| w.id == id) {
            let watcher = list.swap_remove(at);
            self.counts.with_bookmarks -= usize::from(watcher.bookmarks);
        }
        self.tidy(place);
    }

    /// Takes away a list that is empty.
    fn tidy(&mut self, place: &Place) {
        match place {
            Place::All => {}
            Place::Namespace(namespace) => drop_empty(&mut self.by_namespace, namespace),
            Place::Key(key) => drop_empty(&mut self.by_key, key),
            Place::Field(field, value) => {
                if let Some(lists) = self.by_field.get_mut(field) {
                    drop_empty(lists, value);
                    if lists.is_empty() {
                        self.by_field.remove(field);
                    }
                }
            }
        }
    }
}

fn drop_empty<K: Hash + Eq>(lists: &mut Lists<K>, key: &K) {
    if lists.get(key).is_some_and(Vec::is_empty) {
        lists.remove(key);
    }
}

fn deliver_in<K, Q>(lists: &mut Lists<K>, key: &Q, change: &Arc<Change>, lost: &mut Counts)
where
    K: Hash + Eq + Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    if let Some(list) = lists.get_mut(key) {
        deliver(list, change, lost);
    }
}

fn deliver(list: &mut Vec<Watcher>, change: &Arc<Change>, lost: &mut Counts) {
    list.retain(|watcher| {
        let Some(kind) = judge(&watcher.selection, change) else { return true };
        match watcher.sender.try_send(WatchEvent::change(kind, Arc::clone(change))) {
            Ok(()) => true,
            // Its consumer is about to take it out of the list itself.
            Err(TrySendError::Closed(_)) => true,
            Err(TrySendError::Full(_)) => {
                watcher.end.get_or_init(|| CacheError::TooSlow);
                lost.with_bookmarks -= usize::from(watcher.bookmarks);
                lost.dropped += 1;
                false
            }
        }
    });
}

/// A consumer's end of a watch; leaving takes the watcher out of its list.
pub(super) struct Subscription {
    watchers: Weak<Mutex<Watchers>>,
    id: u64,
    place: Place,
    receiver: mpsc::Receiver<WatchEvent>,
    end: Arc<OnceLock<CacheError>>,
}

impl Subscription {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<WatchEvent, CacheError>> {
        self.receiver
            .poll_recv(cx)
            .map(|event| event.ok_or_else(|| self.end.get().cloned().unwrap_or(CacheError::Stopped)))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(watchers) = self.watchers.upgrade() {
            watchers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.place, self.id);
        }
    }
}
