//! Pods that wait for a node: active, backing off, or unschedulable until something changes.
//!
//! Active pods come out by priority, then in the order they came in. A pod that found no node waits for an event that the
//! plugins which rejected it care about; then it backs off for 1 s, 2 s, … 10 s since its last attempt. A pod that waits
//! for too long is tried again without any event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::framework::Events;
use super::pod_info::PodInfo;
use crate::client::Key;

/// The first backoff.
pub const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest backoff.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// After this time an unschedulable pod is tried again without an event.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ActiveKey(Reverse<i32>, u64);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Ready to be tried.
    Active(ActiveKey),
    /// Becomes active at this time.
    Backoff(Instant),
    /// Waits for one of these events, at most until this time.
    Unschedulable { events: Events, until: Instant },
    /// Taken out for an attempt; `missed` collects events that happen meanwhile.
    InFlight { missed: Events },
    /// Has scheduling gates.
    Gated,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    attempts: u32,
    /// When the backoff of the last attempt ends.
    backoff_until: Option<Instant>,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<Key, Entry>,
    active: BTreeMap<ActiveKey, Key>,
    timed: BTreeSet<(Instant, Key)>,
    /// The pods that events concern: unschedulable or in flight.
    listening: BTreeSet<Key>,
    sequence: u64,
}

impl Queue {
    /// A pending pod is new or changed. A change makes it worth another attempt.
    pub fn offer(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let key = pod.key.clone();
        let gated = is_gated(&pod);
        let Some(entry) = self.entries.get_mut(&key) else {
            self.entries
                .insert(key.clone(), Entry { pod, place: Place::Gated, attempts: 0, backoff_until: None });
            return if gated {
            } else {
                self.activate(&key)
            };
        };
        let same = entry.pod.uid == pod.uid;
        let changed = !same
            || entry.pod.pod.spec != pod.pod.spec
            || entry.pod.pod.metadata.labels != pod.pod.metadata.labels;
        entry.pod = pod;
        if !same {
            (entry.attempts, entry.backoff_until) = (0, None);
        }
        match &mut entry.place {
            Place::InFlight { missed } if changed => *missed = Events::MAX,
            Place::InFlight { .. } => {}
            Place::Gated if gated => {}
            _ if gated => {
                self.unlink(&key);
                self.set(&key, Place::Gated);
            }
            Place::Gated => self.activate(&key),
            _ if changed => self.retry(&key, now),
            _ => {}
        }
    }

    /// The pod is gone or has a node.
    pub fn remove(&mut self, key: &Key) {
        self.unlink(key);
        self.entries.remove(key);
    }

    /// The pod to try next.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.move_due(now);
        let (_, key) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.place = Place::InFlight { missed: 0 };
        entry.attempts = entry.attempts.saturating_add(1);
        self.listening.insert(key);
        Some(entry.pod.clone())
    }

    /// The attempt found no node; `events` are those that the rejecting plugins care about.
    pub fn unschedulable(&mut self, key: &Key, events: Events, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Place::InFlight { missed } = entry.place else { return };
        entry.backoff_until = Some(now + backoff(entry.attempts));
        if missed == Events::MAX || missed & events != 0 {
            return self.retry(key, now);
        }
        let until = now + LONGEST_WAIT;
        self.timed.insert((until, key.clone()));
        self.listening.insert(key.clone());
        self.set(key, Place::Unschedulable { events, until });
    }

    /// The attempt failed for another reason: try again after the backoff.
    pub fn failed(&mut self, key: &Key, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.backoff_until = Some(now + backoff(entry.attempts));
        self.retry(key, now);
    }

    /// What the pod waited for will not come: it is tried again after its backoff.
    pub fn reconsider(&mut self, key: &Key, now: Instant) {
        match self.entries.get_mut(key).map(|entry| &mut entry.place) {
            Some(Place::Unschedulable { .. }) => self.retry(key, now),
            Some(Place::InFlight { missed }) => *missed = Events::MAX,
            _ => {}
        }
    }

    /// The cluster changed: pods that wait for one of these events are tried again, after their backoff.
    pub fn notify(&mut self, happened: Events, now: Instant) {
        self.notify_some(happened, now, |_| true);
    }

    /// As [`notify`](Self::notify), for the pods that use the claim.
    pub fn notify_users(&mut self, happened: Events, claim: &Key, now: Instant) {
        self.notify_some(happened, now, |pod| pod.claims.contains(claim));
    }

    fn notify_some(&mut self, happened: Events, now: Instant, concerns: impl Fn(&PodInfo) -> bool) {
        let mut woken = Vec::new();
        for key in &self.listening {
            let Some(entry) = self.entries.get_mut(key).filter(|entry| concerns(&entry.pod)) else {
                continue;
            };
            match &mut entry.place {
                Place::Unschedulable { events, .. } if *events & happened != 0 => woken.push(key.clone()),
                Place::InFlight { missed } => *missed |= happened,
                _ => {}
            }
        }
        for key in woken {
            self.retry(&key, now);
        }
    }

    /// When the queue wants to be asked again although nothing happened.
    pub fn next_due(&self) -> Option<Instant> {
        self.timed.first().map(|(at, _)| *at)
    }

    /// A pod is ready to be tried.
    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// How many pods are active, backing off, unschedulable and gated.
    pub fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for entry in self.entries.values() {
            match entry.place {
                Place::Active(_) | Place::InFlight { .. } => counts[0] += 1,
                Place::Backoff(_) => counts[1] += 1,
                Place::Unschedulable { .. } => counts[2] += 1,
                Place::Gated => counts[3] += 1,
            }
        }
        counts
    }

    fn move_due(&mut self, now: Instant) {
        while let Some((at, key)) = self.timed.first().cloned() {
            if at > now {
                return;
            }
            self.retry(&key, now);
        }
    }

    /// Makes the pod active, or lets it wait for the end of its backoff.
    fn retry(&mut self, key: &Key, now: Instant) {
        self.unlink(key);
        let Some(entry) = self.entries.get(key) else { return };
        match entry.backoff_until.filter(|until| *until > now) {
            Some(until) => {
                self.timed.insert((until, key.clone()));
                self.set(key, Place::Backoff(until));
            }
            None => self.activate(key),
        }
    }

    fn activate(&mut self, key: &Key) {
        self.unlink(key);
        self.sequence += 1;
        let Some(entry) = self.entries.get_mut(key) else { return };
        let active = ActiveKey(Reverse(entry.pod.priority), self.sequence);
        entry.place = Place::Active(active);
        self.active.insert(active, key.clone());
    }

    fn set(&mut self, key: &Key, place: Place) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = place;
        }
    }

    /// Takes the pod out of the ordered sets.
    fn unlink(&mut self, key: &Key) {
        self.listening.remove(key);
        match self.entries.get(key).map(|entry| &entry.place) {
            Some(Place::Active(active)) => {
                self.active.remove(active);
            }
            Some(Place::Backoff(at) | Place::Unschedulable { until: at, .. }) => {
                self.timed.remove(&(*at, key.clone()));
            }
            Some(Place::InFlight { .. } | Place::Gated) | None => {}
        }
    }
}

fn is_gated(pod: &PodInfo) -> bool {
    pod.spec().and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
}

fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    FIRST_BACKOFF.saturating_mul(1 << doublings).min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{pod, pod_with};
    use crate::scheduler::framework::{NODE_ADDED, POD_GONE};
    use serde_json::json;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn names(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(now)).map(|pod| pod.key.name().to_owned()).collect()
    }

    #[test]
    fn priority_comes_first_then_the_order_of_arrival() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1)] {
            queue.offer(pod_with(name, json!({"spec": {"priority": priority}})), now);
        }
        assert_eq!(names(&mut queue, now), ["b", "d", "a", "c", "e"]);
    }

    #[test]
    fn an_unschedulable_pod_waits_for_its_event_and_its_backoff() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let pod = pod("a", json!({}));
        queue.offer(pod.clone(), now);
        queue.pop(now);
        queue.unschedulable(&pod.key, NODE_ADDED, now);
        queue.notify(POD_GONE, now);
        assert!(names(&mut queue, now + s(60)).is_empty(), "not the right event");
        queue.notify(NODE_ADDED, now);
        assert_eq!(queue.counts(), [0, 1, 0, 0]);
        assert!(names(&mut queue, now).is_empty(), "still backing off");
        assert_eq!(queue.next_due(), Some(now + s(1)));
        assert_eq!(names(&mut queue, now + s(1)), ["a"]);
    }

    #[test]
    fn the_backoff_doubles_up_to_ten_seconds() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        let pod = pod("a", json!({}));
        queue.offer(pod.clone(), now);
        for seconds in [1, 2, 4, 8, 10, 10] {
            queue.pop(now).unwrap();
            queue.failed(&pod.key, now);
            assert_eq!(queue.next_due(), Some(now + s(seconds)));
            now += s(seconds);
        }
    }

    #[test]
    fn an_event_during_the_attempt_is_not_missed() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let pod = pod("a", json!({}));
        queue.offer(pod.clone(), now);
        queue.pop(now);
        queue.notify(NODE_ADDED, now);
        queue.unschedulable(&pod.key, NODE_ADDED, now);
        assert_eq!(queue.counts(), [0, 1, 0, 0]);
    }

    #[test]
    fn without_any_event_a_pod_is_tried_again_after_five_minutes() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let pod = pod("a", json!({}));
        queue.offer(pod.clone(), now);
        queue.pop(now);
        queue.unschedulable(&pod.key, 0, now);
        assert!(names(&mut queue, now + s(299)).is_empty());
        assert_eq!(names(&mut queue, now + s(300)), ["a"]);
    }

    #[test]
    fn gated_pods_wait_for_their_gates() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.offer(pod_with("a", json!({"spec": {"schedulingGates": [{"name": "g"}]}})), now);
        assert_eq!((queue.counts(), names(&mut queue, now).len()), ([0, 0, 0, 1], 0));
        queue.offer(pod_with("a", json!({})), now);
        assert_eq!(names(&mut queue, now), ["a"]);
    }

    #[test]
    fn a_changed_spec_is_worth_another_attempt_but_a_status_is_not() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let pod = pod("a", json!({}));
        queue.offer(pod.clone(), now);
        queue.pop(now);
        queue.unschedulable(&pod.key, 0, now);
        queue.offer(pod_with("a", json!({"status": {"phase": "Pending"}, "spec": {"containers": [{"name": "c", "resources": {"requests": {}}}]}})), now);
        assert_eq!(queue.counts(), [0, 0, 1, 0]);
        queue.offer(pod_with("a", json!({"spec": {"nodeSelector": {"a": "b"}}})), now);
        assert_eq!(queue.counts(), [0, 1, 0, 0]);
    }

    #[test]
    fn a_removed_pod_is_gone_wherever_it_was() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for prepare in 0..3 {
            let pod = pod("a", json!({}));
            queue.offer(pod.clone(), now);
            if prepare > 0 {
                queue.pop(now);
            }
            if prepare > 1 {
                queue.unschedulable(&pod.key, 0, now);
            }
            queue.remove(&pod.key);
            queue.unschedulable(&pod.key, 0, now);
            assert_eq!((queue.counts(), queue.next_due(), queue.has_active()), ([0; 4], None, false));
        }
    }
}
