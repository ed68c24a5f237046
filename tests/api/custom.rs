//! Custom resources and webhooks through HTTP: discovery, OpenAPI, tables, watches, and a real webhook over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::server::TestServer;

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "additionalPrinterColumns": [{"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"}],
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
                    "x-kubernetes-validations": [{"rule": "!has(self.color) || self.color != 'none'"}],
                    "properties": {"cronSpec": {"type": "string", "description": "When to run."},
                        "color": {"type": "string"}, "maximum": {"type": "integer", "maximum": 10}}}}}}}],
        },
    })
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

async fn establish(server: &TestServer) {
    let (code, body) = server.send("POST", DEFINITIONS, Some(definition())).await;
    assert_eq!(code, 201, "{body}");
    let wait = async {
        loop {
            let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
            let (_, body) = server.send("GET", &path, None).await;
            let conditions = body["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
}

fn crontab(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

async fn with_accept(server: &TestServer, path: &str, accept: &str) -> Value {
    let request = Request::builder().uri(path).header("accept", accept).body(Body::empty()).unwrap();
    let response = server.raw(request).await;
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn an_established_kind_is_discovered_documented_printed_and_selected() {
    let server = TestServer::start().await;
    let (code, _) = server.send("GET", CRONTABS, None).await;
    assert_eq!(code, 404);
    establish(&server).await;
    let (_, resources) = server.send("GET", "/apis/stable.example.com/v1", None).await;
    assert_eq!(resources["resources"][0]["shortNames"], json!(["ct"]));
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let groups = with_accept(&server, "/apis", aggregated).await;
    let own = |group: &Value| group["metadata"]["name"] == "stable.example.com";
    assert!(groups["items"].as_array().unwrap().iter().any(own));
    let (_, document) = server.send("GET", "/openapi/v3/apis/stable.example.com/v1", None).await;
    let spec = &document["components"]["schemas"]["com.example.stable.v1.CronTab"]["properties"]["spec"];
    assert_eq!(spec["properties"]["cronSpec"]["description"], "When to run.");
    let (_, document) = server.send("GET", "/openapi/v2", None).await;
    assert!(document["definitions"]["com.example.stable.v1.CronTabList"].is_object());
    assert!(
        document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"].is_object()
    );

    for (name, color) in [("a", "red"), ("b", "blue")] {
        let (code, body) = server
            .send("POST", CRONTABS, Some(crontab(name, json!({"cronSpec": "* *", "color": color}))))
            .await;
        assert_eq!(code, 201, "{body}");
    }
    let (_, list) = server.send("GET", &format!("{CRONTABS}?fieldSelector=spec.color%3Dblue"), None).await;
    assert_eq!((list["items"].as_array().unwrap().len(), &list["kind"]), (1, &json!("CronTabList")));
    assert_eq!(list["items"][0]["metadata"]["name"], "b");
    let table = with_accept(&server, CRONTABS, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!(table["columnDefinitions"][1]["name"], "Spec");
    assert_eq!(table["rows"][0]["cells"], json!(["a", "* *"]));
    let (code, body) = server.send("POST", CRONTABS, Some(crontab("c", json!({"maximum": 11})))).await;
    assert_eq!(code, 422);
    assert_eq!(body["details"]["causes"][0]["field"], "spec.maximum");
    let (code, body) = server.send("POST", CRONTABS, Some(crontab("c", json!({"color": "none"})))).await;
    assert_eq!(code, 422);
    assert!(body["message"].as_str().unwrap().contains("failed rule: !has(self.color)"), "{body}");
    let patch = Request::builder()
        .method("PATCH")
        .uri(format!("{CRONTABS}/a"))
        .header("content-type", "application/strategic-merge-patch+json")
        .body(Body::from("{}"))
        .unwrap();
    assert_eq!(server.raw(patch).await.status(), 415);
}

/// A webhook that refuses config maps named `no`, listening on loopback with a certificate of the cluster's authority.
async fn webhook(server: &TestServer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let identity = server.pki.issue_server("hook", &["127.0.0.1".to_owned()]).unwrap();
    let (chain, key) = identity.to_rustls().unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let stop = server.stop.clone();
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = acceptor.accept(stream).await.unwrap();
            let service = service_fn(|request: Request<hyper::body::Incoming>| async {
                let bytes = request.into_body().collect().await?.to_bytes();
                let review: Value = serde_json::from_slice(&bytes).unwrap();
                let allowed = review["request"]["name"] != "no";
                let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response":
                    {"uid": review["request"]["uid"], "allowed": allowed, "status": {"message": "the name is no"}}});
                Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(answer.to_string()))))
            });
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if served.await.is_err() {
                return;
            }
        }
    }));
    address
}

#[tokio::test]
async fn a_webhook_is_asked_over_tls() {
    let server = TestServer::start().await;
    let address = webhook(&server).await;
    let ca = base64::engine::general_purpose::STANDARD.encode(server.pki.server_ca().cert_pem());
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "names"},
        "webhooks": [{"name": "names.demo.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://{address}/"), "caBundle": ca},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}],
    });
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let (code, body) = server.send("POST", path, Some(configuration)).await;
    assert_eq!(code, 201, "{body}");
    let maps = "/api/v1/namespaces/default/configmaps";
    let named = |name: &str| Some(json!({"metadata": {"name": name}}));
    let wait = async {
        loop {
            let (code, body) = server.send("POST", &format!("{maps}?dryRun=All"), named("no")).await;
            if code == 400 {
                return body;
            }
            tokio::task::yield_now().await;
        }
    };
    let body = tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
    assert_eq!(
        body["message"],
        "admission webhook \"names.demo.example.com\" denied the request: the name is no"
    );
    let (code, body) = server.send("POST", maps, named("yes")).await;
    assert_eq!(code, 201, "{body}");
}
