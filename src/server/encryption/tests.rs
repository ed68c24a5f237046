//! The life of the keys: switched on for a cluster that exists, rotated, tidied up, lost.

use bytes::Bytes;

use super::*;
use crate::store::sqlite::{SqliteOptions, SqliteStore};

const SECRET: &str = "/registry/secrets/default/x";

fn config() -> DatastoreConfig {
    DatastoreConfig {
        datastore_endpoint: None,
        datastore_cafile: None,
        datastore_certfile: None,
        datastore_keyfile: None,
        datastore_quota_backend_bytes: 1 << 30,
    }
}

fn open(folder: &Path) -> Arc<dyn Store> {
    SqliteStore::open(&folder.join("db/state.db"), SqliteOptions::default()).unwrap()
}

#[tokio::test]
async fn encryption_is_switched_on_rotated_and_tidied_up() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let raw = open(folder);
    raw.create(SECRET, Bytes::from_static(b"swordfish"), None).await.unwrap();
    let off = apply(raw.clone(), folder, false).await.unwrap();
    assert_eq!(off.get(SECRET, None).await.unwrap().unwrap().value, "swordfish");
    assert!(rotate(folder).is_err() && load(folder).unwrap().is_empty());

    let on = apply(raw.clone(), folder, true).await.unwrap();
    assert_eq!(on.get(SECRET, None).await.unwrap().unwrap().value, "swordfish");
    let first = load(folder).unwrap()[0].0.clone();
    let is = |status: Status, keys: &[&String], by: &String| {
        assert_eq!(status.keys.iter().collect::<Vec<_>>(), keys);
        assert_eq!(status.sealed, BTreeMap::from([(by.clone(), 1)]));
    };
    is(status(&config(), folder).await.unwrap(), &[&first], &first);

    let second = rotate(folder).unwrap();
    assert_ne!(first, second);
    is(status(&config(), folder).await.unwrap(), &[&second, &first], &first);
    // The next start, even without the flag, seals with the new key.
    apply(raw.clone(), folder, false).await.unwrap();
    is(status(&config(), folder).await.unwrap(), &[&second, &first], &second);
    raw.shutdown().await;
    drop((raw, off, on));
    assert_eq!(reencrypt(&config(), folder).await.unwrap(), 0);
    is(status(&config(), folder).await.unwrap(), &[&second], &second);
}

#[tokio::test]
async fn a_server_without_the_key_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let raw = open(folder.path());
    let on = apply(raw.clone(), folder.path(), true).await.unwrap();
    on.create(SECRET, Bytes::from_static(b"swordfish"), None).await.unwrap();
    std::fs::remove_file(file(folder.path())).unwrap();
    for enabled in [false, true] {
        let error = format!("{:#}", apply(raw.clone(), folder.path(), enabled).await.err().unwrap());
        assert!(error.contains("bring back the keys") && error.contains(SECRET), "{error}");
    }
    std::fs::write(file(folder.path()), "{}").unwrap();
    let error = format!("{:#}", apply(raw, folder.path(), false).await.err().unwrap());
    assert!(error.contains("encryption-config.json"), "{error}");
}

#[tokio::test]
async fn keys_are_rotated_and_tidied_up_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_owned();
    let raw = open(&directory);
    let store = apply(raw.clone(), &directory, true).await.unwrap();
    store.create(SECRET, Bytes::from_static(b"swordfish"), None).await.unwrap();
    let mut watch = raw.watch(SECRET, raw.current_revision().await.unwrap()).await.unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(follow(store.clone(), raw.clone(), directory.clone(), stop.clone()));
    let second = rotate(&directory).unwrap();
    let patience = Duration::from_secs(30);
    // Sealed anew by the server, which goes on with it.
    let sealed =
        async { while futures::StreamExt::next(&mut watch).await.unwrap().unwrap().events.is_empty() {} };
    tokio::time::timeout(patience, sealed).await.expect("the server seals it anew");
    assert_eq!(status(&config(), &directory).await.unwrap().sealed, BTreeMap::from([(second.clone(), 1)]));
    assert_eq!(reencrypt(&config(), &directory).await.unwrap(), 0);
    let forgotten = async {
        while store.key_names().len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(patience, forgotten).await.expect("the server forgets the old key");
    assert_eq!(store.key_names(), [second]);
    assert_eq!(store.get(SECRET, None).await.unwrap().unwrap().value, "swordfish");
    stop.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_value_sealed_with_a_key_of_another_server_is_opened_with_what_they_share() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let raw = open(one.path());
    let first = apply(raw.clone(), one.path(), true).await.unwrap();
    for directory in [one.path(), other.path()] {
        std::fs::write(directory.join("token"), "secret").unwrap();
    }
    sharing::publish_own(&raw, one.path()).await.unwrap();
    sharing::fetch_keys(&raw, other.path()).await.unwrap();
    let second = apply(raw.clone(), other.path(), false).await.unwrap();
    let mut watch = second.watch(SECRET, raw.current_revision().await.unwrap()).await.unwrap();
    // The first server rotates; the second has not heard of it.
    rotate(one.path()).unwrap();
    use_changed(&first, &raw, one.path()).await.unwrap();
    first.create(SECRET, Bytes::from_static(b"swordfish"), None).await.unwrap();
    let batch = loop {
        let batch = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
        if !batch.events.is_empty() {
            break batch;
        }
    };
    let crate::store::EventKind::Put { value, .. } = &batch.events[0].kind else { panic!("{batch:?}") };
    assert_eq!(value, "swordfish");
    assert_eq!(second.get(SECRET, None).await.unwrap().unwrap().value, "swordfish");
    assert_eq!(second.key_names(), first.key_names());
}
