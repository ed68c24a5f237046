//! What a watch delivers.

use super::*;

fn put(key: &str, value: &str, created: Revision, prev: Option<&str>, revision: Revision) -> Event {
    let kind = EventKind::Put { value: bytes(value), create_revision: created };
    Event { key: key.into(), kind, prev: prev.map(bytes), revision }
}

fn gone(key: &str, prev: &str, revision: Revision) -> Event {
    Event { key: key.into(), kind: EventKind::Delete, prev: Some(bytes(prev)), revision }
}

async fn some_history(store: &Subject) -> (Revision, Vec<Event>) {
    let start = store.current_revision().await.unwrap();
    let a = create(store, "/a/x", "one").await;
    let b = create(store, "/a/y", "other").await;
    let c = store.update("/a/x", bytes("two"), a, None).await.unwrap();
    let d = store.delete("/a/x", c).await.unwrap();
    let e = create(store, "/a/x", "three").await;
    let f = store.update("/a/x", bytes("four"), e, None).await.unwrap();
    let events = vec![
        put("/a/x", "one", a, None, a),
        put("/a/y", "other", b, None, b),
        put("/a/x", "two", a, Some("one"), c),
        gone("/a/x", "two", d),
        put("/a/x", "three", e, None, e),
        put("/a/x", "four", e, Some("three"), f),
    ];
    (start, events)
}

pub(crate) async fn a_watch_delivers_what_happens(store: Subject) {
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch("/a/", start).await.unwrap();
    let (_, expected) = some_history(&store).await;
    assert_eq!(collect(&mut watch, expected[5].revision).await, expected);
}

pub(crate) async fn a_watch_starts_with_the_past(store: Subject) {
    let (start, expected) = some_history(&store).await;
    for skip in 0..=expected.len() {
        let after = if skip == 0 { start } else { expected[skip - 1].revision };
        let mut watch = store.watch("/a/", after).await.unwrap();
        let key = format!("/a/new{skip}");
        let live = create(&store, &key, "v").await;
        let events = collect(&mut watch, live).await;
        let past: Vec<_> = events.iter().filter(|e| !e.key.starts_with("/a/new")).cloned().collect();
        assert_eq!(past, expected[skip..], "after {after}");
        assert_eq!(&*events[events.len() - 1].key, key);
        assert!(events.windows(2).all(|w| w[0].revision < w[1].revision));
    }
}

pub(crate) async fn a_watch_from_the_future_waits_for_it(store: Subject) {
    let first = create(&store, "/a/0", "v").await;
    let mut watch = store.watch("/a/", Revision(first.0 + 2)).await.unwrap();
    let mut last = first;
    let mut expected = Vec::new();
    while last.0 < first.0 + 4 {
        last = create(&store, &format!("/a/{}", last.0), "v").await;
        expected.push(last);
    }
    expected.retain(|r| r.0 > first.0 + 2);
    let got: Vec<_> = collect(&mut watch, last).await.iter().map(|e| e.revision).collect();
    assert_eq!(got, expected);
}

pub(crate) async fn a_watch_of_forgotten_history_is_refused(store: Subject) {
    let (start, events) = some_history(&store).await;
    let kept = events[2].revision;
    store.compact(kept).await.unwrap();
    // A backend may find out only after the watch has begun.
    let error = match store.watch("/a/", start).await {
        Err(error) => error,
        Ok(mut watch) => next(&mut watch).await.unwrap_err(),
    };
    assert!(matches!(error, StoreError::Compacted { oldest } if oldest == kept), "{error:?}");
    let mut watch = store.watch("/a/", kept).await.unwrap();
    assert_eq!(collect(&mut watch, events[5].revision).await, events[3..]);
}

pub(crate) async fn a_watch_sees_only_its_prefix(store: Subject) {
    let start = store.current_revision().await.unwrap();
    create(&store, "/ab/x", "past").await;
    create(&store, "/a/past", "past").await;
    let mut watch = store.watch("/a/", start).await.unwrap();
    create(&store, "/a", "no").await;
    create(&store, "/b/x", "no").await;
    let last = create(&store, "/a/live", "yes").await;
    let events = collect(&mut watch, last).await;
    assert_eq!(events.iter().map(|e| &*e.key).collect::<Vec<_>>(), ["/a/past", "/a/live"]);
}

pub(crate) async fn many_watches_see_the_same(store: Subject) {
    let start = store.current_revision().await.unwrap();
    let mut watches = Vec::new();
    let mut last = start;
    for i in 0..20 {
        watches.push(store.watch("/a/", start).await.unwrap());
        last = create(&store, &format!("/a/{i}"), "v").await;
    }
    let mut seen = Vec::new();
    for watch in &mut watches {
        seen.push(collect(watch, last).await);
    }
    assert_eq!(seen[0].len(), 20);
    assert!(seen.iter().all(|s| *s == seen[0]));
}
