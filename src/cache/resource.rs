//! The cache of one resource: its objects as a persistent map, its window of changes, its watchers.
//!
//! Locks: `watchers` before `state`, never the other way round; none is held across an await. Whoever only reads takes
//! `state` for the time of a clone of the map, which costs O(1).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use imbl::OrdMap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::fields::{FieldSet, SelectableField};
use super::load;
use super::object::Object;
use super::progress::{PATIENCE, Progress};
use super::watch::{Initial, WatchEvent, WatchFrom, WatchRequest, WatchStream, judge};
use super::watchers::Watchers;
use super::window::{Budget, Change, Window, WindowLimits};
use super::{CacheError, EventType};
use crate::store::Revision;

/// Most changes that a window remembers, and the bytes that it may have whatever the others have.
pub(super) const WINDOW_CHANGES: usize = 8192;
const WINDOW_LEAST_BYTES: usize = 128 << 10;
/// Old snapshots that are kept for the next page of a list, and for how long.
const KEPT_SNAPSHOTS: usize = 4;
const KEPT_FOR: Duration = Duration::from_secs(300);

/// The objects by key.
pub(super) type Objects = OrdMap<Arc<str>, Arc<Object>>;

/// What the cache has to know about a resource.
#[derive(Debug, Clone)]
pub struct ResourceSpec {
    /// Keys of the objects start with this; ends with a slash (`/registry/pods/`). No registered prefix may be the
    /// beginning of another one.
    pub prefix: String,
    /// Whether keys go on with `namespace/name` rather than `name`.
    pub namespaced: bool,
    /// `apiVersion` in bookmarks.
    pub api_version: String,
    /// `kind` in bookmarks.
    pub kind: String,
    /// What metrics call it: the plural.
    pub resource: String,
    /// What field selectors may ask for besides `metadata.name` and `metadata.namespace`.
    pub fields: Vec<SelectableField>,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Whatever the cache has (`resourceVersion=0`).
    Any,
    /// At least this revision (`resourceVersion=N`).
    NotOlderThan(Revision),
    /// Exactly this revision (`resourceVersionMatch=Exact`, continue tokens).
    Exact(Revision),
    /// Everything that was acknowledged before the read began (no `resourceVersion`).
    Latest,
}

/// Whether a resource can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Loading,
    Ready,
    Ended,
}

/// One resource in the cache.
pub struct ResourceCache {
    spec: ResourceSpec,
    names: Arc<FieldSet>,
    progress: Arc<Progress>,
    phase: watch::Sender<Phase>,
    state: Mutex<State>,
    watchers: Arc<Mutex<Watchers>>,
    /// Values that could not be decoded, since the start.
    undecodable: AtomicU64,
    /// Changes that the feed brought, since the start.
    received: AtomicU64,
}

/// A resource in figures.
pub(super) struct Figures {
    pub(super) objects: usize,
    pub(super) window_changes: usize,
    pub(super) window_bytes: usize,
    pub(super) received: u64,
    pub(super) dropped: u64,
    pub(super) revision: Revision,
}

struct State {
    objects: Objects,
    /// The map shows every change up to here, and beyond as far as the feed has come.
    revision: Revision,
    window: Window,
    limits: WindowLimits,
    kept: VecDeque<(Instant, Snapshot)>,
}

/// What happened to one key: its new object, or none if it is gone.
pub(super) struct Update {
    pub(super) revision: Revision,
    pub(super) key: Arc<str>,
    pub(super) object: Option<Arc<Object>>,
}

impl ResourceCache {
    pub(super) fn new(spec: ResourceSpec, progress: Arc<Progress>, budget: Arc<Budget>) -> Self {
        let names = Arc::new(FieldSet::new(spec.fields.clone()));
        let limits = WindowLimits { changes: WINDOW_CHANGES, bytes: WINDOW_LEAST_BYTES, budget };
        let state = Mutex::new(State::new(Objects::new(), Revision(0), limits));
        let (phase, _) = watch::channel(Phase::Loading);
        let (watchers, undecodable, received) = Default::default();
        Self { spec, names, progress, phase, state, watchers, undecodable, received }
    }

    /// What the metrics show.
    pub(super) fn figures(&self) -> Figures {
        let watchers = self.lock_watchers();
        let dropped = watchers.dropped();
        drop(watchers);
        let state = self.state();
        let (window_changes, window_bytes) = state.window.size();
        Figures {
            objects: state.objects.len(),
            window_changes,
            window_bytes,
            received: self.received.load(Ordering::Relaxed),
            dropped,
            revision: state.revision,
        }
    }

    /// What was registered.
    pub fn spec(&self) -> &ResourceSpec {
        &self.spec
    }

    /// One object, as fresh as the cache is now. `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let state = self.state();
        match namespace {
            "" => state.objects.get(name).cloned(),
            _ => state.objects.get(&*format!("{namespace}/{name}")).cloned(),
        }
    }

    /// One object, as fresh as asked for (`Exact` is not served: it counts as `NotOlderThan`).
    pub async fn get_at(
        &self,
        namespace: &str,
        name: &str,
        at: Consistency,
    ) -> Result<Option<Arc<Object>>, CacheError> {
        self.until(at).await?;
        Ok(self.get(namespace, name))
    }

    /// All objects at one revision. O(1), but for `Exact` at a revision that nobody read a page of lately.
    pub async fn snapshot(&self, at: Consistency) -> Result<Snapshot, CacheError> {
        self.until(at).await?;
        let Consistency::Exact(revision) = at else { return Ok(self.current()) };
        if let Some(snapshot) = self.at(revision) {
            return Ok(snapshot);
        }
        let (_, objects) =
            load::load(self.progress.store(), &self.spec.prefix, &self.names, Some(revision)).await?;
        let snapshot = Snapshot { revision, objects };
        self.state().keep(snapshot.clone());
        Ok(snapshot)
    }

    /// All objects as the cache has them now, without waiting: what [`Self::get`] reads one of.
    pub fn current(&self) -> Snapshot {
        let reached = self.progress.revision();
        let state = self.state();
        Snapshot { revision: reached.max(state.revision), objects: state.objects.clone() }
    }

    /// Follows the changes that `request` selects.
    pub async fn watch(&self, request: WatchRequest) -> Result<WatchStream, CacheError> {
        match request.from {
            WatchFrom::After(revision) => self.until(Consistency::NotOlderThan(revision)).await?,
            WatchFrom::State(at) => self.until(at).await?,
        }
        let stream = self.subscribe(&request)?;
        if request.bookmarks {
            self.progress.attend();
        }
        Ok(stream)
    }

    /// Values in the store that could not be decoded and are not shown.
    pub fn undecodable(&self) -> u64 {
        self.undecodable.load(Ordering::Relaxed)
    }

    /// How many watches there are.
    pub fn watchers(&self) -> usize {
        self.lock_watchers().len()
    }

    /// Waits until the resource is loaded and as fresh as asked for.
    async fn until(&self, at: Consistency) -> Result<(), CacheError> {
        let wanted = match at {
            Consistency::Any => None,
            Consistency::NotOlderThan(revision) | Consistency::Exact(revision) => Some(revision),
            Consistency::Latest => Some(self.progress.store().current_revision().await?),
        };
        if *self.phase.borrow() != Phase::Ready {
            let mut phase = self.phase.subscribe();
            let change = phase.wait_for(|p| *p != Phase::Loading);
            let phase = tokio::time::timeout(PATIENCE, change).await.map_err(|_| CacheError::NotReady)?;
            if phase.map_or(Phase::Ended, |p| *p) == Phase::Ended {
                return Err(CacheError::Stopped);
            }
        }
        match wanted {
            Some(revision) if revision > self.revision() => self.progress.wait_until(revision).await,
            _ => Ok(()),
        }
    }

    fn revision(&self) -> Revision {
        // The feed first: whatever it has reached was applied before.
        let reached = self.progress.revision();
        reached.max(self.state().revision)
    }

    /// The snapshot at `revision`, if the window or a kept snapshot allows to tell.
    fn at(&self, revision: Revision) -> Option<Snapshot> {
        let mut state = self.state();
        if let Some((_, kept)) = state.kept.iter().find(|(_, s)| s.revision == revision) {
            return Some(kept.clone());
        }
        let mut objects = state.objects.clone();
        let changes = state.window.since(revision)?;
        let unchanged = changes.len() == 0;
        for change in changes.rev() {
            match (&change.previous, &change.current) {
                (Some(previous), _) => objects.insert(previous.key.clone(), previous.clone()),
                (None, Some(current)) => objects.remove(&current.key),
                (None, None) => None,
            };
        }
        let snapshot = Snapshot { revision, objects };
        if !unchanged {
            state.keep(snapshot.clone());
        }
        Some(snapshot)
    }

    /// Takes the past and joins the watchers in one step, so that nothing falls between.
    fn subscribe(&self, request: &WatchRequest) -> Result<WatchStream, CacheError> {
        let mut watchers = self.lock_watchers();
        match *self.phase.borrow() {
            Phase::Ready => {}
            Phase::Loading => return Err(CacheError::NotReady),
            Phase::Ended => return Err(CacheError::Stopped),
        }
        let (initial, past) = match request.from {
            WatchFrom::State(_) => (Some(self.initial(request)), Vec::new()),
            WatchFrom::After(revision) => {
                let state = self.state();
                let expired = CacheError::Expired { requested: revision, oldest: state.window.start() };
                let past: Vec<_> = state.window.since(revision).ok_or(expired)?.cloned().collect();
                (None, past)
            }
        };
        let kind = (self.spec.namespaced, &*self.names);
        let selection = request.selection.clone();
        let live = Watchers::add(&self.watchers, &mut watchers, selection, request.bookmarks, kind);
        drop(watchers);
        let wanted = |change: Arc<Change>| {
            judge(&request.selection, &change).map(|kind| WatchEvent::change(kind, change))
        };
        Ok(WatchStream { initial, backlog: past.into_iter().filter_map(wanted).collect(), live: Some(live) })
    }

    fn initial(&self, request: &WatchRequest) -> Initial {
        let snapshot = self.current();
        let end = request.mark_initial_end.then(|| {
            let line = self.bookmark_line(snapshot.revision, true);
            WatchEvent::bookmark(snapshot.revision, line, true)
        });
        let selection = request.selection.clone();
        let chunk = Vec::new().into_iter();
        Initial { snapshot, selection, end, chunk, after: None, exhausted: false }
    }

    /// A bookmark as a line of a watch response.
    fn bookmark_line(&self, revision: Revision, ends_initial: bool) -> bytes::Bytes {
        let mut metadata = serde_json::json!({ "resourceVersion": revision.to_string() });
        if ends_initial {
            metadata["annotations"] = serde_json::json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = serde_json::json!({
            "kind": self.spec.kind,
            "apiVersion": self.spec.api_version,
            "metadata": metadata,
        });
        super::window::encode(EventType::Bookmark, object.to_string().as_bytes())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the feed does to a resource.
impl ResourceCache {
    pub(super) fn names(&self) -> &Arc<FieldSet> {
        &self.names
    }

    /// Begins anew with what has been loaded.
    pub(super) fn replace(&self, objects: Objects, revision: Revision) {
        let mut state = self.state();
        let limits = state.limits.clone();
        *state = State::new(objects, revision, limits);
    }

    /// Applies changes in order, all of which belong to store batches up to `revision`, and tells the watchers.
    pub(super) fn apply(&self, updates: Vec<Update>, revision: Revision) {
        self.received.fetch_add(updates.len() as u64, Ordering::Relaxed);
        let mut watchers = self.lock_watchers();
        let mut state = self.state();
        let changes: Vec<_> = updates.into_iter().filter_map(|update| state.apply(update)).collect();
        state.revision = state.revision.max(revision);
        drop(state);
        for change in &changes {
            watchers.dispatch(change);
        }
    }

    /// Sends bookmarks; the result is whether anybody wants them.
    pub(super) fn bookmark(&self, revision: Revision) -> bool {
        let mut watchers = self.lock_watchers();
        if watchers.want_bookmarks() {
            watchers.bookmark(revision, &self.bookmark_line(revision, false));
        }
        watchers.want_bookmarks()
    }

    pub(super) fn wants_bookmarks(&self) -> bool {
        self.lock_watchers().want_bookmarks()
    }

    /// Changes the phase; leaving `Ready` ends the watches.
    pub(super) fn enter(&self, phase: Phase) {
        // Under the lock, so that nobody joins a resource that is about to begin anew.
        let mut watchers = self.lock_watchers();
        self.phase.send_replace(phase);
        match phase {
            Phase::Ready => {}
            Phase::Loading => watchers.end(&CacheError::Reloaded),
            Phase::Ended => watchers.end(&CacheError::Stopped),
        }
    }

    pub(super) fn count_undecodable(&self, count: u64) {
        self.undecodable.fetch_add(count, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for ResourceCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResourceCache").field("prefix", &self.spec.prefix).finish_non_exhaustive()
    }
}

impl State {
    fn new(objects: Objects, revision: Revision, limits: WindowLimits) -> Self {
        let window = Window::new(revision, limits.clone());
        Self { objects, revision, window, limits, kept: VecDeque::new() }
    }

    fn apply(&mut self, update: Update) -> Option<Arc<Change>> {
        if update.revision <= self.window.start() {
            // Part of what was loaded.
            return None;
        }
        let previous = match &update.object {
            Some(object) => self.objects.insert(update.key, object.clone()),
            None => self.objects.remove(&update.key),
        };
        if update.object.is_none() && previous.is_none() {
            return None;
        }
        let change = Arc::new(Change::new(update.revision, update.object, previous));
        self.window.push(change.clone());
        self.kept.retain(|(since, _)| since.elapsed() < KEPT_FOR);
        Some(change)
    }

    fn keep(&mut self, snapshot: Snapshot) {
        if self.kept.len() == KEPT_SNAPSHOTS {
            self.kept.pop_front();
        }
        self.kept.push_back((Instant::now(), snapshot));
    }
}

/// All objects of a resource at one revision.
#[derive(Debug, Clone)]
pub struct Snapshot {
    revision: Revision,
    objects: Objects,
}

impl Snapshot {
    /// The resourceVersion of a list made from this.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether nothing of this resource changed between the two (a cheap comparison that may say no in error).
    pub fn holds_the_same_as(&self, other: &Self) -> bool {
        self.objects.ptr_eq(&other.objects) || (self.is_empty() && other.is_empty())
    }

    /// Number of objects in all namespaces.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// One object; `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        match namespace {
            "" => self.objects.get(name),
            _ => self.objects.get(&*format!("{namespace}/{name}")),
        }
    }

    /// The objects in key order: of one namespace if given, those with [`Object::key`] greater than `start_after`.
    pub fn iter<'a>(
        &'a self,
        namespace: Option<&str>,
        start_after: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let prefix = namespace.map_or_else(String::new, |n| format!("{n}/"));
        let from: Box<str> = match start_after {
            // The least string that is greater.
            Some(after) if after >= &*prefix => format!("{after}\0").into(),
            _ => prefix.as_str().into(),
        };
        let range =
            self.objects.range::<_, str>((std::ops::Bound::Included(&*from), std::ops::Bound::Unbounded));
        range.take_while(move |(key, _)| key.starts_with(&prefix)).map(|(_, object)| object)
    }
}
