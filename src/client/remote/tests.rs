//! A remote client against TLS servers on the loopback interface.

use super::*;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use std::net::SocketAddr;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn identity(&self) -> Identity {
        let (cert, key) = self.issue("client");
        Identity::Certificate { cert_pem: cert.into(), key_pem: key.into() }
    }
}

/// A server that answers every request with a namespace of the given name. Aborting the task closes it.
async fn serve(ca: &Ca, listener: TcpListener, name: &'static str) -> JoinHandle<()> {
    let (cert, key) = ca.issue("127.0.0.1");
    let mut roots = RootCertStore::empty();
    roots.add(certificates(ca.pem.as_bytes()).unwrap().remove(0)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates(cert.as_bytes()).unwrap(),
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let service = hyper::service::service_fn(move |_request| async move {
                    let body = serde_json::json!({"metadata": {"name": name}}).to_string();
                    Ok::<_, std::convert::Infallible>(Response::new(body))
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let executor = hyper_util::rt::TokioExecutor::new();
                drop(hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service).await);
            });
        }
    })
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn config(ca: &Ca, servers: &[SocketAddr]) -> RemoteConfig {
    let urls = servers.iter().map(|address| format!("https://{address}")).collect();
    RemoteConfig::new(urls, ca.pem.clone().into(), ca.identity())
}

async fn answering(client: &kube::Client) -> Result<String, kube::Error> {
    let namespace = Api::<Namespace>::all(client.clone()).get("any").await?;
    Ok(namespace.metadata.name.unwrap())
}

#[tokio::test]
async fn the_first_server_that_can_be_reached_is_used_and_the_next_one_when_it_goes() {
    let ca = Ca::new();
    let (dead, dead_address) = listen().await;
    drop(dead);
    let (first, first_address) = listen().await;
    let (second, second_address) = listen().await;
    let one = serve(&ca, first, "one").await;
    let _two = serve(&ca, second, "two").await;
    let client = remote(config(&ca, &[dead_address, first_address, second_address])).unwrap();
    assert_eq!(answering(&client).await.unwrap(), "one");
    assert_eq!(answering(&client).await.unwrap(), "one");
    one.abort();
    drop(one.await);
    assert_eq!(answering(&client).await.unwrap(), "two");
}

#[tokio::test]
async fn a_server_that_restarts_is_connected_to_again() {
    let ca = Ca::new();
    let (listener, address) = listen().await;
    let before = serve(&ca, listener, "before").await;
    let client = remote(config(&ca, &[address])).unwrap();
    assert_eq!(answering(&client).await.unwrap(), "before");
    before.abort();
    drop(before.await);
    assert!(answering(&client).await.is_err());
    let listener = TcpListener::bind(address).await.unwrap();
    let _after = serve(&ca, listener, "after").await;
    assert_eq!(answering(&client).await.unwrap(), "after");
}

#[tokio::test]
async fn a_server_of_another_cluster_is_refused() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let (listener, address) = listen().await;
    let _server = serve(&theirs, listener, "theirs").await;
    let failure = answering(&remote(config(&ours, &[address])).unwrap()).await.unwrap_err();
    let text = crate::client::error::chain(&failure);
    assert!(text.contains("connect to https://127.0.0.1") && text.contains("certificate"), "{text}");
}

#[test]
fn unusable_configurations_are_told_apart() {
    let ca = Ca::new();
    let new = |servers: &[&str], pem: &str, identity| {
        let servers = servers.iter().map(ToString::to_string).collect();
        RemoteService::new(RemoteConfig::new(servers, pem.as_bytes().to_vec(), identity)).map(drop)
    };
    let good = ["https://127.0.0.1:6443"];
    let anonymous = || Identity::Anonymous;
    assert!(new(&good, &ca.pem, anonymous()).is_ok());
    assert!(new(&["https://[::1]:6443", "https://server.example"], &ca.pem, anonymous()).is_ok());
    assert!(matches!(new(&[], &ca.pem, anonymous()), Err(RemoteError::NoServer)));
    for url in ["http://127.0.0.1:6443", "127.0.0.1:6443", "https://h/path", "https://h?x", "", "https://"] {
        assert!(matches!(new(&[url], &ca.pem, anonymous()), Err(RemoteError::Server(_))), "{url}");
    }
    assert!(matches!(new(&good, "no pem", anonymous()), Err(RemoteError::Ca(_))));
    let broken = Identity::Certificate { cert_pem: ca.pem.clone().into(), key_pem: b"none".to_vec() };
    assert!(matches!(new(&good, &ca.pem, broken), Err(RemoteError::ClientCertificate(_))));
    assert!(matches!(new(&good, &ca.pem, Identity::Token("a\nb".into())), Err(RemoteError::Token)));
}
