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
