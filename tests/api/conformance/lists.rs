//! `[sig-api-machinery] Servers with support for API chunking`, `Watchers`, `CustomResourceFieldSelectors`.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
