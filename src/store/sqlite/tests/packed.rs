//! Old values come back as they were, however the log holds them.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::store::EventKind;

const KEYS: usize = 5;

/// An object of which each change replaces a little.
struct Object([u64; 20]);

impl Object {
    fn new() -> Self {
        Self(std::array::from_fn(|i| 0x9e37_79b9_7f4a_7c15 ^ i as u64))
    }

    fn change(&mut self, random: &mut StdRng) -> Bytes {
        self.0[random.random_range(0..20)] = random.random();
        let fields: Vec<String> = self
            .0
            .iter()
            .enumerate()
            .map(|(i, value)| format!("\"field-{i}\":\"{value:020}-{value:x}\""))
            .collect();
        Bytes::from(format!("{{{}}}", fields.join(",")))
    }
}

/// What was there after each revision, from the first on.
type Past = Vec<BTreeMap<String, Bytes>>;

async fn churn(store: &SqliteStore, random: &mut StdRng, changes: usize) -> Past {
    let mut objects: Vec<(Object, Option<Revision>)> = (0..KEYS).map(|_| (Object::new(), None)).collect();
    let mut past = vec![BTreeMap::new(); 2];
    for _ in 0..changes {
        let at = random.random_range(0..KEYS);
        let key = format!("/a/{at}");
        let mut now = past.last().unwrap().clone();
        let value = objects[at].0.change(random);
        let written = match objects[at].1 {
            Some(revision) if random.random_ratio(1, 20) => {
                now.remove(&key);
                objects[at].1 = None;
                store.delete(&key, revision).await.unwrap()
            }
            found => {
                now.insert(key.clone(), value.clone());
                let written = match found {
                    Some(revision) => store.update(&key, value, revision, None).await.unwrap(),
                    None => store.create(&key, value, None).await.unwrap(),
                };
                objects[at].1 = Some(written);
                written
            }
        };
        assert_eq!(written.0 as usize, past.len(), "one revision for each change");
        past.push(now);
    }
    past
}

async fn check(store: &SqliteStore, past: &Past) {
    for (revision, then) in past.iter().enumerate().skip(1) {
        let revision = Revision(revision as u64);
        let at = ListOptions { revision: Some(revision), ..ListOptions::default() };
        let listed = store.list("/a/", &at).await.unwrap().entries;
        let listed: BTreeMap<String, Bytes> =
            listed.into_iter().map(|e| (e.key.to_string(), e.value)).collect();
        assert_eq!(listed, *then, "list at {revision}");
        for key in 0..KEYS {
            let key = format!("/a/{key}");
            let got = store.get(&key, Some(revision)).await.unwrap().map(|entry| entry.value);
            assert_eq!(got.as_ref(), then.get(&key), "{key} at {revision}");
        }
    }
    let mut watch = store.watch("/a/", Revision(1)).await.unwrap();
    let mut seen = 1;
    while seen + 1 < past.len() {
        for event in watch.next().await.unwrap().unwrap().events {
            seen += 1;
            assert_eq!(event.revision.0 as usize, seen);
            let (before, after) = (past[seen - 1].get(&*event.key), past[seen].get(&*event.key));
            assert_eq!(event.prev.as_ref(), before, "before {seen}");
            let written = match &event.kind {
                EventKind::Put { value, .. } => Some(value),
                EventKind::Delete => None,
            };
            assert_eq!(written, after, "after {seen}");
        }
    }
}

#[tokio::test]
async fn the_past_is_as_it_was_and_takes_little_room_where_little_changed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, SqliteOptions::default());
    let past = churn(&store, &mut StdRng::seed_from_u64(1), 400).await;
    check(&store, &past).await;
    let connection = rusqlite::Connection::open(folder.path().join("db/state.db")).unwrap();
    let (packed, whole): (i64, i64) = connection
        .query_row(
            "SELECT sum(length(old_value)), sum(old_size) FROM log WHERE old_size IS NOT NULL",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert!(packed * 5 < whole, "{packed} of {whole} bytes");
    let (whole, rows): (i64, i64) = connection
        .query_row("SELECT sum(old_size IS NULL AND old_value IS NOT NULL), count(*) FROM log", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert!((rows / 32..rows / 6).contains(&whole), "{whole} of {rows} are whole");
}

#[tokio::test]
async fn a_file_of_the_format_before_keeps_its_past() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db/state.db");
    let store = open(&folder, SqliteOptions::default());
    // Nothing repeats, so that the log has it as that format had.
    let (first, second) = ("0123456789abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    let mut revision = store.create("/a/0", Bytes::from(first), None).await.unwrap();
    revision = store.update("/a/0", Bytes::from(second), revision, None).await.unwrap();
    store.close();
    drop(store);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let packed: i64 = connection.query_row("SELECT count(old_size) FROM log", [], |row| row.get(0)).unwrap();
    assert_eq!(packed, 0);
    connection.execute_batch("ALTER TABLE log DROP COLUMN old_size; PRAGMA user_version = 1").unwrap();
    drop(connection);
    let copy = folder.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(SqliteStore::read_copy(&copy).unwrap().1, revision);
    let store = open(&folder, SqliteOptions::default());
    let old = store.get("/a/0", Some(Revision(revision.0 - 1))).await.unwrap().unwrap();
    assert_eq!(old.value, first);
    let next = store.update("/a/0", Bytes::from("z"), revision, None).await.unwrap();
    assert_eq!(store.get("/a/0", Some(revision)).await.unwrap().unwrap().value, second);
    assert_eq!(next.0, revision.0 + 1);
}

#[tokio::test]
async fn a_damaged_old_value_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, SqliteOptions::default());
    churn(&store, &mut StdRng::seed_from_u64(2), 60).await;
    let connection = rusqlite::Connection::open(folder.path().join("db/state.db")).unwrap();
    for damage in ["old_value = zeroblob(3)", "old_size = 10", "old_size = 100000", "old_value = x''"] {
        let changed =
            connection.execute(&format!("UPDATE log SET {damage} WHERE old_size IS NOT NULL"), []).unwrap();
        assert!(changed > 0);
        let at = ListOptions { revision: Some(Revision(30)), ..ListOptions::default() };
        let error = store.list("/a/", &at).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Corrupt { detail } if detail.contains("cannot be read")),
            "{error:?}"
        );
    }
}
