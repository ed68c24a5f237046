//! Merges repeated occurrences into counts, groups similar ones and limits rates. Pure: time comes with the occurrence.
//!
//! What is remembered of an event is hashes and numbers: whole events would be most of what a node remembers at all.

use super::Occurrence;
use k8s_openapi::{
    api::core::v1::{Event, EventSource},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::api::ObjectMeta;
use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

/// Entries kept for merging; the oldest are forgotten.
const REMEMBERED: usize = 1024;
/// With this many different messages within the interval, an object's events of one reason are grouped into one.
const SIMILAR_LIMIT: usize = 10;
const SIMILAR_INTERVAL_SECONDS: i64 = 600;
/// Events of one object that may come at once …
const BURST: f64 = 25.0;
/// … and how fast that allowance comes back.
const PER_SECOND: f64 = 1.0 / 300.0;

/// A write that the recorder should do: create the event, or update an existing one's count.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) event: Event,
    pub(super) patch: bool,
}

/// Messages of a group, by their hashes.
#[derive(Debug, Default)]
struct Similar {
    messages: Vec<u64>,
    last: Option<Timestamp>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

/// An event that was written.
#[derive(Debug)]
struct Known {
    /// The end of its name.
    id: u64,
    count: i32,
    first: Timestamp,
}

#[derive(Debug)]
pub(super) struct Correlator {
    source: EventSource,
    merged: Remembered<Known>,
    similar: Remembered<Similar>,
    buckets: Remembered<Bucket>,
}

impl Correlator {
    pub(super) fn new(source: EventSource) -> Self {
        Self { source, merged: Remembered::new(), similar: Remembered::new(), buckets: Remembered::new() }
    }

    /// What to write for `occurrence`; nothing when its object has had too many events lately.
    pub(super) fn record(&mut self, occurrence: Occurrence) -> Option<Write> {
        let object = hash(&about(&occurrence));
        let group = hash(&(object, occurrence.event_type, &occurrence.reason));
        let (merge_by, message) = self.group_similar(group, &occurrence);
        if !self.allow(object, occurrence.at) {
            return None;
        }
        let key = hash(&(group, merge_by));
        let mut patch = true;
        let id = hash(&(key, occurrence.at.as_nanosecond()));
        let known = self.merged.get_or_insert(key, || {
            patch = false;
            Known { id, count: 0, first: occurrence.at }
        });
        known.count = known.count.saturating_add(1);
        Some(Write { event: event(&self.source, known, occurrence, message), patch })
    }

    /// Forgets an event that could not be written, so that its next occurrence makes a new one.
    pub(super) fn forget(&mut self, event: &Event) {
        let Some((_, id)) = event.metadata.name.as_deref().and_then(|name| name.rsplit_once('.')) else {
            return;
        };
        self.merged.remove_where(|known| ending(known.id) == id);
    }

    /// By which text (its hash) occurrences of a group merge, and the message to show.
    fn group_similar(&mut self, group: u64, occurrence: &Occurrence) -> (u64, String) {
        let similar = self.similar.get_or_insert(group, Similar::default);
        let fresh = similar
            .last
            .is_some_and(|last| occurrence.at.duration_since(last).as_secs() <= SIMILAR_INTERVAL_SECONDS);
        if !fresh {
            similar.messages.clear();
        }
        similar.last = Some(occurrence.at);
        let message = hash(&occurrence.message);
        let known = similar.messages.contains(&message);
        if !known && similar.messages.len() < SIMILAR_LIMIT {
            similar.messages.push(message);
        }
        if similar.messages.contains(&message) {
            return (message, occurrence.message.clone());
        }
        (hash("(combined)"), format!("(combined from similar events): {}", occurrence.message))
    }

    /// A token bucket per object.
    fn allow(&mut self, object: u64, at: Timestamp) -> bool {
        let bucket = self.buckets.get_or_insert(object, || Bucket { tokens: BURST, at });
        let passed = at.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed * PER_SECOND).min(BURST);
        bucket.at = at;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

fn event(source: &EventSource, known: &Known, occurrence: Occurrence, message: String) -> Event {
    let Occurrence { regarding, event_type, reason, at, .. } = occurrence;
    let name = format!("{}.{}", regarding.name.as_deref().unwrap_or_default(), ending(known.id));
    let namespace = regarding.namespace.clone().filter(|namespace| !namespace.is_empty());
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        reporting_component: source.component.clone(),
        reporting_instance: Some(source.host.clone().unwrap_or_default()),
        source: Some(source.clone()),
        involved_object: regarding,
        type_: Some(event_type.as_str().to_owned()),
        reason: Some(reason),
        message: Some(message),
        count: Some(known.count),
        first_timestamp: Some(Time(known.first)),
        last_timestamp: Some(Time(at)),
        ..Event::default()
    }
}

fn ending(id: u64) -> String {
    format!("{id:016x}")
}

/// The object, or the part of it, that an occurrence is about.
fn about(occurrence: &Occurrence) -> [&Option<String>; 6] {
    let object = &occurrence.regarding;
    [&object.api_version, &object.kind, &object.namespace, &object.name, &object.uid, &object.field_path]
}

fn hash(of: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A map from hashes that forgets its oldest entries.
#[derive(Debug)]
struct Remembered<V> {
    entries: HashMap<u64, V>,
    order: VecDeque<u64>,
}

impl<V> Remembered<V> {
    fn new() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }

    fn make_room(&mut self) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    fn get_or_insert(&mut self, key: u64, value: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.make_room();
            self.order.push_back(key);
        }
        self.entries.entry(key).or_insert_with(value)
    }

    fn remove_where(&mut self, matches: impl Fn(&V) -> bool) {
        self.entries.retain(|_, value| !matches(value));
        let entries = &self.entries;
        self.order.retain(|key| entries.contains_key(key));
    }
}
