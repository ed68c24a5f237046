//! Creating, updating, deleting, expiring.

use super::*;

pub(crate) async fn a_created_key_is_read_back(store: Subject) {
    assert_eq!(store.get("/a/x", None).await.unwrap(), None);
    let revision = create(&store, "/a/x", "one").await;
    let entry = store.get("/a/x", None).await.unwrap().unwrap();
    let expected =
        Entry { key: "/a/x".into(), value: bytes("one"), create_revision: revision, mod_revision: revision };
    assert_eq!(entry, expected);
    assert!(store.current_revision().await.unwrap() >= revision);
    store.health().await.unwrap();
}

pub(crate) async fn a_taken_key_is_not_created_again(store: Subject) {
    create(&store, "/a/x", "one").await;
    let error = store.create("/a/x", bytes("two"), None).await.unwrap_err();
    assert!(matches!(error, StoreError::Exists { key } if &*key == "/a/x"));
    assert_eq!(store.get("/a/x", None).await.unwrap().unwrap().value, "one");
}

pub(crate) async fn an_update_needs_the_revision_of_the_key(store: Subject) {
    let missing = store.update("/a/x", bytes("two"), Revision(1), None).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing:?}");
    let first = create(&store, "/a/x", "one").await;
    let second = store.update("/a/x", bytes("two"), first, None).await.unwrap();
    let stale = store.update("/a/x", bytes("three"), first, None).await.unwrap_err();
    let StoreError::Conflict { current: Some(current), .. } = stale else { panic!("{stale:?}") };
    assert_eq!((current.mod_revision, &current.value[..]), (second, &b"two"[..]));
    let entry = store.get("/a/x", None).await.unwrap().unwrap();
    assert_eq!((entry.create_revision, entry.mod_revision, &entry.value[..]), (first, second, &b"two"[..]));
}

pub(crate) async fn a_deletion_needs_the_revision_of_the_key(store: Subject) {
    let missing = store.delete("/a/x", Revision(1)).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing:?}");
    let first = create(&store, "/a/x", "one").await;
    let second = store.update("/a/x", bytes("two"), first, None).await.unwrap();
    let stale = store.delete("/a/x", first).await.unwrap_err();
    assert!(matches!(stale, StoreError::Conflict { current: Some(c), .. } if c.mod_revision == second));
    let third = store.delete("/a/x", second).await.unwrap();
    assert!(third > second);
    assert_eq!(store.get("/a/x", None).await.unwrap(), None);
}

pub(crate) async fn a_deleted_key_can_be_created_anew(store: Subject) {
    let first = create(&store, "/a/x", "one").await;
    store.delete("/a/x", first).await.unwrap();
    let again = create(&store, "/a/x", "two").await;
    assert_eq!(store.get("/a/x", None).await.unwrap().unwrap().create_revision, again);
}

pub(crate) async fn revisions_grow_with_every_write(store: Subject) {
    let mut seen = vec![store.current_revision().await.unwrap()];
    assert!(seen[0] >= Revision(1));
    for i in 0..5 {
        let key = format!("/a/{i}");
        let created = create(&store, &key, "v").await;
        let updated = store.update(&key, bytes("w"), created, None).await.unwrap();
        let deleted = store.delete(&key, updated).await.unwrap();
        seen.extend([created, updated, deleted]);
    }
    assert!(seen.windows(2).all(|w| w[0] < w[1]), "{seen:?}");
}

pub(crate) async fn a_refused_write_leaves_no_trace(store: Subject) {
    let first = create(&store, "/a/x", "one").await;
    let before = store.current_revision().await.unwrap();
    let mut watch = store.watch("/a/", before).await.unwrap();
    store.create("/a/x", bytes("no"), None).await.unwrap_err();
    store.update("/a/x", bytes("no"), Revision(first.0 + 1000), None).await.unwrap_err();
    store.update("/a/y", bytes("no"), first, None).await.unwrap_err();
    store.delete("/a/y", first).await.unwrap_err();
    assert_eq!(list_all(&store, "/a/", None).await.len(), 1);
    let last = create(&store, "/a/z", "yes").await;
    let events = collect(&mut watch, last).await;
    assert_eq!(events.len(), 1);
}

pub(crate) async fn values_may_be_empty_or_large(store: Subject) {
    let large = Bytes::from(vec![7_u8; 1 << 20]);
    for (key, value) in
        [("/a/empty", Bytes::new()), ("/a/large", large), ("/a/zero", Bytes::from_static(b"\0\xff"))]
    {
        let revision = store.create(key, value.clone(), None).await.unwrap();
        assert_eq!(store.get(key, None).await.unwrap().unwrap().value, value);
        store.update(key, value.clone(), revision, None).await.unwrap();
        assert_eq!(store.get(key, Some(revision)).await.unwrap().unwrap().value, value);
    }
    let huge = Bytes::from(vec![7_u8; 64 << 20]);
    let error = store.create("/a/huge", huge, None).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error:?}");
}

pub(crate) async fn an_entry_with_a_ttl_goes_away_by_itself(store: Subject) {
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch("/a/", start).await.unwrap();
    let kept = create(&store, "/a/kept", "v").await;
    let short = store.create("/a/short", bytes("v"), Some(Duration::from_secs(1))).await.unwrap();
    let long = store.create("/a/long", bytes("v"), Some(Duration::from_secs(3600))).await.unwrap();
    let events = collect(&mut watch, kept.max(short).max(long)).await;
    assert_eq!(events.len(), 3);
    let gone = next(&mut watch).await.unwrap().events.remove(0);
    assert_eq!(
        (&*gone.key, &gone.kind, gone.prev.as_deref()),
        ("/a/short", &EventKind::Delete, Some(&b"v"[..]))
    );
    assert!(gone.revision > long);
    assert_eq!(keys(&list_all(&store, "/a/", None).await), ["/a/kept", "/a/long"]);
}

pub(crate) async fn an_update_without_ttl_keeps_the_entry(store: Subject) {
    let ttl = Some(Duration::from_secs(1));
    let spared = store.create("/a/spared", bytes("v"), ttl).await.unwrap();
    let spared = store.update("/a/spared", bytes("w"), spared, None).await.unwrap();
    let mut watch = store.watch("/a/", spared).await.unwrap();
    store.create("/a/witness", bytes("v"), ttl).await.unwrap();
    assert!(matches!(next(&mut watch).await.unwrap().events[0].kind, EventKind::Put { .. }));
    assert_eq!(&*next(&mut watch).await.unwrap().events[0].key, "/a/witness");
    assert_eq!(keys(&list_all(&store, "/a/", None).await), ["/a/spared"]);
}
