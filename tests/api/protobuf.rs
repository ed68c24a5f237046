//! The API in protobuf: bodies, answers, lists, watches, options and errors say the same as in JSON.

use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube_lite::api::protobuf;
use serde_json::{Value, json};

use crate::server::TestServer;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const BOTH: &str = "application/vnd.kubernetes.protobuf,application/json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// An object as clients send it.
pub fn encoded(value: &Value) -> Vec<u8> {
    protobuf::encode(value.to_string().as_bytes()).unwrap()
}

/// An object as clients read it.
pub fn decoded(bytes: &[u8]) -> Value {
    serde_json::from_slice(&protobuf::decode(bytes, ("v1", "")).unwrap()).unwrap()
}

fn request(method: &str, path: &str, accept: &str, body: Vec<u8>) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path);
    builder.header("content-type", PROTOBUF).header("accept", accept).body(body.into()).unwrap()
}

async fn answer(response: Response<Body>) -> (u16, String, Value) {
    let code = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let value =
        if content_type == PROTOBUF { decoded(&bytes) } else { serde_json::from_slice(&bytes).unwrap() };
    (code, content_type, value)
}

async fn send(server: &TestServer, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let body = body.map(|value| encoded(&value)).unwrap_or_default();
    let (code, content_type, value) = answer(server.raw(request(method, path, PROTOBUF, body)).await).await;
    assert_eq!(content_type, PROTOBUF, "{method} {path}: {value}");
    (code, value)
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

#[tokio::test]
async fn an_object_is_made_read_changed_and_deleted() {
    let server = TestServer::start().await;
    let (code, made) = send(&server, "POST", MAPS, Some(map("a"))).await;
    assert_eq!((code, &made["data"]["k"]), (201, &json!("v")), "{made}");
    let path = format!("{MAPS}/a");
    let (_, json) = server.send("GET", &path, None).await;
    assert_eq!(made, json);
    let mut changed = made;
    changed["data"]["k"] = "w".into();
    let (code, changed) = send(&server, "PUT", &path, Some(changed)).await;
    assert_eq!((code, &changed["data"]["k"]), (200, &json!("w")), "{changed}");
    let (_, list) = send(&server, "GET", MAPS, None).await;
    assert_eq!((&list["kind"], &list["items"][0]["data"]), (&json!("ConfigMapList"), &json!({"k": "w"})));
    let uid = json!({"uid": "another"});
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": uid});
    let (code, status) = send(&server, "DELETE", &path, Some(options)).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")), "{status}");
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    let (code, status) = send(&server, "DELETE", &path, Some(options)).await;
    assert_eq!((code, &status["status"]), (200, &json!("Success")), "{status}");
    let (code, status) = send(&server, "GET", &path, None).await;
    assert_eq!((code, &status["reason"], &status["code"]), (404, &json!("NotFound"), &json!(404)));
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps"}));
}

#[tokio::test]
async fn reviews_scales_and_documents_are_answered() {
    let server = TestServer::start().await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (code, review) = send(&server, "POST", path, Some(review)).await;
    assert_eq!((code, &review["status"]["allowed"]), (201, &json!(true)), "{review}");
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let (code, made) = send(&server, "POST", deployments, Some(deployment)).await;
    assert_eq!((code, &made["spec"]["replicas"]), (201, &json!(0)), "{made}");
    let container = &made["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["imagePullPolicy"], container.get("stdin")), (&json!("IfNotPresent"), None));
    let (_, mut scale) = send(&server, "GET", &format!("{deployments}/d/scale"), None).await;
    assert_eq!(scale["kind"], "Scale");
    scale["spec"]["replicas"] = 2.into();
    let (code, scale) = send(&server, "PUT", &format!("{deployments}/d/scale"), Some(scale)).await;
    assert_eq!((code, &scale["spec"]["replicas"]), (200, &json!(2)), "{scale}");
    let patch = Request::builder().method("PATCH").uri(format!("{deployments}/d")).header("accept", PROTOBUF);
    let patch = patch.header("content-type", "application/merge-patch+json");
    let patched = server.raw(patch.body(r#"{"spec":{"paused":true}}"#.into()).unwrap()).await;
    let (code, _, patched) = answer(patched).await;
    assert_eq!((code, &patched["spec"]["paused"]), (200, &json!(true)), "{patched}");
    for path in ["/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1"] {
        let (_, document) = send(&server, "GET", path, None).await;
        let (_, mut json) = server.send("GET", path, None).await;
        json["apiVersion"] = "v1".into();
        assert_eq!(document, json, "{path}");
    }
}

#[tokio::test]
async fn metadata_has_protobuf_and_tables_have_not() {
    let server = TestServer::start().await;
    send(&server, "POST", MAPS, Some(map("a"))).await;
    let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (_, content_type, list) = answer(server.raw(request("GET", MAPS, metadata, Vec::new())).await).await;
    assert_eq!((content_type.as_str(), &list["kind"]), (PROTOBUF, &json!("PartialObjectMetadataList")));
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
    let (code, _, status) = answer(server.raw(request("GET", MAPS, table, Vec::new())).await).await;
    assert_eq!((code, &status["reason"]), (406, &json!("NotAcceptable")));
    let either = format!("{table},application/json;as=Table;g=meta.k8s.io;v=v1");
    let (_, content_type, table) = answer(server.raw(request("GET", MAPS, &either, Vec::new())).await).await;
    assert_eq!((content_type.as_str(), &table["kind"]), ("application/json", &json!("Table")));
    let version = server.raw(request("GET", "/version", PROTOBUF, Vec::new())).await;
    assert_eq!(answer(version).await.1, "application/json");
}

#[tokio::test]
async fn an_envelope_without_a_type_is_of_the_kind_that_the_path_names() {
    let server = TestServer::start().await;
    let whole = encoded(&map("untyped"));
    // The envelope begins with the type: its tag, its length, and that many bytes.
    assert_eq!(whole[4], 0x0a);
    let rest = &whole[6 + usize::from(whole[5])..];
    let untyped: Vec<u8> = b"k8s\0".iter().chain(rest).copied().collect();
    let (code, _, made) = answer(server.raw(request("POST", MAPS, BOTH, untyped)).await).await;
    assert_eq!(
        (code, &made["metadata"]["name"], &made["data"]["k"]),
        (201, &json!("untyped"), &json!("v")),
        "{made}"
    );
}

#[tokio::test]
async fn broken_bodies_are_refused_with_the_reason() {
    let server = TestServer::start().await;
    let other = encoded(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}));
    let cases: [(Vec<u8>, &str); 4] = [
        (
            b"{}".to_vec(),
            "the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a \
             protobuf message, expected prefix [107 56 115 0] ({})",
        ),
        (b"k8s\0\x12\x05".to_vec(), "unexpected EOF"),
        (other, "Secret in version \"v1\" cannot be handled as a ConfigMap"),
        (encoded(&map("a"))[..30].to_vec(), "unexpected EOF"),
    ];
    for (body, expected) in cases {
        let (code, _, status) = answer(server.raw(request("POST", MAPS, BOTH, body)).await).await;
        let message = status["message"].as_str().unwrap();
        assert!(code == 400 && message.contains(expected), "{status}");
    }
}

/// The events of a watch that are there before the time is up.
async fn frames(body: Body, count: usize) -> Vec<(String, Value)> {
    let mut body = body;
    let mut bytes = Vec::new();
    let mut events = Vec::new();
    while events.len() < count {
        let frame =
            tokio::time::timeout(Duration::from_secs(20), body.frame()).await.unwrap().unwrap().unwrap();
        bytes.extend_from_slice(&frame.into_data().unwrap());
        while bytes.len() >= 4 {
            let len = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
            if bytes.len() < 4 + len {
                break;
            }
            // The event is a type, and an object in a message of its own.
            let event = &bytes[4..4 + len];
            let kind_len = usize::from(event[1]);
            let kind = std::str::from_utf8(&event[2..2 + kind_len]).unwrap().to_owned();
            let at = event.windows(4).position(|window| window == b"k8s\0").unwrap();
            events.push((kind, decoded(&event[at..])));
            bytes.drain(..4 + len);
        }
    }
    events
}

#[tokio::test]
async fn a_watch_sends_frames() {
    let server = TestServer::start().await;
    send(&server, "POST", MAPS, Some(map("a"))).await;
    let accept = "application/vnd.kubernetes.protobuf;stream=watch";
    let query =
        "watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let response = server.raw(request("GET", &format!("{MAPS}?{query}"), accept, Vec::new())).await;
    assert_eq!(response.headers()["content-type"], accept);
    send(&server, "POST", MAPS, Some(map("b"))).await;
    server.send("DELETE", &format!("{MAPS}/a"), None).await;
    let events = frames(response.into_body(), 4).await;
    let seen: Vec<(&str, &str)> = events
        .iter()
        .map(|(kind, object)| (kind.as_str(), object["metadata"]["name"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(seen, [("ADDED", "a"), ("BOOKMARK", ""), ("ADDED", "b"), ("DELETED", "a")]);
    assert_eq!(events[1].1["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!((&events[0].1["kind"], &events[0].1["data"]["k"]), (&json!("ConfigMap"), &json!("v")));
    let metadata = format!("{accept};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let path = format!("{MAPS}?watch=true&resourceVersion=0");
    let response = server.raw(request("GET", &path, &metadata, Vec::new())).await;
    let events = frames(response.into_body(), 1).await;
    assert_eq!(events[0].1["kind"], "PartialObjectMetadata");
}
