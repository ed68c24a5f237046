//! A host joins: it checks the authority, gets certificates for its name, and nobody else gets them.

use axum::body::Body;
use base64::Engine as _;
use http::Request;
use http_body_util::BodyExt as _;
use kube_lite::pki::token::JoinToken;
use rcgen::{CertificateParams, KeyPair};

use crate::server::{JOIN_SECRET, TestServer};

const PASSWORD: &str = "0123456789abcdef";

fn csr() -> String {
    CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

async fn ask(server: &TestServer, secret: &str, endpoint: &str, node: &str, password: &str) -> (u16, String) {
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("node:{secret}"));
    let builder = Request::builder()
        .uri(format!("/v1-kube-lite/{endpoint}"))
        .header("authorization", format!("Basic {basic}"))
        .header("kube-lite-node-name", node)
        .header("kube-lite-node-password", password)
        .header("kube-lite-node-ip", "192.0.2.9");
    let request = if endpoint.contains("kube") {
        builder.method("POST").body(Body::from(csr()))
    } else {
        builder.body(Body::empty())
    };
    let response = server.api.handle(request.unwrap()).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn authority_is_open_and_matches_the_token() {
    let server = TestServer::start().await;
    let response = server.api.handle(Request::get("/cacerts").body(Body::empty()).unwrap()).await;
    let pem = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let token = JoinToken::new(server.pki.server_ca().cert_pem(), "server", JOIN_SECRET);
    token.verify_ca(&pem).unwrap();
}

#[tokio::test]
async fn host_with_the_token_gets_certificates_for_its_name() {
    let server = TestServer::start().await;
    let (code, config) = ask(&server, JOIN_SECRET, "config", "n1", PASSWORD).await;
    assert_eq!(code, 200);
    assert!(config.contains(r#""clusterDomain":"cluster.local""#), "{config}");
    for (endpoint, subject) in [
        ("client-kubelet.crt", "O=system:nodes, CN=system:node:n1"),
        ("serving-kubelet.crt", "CN=system:node:n1"),
        ("client-kube-proxy.crt", "CN=system:kube-proxy"),
    ] {
        let (code, pem) = ask(&server, JOIN_SECRET, endpoint, "n1", PASSWORD).await;
        assert_eq!(code, 200, "{endpoint}: {pem}");
        let (_, der) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let cert = der.parse_x509().unwrap();
        assert_eq!(cert.subject().to_string(), subject);
        let names =
            cert.subject_alternative_name().unwrap().map(|san| format!("{:?}", san.value.general_names));
        assert_eq!(names.is_some_and(|names| names.contains("n1")), endpoint.starts_with("serving"));
    }
}

#[tokio::test]
async fn wrong_token_wrong_password_and_bad_names_get_nothing() {
    let server = TestServer::start().await;
    assert_eq!(ask(&server, "wrong", "client-kubelet.crt", "n1", PASSWORD).await.0, 401);
    assert_eq!(ask(&server, JOIN_SECRET, "client-kubelet.crt", "n1", PASSWORD).await.0, 200);
    let (code, text) = ask(&server, JOIN_SECRET, "client-kubelet.crt", "n1", "another-password-x").await;
    assert_eq!(code, 403);
    assert!(text.contains("another host has this node name"), "{text}");
    for name in ["", "Upper", "a/b", "system:admin"] {
        assert_eq!(ask(&server, JOIN_SECRET, "client-kubelet.crt", name, PASSWORD).await.0, 400, "{name:?}");
    }
    assert_eq!(ask(&server, JOIN_SECRET, "client-kubelet.crt", "n2", "short").await.0, 400);
    assert_eq!(ask(&server, JOIN_SECRET, "nothing", "n1", PASSWORD).await.0, 404);
}
