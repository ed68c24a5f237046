//! Requests that go on to a node: logs and streams, against a kubelet made for the test.

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube_lite::apiserver::Tls;
use kube_lite::apiserver::tls::Peer;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::server::{Listening, TestServer};

/// A kubelet that answers with what it was asked, and echoes upgraded connections.
async fn answer(
    mut request: Request<Incoming>,
    caller: String,
) -> Result<Response<Body>, std::convert::Infallible> {
    if request.headers().contains_key("upgrade") {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            stream.write_all(&all).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let protocol = request.headers()["x-stream-protocol-version"].clone();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "SPDY/3.1".parse().unwrap());
        response.headers_mut().insert("x-stream-protocol-version", protocol);
        response.headers_mut().insert("x-path", request.uri().to_string().parse().unwrap());
        return Ok(response);
    }
    if request.uri().path().ends_with("/broken") {
        let mut response = Response::new(Body::from("container \"broken\" is waiting to start\n"));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    }
    let authorization = request.headers().contains_key("authorization");
    Ok(Response::new(Body::from(format!("{caller} {} {} {authorization}", request.method(), request.uri()))))
}

async fn kubelet(server: &TestServer) -> u16 {
    let serving = server.pki.issue_server("system:node:n1", &["127.0.0.1".to_owned()]).unwrap();
    let tls = Tls::new(&serving, server.pki.client_ca()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let stream = tokio_rustls::TlsAcceptor::from(tls.config()).accept(tcp).await.unwrap();
                let caller = match tls.judge(stream.get_ref().1.peer_certificates()) {
                    Peer::Certificate(certificate) => certificate.user.name.clone(),
                    other => format!("{other:?}"),
                };
                let service = service_fn(move |request| answer(request, caller.clone()));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                connection.with_upgrades().await.unwrap();
            });
        }
    });
    port
}

/// A server with node `n1`, whose kubelet is the test's, and pod `default/web` on it.
async fn cluster() -> Listening {
    let listening = TestServer::listening().await;
    let server = &listening.server;
    let port = kubelet(server).await;
    let status = json!({
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    });
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": status});
    let (code, body) = server.send("POST", "/api/v1/nodes", Some(node)).await;
    assert_eq!(code, 201, "{body}");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    server.send("POST", "/api/v1/namespaces/default/serviceaccounts", Some(account)).await;
    let containers = json!([{"name": "main", "image": "x"}, {"name": "broken", "image": "x"}]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"nodeName": "n1", "containers": containers}});
    let (code, body) = server.send("POST", "/api/v1/namespaces/default/pods", Some(pod)).await;
    assert_eq!(code, 201, "{body}");
    listening
}

#[tokio::test]
async fn logs_and_proxies_reach_the_kubelet_as_the_api_server() {
    let listening = cluster().await;
    let server = &listening.server;
    let pod = "/api/v1/namespaces/default/pods/web";
    let cases = [
        (
            format!("{pod}/log?container=main&tailLines=5&follow=true"),
            "system:kube-apiserver GET /containerLogs/default/web/main?tailLines=5&follow=true false",
        ),
        (
            "/api/v1/nodes/n1/proxy/metrics/x%2Fy?z=1".to_owned(),
            "system:kube-apiserver GET /metrics/x%2Fy?z=1 false",
        ),
    ];
    for (path, expected) in cases {
        let (code, text) = server.send("GET", &path, None).await;
        assert_eq!((code, text.as_str()), (200, Some(expected)), "{path}: {text}");
    }
    for (query, code, message) in [
        ("", 400, "a container name must be specified for pod web, choose one of: [main broken]"),
        ("?container=none", 400, "container none is not valid for pod web"),
        ("?container=broken", 400, "container \"broken\" is waiting to start"),
    ] {
        let (got, status) = server.send("GET", &format!("{pod}/log{query}"), None).await;
        assert_eq!((got, status["message"].as_str()), (code, Some(message)), "{query}");
    }
    listening.stop().await;
}

async fn upgrade(listening: &Listening, headers: &[(&str, &str)]) -> Response<Incoming> {
    let path = "/api/v1/namespaces/default/pods/web/exec?container=main&command=cat&stdin=true&stdout=true";
    let headers: Vec<_> = headers.iter().copied().chain([("connection", "Upgrade")]).collect();
    listening.upgrade(Method::POST, path, &headers).await
}

#[tokio::test]
async fn streams_are_joined_and_their_ends_passed_on() {
    let listening = cluster().await;
    let protocol = ("x-stream-protocol-version", "v4.channel.k8s.io");
    let mut response = upgrade(&listening, &[("upgrade", "SPDY/3.1"), protocol]).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["x-path"], "/exec/default/web/main?input=1&output=1&command=cat");
    assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    let sent = vec![7_u8; 300_000];
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert!(back == sent, "the kubelet answers after it has seen the end of what was sent");
    listening.stop().await;
}

#[tokio::test]
async fn upgrades_that_no_runtime_understands_are_refused() {
    let listening = cluster().await;
    let websocket = [
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    let refused =
        upgrade(&listening, &[&websocket[..], &[("sec-websocket-protocol", "v9.channel.k8s.io")]].concat())
            .await;
    assert_eq!(refused.status(), 400);
    let (code, status) = listening
        .server
        .send("POST", "/api/v1/namespaces/default/pods/web/exec?command=x&stdout=1", None)
        .await;
    assert_eq!((code, &status["message"]), (400, &json!("Upgrade request required")));
    let bytes = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&bytes).contains("v9.channel.k8s.io"));
    listening.stop().await;
}
