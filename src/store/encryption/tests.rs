//! Sealed values: the contract holds, nothing is readable in the store below, and wrong keys are errors.

use super::*;
use crate::store::contract::contract_tests;
use crate::store::sqlite::{SqliteOptions, SqliteStore};

const SECRETS: &str = "/registry/secrets/";

fn ring(keys: &[(&str, u8)], prefixes: &[&str]) -> Keyring {
    let keys: Vec<_> = keys.iter().map(|(name, byte)| ((*name).to_owned(), vec![*byte; 32])).collect();
    Keyring::new(&keys, prefixes.iter().map(|&p| p.to_owned()).collect()).unwrap()
}

fn plain() -> (Arc<dyn Store>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("state.db"), SqliteOptions::default()).unwrap();
    (store, folder)
}

async fn fresh() -> (Arc<dyn Store>, tempfile::TempDir) {
    let (store, folder) = plain();
    (EncryptedStore::new(store, ring(&[("k1", 1)], &["/"])), folder)
}

contract_tests!(fresh);

fn value() -> Bytes {
    Bytes::from_static(b"the password is swordfish")
}

#[tokio::test]
async fn only_what_is_chosen_is_sealed_and_nothing_of_it_can_be_read() {
    let (inner, folder) = plain();
    let store = EncryptedStore::new(inner.clone(), ring(&[("k1", 1)], &[SECRETS]));
    store.create("/registry/secrets/a/x", value(), None).await.unwrap();
    store.create("/registry/configmaps/a/x", value(), None).await.unwrap();
    let raw = inner.get("/registry/secrets/a/x", None).await.unwrap().unwrap().value;
    assert!(raw.starts_with(b"k8s:enc:aesgcm:v1:k1:"));
    assert!(!raw.windows(9).any(|w| w == b"swordfish"));
    assert_eq!(inner.get("/registry/configmaps/a/x", None).await.unwrap().unwrap().value, value());
    assert_eq!(store.get("/registry/secrets/a/x", None).await.unwrap().unwrap().value, value());
    // Sealed twice, the same value looks different.
    store.create("/registry/secrets/a/y", value(), None).await.unwrap();
    assert_ne!(inner.get("/registry/secrets/a/y", None).await.unwrap().unwrap().value, raw);
    drop(folder);
}

#[tokio::test]
async fn what_cannot_be_opened_is_an_error_that_says_why() {
    let (inner, _folder) = plain();
    let sealing = EncryptedStore::new(inner.clone(), ring(&[("k1", 1)], &[SECRETS]));
    let key = "/registry/secrets/a/x";
    let revision = sealing.create(key, value(), None).await.unwrap();
    let sealed = inner.get(key, None).await.unwrap().unwrap().value;
    inner.create("/registry/secrets/a/moved", sealed.clone(), None).await.unwrap();
    let mut changed = sealed.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    inner.create("/registry/secrets/a/changed", changed.into(), None).await.unwrap();
    inner.create("/registry/secrets/a/cut", sealed.slice(..25), None).await.unwrap();
    inner.create("/registry/secrets/a/other", "k8s:enc:kms:v2:x:abc".into(), None).await.unwrap();
    let cases = [
        (ring(&[], &[SECRETS]), "x", "\"k1\", which is not there"),
        (ring(&[("k2", 2)], &[SECRETS]), "x", "\"k1\", which is not there"),
        (ring(&[("k1", 2)], &[SECRETS]), "x", "the key is another one"),
        (ring(&[("k1", 1)], &[SECRETS]), "moved", "the value was changed"),
        (ring(&[("k1", 1)], &[SECRETS]), "changed", "the value was changed"),
        (ring(&[("k1", 1)], &[SECRETS]), "cut", "the value was changed"),
        (ring(&[("k1", 1)], &[SECRETS]), "other", "does not know"),
    ];
    for (ring, name, expected) in cases {
        let store = EncryptedStore::new(inner.clone(), ring);
        let error = store.get(&format!("/registry/secrets/a/{name}"), None).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreadable { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert!(store.list(SECRETS, &ListOptions::default()).await.is_err());
    }
    // A conflict tells what is there: opened, or as an error.
    let stale = Revision(revision.0 - 1);
    let Err(StoreError::Conflict { current: Some(entry), .. }) = sealing.delete(key, stale).await else {
        panic!("no conflict");
    };
    assert_eq!(entry.value, value());
    let blind = EncryptedStore::new(inner, ring(&[], &[SECRETS]));
    assert!(matches!(blind.delete(key, stale).await, Err(StoreError::Unreadable { .. })));
}

#[tokio::test]
async fn rotation_seals_everything_with_the_new_key() {
    let (inner, _folder) = plain();
    inner.create("/registry/secrets/a/plain", value(), None).await.unwrap();
    let old = EncryptedStore::new(inner.clone(), ring(&[("k1", 1)], &[SECRETS]));
    for i in 0..20 {
        old.create(&format!("/registry/secrets/a/{i}"), value(), None).await.unwrap();
    }
    let both = EncryptedStore::new(inner.clone(), ring(&[("k2", 2), ("k1", 1)], &[SECRETS]));
    assert_eq!(both.reencrypt().await.unwrap(), 21);
    assert_eq!(both.reencrypt().await.unwrap(), 0, "nothing is left to do");
    let new = EncryptedStore::new(inner.clone(), ring(&[("k2", 2)], &[SECRETS]));
    let entries = new.list(SECRETS, &ListOptions::default()).await.unwrap().entries;
    assert_eq!(entries.len(), 21);
    assert!(entries.iter().all(|e| e.value == value()));
}

#[test]
fn unusable_keys_are_refused() {
    for (name, length) in [("", 32), ("a:b", 32), ("k", 31), ("k", 0)] {
        assert!(Keyring::new(&[(name.to_owned(), vec![0; length])], Vec::new()).is_err(), "{name} {length}");
    }
    assert!(Keyring::new(&[("k".to_owned(), vec![0; 16])], Vec::new()).is_ok());
}

proptest::proptest! {
    #[test]
    fn a_changed_value_never_opens_as_something_else(
        value in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        at in proptest::num::usize::ANY,
        change in 1..=u8::MAX,
    ) {
        let ring = ring(&[("k1", 1)], &["/"]);
        let mut sealed = ring.seal("/a", value.clone().into()).unwrap().to_vec();
        proptest::prop_assert_eq!(ring.open("/a", sealed.clone().into()).unwrap(), value);
        // Behind the mark, by which sealed values are known.
        let at = SEALED.len() + at % (sealed.len() - SEALED.len());
        sealed[at] ^= change;
        let opened = ring.open("/a", sealed.into());
        let unreadable = matches!(opened, Err(StoreError::Unreadable { .. }));
        proptest::prop_assert!(unreadable, "{:?}", opened);
    }

    #[test]
    fn no_bytes_make_opening_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
        let ring = ring(&[("k1", 1)], &["/"]);
        for start in [&b""[..], SEALED, MARK, b"k8s:enc:aesgcm:v1:k1:"] {
            ring.open("/a", [start, &bytes].concat().into()).ok();
        }
    }
}
