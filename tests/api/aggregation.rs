//! Aggregation against another API server made for the test: identity, trust, streams, discovery and OpenAPI.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube_lite::pki::{Authority, ClusterPki};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::server::{Listening, TestServer};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";

fn json_answer(body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

/// What a client of the test sees of the request that arrived.
fn echo(headers: &HeaderMap, method: &Method, path: &str, caller: &str, version: http::Version) -> Value {
    let all =
        |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    json!({"user": all("x-remote-user"), "groups": all("x-remote-group"), "extra": all("x-remote-extra-example.com%2fteam"),
        "authorization": all("authorization"), "method": method.as_str(), "path": path, "caller": caller,
        "version": format!("{version:?}")})
}

/// An API server of one kind, as the sample API server is one.
async fn answer(mut request: Request<Incoming>, caller: String) -> Result<Response<Body>, Infallible> {
    if request.headers().contains_key("upgrade") {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            stream.write_all(&all).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", request.headers()["upgrade"].clone());
        let user = request.headers()["x-remote-user"].clone();
        response.headers_mut().insert("x-seen-user", user);
        return Ok(response);
    }
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().unwrap().as_str().to_owned();
    let gv = "apis/wardle.example.com/v1alpha1";
    let definition = "com.example.wardle.v1alpha1.Flunder";
    Ok(match head.uri.path() {
        "/apis/wardle.example.com/v1alpha1" => json_answer(&json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1",
            "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                "verbs": ["create", "get", "list"], "shortNames": ["fl"]}],
        })),
        "/openapi/v3" => json_answer(&json!({"paths": {
            gv: {"serverRelativeURL": format!("/openapi/v3/{gv}?hash=ABC")}, "version": {"serverRelativeURL": "/openapi/v3/version"}}})),
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => {
            json_answer(&json!({"openapi": "3.0.0", "info": {"title": "Wardle"}}))
        }
        "/openapi/v2" => json_answer(&json!({"swagger": "2.0", "paths": {
            format!("/{gv}/flunders"): {"get": {"responses": {"200": {"schema": {"$ref": format!("#/definitions/{definition}")}}}}},
            "/version/": {}},
            "definitions": {definition: {"type": "object", "description": "A fish."}}})),
        path if path.ends_with("/flunders") && head.method == Method::POST => {
            let bytes = body.collect().await.unwrap().to_bytes();
            let mut response = json_answer(&json!({"received": String::from_utf8_lossy(&bytes)}));
            *response.status_mut() = StatusCode::CREATED;
            response
        }
        below if below.ends_with("/flunders") => {
            json_answer(&echo(&head.headers, &head.method, &path, &caller, head.version))
        }
        _ => {
            let mut response = Response::new(Body::from("404 page not found\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

/// Listens with a certificate for the Service's name; clients must have one of `clients`.
async fn listen(pki: &ClusterPki, clients: &Authority) -> u16 {
    let serving = pki.issue_server("wardle", &["api.wardle.svc".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(clients.certificates());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let (chain, key) = serving.to_rustls().unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
                let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
                let caller = leaf.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
                let service = service_fn(move |request| answer(request, caller.clone()));
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
                // A server that stops breaks its connections off.
                let _ended = served.await;
            });
        }
    });
    port
}

/// An address of this host that is none of loopback, which endpoints must not have.
pub fn own_address() -> std::net::Ipv4Addr {
    let known = std::fs::read_to_string("/proc/net/fib_trie").unwrap();
    let lines: Vec<&str> = known.lines().map(str::trim).collect();
    let local = lines.windows(2).filter(|pair| pair[1].starts_with("/32 host LOCAL"));
    local
        .filter_map(|pair| pair[0].strip_prefix("|-- ")?.parse::<std::net::Ipv4Addr>().ok())
        .find(|address| !address.is_loopback() && !address.is_link_local())
        .expect("a host with an address")
}

async fn post(server: &TestServer, path: &str, object: Value) {
    let (code, body) = server.send("POST", path, Some(object)).await;
    assert_eq!(code, 201, "{body}");
}

fn slice(port: u16, ready: bool) -> Value {
    json!({"metadata": {"name": "api-1", "labels": {"kubernetes.io/service-name": "api"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": [own_address()], "conditions": {"ready": ready}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}]})
}

/// Waits until the condition `Available` has this reason; the condition.
async fn available(server: &TestServer, reason: &str) -> Value {
    let wait = async {
        loop {
            let (_, service) =
                server.send("GET", &format!("{SERVICES}/v1alpha1.wardle.example.com"), None).await;
            let conditions = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.into_iter().find(|c| c["type"] == "Available" && c["reason"] == reason);
            if let Some(condition) = found {
                return condition;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), wait).await.expect(reason)
}

fn api_service(pki: &ClusterPki) -> Value {
    let ca = base64::engine::general_purpose::STANDARD.encode(pki.server_ca().cert_pem());
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1alpha1.wardle.example.com"},
        "spec": {"group": "wardle.example.com", "version": "v1alpha1", "caBundle": ca,
            "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": "wardle", "name": "api", "port": 443}}})
}

/// A server with an aggregated API that answers.
async fn aggregated() -> Listening {
    let listening = TestServer::listening().await;
    let server = &listening.server;
    let port = listen(&server.pki, server.pki.request_header_ca()).await;
    post(server, "/api/v1/namespaces", json!({"metadata": {"name": "wardle"}})).await;
    post(server, SERVICES, api_service(&server.pki)).await;
    assert_eq!(
        available(server, "ServiceNotFound").await["message"],
        "service/api in \"wardle\" is not present"
    );
    let (code, body) = server.send("GET", FLUNDERS, None).await;
    assert_eq!((code, body), (503, json!("service unavailable\n")));
    let service = json!({"metadata": {"name": "api"},
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 8443}]}});
    post(server, "/api/v1/namespaces/wardle/services", service).await;
    available(server, "EndpointsNotFound").await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/wardle/endpointslices";
    post(server, slices, slice(port, false)).await;
    available(server, "MissingEndpoints").await;
    let (code, body) = server.send("PUT", &format!("{slices}/api-1"), Some(slice(port, true))).await;
    assert_eq!(code, 200, "{body}");
    assert_eq!(available(server, "Passed").await["message"], "all checks passed");
    listening
}

#[tokio::test]
async fn requests_are_passed_on_with_the_identity_and_the_certificate_of_the_proxy() {
    let listening = aggregated().await;
    let server = &listening.server;
    let request = Request::get(format!("{FLUNDERS}?limit=3"))
        .header("authorization", "Bearer secret")
        .header("x-remote-user", "root")
        .header("impersonate-user", "jane")
        .header("impersonate-group", "fishers")
        .header("impersonate-extra-example.com%2Fteam", "north")
        .body(Body::empty())
        .unwrap();
    // What impersonation may do is the business of roles.
    let response = server.raw(request).await;
    assert_eq!(response.status(), 403, "jane has no rights yet");
    let role = json!({"metadata": {"name": "fish"},
        "rules": [{"apiGroups": ["wardle.example.com"], "resources": ["flunders"], "verbs": ["list", "create"]}]});
    post(server, "/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
    let binding = json!({"metadata": {"name": "fish"}, "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "fishers"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "fish"}});
    post(server, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    for _ in 0..2 {
        let request = Request::get(format!("{FLUNDERS}?limit=3"))
            .header("x-remote-user", "root")
            .header("impersonate-user", "jane")
            .header("impersonate-group", "fishers")
            .header("impersonate-extra-example.com%2Fteam", "north")
            .body(Body::empty())
            .unwrap();
        let response = server.raw(request).await;
        assert_eq!(response.status(), 200);
        let seen: Value =
            serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(
            seen,
            json!({"user": ["jane"], "groups": ["fishers", "system:authenticated"], "extra": ["north"],
                "authorization": [], "method": "GET", "path": format!("{FLUNDERS}?limit=3"),
                "caller": "system:auth-proxy", "version": "HTTP/2.0"})
        );
    }
    let (code, body) = server.send("POST", FLUNDERS, Some(json!({"kind": "Flunder"}))).await;
    assert_eq!((code, body), (201, json!({"received": "{\"kind\":\"Flunder\"}"})));
    let (code, body) = server.send("GET", "/apis/wardle.example.com/v1alpha1/unknown", None).await;
    assert_eq!((code, body), (404, json!("404 page not found\n")));
    listening.stop().await;
}

#[tokio::test]
async fn upgrades_go_through() {
    let listening = aggregated().await;
    for protocol in ["SPDY/3.1", "websocket"] {
        let headers = [("upgrade", protocol), ("connection", "Upgrade")];
        let mut response = listening.upgrade(Method::GET, &format!("{FLUNDERS}/x/exec"), &headers).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(
            (&response.headers()["upgrade"], &response.headers()["x-seen-user"]),
            (&protocol.parse().unwrap(), &"system:admin".parse().unwrap())
        );
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        let sent = vec![7_u8; 100_000];
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        assert!(back == sent, "{protocol}");
    }
    listening.stop().await;
}

#[tokio::test]
async fn what_another_server_serves_is_discovered_and_documented() {
    let listening = aggregated().await;
    let server = &listening.server;
    let (_, groups) = server.send("GET", "/apis", None).await;
    let names: Vec<_> =
        groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    let place = |name: &str| names.iter().position(|own| *own == name);
    assert!(place("wardle.example.com") > place("flowcontrol.apiserver.k8s.io"), "{names:?}");
    let (_, group) = server.send("GET", "/apis/wardle.example.com", None).await;
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
    let (_, list) = server.send("GET", "/apis/wardle.example.com/v1alpha1", None).await;
    assert_eq!(list["resources"][0]["shortNames"], json!(["fl"]));
    let entry = async || {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let request = Request::get("/apis").header("accept", accept).body(Body::empty()).unwrap();
        let bytes = server.raw(request).await.into_body().collect().await.unwrap().to_bytes();
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        let own = |group: &&Value| group["metadata"]["name"] == "wardle.example.com";
        document["items"].as_array().unwrap().iter().find(own).unwrap()["versions"][0].clone()
    };
    let shown = entry().await;
    assert_eq!(
        (&shown["freshness"], &shown["resources"][0]["resource"]),
        (&json!("Current"), &json!("flunders"))
    );
    let (_, root) = server.send("GET", "/openapi/v3", None).await;
    let url = root["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"].as_str().unwrap();
    let (code, document) = server.send("GET", url, None).await;
    assert_eq!((code, &document["info"]["title"]), (200, &json!("Wardle")));
    let (_, document) = server.send("GET", "/openapi/v2", None).await;
    assert_eq!(document["definitions"]["com.example.wardle.v1alpha1.Flunder"]["description"], "A fish.");
    assert!(document["paths"]["/apis/wardle.example.com/v1alpha1/flunders"].is_object());
    assert!(document["paths"]["/version/"]["get"].is_null());

    // Without endpoints it is shown as it was, as stale, and refused.
    let slices = "/apis/discovery.k8s.io/v1/namespaces/wardle/endpointslices/api-1";
    server.send("DELETE", slices, None).await;
    available(server, "EndpointsNotFound").await;
    let (code, _) = server.send("GET", "/apis/wardle.example.com/v1alpha1", None).await;
    assert_eq!((code, entry().await["freshness"].as_str()), (503, Some("Stale")));
    let (code, body) = server.send("DELETE", &format!("{SERVICES}/v1alpha1.wardle.example.com"), None).await;
    assert_eq!(code, 200, "{body}");
    let gone = async {
        while server.send("GET", "/apis/wardle.example.com", None).await.0 != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    listening.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_unless_any_is_believed() {
    let listening = aggregated().await;
    let server = &listening.server;
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = ClusterPki::load_or_create(elsewhere.path(), &[]).unwrap();
    let name = format!("{SERVICES}/v1alpha1.wardle.example.com");
    let change = async |change: &dyn Fn(&mut Value)| {
        let (_, mut service) = server.send("GET", &name, None).await;
        change(&mut service);
        let (code, body) = server.send("PUT", &name, Some(service)).await;
        assert_eq!(code, 200, "{body}");
    };
    change(&|service| service["spec"]["caBundle"] = api_service(&stranger)["spec"]["caBundle"].clone()).await;
    let until = async |code: u16| {
        let wait = async {
            loop {
                let (got, body) = server.send("GET", FLUNDERS, None).await;
                if got == code {
                    return body;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap()
    };
    let body = until(503).await;
    assert!(
        body.as_str()
            .unwrap()
            .starts_with("error trying to reach service: tls: failed to verify certificate"),
        "{body}"
    );
    change(&|service| {
        service["spec"]["insecureSkipTLSVerify"] = true.into();
        service["spec"].as_object_mut().unwrap().remove("caBundle");
    })
    .await;
    assert_eq!(until(200).await["caller"], "system:auth-proxy");
    listening.stop().await;
}

#[tokio::test]
async fn other_servers_can_read_whom_to_believe() {
    let server = TestServer::start().await;
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let wait = async {
        loop {
            let (code, map) = server.send("GET", path, None).await;
            if code == 200 {
                return map["data"].clone();
            }
            tokio::task::yield_now().await;
        }
    };
    let data = tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
    assert_eq!(data["client-ca-file"], server.pki.client_ca().cert_pem());
    assert_eq!(data["requestheader-client-ca-file"], server.pki.request_header_ca().cert_pem());
    let lists = [
        ("requestheader-allowed-names", "[\"system:auth-proxy\"]"),
        ("requestheader-extra-headers-prefix", "[\"X-Remote-Extra-\"]"),
        ("requestheader-group-headers", "[\"X-Remote-Group\"]"),
        ("requestheader-username-headers", "[\"X-Remote-User\"]"),
    ];
    for (key, expected) in lists {
        assert_eq!(data[key], expected, "{key}");
    }
    let (_, list) = server.send("GET", SERVICES, None).await;
    let names: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|s| s["metadata"]["name"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"v1.apps") && names.contains(&"v1.") && !names.contains(&"v1.apiregistration.k8s.io"),
        "{names:?}"
    );
}
