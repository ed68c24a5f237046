//! Lists, pages, old revisions, compaction, snapshots.

use super::*;

pub(crate) async fn a_list_is_ordered_and_bound_to_its_prefix(store: Subject) {
    for key in ["/a/b/2", "/a/b/10", "/a/b-c/1", "/a/b", "/a/c/1", "/a/b/\u{e9}", "/A/b/1"] {
        create(&store, key, key).await;
    }
    let page = store.list("/a/b/", &ListOptions::default()).await.unwrap();
    assert_eq!(keys(&page.entries), ["/a/b/10", "/a/b/2", "/a/b/\u{e9}"]);
    assert!(!page.more);
    assert_eq!(page.revision, store.current_revision().await.unwrap());
    assert!(list_all(&store, "/nothing/", None).await.is_empty());
}

pub(crate) async fn pages_show_one_revision(store: Subject) {
    for i in 0..7 {
        create(&store, &format!("/a/{i}"), "old").await;
    }
    let first = store.list("/a/", &ListOptions { limit: Some(3), ..ListOptions::default() }).await.unwrap();
    assert_eq!((keys(&first.entries), first.more), (vec!["/a/0", "/a/1", "/a/2"], true));
    assert!(first.remaining.is_none_or(|r| r == 4));
    // Between the pages: one key changes, one goes, one comes, another is replaced.
    let of = |key: &'static str| list_all(&store, key, None);
    store.update("/a/3", bytes("new"), of("/a/3").await[0].mod_revision, None).await.unwrap();
    store.delete("/a/4", of("/a/4").await[0].mod_revision).await.unwrap();
    create(&store, "/a/45", "new").await;
    store.delete("/a/5", of("/a/5").await[0].mod_revision).await.unwrap();
    create(&store, "/a/5", "new").await;
    let mut options = ListOptions { revision: Some(first.revision), limit: Some(2), start_after: None };
    let mut rest = Vec::new();
    let mut after = first.entries[2].key.to_string();
    loop {
        options.start_after = Some(after);
        let page = store.list("/a/", &options).await.unwrap();
        assert_eq!(page.revision, first.revision);
        assert!(
            !page.more || page.remaining.is_none_or(|r| r as usize + rest.len() + page.entries.len() == 4)
        );
        rest.extend(page.entries);
        if !page.more {
            break;
        }
        after = rest[rest.len() - 1].key.to_string();
    }
    assert_eq!(keys(&rest), ["/a/3", "/a/4", "/a/5", "/a/6"]);
    assert!(rest.iter().all(|e| e.value == "old"));
}

pub(crate) async fn a_page_may_start_after_any_key(store: Subject) {
    for key in ["/a/1", "/a/1x", "/a/2"] {
        create(&store, key, "v").await;
    }
    for (after, expected) in [
        ("/a/1", vec!["/a/1x", "/a/2"]),
        ("/a/15", vec!["/a/1x", "/a/2"]),
        ("/a/2", vec![]),
        ("/A", vec!["/a/1", "/a/1x", "/a/2"]),
        ("/b", vec![]),
    ] {
        let options = ListOptions { start_after: Some(after.into()), ..ListOptions::default() };
        let page = store.list("/a/", &options).await.unwrap();
        assert_eq!(keys(&page.entries), expected, "after {after}");
    }
}

pub(crate) async fn old_revisions_can_be_read(store: Subject) {
    let base = create(&store, "/b/other", "v").await;
    let created = create(&store, "/a/x", "one").await;
    let updated = store.update("/a/x", bytes("two"), created, None).await.unwrap();
    let deleted = store.delete("/a/x", updated).await.unwrap();
    let again = create(&store, "/a/x", "three").await;
    for (at, expected) in [
        (base, None),
        (created, Some("one")),
        (updated, Some("two")),
        (deleted, None),
        (again, Some("three")),
    ] {
        let got = store.get("/a/x", Some(at)).await.unwrap();
        assert_eq!(got.as_ref().map(|e| &e.value[..]), expected.map(str::as_bytes), "at {at}");
        assert!(got.is_none_or(|e| e.mod_revision == at));
        let listed = list_all(&store, "/a/", Some(at)).await;
        assert_eq!(listed.first().map(|e| &e.value[..]), expected.map(str::as_bytes), "at {at}");
    }
}

pub(crate) async fn reads_in_the_future_are_refused(store: Subject) {
    let now = create(&store, "/a/x", "one").await;
    let future = Revision(now.0 + 1000);
    let error = store.get("/a/x", Some(future)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { requested, .. } if requested == future), "{error:?}");
    let options = ListOptions { revision: Some(future), ..ListOptions::default() };
    let error = store.list("/a/", &options).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { .. }), "{error:?}");
}

pub(crate) async fn compacted_revisions_are_refused(store: Subject) {
    let first = create(&store, "/a/x", "one").await;
    let second = store.update("/a/x", bytes("two"), first, None).await.unwrap();
    let third = store.update("/a/x", bytes("three"), second, None).await.unwrap();
    store.compact(second).await.unwrap();
    let error = store.get("/a/x", Some(first)).await.unwrap_err();
    assert!(matches!(error, StoreError::Compacted { oldest } if oldest == second), "{error:?}");
    let options = ListOptions { revision: Some(first), ..ListOptions::default() };
    assert!(matches!(store.list("/a/", &options).await.unwrap_err(), StoreError::Compacted { .. }));
    assert_eq!(store.get("/a/x", Some(second)).await.unwrap().unwrap().value, "two");
    store.compact(first).await.ok();
    store.compact(third).await.unwrap();
    assert!(matches!(store.get("/a/x", Some(second)).await.unwrap_err(), StoreError::Compacted { .. }));
    assert_eq!(store.get("/a/x", Some(third)).await.unwrap().unwrap().value, "three");
    let fourth = create(&store, "/a/y", "v").await;
    assert!(fourth > third);
}

pub(crate) async fn a_snapshot_opens_no_window(store: Subject) {
    let first = create(&store, "/a/x", "one").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    let at = store.snapshot(&path).await.unwrap();
    assert!(at >= first);
    assert!(std::fs::metadata(&path).unwrap().len() > 0);
    store.snapshot(&path).await.unwrap_err();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
