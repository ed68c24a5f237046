//! The keyed work queue behind every controller.
//!
//! Invariants: a key waits at most once; a key that is being worked on is never handed to a second worker, an addition
//! meanwhile makes it ready again when the work is done; of several delayed additions the earliest counts. A queue
//! with nothing ready and nothing delayed wakes nobody up.

use super::{
    backoff::exponential,
    metrics::{self, QueueMetrics},
};
use crate::telemetry::metrics::before_render;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// The first delay after a failure.
pub const FIRST_RETRY: Duration = Duration::from_millis(5);
/// The longest delay after repeated failures.
pub const LONGEST_RETRY: Duration = Duration::from_secs(1000);

/// A queue of keys for any number of producers and workers. See the module for what it promises.
#[derive(Debug)]
pub struct WorkQueue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    metrics: QueueMetrics,
}

#[derive(Debug)]
struct State<K> {
    ready: VecDeque<K>,
    /// Ready, or to become ready when the work in progress is done; since when.
    dirty: HashMap<K, Instant>,
    /// Being worked on, since when.
    working: HashMap<K, Instant>,
    /// Min-heap of delayed additions; an entry counts only while `due` names its time.
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed_keys: HashMap<u64, K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
    closed: bool,
}

impl<K: Eq + Hash + Clone> WorkQueue<K> {
    /// An empty queue; `name` labels its metrics.
    pub fn new(name: &str) -> Arc<Self>
    where
        K: Send + 'static,
    {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashMap::new(),
            working: HashMap::new(),
            delayed: BinaryHeap::new(),
            delayed_keys: HashMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            closed: false,
        };
        let metrics = metrics::queue(name);
        let queue = Arc::new(Self { state: Mutex::new(state), changed: Notify::new(), metrics });
        let watched = Arc::downgrade(&queue);
        before_render(move || watched.upgrade().map(|queue| queue.publish_unfinished()).is_some());
        queue
    }

    /// Makes `key` ready now.
    pub fn add(&self, key: K) {
        let mut state = self.lock();
        if !state.closed && state.add(key) {
            self.metrics.adds.inc();
            self.publish_depth(&state);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Makes `key` ready after `delay`, or earlier when it is added earlier.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.lock();
        if !state.closed && state.add_at(key, Instant::now() + delay) {
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Makes `key` ready after a delay that doubles with each call until [`forget`](Self::forget). Returns the delay.
    pub fn add_rate_limited(&self, key: K) -> Duration {
        let failures = {
            let mut state = self.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            let before = *failures;
            *failures = failures.saturating_add(1);
            before
        };
        let delay = exponential(FIRST_RETRY, LONGEST_RETRY, failures);
        self.metrics.retries.inc();
        self.add_after(key, delay);
        delay
    }

    /// Forgets the failures of `key`.
    pub fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// How often `key` failed since it was last forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.lock().failures.get(key).copied().unwrap_or_default()
    }

    /// Number of keys that are ready.
    pub fn len(&self) -> usize {
        self.lock().ready.len()
    }

    /// No key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing is ready, delayed or being worked on.
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.ready.is_empty() && state.due.is_empty() && state.working.is_empty()
    }

    /// Drops all waiting keys and makes every `next` return `None`.
    pub fn shut_down(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.ready.clear();
        state.dirty.clear();
        state.delayed.clear();
        state.delayed_keys.clear();
        state.due.clear();
        self.publish_depth(&state);
        drop(state);
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// The next ready key, which no other worker gets until the returned value is dropped. `None` after shutdown.
    pub async fn next(self: &Arc<Self>) -> Option<Work<K>> {
        loop {
            let notified = self.changed.notified();
            let wake_at = {
                let mut state = self.lock();
                if state.closed {
                    // Pass the wake-up on: several workers may wait for one permit.
                    self.changed.notify_one();
                    return None;
                }
                state.promote(Instant::now());
                if let Some((key, waited)) = state.take() {
                    self.metrics.waited.observe(waited);
                    self.publish_depth(&state);
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return Some(Work { key, queue: self.clone() });
                }
                state.next_due()
            };
            match wake_at {
                None => notified.await,
                Some(at) => {
                    tokio::select! {
                        () = notified => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
        }
    }

    pub(super) fn metrics(&self) -> &QueueMetrics {
        &self.metrics
    }

    fn done(&self, key: &K) {
        let mut state = self.lock();
        if let Some(since) = state.working.remove(key) {
            self.metrics.worked.observe(since.elapsed());
        }
        if state.dirty.contains_key(key) {
            state.ready.push_back(key.clone());
            self.publish_depth(&state);
            drop(state);
            self.changed.notify_one();
        }
    }

    fn publish_depth(&self, state: &State<K>) {
        self.metrics.depth.set(f64::from(u32::try_from(state.ready.len()).unwrap_or(u32::MAX)));
    }

    fn publish_unfinished(&self) {
        let state = self.lock();
        let times: Vec<_> = state.working.values().map(|since| since.elapsed().as_secs_f64()).collect();
        self.metrics.unfinished.set(times.iter().fold(0.0, |sum, time| sum + time));
        self.metrics.longest.set(times.iter().copied().fold(0.0, f64::max));
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> State<K> {
    fn add(&mut self, key: K) -> bool {
        if let Some((_, sequence)) = self.due.remove(&key) {
            self.delayed_keys.remove(&sequence);
        }
        if self.dirty.contains_key(&key) {
            return false;
        }
        self.dirty.insert(key.clone(), Instant::now());
        if !self.working.contains_key(&key) {
            self.ready.push_back(key);
        }
        true
    }

    fn add_at(&mut self, key: K, at: Instant) -> bool {
        if self.dirty.contains_key(&key) && !self.working.contains_key(&key) {
            return false;
        }
        match self.due.get(&key) {
            Some((known, _)) if *known <= at => return false,
            Some((_, sequence)) => {
                self.delayed_keys.remove(sequence);
            }
            None => {}
        }
        self.sequence += 1;
        self.delayed.push(Reverse((at, self.sequence)));
        self.delayed_keys.insert(self.sequence, key.clone());
        self.due.insert(key, (at, self.sequence));
        true
    }

    /// Makes every delayed key ready whose time has come.
    fn promote(&mut self, now: Instant) {
        while let Some(Reverse((at, sequence))) = self.delayed.peek().copied() {
            let live = self.delayed_keys.contains_key(&sequence);
            if live && at > now {
                return;
            }
            self.delayed.pop();
            if let Some(key) = self.delayed_keys.remove(&sequence) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.delayed.peek().map(|Reverse((at, _))| *at)
    }

    /// The next key and how long it has waited.
    fn take(&mut self) -> Option<(K, Duration)> {
        let key = self.ready.pop_front()?;
        let waited = self.dirty.remove(&key).map_or(Duration::ZERO, |since| since.elapsed());
        self.working.insert(key.clone(), Instant::now());
        Some((key, waited))
    }
}

/// A key that one worker holds. Dropping it ends the work.
#[derive(Debug)]
pub struct Work<K: Eq + Hash + Clone> {
    key: K,
    queue: Arc<WorkQueue<K>>,
}

impl<K: Eq + Hash + Clone> Work<K> {
    /// The key to work on.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Eq + Hash + Clone> Drop for Work<K> {
    fn drop(&mut self) {
        self.queue.done(&self.key);
    }
}

#[cfg(test)]
mod tests;
