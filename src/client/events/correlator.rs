//! Merges repeated occurrences into counts, groups similar ones and limits rates. Pure: time comes with the occurrence.

use super::Occurrence;
use k8s_openapi::{
    api::core::v1::{Event, EventSource},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::api::ObjectMeta;
use std::{
    collections::{HashMap, HashSet, VecDeque},
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

/// What an event is about, without its message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Group {
    object: [Option<String>; 6],
    event_type: &'static str,
    reason: String,
}

#[derive(Debug, Default)]
struct Similar {
    messages: HashSet<String>,
    last: Option<Timestamp>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

#[derive(Debug)]
pub(super) struct Correlator {
    source: EventSource,
    merged: Remembered<(Group, String), Event>,
    similar: Remembered<Group, Similar>,
    buckets: Remembered<[Option<String>; 6], Bucket>,
}

impl Correlator {
    pub(super) fn new(source: EventSource) -> Self {
        Self { source, merged: Remembered::new(), similar: Remembered::new(), buckets: Remembered::new() }
    }

    /// What to write for `occurrence`; nothing when its object has had too many events lately.
    pub(super) fn record(&mut self, occurrence: Occurrence) -> Option<Write> {
        let group = group_of(&occurrence);
        let (merge_by, message) = self.group_similar(&group, &occurrence);
        if !self.allow(&group.object, occurrence.at) {
            return None;
        }
        let key = (group, merge_by);
        if let Some(known) = self.merged.get(&key) {
            known.count = Some(known.count.unwrap_or(1).saturating_add(1));
            known.last_timestamp = Some(Time(occurrence.at));
            known.message = Some(message);
            return Some(Write { event: known.clone(), patch: true });
        }
        let event = self.event(occurrence, message);
        self.merged.insert(key, event.clone());
        Some(Write { event, patch: false })
    }

    /// Forgets an event that could not be written, so that its next occurrence makes a new one.
    pub(super) fn forget(&mut self, event: &Event) {
        self.merged.remove_where(|known| known.metadata.name == event.metadata.name);
    }

    /// By which text occurrences of a group merge, and the message to show.
    fn group_similar(&mut self, group: &Group, occurrence: &Occurrence) -> (String, String) {
        let similar = self.similar.get_or_insert(group.clone(), Similar::default);
        let fresh = similar
            .last
            .is_some_and(|last| occurrence.at.duration_since(last).as_secs() <= SIMILAR_INTERVAL_SECONDS);
        if !fresh {
            similar.messages.clear();
        }
        similar.last = Some(occurrence.at);
        if similar.messages.len() < SIMILAR_LIMIT {
            similar.messages.insert(occurrence.message.clone());
        }
        if similar.messages.contains(&occurrence.message) {
            return (occurrence.message.clone(), occurrence.message.clone());
        }
        ("(combined)".to_owned(), format!("(combined from similar events): {}", occurrence.message))
    }

    /// A token bucket per object.
    fn allow(&mut self, object: &[Option<String>; 6], at: Timestamp) -> bool {
        let bucket = self.buckets.get_or_insert(object.clone(), || Bucket { tokens: BURST, at });
        let passed = at.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed * PER_SECOND).min(BURST);
        bucket.at = at;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    fn event(&self, occurrence: Occurrence, message: String) -> Event {
        let Occurrence { regarding, event_type, reason, at, .. } = occurrence;
        let mut hasher = DefaultHasher::new();
        (at.as_nanosecond(), &reason, &message, &regarding.uid, &regarding.field_path).hash(&mut hasher);
        let name = format!("{}.{:016x}", regarding.name.as_deref().unwrap_or_default(), hasher.finish());
        let namespace = regarding.namespace.clone().filter(|namespace| !namespace.is_empty());
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            reporting_component: self.source.component.clone(),
            reporting_instance: Some(self.source.host.clone().unwrap_or_default()),
            source: Some(self.source.clone()),
            involved_object: regarding,
            type_: Some(event_type.as_str().to_owned()),
            reason: Some(reason),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(Time(at)),
            last_timestamp: Some(Time(at)),
            ..Event::default()
        }
    }
}

fn group_of(occurrence: &Occurrence) -> Group {
    let object = &occurrence.regarding;
    Group {
        object: [
            object.api_version.clone(),
            object.kind.clone(),
            object.namespace.clone(),
            object.name.clone(),
            object.uid.clone(),
            object.field_path.clone(),
        ],
        event_type: occurrence.event_type.as_str(),
        reason: occurrence.reason.clone(),
    }
}

/// A map that forgets its oldest entries.
#[derive(Debug)]
struct Remembered<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Eq + Hash + Clone, V> Remembered<K, V> {
    fn new() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }

    fn get(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    fn insert(&mut self, key: K, value: V) {
        if !self.entries.contains_key(&key) {
            self.make_room();
            self.order.push_back(key.clone());
        }
        self.entries.insert(key, value);
    }

    fn make_room(&mut self) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    fn get_or_insert(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.make_room();
            self.order.push_back(key.clone());
        }
        self.entries.entry(key).or_insert_with(value)
    }

    fn remove_where(&mut self, matches: impl Fn(&V) -> bool) {
        self.entries.retain(|_, value| !matches(value));
        let entries = &self.entries;
        self.order.retain(|key| entries.contains_key(key));
    }
}
