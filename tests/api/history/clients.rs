//! Clients that do random things to a few ConfigMaps, watches that are cut and resumed, and the record of both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    Api, DeleteParams, GetParams, ListParams, PostParams, Preconditions, WatchEvent, WatchParams,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::sync::watch;

use super::checker::{Change, Done, Kind, Operation, Seen, Segment};

/// Few keys, so that clients meet.
pub const KEYS: u64 = 5;
/// The object whose appearance ends every watch.
pub const THE_END: &str = "the-end";

/// Hands out moments: what happened before has a smaller one.
#[derive(Clone, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    pub fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// What all clients and watches of a run share.
#[derive(Clone)]
pub struct Run {
    pub clock: Clock,
    /// How many operations have ended, with an answer.
    pub answered: watch::Sender<u64>,
    /// Whether there is a server to talk to.
    pub up: watch::Sender<bool>,
    pub stop: watch::Sender<bool>,
    /// The latest revision that anybody has seen.
    pub latest: Arc<AtomicU64>,
}

impl Run {
    pub fn new(start: u64) -> Self {
        Self {
            clock: Clock::default(),
            answered: watch::channel(0).0,
            up: watch::channel(true).0,
            stop: watch::channel(false).0,
            latest: Arc::new(AtomicU64::new(start)),
        }
    }

    fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    async fn until_up(&self) {
        // The sender is in `self`: it cannot be gone.
        drop(self.up.subscribe().wait_for(|up| *up).await.expect("a run"));
    }

    fn saw(&self, revision: u64) {
        self.latest.fetch_max(revision, Ordering::SeqCst);
    }
}

pub fn object(name: &str, value: u64, version: Option<u64>) -> ConfigMap {
    let version = version.map(|version| version.to_string());
    let metadata = json!({ "name": name, "resourceVersion": version });
    let padding = "x".repeat(value as usize % 700);
    let data = json!({ "value": value.to_string(), "padding": padding });
    serde_json::from_value(json!({ "metadata": metadata, "data": data })).unwrap()
}

fn key_of(object: &ConfigMap) -> Option<u64> {
    object.metadata.name.as_deref()?.strip_prefix('h')?.parse().ok()
}

fn version(object: &ConfigMap) -> u64 {
    object.metadata.resource_version.as_deref().unwrap().parse().unwrap()
}

fn value(object: &ConfigMap) -> u64 {
    object.data.as_ref().unwrap()["value"].parse().unwrap()
}

/// One client: random operations until it is told to stop. Values are unique among all clients.
pub async fn client(api: Api<ConfigMap>, number: u64, seed: u64, run: Run) -> Vec<Operation> {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
    let mut history = Vec::new();
    let mut known: Vec<Option<(u64, u64)>> = vec![None; KEYS as usize];
    for count in 0.. {
        if run.is_over() {
            break;
        }
        run.until_up().await;
        let key = random.random_range(0..KEYS);
        let kind = choose(&mut random, number << 32 | count, known[key as usize]);
        let began = run.clock.now();
        let done = perform(&api, key, &kind, random.random_bool(0.5)).await;
        let ended = run.clock.now();
        match &done {
            Done::Wrote(version) => {
                known[key as usize] = Some((*version, number << 32 | count));
                run.saw(*version);
            }
            Done::Found { version, value } => {
                known[key as usize] = Some((*version, *value));
                run.saw(*version);
            }
            Done::Absent | Done::Deleted => known[key as usize] = None,
            // What is there has to be read first: the next operations see to that.
            Done::Refused if !matches!(kind, Kind::Create { .. }) => {
                let found = perform(&api, key, &Kind::Read, false).await;
                known[key as usize] = match found {
                    Done::Found { version, value } => Some((version, value)),
                    _ => None,
                };
            }
            _ => {}
        }
        if done != Done::Unknown {
            run.answered.send_modify(|count| *count += 1);
        }
        history.push(Operation { key, kind, began, ended, done });
    }
    history
}

fn choose(random: &mut StdRng, value: u64, known: Option<(u64, u64)>) -> Kind {
    match (random.random_range(0..100), known) {
        (0..15, _) => Kind::Read,
        (15..20, _) => Kind::ReadAny,
        (20..28, _) => Kind::List,
        (28..35, _) | (_, None) => Kind::Create { value },
        (35..45, Some((expected, value))) => Kind::Confirm { value, expected },
        (45..85, Some((expected, _))) => Kind::Update { value, expected },
        (_, Some((expected, _))) => Kind::Delete { expected },
    }
}

async fn perform(api: &Api<ConfigMap>, key: u64, kind: &Kind, in_pages: bool) -> Done {
    let name = format!("h{key}");
    match *kind {
        Kind::Read => read(api.get(&name).await),
        Kind::ReadAny => read(api.get_with(&name, &GetParams::any()).await),
        Kind::List => list(api, in_pages.then_some(2)).await,
        Kind::Create { value } => {
            write(api.create(&PostParams::default(), &object(&name, value, None)).await)
        }
        Kind::Update { value, expected } => {
            write(api.replace(&name, &PostParams::default(), &object(&name, value, Some(expected))).await)
        }
        Kind::Confirm { value, expected } => {
            read(api.replace(&name, &PostParams::default(), &object(&name, value, Some(expected))).await)
        }
        Kind::Delete { expected } => {
            let preconditions = Preconditions { resource_version: Some(expected.to_string()), uid: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            api.delete(&name, &params).await.map_or_else(refusal, |_| Done::Deleted)
        }
    }
}

fn refusal(error: kube::Error) -> Done {
    match error {
        kube::Error::Api(status) if status.code == 404 => Done::Absent,
        kube::Error::Api(status) if status.code == 409 => Done::Refused,
        _ => Done::Unknown,
    }
}

fn read(result: kube::Result<ConfigMap>) -> Done {
    result.map_or_else(refusal, |found| Done::Found { version: version(&found), value: value(&found) })
}

fn write(result: kube::Result<ConfigMap>) -> Done {
    result.map_or_else(refusal, |written| Done::Wrote(version(&written)))
}

/// A list, in pages if a limit is given; pages of one list show one revision.
async fn list(api: &Api<ConfigMap>, limit: Option<u32>) -> Done {
    let mut params = ListParams { limit, ..ListParams::default() };
    let (mut items, mut shown) = (BTreeMap::new(), None);
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(_) => return Done::Unknown,
        };
        let revision: u64 = page.metadata.resource_version.as_deref().unwrap().parse().unwrap();
        let first = *shown.get_or_insert(revision);
        if first != revision {
            return Done::Torn(first, revision);
        }
        for object in &page.items {
            if let Some(key) = key_of(object) {
                items.insert(key, (version(object), value(object)));
            }
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Done::Listed { revision, items };
        }
    }
}

/// Follows everything after `from`, resuming where it was whenever it is cut, until the end has come. History that is
/// gone ends the segment; the next one begins at a list.
pub async fn follow(api: Api<ConfigMap>, from: u64, seed: u64, run: Run) -> Vec<Segment> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut segments = vec![Segment { from, until: from, seen: Vec::new() }];
    loop {
        run.until_up().await;
        let segment = segments.last_mut().expect("one at least");
        // Servers end watches in their own time, too: all the more often here.
        let params = WatchParams::default().timeout(random.random_range(1..4));
        match take(&api, &params, segment, usize::MAX).await {
            Ended::TheEnd => return segments,
            Ended::Cut => {}
            Ended::Gone => {
                if let Ok(list) = api.list(&ListParams::default()).await {
                    let from = list.metadata.resource_version.as_deref().unwrap().parse().unwrap();
                    segments.push(Segment { from, until: from, seen: Vec::new() });
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Starts short watches from somewhere in the past, again and again, until it is told to stop.
pub async fn jump(api: Api<ConfigMap>, start: u64, seed: u64, run: Run) -> Vec<Segment> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut segments = Vec::new();
    while !run.is_over() {
        run.until_up().await;
        let latest = run.latest.load(Ordering::SeqCst);
        let from = random.random_range(start.max(latest.saturating_sub(300))..=latest);
        let mut segment = Segment { from, until: from, seen: Vec::new() };
        let params = WatchParams::default().timeout(1);
        if let Ended::TheEnd = take(&api, &params, &mut segment, random.random_range(5..60)).await {
            break;
        }
        segments.push(segment);
        tokio::task::yield_now().await;
    }
    segments
}

/// How a watch ended.
enum Ended {
    /// The last object has come.
    TheEnd,
    /// It may be resumed.
    Cut,
    /// 410: history is gone.
    Gone,
}

/// Takes at most `most` events of one watch into the segment, from where it is.
async fn take(api: &Api<ConfigMap>, params: &WatchParams, segment: &mut Segment, most: usize) -> Ended {
    let gone = |code: u16| if code == 410 { Ended::Gone } else { Ended::Cut };
    let events = match api.watch(params, &segment.until.to_string()).await {
        Ok(events) => events,
        Err(kube::Error::Api(status)) => return gone(status.code),
        Err(_) => return Ended::Cut,
    };
    let mut events = events.boxed();
    for _ in 0..most {
        let Ok(Some(event)) = events.try_next().await else { return Ended::Cut };
        let (object, change) = match event {
            WatchEvent::Added(object) => (object, Change::Added),
            WatchEvent::Modified(object) => (object, Change::Modified),
            WatchEvent::Deleted(object) => (object, Change::Deleted),
            WatchEvent::Bookmark(mark) => {
                segment.until = segment.until.max(mark.metadata.resource_version.parse().unwrap());
                continue;
            }
            WatchEvent::Error(status) => return gone(status.code),
        };
        let revision = version(&object);
        segment.until = segment.until.max(revision);
        if object.metadata.name.as_deref() == Some(THE_END) {
            return Ended::TheEnd;
        }
        if let Some(key) = key_of(&object) {
            segment.seen.push(Seen { key, revision, change, value: value(&object) });
        }
    }
    Ended::Cut
}
