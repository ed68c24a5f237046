//! Concurrent writers.

use super::*;

const WRITERS: usize = 16;

pub(crate) async fn one_writer_wins_a_race(store: Subject) {
    let first = create(&store, "/a/x", "start").await;
    for round in 0..5 {
        let expected = store.get("/a/x", None).await.unwrap().unwrap().mod_revision;
        assert!(expected >= first);
        let tasks: Vec<_> = (0..WRITERS)
            .map(|i| {
                let store = store.clone();
                tokio::spawn(async move {
                    store.update("/a/x", bytes(&format!("{round}-{i}")), expected, None).await
                })
            })
            .collect();
        let mut winners = Vec::new();
        for (i, task) in tasks.into_iter().enumerate() {
            match task.await.unwrap() {
                Ok(revision) => winners.push((i, revision)),
                Err(StoreError::Conflict { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(winners.len(), 1);
        let entry = store.get("/a/x", None).await.unwrap().unwrap();
        assert_eq!(
            (entry.mod_revision, entry.value),
            (winners[0].1, bytes(&format!("{round}-{}", winners[0].0)))
        );
    }
}

pub(crate) async fn counters_lose_no_increment(store: Subject) {
    create(&store, "/a/counter", "0").await;
    let tasks: Vec<_> = (0..WRITERS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..5 {
                    increment(&store).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let entry = store.get("/a/counter", None).await.unwrap().unwrap();
    assert_eq!(entry.value, bytes(&(WRITERS * 5).to_string()));
}

async fn increment(store: &Subject) {
    let mut entry = store.get("/a/counter", None).await.unwrap().unwrap();
    loop {
        let count: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
        let value = bytes(&(count + 1).to_string());
        match store.update("/a/counter", value, entry.mod_revision, None).await {
            Ok(_) => return,
            Err(StoreError::Conflict { current: Some(current), .. }) => entry = current,
            Err(StoreError::Conflict { current: None, .. }) => {
                entry = store.get("/a/counter", None).await.unwrap().unwrap();
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn writes_through_many_tasks_appear_in_one_order(store: Subject) {
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch("/a/", start).await.unwrap();
    let tasks: Vec<_> = (0..WRITERS)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut revisions = Vec::new();
                for j in 0..20 {
                    let key = format!("/a/{i}/{j}");
                    let created = create(&store, &key, "v").await;
                    // Read your own writes, whoever else is writing.
                    assert_eq!(store.get(&key, None).await.unwrap().unwrap().mod_revision, created);
                    revisions.push((created, key));
                }
                assert!(revisions.is_sorted());
                revisions
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for task in tasks {
        acknowledged.extend(task.await.unwrap());
    }
    acknowledged.sort();
    let last = acknowledged[acknowledged.len() - 1].0;
    let events = collect(&mut watch, last).await;
    let seen: Vec<_> = events.iter().map(|e| (e.revision, e.key.to_string())).collect();
    assert_eq!(seen, acknowledged);
}
