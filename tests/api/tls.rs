//! Real sockets on loopback: certificates, protocols, what strangers get, and how the server ends.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::api::{Api, ListParams, WatchParams};
use kube_lite::pki::{ClusterPki, Identity};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

use crate::server::{Listening, TestServer};

/// One request on a connection of its own.
async fn ask(
    listening: &Listening,
    identity: Option<&Identity>,
    alpn: &str,
    path: &str,
) -> (StatusCode, String) {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(listening.server.pki.server_ca().certificates());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => {
            let (chain, key) = identity.to_rustls().unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let tcp = TcpStream::connect(listening.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let request = Request::get(format!("https://{}{path}", listening.address)).body(Body::empty()).unwrap();
    let response = if alpn == "h2" {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    let code = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn certificates_identify_clients_over_both_protocols() {
    let listening = TestServer::listening().await;
    let pki = listening.server.pki.clone();
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = ClusterPki::load_or_create(elsewhere.path(), &[]).unwrap();
    let jane = pki.issue_client("jane", &[]).unwrap();
    for alpn in ["http/1.1", "h2"] {
        let cases = [
            (Some(pki.admin()), "/api/v1/namespaces", 200),
            (Some(&jane), "/api/v1/namespaces", 403),
            (Some(stranger.admin()), "/api/v1/namespaces", 401),
            (None, "/api/v1/namespaces", 403),
            (None, "/api/v1/namespaces/kube-public/configmaps/cluster-info", 403),
            (None, "/api", 403),
            (None, "/metrics", 403),
            (None, "/openapi/v2", 403),
            (None, "/healthz", 200),
            (None, "/readyz/ping", 200),
            (None, "/version", 200),
            (None, "/cacerts", 200),
            (None, "/v1-kube-lite/config", 401),
        ];
        for (identity, path, code) in cases {
            let (got, text) = ask(&listening, identity, alpn, path).await;
            assert_eq!(got.as_u16(), code, "{alpn} {path}: {text}");
        }
    }
    let (_, text) = ask(&listening, None, "h2", "/api/v1/namespaces").await;
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    let message = r#"namespaces is forbidden: User "system:anonymous" cannot list resource "namespaces" in API group "" at the cluster scope"#;
    assert_eq!((&status["message"], &status["reason"]), (&message.into(), &"Forbidden".into()));
    let (_, text) = ask(&listening, None, "h2", "/metrics").await;
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["message"], r#"forbidden: User "system:anonymous" cannot get path "/metrics""#);
    listening.stop().await;
}

#[tokio::test]
async fn stop_ends_watches_and_refuses_new_connections() {
    use futures::{StreamExt as _, pin_mut};
    let listening = TestServer::listening().await;
    let config = kube::config::Kubeconfig::read_from(listening.kubeconfig()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client);
    let version = namespaces.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let events = namespaces.watch(&WatchParams::default(), &version).await.unwrap();
    let address = listening.address;
    listening.stop().await;
    pin_mut!(events);
    while events.next().await.is_some_and(|event| event.is_ok()) {}
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn connections_that_are_no_tls_do_no_harm() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listening = TestServer::listening().await;
    let mut tcp = TcpStream::connect(listening.address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    // Either a TLS alert and the end, or a reset; never an HTTP answer.
    if tcp.read_to_end(&mut rest).await.is_ok() {
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
    }
    assert_eq!(ask(&listening, None, "h2", "/healthz").await.0, 200);
    listening.stop().await;
}
