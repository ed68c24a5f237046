//! Tests of the embedded store: the contract, and what is its own.

mod packed;
mod power_loss;
mod pressure;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::{SqliteOptions, SqliteStore};
use crate::store::contract::contract_tests;
use crate::store::{ListOptions, Revision, Store, StoreError};

async fn fresh() -> (Arc<dyn Store>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, SqliteOptions::default());
    (store, folder)
}

fn open(folder: &tempfile::TempDir, options: SqliteOptions) -> Arc<SqliteStore> {
    SqliteStore::open(&folder.path().join("db/state.db"), options).unwrap()
}

contract_tests!(fresh);

fn value(i: u64) -> Bytes {
    Bytes::from(format!("{i}").repeat(100))
}

#[tokio::test]
async fn a_reopened_store_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, SqliteOptions::default());
    let first = store.create("/a/x", value(1), None).await.unwrap();
    let second = store.update("/a/x", value(2), first, None).await.unwrap();
    let gone = store.create("/a/y", value(3), None).await.unwrap();
    let last = store.delete("/a/y", gone).await.unwrap();
    drop(store);
    let store = open(&folder, SqliteOptions::default());
    assert_eq!(store.current_revision().await.unwrap(), last);
    assert_eq!(store.get("/a/x", Some(first)).await.unwrap().unwrap().value, value(1));
    let mut watch = store.watch("/a/", first).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(batch.events.iter().map(|e| e.revision).collect::<Vec<_>>(), [second, gone, last]);
    assert_eq!(store.create("/a/z", value(4), None).await.unwrap(), Revision(last.0 + 1));
}

#[tokio::test]
async fn compaction_survives_a_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, SqliteOptions::default());
    let first = store.create("/a/x", value(1), None).await.unwrap();
    let second = store.update("/a/x", value(2), first, None).await.unwrap();
    store.compact(second).await.unwrap();
    store.close();
    drop(store);
    let store = open(&folder, SqliteOptions::default());
    assert_eq!(store.current_revision().await.unwrap(), second);
    let error = store.get("/a/x", Some(first)).await.unwrap_err();
    assert!(matches!(error, StoreError::Compacted { oldest } if oldest == second));
}

#[tokio::test]
async fn the_log_stays_within_its_limits() {
    for options in [
        SqliteOptions { log_revisions: 50, ..SqliteOptions::default() },
        SqliteOptions { log_bytes: 10_000, ..SqliteOptions::default() },
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder, options.clone());
        let first = store.create("/a/x", value(0), None).await.unwrap();
        let mut last = first;
        for i in 1..400 {
            last = store.update("/a/x", value(i), last, None).await.unwrap();
        }
        let connection = rusqlite::Connection::open(folder.path().join("db/state.db")).unwrap();
        let (rows, bytes): (i64, i64) = connection
            .query_row("SELECT count(*), sum(length(old_value)) FROM log", [], |r| Ok((r.get(0)?, r.get(1)?)))
            .unwrap();
        assert!(rows as u64 <= options.log_revisions + 256, "{rows}");
        assert!(bytes as u64 <= options.log_bytes, "{bytes}");
        let Err(StoreError::Compacted { oldest }) = store.watch("/a/", first).await else { panic!() };
        assert_eq!(oldest.0, last.0 - rows as u64);
        let page = ListOptions { revision: Some(oldest), ..ListOptions::default() };
        assert_eq!(store.list("/a/", &page).await.unwrap().entries[0].mod_revision, oldest);
        let mut watch = store.watch("/a/", oldest).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().events[0].revision.0, oldest.0 + 1);
    }
}

#[tokio::test]
async fn a_second_opening_is_refused_while_the_first_lives() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, SqliteOptions::default());
    let path = folder.path().join("db/state.db");
    let error = SqliteStore::open(&path, SqliteOptions::default()).unwrap_err();
    assert!(matches!(&error, StoreError::InUse { path: p } if *p == path), "{error:?}");
    store.close();
    SqliteStore::open(&path, SqliteOptions::default()).unwrap();
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, SqliteOptions::default());
    store.create("/a/x", value(1), None).await.unwrap();
    store.snapshot(&folder.path().join("db/copy")).await.unwrap();
    let mut seen = 0;
    for file in std::fs::read_dir(folder.path().join("db")).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
        seen += 1;
    }
    assert_eq!(seen, 5, "database, WAL, index, lock, copy");
}

#[tokio::test]
async fn a_snapshot_is_a_store_with_the_same_content() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, SqliteOptions::default());
    let mut last = Revision(0);
    for i in 0..100 {
        last = store.create(&format!("/a/{i}"), value(i), None).await.unwrap();
    }
    let copy = folder.path().join("copy.db");
    assert_eq!(store.snapshot(&copy).await.unwrap(), last);
    store.create("/a/later", value(1), None).await.unwrap();
    let restored = SqliteStore::open(&copy, SqliteOptions::default()).unwrap();
    let at = ListOptions { revision: Some(last), ..ListOptions::default() };
    assert_eq!(
        restored.list("/", &ListOptions::default()).await.unwrap().entries,
        store.list("/", &at).await.unwrap().entries
    );
    assert_eq!(restored.current_revision().await.unwrap(), last);
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_keeps_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { max_file_bytes: Some(400 << 10), ..SqliteOptions::default() };
    let store = open(&folder, options);
    let mut kept = Vec::new();
    let error = loop {
        let key = format!("/a/{:05}", kept.len());
        match store.create(&key, Bytes::from(vec![b'x'; 2000]), None).await {
            Ok(revision) => kept.push((key, revision)),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert!(matches!(store.health().await, Err(StoreError::Full { .. })));
    let page = store.list("/a/", &ListOptions::default()).await.unwrap();
    let found: Vec<_> = page.entries.iter().map(|e| (e.key.to_string(), e.mod_revision)).collect();
    assert_eq!(found, kept);
    assert_eq!(page.revision, kept[kept.len() - 1].1);
    // Room made, it works again and no revision was lost in between.
    let next = kept[kept.len() - 1].1.0 + 1;
    store.compact(page.revision).await.unwrap();
    assert_eq!(store.delete(&kept[0].0, kept[0].1).await.unwrap(), Revision(next));
    store.health().await.unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_found_at_the_opening() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, SqliteOptions::default());
    for i in 0..200 {
        store.create(&format!("/a/{i}"), value(i), None).await.unwrap();
    }
    drop(store);
    let path = folder.path().join("db/state.db");
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    for byte in &mut bad[3 * 4096..6 * 4096] {
        *byte ^= 0x5a;
    }
    let cases =
        [("pages", bad), ("not a database", vec![b'x'; 8192]), ("cut", good[..good.len() / 2].to_vec())];
    for (what, content) in cases {
        std::fs::write(&path, content).unwrap();
        let error = SqliteStore::open(&path, SqliteOptions::default()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error:?}");
    }
    std::fs::write(&path, good).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = SqliteStore::open(&path, SqliteOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Format { found: 99, .. }), "{error:?}");
}

#[tokio::test]
async fn a_slow_watch_is_cut_off_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, SqliteOptions { watch_backlog: 4, ..SqliteOptions::default() });
    let start = store.current_revision().await.unwrap();
    let mut slow = store.watch("/a/", start).await.unwrap();
    for i in 0..10 {
        store.create(&format!("/a/{i}"), value(i), None).await.unwrap();
    }
    let mut seen = start;
    let error = loop {
        match slow.next().await.unwrap() {
            Ok(batch) => seen = batch.revision,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Lagged), "{error:?}");
    assert!(slow.next().await.is_none());
    let mut resumed = store.watch("/a/", seen).await.unwrap();
    assert_eq!(resumed.next().await.unwrap().unwrap().events[0].revision, Revision(seen.0 + 1));
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let (store, _folder) = {
        let folder = tempfile::tempdir().unwrap();
        (open(&folder, SqliteOptions::default()), folder)
    };
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    store.close();
    assert!(matches!(store.create("/a", value(1), None).await, Err(StoreError::Closed)));
    assert!(matches!(watch.next().await, Some(Err(StoreError::Closed))));
    store.close();
}

#[tokio::test]
async fn what_expired_while_closed_goes_at_the_opening() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, SqliteOptions::default());
    let created = store.create("/a/x", value(1), Some(Duration::ZERO)).await.unwrap();
    store.close();
    drop(store);
    let store = open(&folder, SqliteOptions::default());
    let mut watch = store.watch("/a/", created).await.unwrap();
    let batch = loop {
        let batch = watch.next().await.unwrap().unwrap();
        if !batch.events.is_empty() {
            break batch;
        }
    };
    assert_eq!(batch.events[0].kind, crate::store::EventKind::Delete);
    assert_eq!(store.get("/a/x", None).await.unwrap(), None);
}

/// Not a test of its own: the process that the next test kills. It gets the path of the database on its standard
/// input; run as an ordinary test it gets none and does nothing.
#[test]
fn victim_of_the_kill() {
    let mut path = String::new();
    std::io::stdin().take(4096).read_to_string(&mut path).unwrap();
    if !path.ends_with("state.db") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(path.as_ref(), SqliteOptions::default()).unwrap();
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    for i in 0.. {
                        let key = format!("/k/{task}/{i}");
                        let revision = store.create(&key, value(i), None).await.unwrap();
                        writeln!(std::io::stderr(), "acknowledged {key} {revision}").unwrap();
                    }
                })
            })
            .collect();
        futures::future::join_all(tasks).await;
    });
}

#[tokio::test]
async fn acknowledged_writes_survive_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let mut total = 0;
    for round in 1..=20 {
        let path = folder.path().join(format!("{round}/state.db"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::sqlite::tests::victim_of_the_kill", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(path.to_str().unwrap().as_bytes()).unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut acknowledged: Vec<String> =
            lines.by_ref().map(Result::unwrap).filter(|l| l.starts_with("ack")).take(round * 20).collect();
        assert_eq!(acknowledged.len(), round * 20);
        child.kill().unwrap();
        acknowledged.extend(lines.map_while(Result::ok).filter(|l| l.starts_with("acknowledged")));
        child.wait().unwrap();
        let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
        let last = store.current_revision().await.unwrap();
        for line in &acknowledged {
            let words: Vec<_> = line.split(' ').collect();
            // The kill may cut the last line short.
            let [_, key, revision] = words[..] else { continue };
            let entry = store.get(key, None).await.unwrap().expect("an acknowledged write");
            assert!(entry.mod_revision.to_string().starts_with(revision));
            assert!(entry.mod_revision <= last);
            total += 1;
        }
    }
    assert!(total >= 4000, "{total} in {}", path.display());
}
