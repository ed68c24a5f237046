//! The objects of one informer, its indexes and its listeners.
//!
//! Only the [`Writer`] changes objects. The lock on the objects is held for a lookup or one change and never while a
//! handler runs, so handlers may read any informer. Handlers see changes in order, each after the store shows it.

use super::{Change, Event, Sink, index};
use crate::client::{Key, owner};
use kube::Resource;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak},
};
use tokio::sync::{broadcast, watch};

/// How many changes a subscriber may lag behind before it is told to look at everything again.
const SUBSCRIPTION_CAPACITY: usize = 256;

type IndexFn<K> = Arc<dyn Fn(&K) -> Vec<String> + Send + Sync>;
type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// The in-memory copy of the objects of one kind. Cloning gives another handle on the same copy.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    state: RwLock<State<K>>,
    /// Taken by the writer for a change and its notification, and by new listeners.
    listeners: Mutex<Listeners<K>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    indexes: HashMap<&'static str, Index<K>>,
    revision: u64,
}

struct Index<K> {
    values_of: IndexFn<K>,
    keys: HashMap<String, BTreeSet<Key>>,
}

struct Listeners<K> {
    handlers: Vec<(Weak<()>, Handler<K>)>,
    events: Option<broadcast::Sender<Event<K>>>,
}

/// Keeps a handler registered; dropping it removes the handler.
#[derive(Debug)]
pub struct HandlerGuard(#[expect(dead_code, reason = "held for its drop")] Arc<()>);

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K> fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informer").field("objects", &self.shared.read().objects.len()).finish()
    }
}

impl<K> Shared<K> {
    fn read(&self) -> RwLockReadGuard<'_, State<K>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners<K>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource + Send + Sync + 'static> Informer<K> {
    /// An informer without a watch, and the writer that fills it: for tests and for hand-made sources.
    pub fn detached() -> (Self, Writer<K>) {
        let owners: IndexFn<K> =
            Arc::new(|object: &K| owner::owner_uids(object).map(str::to_owned).collect::<Vec<_>>());
        let state = State {
            objects: BTreeMap::new(),
            indexes: HashMap::from([(index::OWNER, Index { values_of: owners, keys: HashMap::new() })]),
            revision: 0,
        };
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            listeners: Mutex::new(Listeners { handlers: Vec::new(), events: None }),
            synced: watch::Sender::new(false),
        });
        (Self { shared: shared.clone() }, Writer { shared })
    }

    /// The object under `key`.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.shared.read().objects.get(key).cloned()
    }

    /// The object `name` in `namespace` (empty for cluster scope).
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&Key::new(namespace, name))
    }

    /// All objects, ordered by key.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.read().objects.values().cloned().collect()
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<Key> {
        self.shared.read().objects.keys().cloned().collect()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.shared.read().objects.len()
    }

    /// There is no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects in `namespace`, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        // '0' is the character after '/', so the range holds exactly the keys that start with "namespace/".
        let (first, last) = (format!("{namespace}/"), format!("{namespace}0"));
        let range = (Bound::Included(first.as_str()), Bound::Excluded(last.as_str()));
        self.shared.read().objects.range::<str, _>(range).map(|(_, object)| object.clone()).collect()
    }

    /// The objects that have an owner with this uid, ordered by key.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.by_index(index::OWNER, uid)
    }

    /// The objects for which the index function `name` returned `value`, ordered by key. Empty for an unknown index.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let state = self.shared.read();
        let keys = state.indexes.get(name).and_then(|index| index.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| state.objects.get(key).cloned()).collect()
    }

    /// Adds the index `name` over the present and all future objects. A name that exists already stays as it is, so
    /// every component that needs an index adds it.
    pub fn add_index<F>(&self, name: &'static str, values_of: F)
    where
        F: Fn(&K) -> Vec<String> + Send + Sync + 'static,
    {
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        let State { objects, indexes, .. } = &mut *state;
        indexes.entry(name).or_insert_with(|| {
            let mut index = Index { values_of: Arc::new(values_of), keys: HashMap::new() };
            for (key, object) in objects.iter() {
                index.insert(key, object);
            }
            index
        });
    }

    /// The first list is complete.
    pub fn has_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives in `self.shared`, so waiting cannot fail.
        let _sender_is_alive = synced.wait_for(|synced| *synced).await;
    }

    /// The newest resourceVersion that this copy is known to include.
    pub fn revision(&self) -> u64 {
        self.shared.read().revision
    }

    /// This copy includes the write that returned `resource_version`. Lets a loop wait for its own writes to come
    /// back instead of acting on a stale copy. An unparsable version counts as included.
    pub fn has_seen(&self, resource_version: &str) -> bool {
        resource_version.parse().is_ok_and(|revision: u64| revision <= self.revision())
            || resource_version.parse::<u64>().is_err()
    }

    /// Calls `handler` for every present object (as added) and then for every change, in order, in the task that
    /// applies the change: it must be quick and must not block. Dropping the guard removes it.
    #[must_use = "dropping the guard removes the handler"]
    pub fn add_handler<F>(&self, handler: F) -> HandlerGuard
    where
        F: Fn(&Change<K>) + Send + Sync + 'static,
    {
        let alive = Arc::new(());
        let mut listeners = self.shared.listeners();
        let present = self.list();
        for object in present {
            handler(&Change::Added(object));
        }
        listeners.handlers.push((Arc::downgrade(&alive), Box::new(handler)));
        HandlerGuard(alive)
    }

    /// A stream of changes. Its first event is [`Event::Resync`], given as soon as the informer has synced.
    pub fn subscribe(&self) -> Subscription<K> {
        let mut listeners = self.shared.listeners();
        let events = listeners.events.get_or_insert_with(|| broadcast::Sender::new(SUBSCRIPTION_CAPACITY));
        Subscription { events: events.subscribe(), informer: self.clone(), resync: true }
    }
}

/// A bounded stream of the changes of one informer.
#[derive(Debug)]
pub struct Subscription<K> {
    events: broadcast::Receiver<Event<K>>,
    informer: Informer<K>,
    resync: bool,
}

impl<K: Resource + Send + Sync + 'static> Subscription<K> {
    /// The next event. Cancel-safe. A receiver that falls behind gets [`Event::Resync`] in the place of what it missed.
    pub async fn next(&mut self) -> Event<K> {
        loop {
            if self.resync {
                self.informer.synced().await;
                self.resync = false;
                // What was queued until now is in the store already.
                self.events = self.events.resubscribe();
                return Event::Resync;
            }
            match self.events.recv().await {
                Ok(event) => return event,
                Err(broadcast::error::RecvError::Lagged(_)) => self.resync = true,
                // Unreachable while `informer` holds the sender; wait rather than spin.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// The one that changes the objects of an informer.
#[derive(Debug)]
pub struct Writer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Writer<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K> fmt::Debug for Shared<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl<K: Resource + Send + Sync + 'static> Writer<K> {
    /// Puts `object` in the place of the one with the same key.
    pub fn apply(&self, object: K) {
        let mut listeners = self.shared.listeners();
        let change = self.change(|state| state.apply(object));
        listeners.notify(change);
    }

    /// Removes the object under `key`; `last` is its final state where the server sent one.
    pub fn delete(&self, key: &Key, last: Option<K>) {
        let mut listeners = self.shared.listeners();
        let change = self.change(|state| state.delete(key, last));
        listeners.notify(change);
    }

    /// Makes `objects` all there is, as of `revision`, and marks the informer as synced.
    pub fn replace(&self, objects: Vec<K>, revision: u64) {
        let mut listeners = self.shared.listeners();
        let first = !*self.shared.synced.borrow();
        let changes = self.change(|state| state.replace(objects, revision));
        if first && let Some(events) = &listeners.events {
            // Nobody receives when all subscribers are gone: fine.
            let _receivers = events.send(Event::Resync);
        }
        for change in changes {
            listeners.dispatch(&change, !first);
        }
        drop(listeners);
        self.shared.synced.send_replace(true);
    }

    /// Notes that the objects are up to date as of `revision`.
    pub fn bookmark(&self, revision: u64) {
        self.change(|state| state.revision = state.revision.max(revision));
    }
}

impl<K: Resource + Send + Sync + 'static> Sink<K> for Writer<K> {
    fn apply(&self, object: K) {
        Self::apply(self, object);
    }

    fn delete(&self, key: &Key, last: Option<K>) {
        Self::delete(self, key, last);
    }

    fn replace(&self, objects: Vec<K>, revision: u64) {
        Self::replace(self, objects, revision);
    }

    fn bookmark(&self, revision: u64) {
        Self::bookmark(self, revision);
    }
}

impl<K> Writer<K> {
    fn change<R>(&self, change: impl FnOnce(&mut State<K>) -> R) -> R {
        change(&mut self.shared.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K> Listeners<K> {
    fn notify(&mut self, change: Option<Change<K>>) {
        if let Some(change) = change {
            self.dispatch(&change, true);
        }
    }

    fn dispatch(&mut self, change: &Change<K>, publish: bool) {
        self.handlers.retain(|(alive, handler)| {
            let alive = alive.strong_count() > 0;
            if alive {
                handler(change);
            }
            alive
        });
        if publish && let Some(events) = &self.events {
            let _receivers = events.send(Event::Change(change.clone()));
        }
    }
}

fn revision_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

impl<K: Resource> State<K> {
    fn apply(&mut self, mut object: K) -> Option<Change<K>> {
        object.meta_mut().managed_fields = None;
        self.revision = self.revision.max(revision_of(&object));
        let key = Key::of(&object);
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), new.clone());
        if let Some(old) = &old {
            let (before, after) = (&old.meta().resource_version, &new.meta().resource_version);
            if before.is_some() && before == after {
                return None;
            }
            self.unindex(&key, old);
        }
        for index in self.indexes.values_mut() {
            index.insert(&key, &new);
        }
        Some(match old {
            None => Change::Added(new),
            Some(old) => Change::Updated { old, new },
        })
    }

    fn delete(&mut self, key: &Key, last: Option<K>) -> Option<Change<K>> {
        if let Some(last) = &last {
            self.revision = self.revision.max(revision_of(last));
        }
        let known = self.objects.remove(key)?;
        self.unindex(key, &known);
        let last = last.map_or(known, |mut last| {
            last.meta_mut().managed_fields = None;
            Arc::new(last)
        });
        Some(Change::Deleted(last))
    }

    fn replace(&mut self, objects: Vec<K>, revision: u64) -> Vec<Change<K>> {
        let listed: BTreeSet<Key> = objects.iter().map(Key::of).collect();
        let gone: Vec<Key> = self.objects.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        let mut changes: Vec<_> = gone.iter().filter_map(|key| self.delete(key, None)).collect();
        changes.extend(objects.into_iter().filter_map(|object| self.apply(object)));
        self.revision = self.revision.max(revision);
        changes
    }

    fn unindex(&mut self, key: &Key, object: &K) {
        for index in self.indexes.values_mut() {
            index.remove(key, object);
        }
    }
}

impl<K> Index<K> {
    fn insert(&mut self, key: &Key, object: &K) {
        for value in (self.values_of)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &Key, object: &K) {
        for value in (self.values_of)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}
