//! Watches: what they deliver, from where, and how they end.

use super::*;

#[tokio::test]
async fn changes_come_in_order_with_their_types() {
    let world = World::new().await;
    let start = world.cache.revision();
    let mut watch = world.watch(WatchFrom::After(start), Selection::default()).await;
    let a = world.create_pod("a/x", "n").await;
    let b = world.update_pod("a/x", "m").await;
    let c = world.delete_pod("a/x").await;
    for expected in [format!("ADDED a/x {a}"), format!("MODIFIED a/x {b}"), format!("DELETED a/x {c}")] {
        assert_eq!(say(&mut watch).await, expected);
    }
}

#[tokio::test]
async fn a_watch_resumes_after_any_remembered_revision() {
    let world = World::new().await;
    let mut expected = Vec::new();
    for i in 0..5 {
        expected.push(world.create_pod(&format!("a/{i}"), "n").await);
    }
    for (i, after) in expected.iter().enumerate() {
        let mut watch = world.watch(WatchFrom::After(*after), Selection::default()).await;
        for (j, revision) in expected.iter().enumerate().skip(i + 1) {
            assert_eq!(say(&mut watch).await, format!("ADDED a/{j} {revision}"));
        }
    }
}

#[tokio::test]
async fn every_kind_of_selection_gets_its_objects_only() {
    let world = World::new().await;
    let start = world.cache.revision();
    let filter =
        Selection { filter: Some(Arc::new(|o| o.label("node") == Some("n2"))), ..Selection::default() };
    let name = Selection { name: Some("x".into()), ..Selection::default() };
    let one = Selection { name: Some("x".into()), ..in_namespace("b") };
    let both = Selection { field: on_node("n1").field, ..in_namespace("b") };
    let cases = [
        (in_namespace("a"), vec!["a/x", "a/y"]),
        (on_node("n1"), vec!["a/x", "b/x"]),
        (name, vec!["a/x", "b/x"]),
        (one, vec!["b/x"]),
        (both, vec!["b/x"]),
        (filter, vec!["a/y"]),
        (Selection::default(), vec!["a/x", "a/y", "b/x"]),
    ];
    let mut live = Vec::new();
    for (selection, _) in &cases {
        live.push(world.watch(WatchFrom::After(start), selection.clone()).await);
    }
    for (key, node) in [("a/x", "n1"), ("a/y", "n2"), ("b/x", "n1")] {
        world.create_pod(key, node).await;
    }
    for ((selection, expected), mut live) in cases.into_iter().zip(live) {
        let mut past = world.watch(WatchFrom::After(start), selection.clone()).await;
        let mut state = world.watch(WatchFrom::State(Consistency::Latest), selection).await;
        for key in expected {
            for watch in [&mut live, &mut past, &mut state] {
                assert_eq!(next(watch).await.object().unwrap().key(), key);
            }
        }
        for watch in [&mut live, &mut past, &mut state] {
            assert!(futures::poll!(watch.next()).is_pending());
        }
    }
}

#[tokio::test]
async fn an_object_that_begins_or_ends_to_match_is_added_or_deleted() {
    let world = World::new().await;
    let start = world.cache.revision();
    let by_label = |node: &'static str| Selection {
        filter: Some(Arc::new(move |o| o.label("node") == Some(node))),
        ..Selection::default()
    };
    let mut watches = Vec::new();
    for selection in [on_node("n1"), by_label("n1"), on_node("n2"), by_label("n2")] {
        watches.push(world.watch(WatchFrom::After(start), selection).await);
    }
    let a = world.create_pod("a/x", "n1").await;
    let b = world.update_pod("a/x", "n1").await;
    let c = world.update_pod("a/x", "n2").await;
    let d = world.delete_pod("a/x").await;
    let on_n1 = [format!("ADDED a/x {a}"), format!("MODIFIED a/x {b}"), format!("DELETED a/x {c}")];
    let on_n2 = [format!("ADDED a/x {c}"), format!("DELETED a/x {d}")];
    for (i, watch) in watches.iter_mut().enumerate() {
        for expected in if i < 2 { &on_n1[..] } else { &on_n2[..] } {
            assert_eq!(say(watch).await, *expected, "watch {i}");
        }
    }
    // The deletion that a selector sees shows the object as it last matched.
    let mut watch = world.watch(WatchFrom::After(b), on_node("n1")).await;
    assert_eq!(next(&mut watch).await.object().unwrap().label("node"), Some("n1"));
}

#[tokio::test]
async fn the_initial_state_is_followed_by_its_bookmark_and_by_changes() {
    let world = World::new().await;
    let mut expected = Vec::new();
    for i in 0..300 {
        let key = format!("a/{i:03}");
        expected.push(format!("ADDED {key} {}", world.create_pod(&key, "n").await));
    }
    world.create_pod("b/x", "n").await;
    let last = world.cache.store().current_revision().await.unwrap();
    let request = WatchRequest {
        from: WatchFrom::State(Consistency::Latest),
        selection: in_namespace("a"),
        bookmarks: true,
        mark_initial_end: true,
    };
    let mut watch = world.pods.watch(request).await.unwrap();
    assert_eq!(watch.initial_revision(), Some(last));
    let live = world.create_pod("a/000-1", "n").await;
    for expected in expected {
        assert_eq!(say(&mut watch).await, expected);
    }
    let end = next(&mut watch).await;
    assert!(end.ends_initial() && end.event_type() == EventType::Bookmark && end.revision() == last);
    let line: serde_json::Value = serde_json::from_slice(&end.line()).unwrap();
    let expected = serde_json::json!({ "type": "BOOKMARK", "object": {
        "kind": "Pod", "apiVersion": "v1", "metadata": {
            "resourceVersion": last.to_string(),
            "annotations": { "k8s.io/initial-events-end": "true" },
        },
    }});
    assert_eq!(line, expected);
    assert_eq!(say(&mut watch).await, format!("ADDED a/000-1 {live}"));
}

#[tokio::test]
async fn watchers_share_the_encoded_line() {
    let world = World::new().await;
    let start = world.cache.revision();
    let mut first = world.watch(WatchFrom::After(start), Selection::default()).await;
    let mut second = world.watch(WatchFrom::After(start), in_namespace("a")).await;
    world.create_pod("a/x", "n").await;
    let (one, two) = (next(&mut first).await, next(&mut second).await);
    assert_eq!(one.line().as_ptr(), two.line().as_ptr());
    let rendered = one.encoded("table", |event| Bytes::from(event.revision().to_string()));
    assert_eq!(two.encoded("table", |_| Bytes::new()).as_ptr(), rendered.as_ptr());
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off_without_harm_to_others() {
    let world = World::new().await;
    let start = world.cache.revision();
    let mut slow = world.watch(WatchFrom::After(start), Selection::default()).await;
    let mut other = world.watch(WatchFrom::After(start), in_namespace("none")).await;
    for round in 0..11 {
        let writes = (0..100).map(|i| {
            let key = format!("a/{round}-{i}");
            let store = world.store.clone();
            async move { store.create(&format!("/registry/pods/{key}"), pod(&key, "n"), None).await }
        });
        futures::future::try_join_all(writes).await.unwrap();
    }
    let last = world.create_pod("none/x", "n").await;
    assert_eq!(say(&mut other).await, format!("ADDED none/x {last}"));
    assert_eq!(world.pods.watchers(), 1);
    let mut seen = 0;
    let error = loop {
        match within(slow.next()).await.unwrap() {
            Ok(_) => seen += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CacheError::TooSlow), "{error:?}");
    assert_eq!(seen, 1000);
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn a_dropped_watch_leaves_nothing_behind() {
    let world = World::new().await;
    let start = world.cache.revision();
    for selection in [on_node("n"), in_namespace("a"), Selection::default()] {
        let watch = world.watch(WatchFrom::After(start), selection).await;
        assert_eq!(world.pods.watchers(), 1);
        drop(watch);
        assert_eq!(world.pods.watchers(), 0);
    }
}

#[tokio::test]
async fn bookmarks_come_about_once_a_minute_to_those_who_want_them() {
    let world = World::new().await;
    let start = world.cache.revision();
    let request = WatchRequest {
        from: WatchFrom::After(start),
        selection: in_namespace("quiet"),
        bookmarks: true,
        mark_initial_end: false,
    };
    let mut wants = world.pods.watch(request).await.unwrap();
    let mut not = world.watch(WatchFrom::After(start), Selection::default()).await;
    let began = tokio::time::Instant::now();
    for minute in 1..=3 {
        let revision = world.create_pod(&format!("a/{minute}"), "n").await;
        world.cache.wait_until(revision).await.unwrap();
        // From here on nothing but timers is waited for.
        tokio::time::pause();
        let event = tokio::time::timeout(Duration::from_secs(300), wants.next()).await;
        tokio::time::resume();
        let event = event.expect("a bookmark in time").unwrap().unwrap();
        assert_eq!((event.event_type(), event.revision()), (EventType::Bookmark, revision));
        let minutes = began.elapsed().as_secs_f64() / 60.0;
        assert!((0.85 * f64::from(minute)..1.15 * f64::from(minute)).contains(&minutes), "{minutes}");
        assert_eq!(say(&mut not).await, format!("ADDED a/{minute} {revision}"));
    }
}
