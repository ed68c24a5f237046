//! What upstream's conformance suite asserts of the API alone, each test named after the behaviour it stands for.

mod collect;
mod crud;
mod definitions;
mod documents;
mod fields;
mod kubectl;
mod lists;
mod namespaces;
mod network;
mod node;
mod objects;
mod operations;
mod policies;
mod quotas;
mod storage;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use kube_lite::apiserver::in_process;
use kube_lite::client::{Informers, from_service};
use kube_lite::controllers::{Clients, ControllersConfig, identity, manager};
use kube_lite::registry::UserInfo;

use crate::server::TestServer;

/// The types of a merge patch.
const MERGE: (&str, &str) = ("application/merge-patch+json", "application/json");

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

/// A server with all controllers.
async fn controlled() -> TestServer {
    let server = TestServer::start().await;
    control(&server);
    server
}

/// Starts all controllers, each as its own service account. They end with the server.
fn control(server: &TestServer) {
    let api = server.api.clone();
    let clients = Clients::new(move |account| {
        let (name, groups) = identity(account);
        let groups = groups.into_iter().map(str::to_owned).collect();
        let user = UserInfo { name, groups, ..UserInfo::default() };
        from_service(in_process::Service::new(api.clone(), user), "default")
    });
    let stop = server.stop.clone();
    let informers = Informers::new(server.client("system:kube-controller-manager", &[]), stop.clone());
    let config =
        Arc::new(ControllersConfig { root_ca_pem: "the root".into(), ..ControllersConfig::default() });
    tokio::spawn(async move { manager::run_all(&clients, &informers, &config, stop).await });
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

async fn patch(server: &TestServer, path: &str, change: Value) -> Value {
    let (code, _, body) = send_as(server, ("PATCH", path), MERGE, change.to_string()).await;
    assert_eq!(code, 200, "{path}: {body}");
    body
}

async fn post(server: &TestServer, path: &str, object: Value) -> Value {
    let (code, body) = server.send("POST", path, Some(object)).await;
    assert_eq!(code, 201, "{path}: {body}");
    body
}

async fn put(server: &TestServer, path: &str, object: Value) -> Value {
    let (code, body) = server.send("PUT", path, Some(object)).await;
    assert_eq!(code, 200, "{path}: {body}");
    body
}

async fn count(server: &TestServer, path: &str) -> usize {
    let (code, list) = server.send("GET", path, None).await;
    assert_eq!(code, 200, "{list}");
    list["items"].as_array().unwrap().len()
}

/// An open watch.
struct Watch {
    body: Body,
    text: String,
}

impl Watch {
    /// Watches what a path with a query names.
    async fn open(server: &TestServer, path: &str) -> Self {
        let separator = if path.contains('?') { '&' } else { '?' };
        let request = Request::get(format!("{path}{separator}watch=1")).body(Body::empty()).unwrap();
        let response = server.raw(request).await;
        assert_eq!(response.status(), 200, "{path}");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The type and the object of the next event.
    async fn next(&mut self) -> (String, Value) {
        let wait = async {
            loop {
                if let Some((line, rest)) = self.text.split_once('\n') {
                    let event: Value = serde_json::from_str(line).unwrap();
                    let rest = rest.to_owned();
                    self.text = rest;
                    return (event["type"].as_str().unwrap().to_owned(), event["object"].clone());
                }
                let frame = self.body.frame().await.expect("the watch goes on").unwrap();
                self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("an event")
    }

    /// The next event as `ADDED name`.
    async fn named(&mut self) -> String {
        let (kind, object) = self.next().await;
        format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or_default())
    }
}
