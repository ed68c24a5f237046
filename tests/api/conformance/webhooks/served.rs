//! The webhooks themselves: over TLS behind a Service, each path with a mind of its own.

use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::aggregation::own_address;
use crate::conformance::post;
use crate::server::TestServer;

/// Where configurations say that a webhook is.
pub fn client_config(server: &TestServer, path: &str) -> Value {
    json!({"service": {"namespace": "hooks", "name": "e2e-test-webhook", "path": path, "port": 8443},
        "caBundle": STANDARD.encode(server.pki.server_ca().cert_pem())})
}

/// Listens, and makes the Service that leads here.
pub async fn serve(server: &TestServer) {
    let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let identity = server.pki.issue_server("hook", &["e2e-test-webhook.hooks.svc".to_owned()]).unwrap();
    let (chain, key) = identity.to_rustls().unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(server.stop.clone().run_until_cancelled_owned(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Who does not believe the certificate goes away.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                let _ended = served.await;
            });
        }
    }));
    post(server, "/api/v1/namespaces", json!({"metadata": {"name": "hooks"}})).await;
    let service = json!({"metadata": {"name": "e2e-test-webhook"},
        "spec": {"ports": [{"protocol": "TCP", "port": 8443, "targetPort": 8444}]}});
    post(server, "/api/v1/namespaces/hooks/services", service).await;
    let slice = json!({"metadata": {"name": "e2e-test-webhook-1", "labels": {"kubernetes.io/service-name": "e2e-test-webhook"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [own_address()], "conditions": {"ready": true}}],
        "ports": [{"name": "", "port": port, "protocol": "TCP"}]});
    post(server, "/apis/discovery.k8s.io/v1/namespaces/hooks/endpointslices", slice).await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&bytes).unwrap();
    let asked = &review["request"];
    let response = if path == "/crdconvert" { Some(converted(asked)) } else { judged(&path, asked).await };
    let Some(mut response) = response else {
        let mut missing = Response::new(Full::default());
        *missing.status_mut() = StatusCode::NOT_FOUND;
        return Ok(missing);
    };
    response["uid"] = asked["uid"].clone();
    let answer = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
    Ok(Response::new(Full::new(Bytes::from(answer.to_string()))))
}

fn denied(message: &str) -> Value {
    json!({"allowed": false, "status": {"message": message}})
}

fn patched(patch: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

async fn judged(path: &str, asked: &Value) -> Option<Value> {
    let allowed = json!({"allowed": true});
    let (object, old) = (&asked["object"], &asked["oldObject"]);
    let said = |object: &Value, value: &str| object["data"]["webhook-e2e-test"] == value;
    let label = &object["metadata"]["labels"]["webhook-e2e-test"];
    Some(match path {
        "/always-allow" => allowed,
        "/always-deny" => denied("this webhook denies all requests"),
        "/never" => std::future::pending().await,
        "/add-label" => {
            patched(&json!([{"op": "add", "path": "/metadata/labels", "value": {"added-label": "yes"}}]))
        }
        "/configmaps" if said(object, "webhook-disallow") => {
            denied("the configmap contains unwanted key and value")
        }
        "/crd" if label == "webhook-disallow" => denied("the crd contains unwanted label"),
        "/custom-resource" if said(object, "webhook-disallow") => {
            denied("the custom resource contains unwanted data")
        }
        "/custom-resource" if asked["operation"] == "DELETE" && said(old, "webhook-nondeletable") => {
            denied("the custom resource cannot be deleted because it contains unwanted key and value")
        }
        "/mutating-configmaps" | "/mutating-custom-resource" => match next_stage(&object["data"]) {
            Some(stage) => patched(&json!([{"op": "add", "path": format!("/data/{stage}"), "value": "yes"}])),
            None => allowed,
        },
        "/mutating-pods" if object["metadata"]["name"] == "webhook-to-be-mutated" => {
            let container = json!([{"image": "webhook-added-image", "name": "webhook-added-init-container", "resources": {}}]);
            patched(&json!([{"op": "add", "path": "/spec/initContainers", "value": container}]))
        }
        "/pods" if label == "wait-forever" => std::future::pending().await,
        "/pods" if label == "webhook-disallow" => {
            denied("the pod contains unwanted container name; the pod contains unwanted label")
        }
        "/pods/attach" => {
            assert_eq!((&asked["operation"], &asked["subResource"]), (&json!("CONNECT"), &json!("attach")));
            assert_eq!(
                (&object["kind"], &object["container"], &object["stdin"]),
                (&json!("PodAttachOptions"), &json!("container1"), &json!(true))
            );
            denied(&format!("attaching to pod '{}' is not allowed", asked["name"].as_str().unwrap()))
        }
        "/configmaps" | "/crd" | "/custom-resource" | "/mutating-pods" | "/pods" => allowed,
        _ => return None,
    })
}

fn next_stage(data: &Value) -> Option<&'static str> {
    let is = |key: &str| data[key] == "yes";
    match (is("mutation-start"), is("mutation-stage-1"), is("mutation-stage-2")) {
        (true, false, _) => Some("mutation-stage-1"),
        (true, true, false) => Some("mutation-stage-2"),
        _ => None,
    }
}

/// `hostPort` of v1 and `host` with `port` of v2.
fn converted(asked: &Value) -> Value {
    let wanted = asked["desiredAPIVersion"].as_str().unwrap();
    let convert = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = wanted.into();
        let fields = object.as_object_mut().unwrap();
        if wanted.ends_with("/v2") {
            let both = fields
                .remove("hostPort")
                .and_then(|value| value.as_str().map(str::to_owned))
                .unwrap_or_default();
            let (host, port) = both.split_once(':').unwrap_or((both.as_str(), ""));
            fields.insert("host".into(), host.into());
            fields.insert("port".into(), port.into());
        } else {
            let mut take = |key: &str| {
                fields.remove(key).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
            };
            let both = format!("{}:{}", take("host"), take("port"));
            fields.insert("hostPort".into(), both.into());
        }
        object
    };
    let objects: Vec<Value> = asked["objects"].as_array().unwrap().iter().map(convert).collect();
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}
