//! Random histories against a model that is too simple to be wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

/// One step of a history. Keys and revisions are picked by index so that they often meet.
#[derive(Debug, Clone)]
enum Step {
    Create(u8, u8),
    Update { key: u8, value: u8, stale: bool },
    Delete { key: u8, stale: bool },
    Compact(u8),
    ListAt { back: u8, limit: u8, after: u8 },
    WatchFrom(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u8, any::<u8>()).prop_map(|(k, v)| Step::Create(k, v)),
        4 => (0..6_u8, any::<u8>(), prop::bool::weighted(0.2))
            .prop_map(|(key, value, stale)| Step::Update { key, value, stale }),
        3 => (0..6_u8, prop::bool::weighted(0.2)).prop_map(|(key, stale)| Step::Delete { key, stale }),
        1 => (0..12_u8).prop_map(Step::Compact),
        2 => (0..12_u8, 0..4_u8, 0..8_u8).prop_map(|(back, limit, after)| Step::ListAt { back, limit, after }),
        1 => (0..12_u8).prop_map(Step::WatchFrom),
    ]
}

/// Keys with their values and the revisions that made and last changed them.
type State = BTreeMap<String, (Vec<u8>, Revision, Revision)>;

#[derive(Default)]
struct Model {
    prefix: String,
    now: State,
    states: Vec<(Revision, State)>,
    events: Vec<Event>,
    oldest: Revision,
}

impl Model {
    fn key(&self, index: u8) -> String {
        format!("{}k{index}", self.prefix)
    }

    fn done(&mut self, key: String, value: Option<Vec<u8>>, revision: Revision) {
        let old = self.now.remove(&key);
        let prev = old.as_ref().map(|o| Bytes::from(o.0.clone()));
        let kind = match value {
            None => EventKind::Delete,
            Some(value) => {
                let create_revision = old.map_or(revision, |o| o.1);
                self.now.insert(key.clone(), (value.clone(), create_revision, revision));
                EventKind::Put { value: value.into(), create_revision }
            }
        };
        self.events.push(Event { key: key.into(), kind, prev, revision });
        self.states.push((revision, self.now.clone()));
    }

    /// The state so many writes ago.
    fn back(&self, back: u8) -> &(Revision, State) {
        &self.states[self.states.len().saturating_sub(1 + back as usize)]
    }
}

pub(crate) async fn random_histories_agree_with_the_model(store: Subject) {
    let mut runner = TestRunner::deterministic();
    let histories = prop::collection::vec(step(), 1..60);
    for round in 0..40 {
        let history = histories.new_tree(&mut runner).unwrap().current();
        let mut model = Model { prefix: format!("/m/{round}/"), ..Model::default() };
        let start = create(&store, &format!("/other/{round}"), "v").await;
        model.states.push((start, BTreeMap::new()));
        for step in &history {
            run(&store, &mut model, step.clone()).await;
        }
        let listed = list_all(&store, &model.prefix, None).await;
        assert_same(&listed, &model.now);
    }
}

fn assert_same(listed: &[Entry], expected: &BTreeMap<String, (Vec<u8>, Revision, Revision)>) {
    let listed: Vec<_> = listed
        .iter()
        .map(|e| (e.key.to_string(), (e.value.to_vec(), e.create_revision, e.mod_revision)))
        .collect();
    let expected: Vec<_> = expected.clone().into_iter().collect();
    assert_eq!(listed, expected);
}

async fn run(store: &Subject, model: &mut Model, step: Step) {
    match step {
        Step::Create(k, value) => {
            let key = model.key(k);
            match store.create(&key, vec![value].into(), None).await {
                Ok(revision) => {
                    assert!(!model.now.contains_key(&key));
                    model.done(key, Some(vec![value]), revision);
                }
                Err(StoreError::Exists { .. }) => assert!(model.now.contains_key(&key)),
                Err(other) => panic!("{other:?}"),
            }
        }
        Step::Update { key, value, stale } => {
            let (key, expected) = expectation(model, key, stale);
            let result = store.update(&key, vec![value].into(), expected, None).await;
            settle(model, key, Some(vec![value]), stale, result);
        }
        Step::Delete { key, stale } => {
            let (key, expected) = expectation(model, key, stale);
            let result = store.delete(&key, expected).await;
            settle(model, key, None, stale, result);
        }
        Step::Compact(back) => {
            let at = model.back(back).0;
            store.compact(at).await.unwrap();
            model.oldest = model.oldest.max(at);
        }
        Step::ListAt { back, limit, after } => list_at(store, model, back, limit, after).await,
        Step::WatchFrom(back) => watch_from(store, model, back).await,
    }
}

fn expectation(model: &Model, key: u8, stale: bool) -> (String, Revision) {
    let key = model.key(key);
    let current = model.now.get(&key).map_or(Revision(1), |e| e.2);
    (key, if stale { Revision(current.0 - 1) } else { current })
}

fn settle(
    model: &mut Model,
    key: String,
    value: Option<Vec<u8>>,
    stale: bool,
    result: Result<Revision, StoreError>,
) {
    let current = model.now.get(&key);
    match result {
        Ok(revision) => {
            assert!(!stale && current.is_some());
            assert!(model.states.iter().all(|s| s.0 < revision));
            model.done(key, value, revision);
        }
        Err(StoreError::NotFound { .. }) => assert!(current.is_none()),
        Err(StoreError::Conflict { current: Some(found), .. }) => {
            assert!(stale);
            assert_eq!(Some(found.mod_revision), current.map(|c| c.2));
        }
        Err(other) => panic!("{other:?}"),
    }
}

async fn list_at(store: &Subject, model: &Model, back: u8, limit: u8, after: u8) {
    let (at, state) = model.back(back);
    let after = (after > 0).then(|| model.key(after - 1));
    let limit = (limit > 0).then_some(limit as usize);
    let options = ListOptions { revision: Some(*at), limit, start_after: after.clone() };
    match store.list(&model.prefix, &options).await {
        Err(StoreError::Compacted { oldest }) => assert!(*at < oldest && oldest >= model.oldest),
        Err(other) => panic!("{other:?}"),
        Ok(page) => {
            assert!(*at >= model.oldest);
            let mut rest: BTreeMap<_, _> = state.clone();
            rest.retain(|k, _| after.as_ref().is_none_or(|a| k > a));
            let expected: BTreeMap<_, _> =
                rest.clone().into_iter().take(limit.unwrap_or(usize::MAX)).collect();
            assert_same(&page.entries, &expected);
            assert_eq!((page.revision, page.more), (*at, rest.len() > expected.len()));
            if page.more {
                assert!(page.remaining.is_none_or(|r| r as usize == rest.len() - expected.len()));
            }
        }
    }
}

async fn watch_from(store: &Subject, model: &Model, back: u8) {
    let after = model.back(back).0;
    let expected: Vec<_> = model.events.iter().filter(|e| e.revision > after).cloned().collect();
    let Some(last) = expected.last() else { return };
    if after < model.oldest {
        return;
    }
    let mut watch = store.watch(&model.prefix, after).await.unwrap();
    assert_eq!(collect(&mut watch, last.revision).await, expected);
}
