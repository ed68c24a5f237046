//! `[sig-api-machinery] Servers with support for API chunking`, `Watchers`, `CustomResourceFieldSelectors`.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Watch;
use crate::server::TestServer;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn make(server: &TestServer, name: &str, labels: Value) -> Value {
    let map = json!({"metadata": {"name": name, "labels": labels}});
    let (code, body) = server.send("POST", MAPS, Some(map)).await;
    assert_eq!(code, 201, "{body}");
    body
}

#[tokio::test]
async fn list_calls_return_chunks_and_go_on_inconsistently_when_their_version_is_gone() {
    let server = TestServer::start().await;
    for i in 0..40 {
        make(&server, &format!("map-{i:04}"), json!({})).await;
    }
    let (_, all) = server.send("GET", &format!("{MAPS}?limit=500"), None).await;
    let total = all["items"].as_array().unwrap().len();
    let (mut found, mut token, mut version) = (0, String::new(), Value::Null);
    loop {
        let (code, page) = server.send("GET", &format!("{MAPS}?limit=11&continue={token}"), None).await;
        assert_eq!(code, 200, "{page}");
        let items = page["items"].as_array().unwrap().len();
        found += items;
        if version.is_null() {
            version = page["metadata"]["resourceVersion"].clone();
            make(&server, "zz-late", json!({})).await;
        }
        assert_eq!(page["metadata"]["resourceVersion"], version, "every page has the version of the first");
        match page["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => {
                assert_eq!(page["metadata"]["remainingItemCount"], total - found);
                token = next.to_owned();
            }
            _ => break,
        }
    }
    assert_eq!(found, total);

    // A token of long ago: the version that it names is not shown any more.
    let (_, page) = server.send("GET", &format!("{MAPS}?limit=11"), None).await;
    let token = page["metadata"]["continue"].as_str().unwrap();
    let mut said: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
    said["t"] = json!(said["t"].as_i64().unwrap() - 3600);
    let old = URL_SAFE_NO_PAD.encode(said.to_string());
    let (code, status) = server.send("GET", &format!("{MAPS}?limit=11&continue={old}"), None).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")), "{status}");
    make(&server, "zz-later", json!({})).await;
    let token = status["metadata"]["continue"].as_str().unwrap();
    let (code, next) = server.send("GET", &format!("{MAPS}?limit=11&continue={token}"), None).await;
    assert_eq!((code, next["items"].as_array().unwrap().len()), (200, 11));
    assert_ne!(next["metadata"]["resourceVersion"], page["metadata"]["resourceVersion"]);
    let first = &next["items"][0]["metadata"]["name"];
    assert!(first.as_str() > page["items"][10]["metadata"]["name"].as_str(), "{first}");
    let token = next["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = server.send("GET", &format!("{MAPS}?limit=500&continue={token}"), None).await;
    assert_eq!(rest["metadata"]["resourceVersion"], next["metadata"]["resourceVersion"]);
}

/// Reads events of a watch until `wanted` have come.
async fn events(server: &TestServer, query: &str, wanted: usize) -> Vec<(String, Value)> {
    let request = Request::get(format!("{MAPS}?watch=1&{query}")).body(Body::empty()).unwrap();
    let mut body = server.raw(request).await.into_body();
    let mut text = String::new();
    while text.lines().count() < wanted {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["type"].as_str().unwrap().to_owned(), event["object"].clone())
    };
    text.lines().take(wanted).map(event).collect()
}

#[tokio::test]
async fn a_watch_observes_a_deletion_when_the_object_stops_meeting_the_selector() {
    let server = TestServer::start().await;
    let made = make(&server, "label-changed", json!({"watch": "yes"})).await;
    let mut version = made["metadata"]["resourceVersion"].clone();
    let start = version.as_str().unwrap().to_owned();
    for label in ["yes", "no", "no", "yes"] {
        let (_, mut map) = server.send("GET", &format!("{MAPS}/label-changed"), None).await;
        map["metadata"]["labels"]["watch"] = label.into();
        map["data"] = json!({"mutation": format!("{version}")});
        let (code, body) = server.send("PUT", &format!("{MAPS}/label-changed"), Some(map)).await;
        assert_eq!(code, 200, "{body}");
        version = body["metadata"]["resourceVersion"].clone();
    }
    server.send("DELETE", &format!("{MAPS}/label-changed"), None).await;
    let seen = events(&server, &format!("labelSelector=watch%3Dyes&resourceVersion={start}"), 4).await;
    let kinds: Vec<&str> = seen.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["MODIFIED", "DELETED", "ADDED", "DELETED"]);
    // Restarted from the last version observed, a watch goes on where the other ended.
    let last = seen[1].1["metadata"]["resourceVersion"].as_str().unwrap();
    let rest = events(&server, &format!("labelSelector=watch%3Dyes&resourceVersion={last}"), 2).await;
    assert_eq!(rest, seen[2..]);
}

#[tokio::test]
async fn a_watch_over_a_websocket_sends_one_text_message_for_each_event() {
    let listening = TestServer::listening().await;
    make(&listening.server, "a", json!({"ws": "1"})).await;
    make(&listening.server, "b", json!({"ws": "1"})).await;
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    let path = format!("{MAPS}?watch=1&labelSelector=ws%3D1&resourceVersion=0");
    let mut response = listening.upgrade(Method::GET, &path, &headers).await;
    assert_eq!(response.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    for name in ["a", "b"] {
        let mut head = [0; 4];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!((head[0], head[1]), (0x81, 126), "a whole text message of middle length");
        let mut message = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
        stream.read_exact(&mut message).await.unwrap();
        let event: Value = serde_json::from_slice(&message).unwrap();
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!(name)));
    }
    stream.shutdown().await.unwrap();
    listening.stop().await;
}

#[tokio::test]
async fn watchers_observe_add_update_and_delete_by_the_labels_that_they_select() {
    let server = TestServer::start().await;
    let by = |selector: &str| format!("{MAPS}?labelSelector=watch%20in%20({selector})");
    let mut a = Watch::open(&server, &by("multiple-watchers-A")).await;
    let mut b = Watch::open(&server, &by("multiple-watchers-B")).await;
    let mut either = Watch::open(&server, &by("multiple-watchers-A,multiple-watchers-B")).await;
    for (name, label) in [("map-a", "multiple-watchers-A"), ("map-b", "multiple-watchers-B")] {
        let own = if name == "map-a" { &mut a } else { &mut b };
        let mut map = make(&server, name, json!({"watch": label})).await;
        assert_eq!(
            [own.named().await, either.named().await],
            [format!("ADDED {name}"), format!("ADDED {name}")]
        );
        for mutation in ["1", "2"] {
            map["data"] = json!({"mutation": mutation});
            let (code, body) = server.send("PUT", &format!("{MAPS}/{name}"), Some(map)).await;
            assert_eq!(code, 200, "{body}");
            map = body;
            for watch in [&mut *own, &mut either] {
                let (kind, seen) = watch.next().await;
                assert_eq!((kind.as_str(), &seen["data"]["mutation"]), ("MODIFIED", &json!(mutation)));
            }
        }
        server.send("DELETE", &format!("{MAPS}/{name}"), None).await;
        assert_eq!(
            [own.named().await, either.named().await],
            [format!("DELETED {name}"), format!("DELETED {name}")]
        );
    }
}

#[tokio::test]
async fn a_watch_starts_from_the_version_that_it_names() {
    let server = TestServer::start().await;
    let mut map = make(&server, "from-version", json!({"watch": "from"})).await;
    let mut first = Value::Null;
    for mutation in ["1", "2"] {
        map["data"] = json!({"mutation": mutation});
        map = server.send("PUT", &format!("{MAPS}/from-version"), Some(map)).await.1;
        if first.is_null() {
            first = map["metadata"]["resourceVersion"].clone();
        }
    }
    server.send("DELETE", &format!("{MAPS}/from-version"), None).await;
    let query = format!("labelSelector=watch%3Dfrom&resourceVersion={}", first.as_str().unwrap());
    let seen = events(&server, &query, 2).await;
    let seen: Vec<_> =
        seen.iter().map(|(kind, map)| (kind.as_str(), map["data"]["mutation"].as_str().unwrap())).collect();
    assert_eq!(seen, [("MODIFIED", "2"), ("DELETED", "2")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_watches_receive_events_in_the_same_order() {
    let server = TestServer::start().await;
    let (_, list) = server.send("GET", MAPS, None).await;
    let start = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut first = Watch::open(&server, &format!("{MAPS}?resourceVersion={start}")).await;
    let writer = async {
        for i in 0..40 {
            let name = format!("order-{}", i % 7);
            let path = format!("{MAPS}/{name}");
            let map = json!({"metadata": {"name": name}, "data": {"i": i.to_string()}});
            match server.send("POST", MAPS, Some(map.clone())).await.0 {
                201 => {}
                _ if i % 3 == 0 => assert_eq!(server.send("DELETE", &path, None).await.0, 200),
                _ => assert_eq!(server.send("PUT", &path, Some(map)).await.0, 200),
            }
        }
    };
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let reader = async {
        let mut versions = vec![start.clone()];
        let mut watches: Vec<Watch> = Vec::new();
        for _ in 0..40 {
            versions.push(version(&first.next().await.1));
            let from = &versions[versions.len() / 2];
            watches.push(Watch::open(&server, &format!("{MAPS}?resourceVersion={from}")).await);
        }
        (versions, watches)
    };
    let ((), (versions, watches)) = tokio::join!(writer, reader);
    let numbers: Vec<u64> = versions.iter().map(|version| version.parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    for (i, mut watch) in watches.into_iter().enumerate() {
        for wanted in &versions[(i + 2) / 2 + 1..] {
            assert_eq!(version(&watch.next().await.1), *wanted, "watch {i}");
        }
    }
}
