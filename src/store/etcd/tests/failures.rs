//! Members that die, hang and come back; several servers; leases, compaction and snapshots of etcd itself.

use std::collections::HashSet;

use bytes::Bytes;
use futures::StreamExt;

use super::*;
use crate::store::etcd::{compaction, wire};
use crate::store::{EventKind, ListOptions, Revision, StoreError, WatchStream};

const PATIENCE: Duration = Duration::from_secs(60);

/// Creates keys until `count` have been acknowledged; a write whose outcome is unknown is left behind.
async fn create_many(store: &EtcdStore, name: &str, count: usize) -> HashSet<String> {
    let mut done = HashSet::new();
    for i in 0.. {
        if done.len() == count {
            break;
        }
        let key = format!("/a/{name}/{i}");
        match store.create(&key, Bytes::from_static(b"v"), None).await {
            Ok(_) => {
                done.insert(key);
            }
            Err(StoreError::Unavailable { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    done
}

/// Takes events until all of `expected` were seen; each key may come once only, in order of revisions.
async fn see_all(watch: &mut WatchStream, expected: &HashSet<String>) {
    let mut seen = HashSet::new();
    let mut last = Revision(0);
    tokio::time::timeout(PATIENCE, async {
        while !expected.is_subset(&seen) {
            let batch = watch.next().await.expect("the watch goes on").unwrap();
            for event in batch.events {
                assert!(event.revision > last, "out of order or twice: {event:?}");
                last = event.revision;
                assert!(seen.insert(event.key.to_string()), "twice: {event:?}");
            }
        }
    })
    .await
    .expect("the watch delivers everything in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_members_are_killed_one_after_the_other() {
    let mut cluster = Cluster::start(3);
    let store = store_on(&cluster).await;
    let mut watch = store.watch("/a/", Revision(1)).await.unwrap();
    let mut all = HashSet::new();
    for i in 0..3 {
        all.extend(create_many(&store, &format!("before{i}"), 20).await);
        cluster.kill(i);
        all.extend(create_many(&store, &format!("while{i}"), 20).await);
        cluster.revive(i);
    }
    see_all(&mut watch, &all).await;
    let listed = store.list("/a/", &ListOptions::default()).await.unwrap();
    let listed: HashSet<_> = listed.entries.iter().map(|e| e.key.to_string()).collect();
    assert!(all.is_subset(&listed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hangs_is_passed_over() {
    let cluster = Cluster::start(3);
    let store = store_on(&cluster).await;
    let mut watch = store.watch("/a/", Revision(1)).await.unwrap();
    let mut all = create_many(&store, "before", 5).await;
    see_all(&mut watch, &all).await;
    let (hung, _) = store.inner.members.preferred();
    cluster.pause(hung);
    // A read goes on with another member; the watch notices by its pings.
    assert!(store.get("/a/before/0", None).await.unwrap().is_some());
    let later = create_many(&store, "while", 5).await;
    see_all(&mut watch, &later).await;
    cluster.resume(hung);
    all.extend(later);
    all.extend(create_many(&store, "after", 5).await);
    let listed = store.list("/a/", &ListOptions::default()).await.unwrap().entries.len();
    assert!(listed >= all.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_requests_fail_clearly_and_recover() {
    let mut cluster = Cluster::start(3);
    let patient = store_on(&cluster).await;
    let before = create_many(&patient, "before", 3).await;
    let options = EtcdOptions { request_timeout: Duration::from_secs(2), ..options(&cluster) };
    let hasty = EtcdStore::connect(options).await.unwrap();
    cluster.kill(1);
    cluster.kill(2);
    let error = hasty.create("/a/x", Bytes::new(), None).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(matches!(hasty.get("/a/x", None).await, Err(StoreError::Unavailable { .. })));
    let error = hasty.health().await.unwrap_err();
    let StoreError::Unavailable { source } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("no etcd member answered read within 2s"), "{source}");
    cluster.revive(1);
    assert!(patient.get(before.iter().next().unwrap(), None).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_see_each_others_writes() {
    let cluster = Cluster::start(1);
    let (one, other) = (store_on(&cluster).await, store_on(&cluster).await);
    let mut watch = other.watch("/a/", Revision(1)).await.unwrap();
    for i in 0..50 {
        let key = format!("/a/{i}");
        let revision = one.create(&key, Bytes::from_static(b"v"), None).await.unwrap();
        assert!(other.current_revision().await.unwrap() >= revision, "a read was stale");
        assert!(other.get(&key, None).await.unwrap().is_some());
    }
    see_all(&mut watch, &(0..50).map(|i| format!("/a/{i}")).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_says_how_far_it_is_when_other_keys_change() {
    let cluster = Cluster::start(1);
    let store = store_on(&cluster).await;
    let mut watch = store.watch("/a/", store.current_revision().await.unwrap()).await.unwrap();
    let elsewhere = store.create("/b/x", Bytes::new(), None).await.unwrap();
    let batch = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((batch.revision, batch.events.len()), (elsewhere, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_compaction_overtook_says_so() {
    let mut cluster = Cluster::start(1);
    let store = store_on(&cluster).await;
    let first = store.create("/a/x", Bytes::from_static(b"1"), None).await.unwrap();
    let mut watch = store.watch("/a/", Revision(1)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, first);
    // While the watch is without a connection, history goes on and is forgotten by another server.
    cluster.kill(0);
    cluster.revive(0);
    let other = store_on(&cluster).await;
    let mut last = first;
    for value in ["2", "3", "4"] {
        last = other.update("/a/x", Bytes::from_static(value.as_bytes()), last, None).await.unwrap();
    }
    other.compact(last).await.unwrap();
    let mut seen = first;
    loop {
        match tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap() {
            Err(StoreError::Compacted { oldest }) => {
                assert_eq!(oldest, last);
                break;
            }
            Ok(batch) => {
                // The connection was there in time after all: then nothing may be missing.
                assert_eq!(batch.events.first().map(|e| e.revision.0), Some(seen.0 + 1));
                seen = batch.revision;
                if seen == last {
                    break;
                }
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_take_turns_in_compacting_to_where_they_were() {
    let cluster = Cluster::start(1);
    let (one, other) = (store_on(&cluster).await, store_on(&cluster).await);
    let first = one.create("/a/x", Bytes::from_static(b"1"), None).await.unwrap();
    let (turn, compact) = compaction::step(&one.inner, compaction::Turn::default()).await.unwrap();
    assert_eq!(compact, None, "where the store was is not known at the start");
    let (others, compact) = compaction::step(&other.inner, compaction::Turn::default()).await.unwrap();
    assert_eq!(compact, None, "the turn was taken");
    let second = one.update("/a/x", Bytes::from_static(b"2"), first, None).await.unwrap();
    let (_, compact) = compaction::step(&one.inner, turn).await.unwrap();
    let compact = compact.expect("the turn is taken a second time");
    assert!(first <= compact && compact < second, "{compact} is not where the store was before");
    let (_, none) = compaction::step(&other.inner, others).await.unwrap();
    assert_eq!(none, None, "only one of the servers compacts");
    one.compact(compact).await.unwrap();
    let error = other.get("/a/x", Some(Revision(compact.0 - 1))).await.unwrap_err();
    assert!(matches!(error, StoreError::Compacted { oldest } if oldest == compact), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_written_together_share_a_lease() {
    let cluster = Cluster::start(1);
    let store = store_on(&cluster).await;
    let ttl = Some(Duration::from_secs(3600));
    for key in ["/a/x", "/a/y"] {
        store.create(key, Bytes::new(), ttl).await.unwrap();
    }
    let request = wire::v3::RangeRequest { range_end: wire::end_of(b"/a/"), ..wire::get("/a/") };
    let kvs = store.range(request).await.unwrap().kvs;
    assert!(kvs[0].lease != 0 && kvs[0].lease == kvs[1].lease);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_list_is_put_together_from_parts_of_one_revision() {
    let cluster = Cluster::start(1);
    let store = store_on(&cluster).await;
    let all = create_many(&store, "x", 700).await;
    let page = store.list("/a/", &ListOptions::default()).await.unwrap();
    assert_eq!((page.entries.len(), page.more, page.remaining), (all.len(), false, None));
    assert!(page.entries.windows(2).all(|w| w[0].key < w[1].key));
    let options = ListOptions { limit: Some(600), ..ListOptions::default() };
    let page = store.list("/a/", &options).await.unwrap();
    assert_eq!((page.entries.len(), page.more, page.remaining), (600, true, Some(100)));
}

#[tokio::test]
async fn what_is_wrong_with_the_settings_is_said() {
    let connect = |endpoint: &str| {
        let options = EtcdOptions {
            request_timeout: Duration::from_millis(300),
            ca_file: Some("/nonexistent/ca.pem".into()),
            ..EtcdOptions::new(vec![endpoint.to_owned()])
        };
        async { format!("{:#}", anyhow::Error::from(EtcdStore::connect(options).await.unwrap_err())) }
    };
    for (endpoint, expected) in [
        ("https://127.0.0.1:1", "/nonexistent/ca.pem"),
        ("ftp://127.0.0.1:1", "no etcd endpoint such as"),
        ("http://127.0.0.1:1", "connect to etcd member http://127.0.0.1:1: Connection refused"),
    ] {
        let error = connect(endpoint).await;
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_what_a_deletion_removed_after_its_member_came_back() {
    let mut cluster = Cluster::start(1);
    let store = store_on(&cluster).await;
    let mut watch = store.watch("/a/", Revision(1)).await.unwrap();
    let created = store.create("/a/x", Bytes::from_static(b"1"), None).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, created);
    cluster.kill(0);
    cluster.revive(0);
    // The old connection may be found broken by the write: what happened is then unknown.
    while store.health().await.is_err() {}
    let deleted = store.delete("/a/x", created).await.unwrap();
    let event = loop {
        let batch = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        if let Some(event) = batch.events.into_iter().next() {
            break event;
        }
    };
    assert_eq!((event.revision, event.kind), (deleted, EventKind::Delete));
    assert_eq!(event.prev.as_deref(), Some(&b"1"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_checked_on_both_sides() {
    use crate::pki::ClusterPki;
    let folder = tempfile::tempdir().unwrap();
    let pki = ClusterPki::load_or_create(&folder.path().join("tls"), &[]).unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let serving = pki.issue_server("etcd", &["127.0.0.1".to_owned()]).unwrap();
    let client = pki.issue_client("kube-lite", &[]).unwrap();
    let server_ca = file("server-ca.pem", pki.server_ca().cert_pem());
    let client_ca = file("client-ca.pem", pki.client_ca().cert_pem());
    let more = [
        ("--cert-file", file("serving.pem", &serving.cert_pem)),
        ("--key-file", file("serving.key", &serving.key_pem)),
        ("--trusted-ca-file", client_ca.clone()),
    ];
    let more = more.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    let cluster = Cluster::start_with(1, "https", more.chain(["--client-cert-auth".to_owned()]).collect());
    let right = EtcdOptions {
        ca_file: Some(server_ca.into()),
        cert_file: Some(file("client.pem", &client.cert_pem).into()),
        key_file: Some(file("client.key", &client.key_pem).into()),
        ..options(&cluster)
    };
    let store = EtcdStore::connect(right.clone()).await.unwrap();
    store.create("/a/x", Bytes::new(), None).await.unwrap();
    let hasty = Duration::from_millis(500);
    let nobody = EtcdOptions { cert_file: None, request_timeout: hasty, ..right.clone() };
    assert!(EtcdStore::connect(nobody).await.is_err());
    let stranger = EtcdOptions { ca_file: Some(client_ca.into()), request_timeout: hasty, ..right };
    let error = format!("{:#}", anyhow::Error::from(EtcdStore::connect(stranger).await.unwrap_err()));
    assert!(error.contains("certificate"), "{error}");
}
