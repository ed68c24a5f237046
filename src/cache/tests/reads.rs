//! Reads: freshness, order, pages, old revisions.

use super::*;

#[tokio::test]
async fn a_latest_read_shows_every_acknowledged_write() {
    let world = World::new().await;
    for i in 0..50 {
        let key = format!("a/p{i}");
        let revision = world.create_pod(&key, "n").await;
        let snapshot = world.pods.snapshot(Consistency::Latest).await.unwrap();
        assert!(snapshot.revision() >= revision);
        let object = snapshot.get("a", &format!("p{i}")).unwrap();
        assert_eq!(
            (object.revision(), object.uid(), object.field("spec.nodeName")),
            (revision, &*key, Some("n"))
        );
        let one = world.pods.get_at("a", &format!("p{i}"), Consistency::Latest).await.unwrap().unwrap();
        assert_eq!(one.json(), object.json());
    }
}

#[tokio::test]
async fn a_list_carries_the_revision_of_the_whole_store() {
    let world = World::new().await;
    let pod = world.create_pod("a/x", "n").await;
    let node =
        world.store.create("/registry/minions/n", Bytes::from(r#"{"metadata":{}}"#), None).await.unwrap();
    let other = world.store.create("/registry/unknown/n", Bytes::from("no object"), None).await.unwrap();
    assert!(pod < node && node < other);
    let snapshot = world.pods.snapshot(Consistency::Latest).await.unwrap();
    assert_eq!((snapshot.revision(), snapshot.len()), (other, 1));
    assert_eq!(world.nodes.get("", "n").unwrap().name(), "n");
}

#[tokio::test]
async fn iteration_is_in_key_order_within_a_namespace_and_after_a_key() {
    let world = World::new().await;
    for key in ["b/x", "a-b/x", "a/y", "a/x", "a/z"] {
        world.create_pod(key, "n").await;
    }
    let snapshot = world.pods.snapshot(Consistency::Latest).await.unwrap();
    for (namespace, after, expected) in [
        (None, None, vec!["a-b/x", "a/x", "a/y", "a/z", "b/x"]),
        (Some("a"), None, vec!["a/x", "a/y", "a/z"]),
        (Some("a"), Some("a/x"), vec!["a/y", "a/z"]),
        (Some("a"), Some("a/z"), vec![]),
        (Some("b"), Some("a/z"), vec!["b/x"]),
        (Some(""), None, vec![]),
        (None, Some("a/z"), vec!["b/x"]),
    ] {
        let found: Vec<_> = snapshot.iter(namespace, after).map(|o| o.key()).collect();
        assert_eq!(found, expected, "{namespace:?} after {after:?}");
    }
}

#[tokio::test]
async fn exact_reads_show_the_past_as_it_was() {
    let world = World::new().await;
    let mut history = vec![(world.create_pod("a/0", "n").await, vec!["a/0".to_owned()])];
    for i in 1..6 {
        let mut keys = history[history.len() - 1].1.clone();
        let revision = match i {
            3 => {
                keys.retain(|k| k != "a/1");
                world.delete_pod("a/1").await
            }
            4 => world.update_pod("a/0", "m").await,
            5 => {
                keys.insert(1, "a/1".into());
                world.create_pod("a/1", "again").await
            }
            i => {
                keys.push(format!("a/{i}"));
                world.create_pod(&format!("a/{i}"), "n").await
            }
        };
        history.push((revision, keys));
    }
    for _ in 0..2 {
        for (revision, keys) in history.iter().rev() {
            assert_eq!(world.keys(Consistency::Exact(*revision)).await, *keys, "at {revision}");
            let snapshot = world.pods.snapshot(Consistency::Exact(*revision)).await.unwrap();
            assert_eq!(snapshot.revision(), *revision);
            assert!(snapshot.iter(None, None).all(|o| o.revision() <= *revision));
        }
    }
}

#[tokio::test]
async fn exact_reads_beyond_the_window_come_from_the_store() {
    let world = World::new().await;
    let first = world.create_pod("a/0", "first").await;
    for i in 0..2100 {
        // Concurrency is not the point here, but one flush for each write would take long.
        if i % 100 == 0 {
            let writes = (i..i + 100).map(|i| {
                let store = world.store.clone();
                async move {
                    store.create(&format!("/registry/pods/b/{i}"), pod(&format!("b/{i}"), ""), None).await
                }
            });
            futures::future::try_join_all(writes).await.unwrap();
        }
    }
    let last = world.update_pod("a/0", "last").await;
    world.cache.wait_until(last).await.unwrap();
    assert_eq!(world.keys(Consistency::Exact(first)).await, ["a/0"]);
    let old = world.pods.snapshot(Consistency::Exact(first)).await.unwrap();
    assert_eq!(old.get("a", "0").unwrap().label("node"), Some("first"));
    let request = WatchRequest {
        from: WatchFrom::After(first),
        selection: Selection::default(),
        bookmarks: false,
        mark_initial_end: false,
    };
    let refused = world.pods.watch(request).await.unwrap_err();
    assert!(
        matches!(refused, CacheError::Expired { requested, oldest } if requested == first && oldest > first)
    );
    world.store.compact(last).await.unwrap();
    let other = Revision(first.0 + 1);
    let refused = world.pods.snapshot(Consistency::Exact(other)).await.unwrap_err();
    assert!(matches!(refused, CacheError::Expired { oldest, .. } if oldest == last), "{refused:?}");
}

#[tokio::test]
async fn a_revision_from_the_future_is_waited_for_and_then_refused() {
    let world = World::new().await;
    let now = world.create_pod("a/0", "n").await;
    world.cache.wait_until(now).await.unwrap();
    let future = Revision(now.0 + 10);
    tokio::time::pause();
    let refused = world.pods.snapshot(Consistency::NotOlderThan(future)).await.unwrap_err();
    assert!(matches!(refused, CacheError::TooNew { requested, .. } if requested == future), "{refused:?}");
    assert_eq!(refused.to_string(), format!("Too large resource version: {future}, current: {now}"));
}

#[tokio::test]
async fn a_read_waits_for_the_revision_that_it_wants() {
    let world = World::new().await;
    let now = world.store.current_revision().await.unwrap();
    let pods = world.pods.clone();
    let read =
        tokio::spawn(async move { pods.snapshot(Consistency::NotOlderThan(Revision(now.0 + 1))).await });
    let revision = world.create_pod("a/0", "n").await;
    assert_eq!(within(read).await.unwrap().unwrap().get("a", "0").unwrap().revision(), revision);
}

#[tokio::test]
async fn snapshots_of_an_unchanged_resource_are_told_apart_from_changed_ones() {
    let world = World::new().await;
    assert!(world.pods.current().holds_the_same_as(&world.pods.current()));
    world.create_pod("a/0", "n").await;
    let before = world.pods.snapshot(Consistency::Latest).await.unwrap();
    let node =
        world.store.create("/registry/minions/n", Bytes::from(r#"{"metadata":{}}"#), None).await.unwrap();
    let after = world.pods.snapshot(Consistency::NotOlderThan(node)).await.unwrap();
    assert!(before.revision() < after.revision() && before.holds_the_same_as(&after));
    world.update_pod("a/0", "m").await;
    assert!(!before.holds_the_same_as(&world.pods.snapshot(Consistency::Latest).await.unwrap()));
}
