//! What upstream's conformance suite asserts of the API alone, each test named after the behaviour it stands for.

mod documents;
mod fields;
mod lists;
mod objects;
mod policies;

use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::server::TestServer;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Makes a cluster-wide kind `Noxu` in a group of its own and waits until it is served; the path of its objects.
async fn define(server: &TestServer, group: &str, versions: &[&str], schema: Value) -> String {
    let versions: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(i, name)| {
            json!({"name": name, "served": true, "storage": i == 0, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema}})
        })
        .collect();
    let definition = json!({
        "metadata": {"name": format!("noxus.{group}")},
        "spec": {"group": group, "scope": "Cluster", "versions": versions,
            "names": {"plural": "noxus", "singular": "noxu", "kind": "Noxu", "listKind": "NoxuList"}},
    });
    let (code, body) = server.send("POST", DEFINITIONS, Some(definition)).await;
    assert_eq!(code, 201, "{body}");
    let version = body["spec"]["versions"][0]["name"].as_str().unwrap().to_owned();
    let path = format!("/apis/{group}/{version}/noxus");
    until(async || (server.send("GET", &path, None).await.0 == 200).then_some(())).await;
    path
}

/// Asks again until there is an answer.
async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap()
}

/// Sends a body of some type as the administrator: the code, the warnings and the answer.
async fn send_as(
    server: &TestServer,
    (method, path): (&str, &str),
    (content_type, accept): (&str, &str),
    body: impl Into<Body>,
) -> (u16, Vec<String>, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .header("accept", accept)
        .body(body.into())
        .unwrap();
    let response = server.raw(request).await;
    let code = response.status().as_u16();
    let warnings = response
        .headers()
        .get_all("warning")
        .iter()
        .map(|value| value.to_str().unwrap().to_owned())
        .collect();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, warnings, serde_json::from_slice(&bytes).unwrap_or_default())
}
