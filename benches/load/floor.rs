//! The floor: axum and rustls with a static answer, what any API server in Rust pays at least.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use kube_lite::pki::kubeconfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

/// Serves `size` bytes at every path over mutual TLS, on a port that the kubeconfig it writes names, until killed.
pub async fn serve(kubeconfig_path: &str, size: usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let pki = kube_lite::pki::ClusterPki::load_or_create(directory.path(), &["127.0.0.1".to_owned()])
        .expect("certificates");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let tls = tls(&pki);
    let body = Bytes::from(vec![b'x'; size]);
    let router = Router::new().fallback(get(move || std::future::ready(body.clone())));
    let place = std::path::Path::new(kubeconfig_path);
    kubeconfig::write(place, 0o600, &url, pki.server_ca().cert_pem(), pki.admin()).expect("a kubeconfig");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).ok();
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = TowerToHyperService::new(router);
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .keep_alive_timeout(Duration::from_secs(20))
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

fn tls(pki: &kube_lite::pki::ClusterPki) -> tokio_rustls::TlsAcceptor {
    let mut roots = rustls::RootCertStore::empty();
    let authority = pki.client_ca().cert_pem();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let serving = pki.apiserver_serving();
    let chain =
        CertificateDer::pem_slice_iter(serving.cert_pem.as_bytes()).map(|one| one.expect("a certificate"));
    let key = PrivateKeyDer::from_pem_slice(serving.key_pem.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .expect("a verifier");
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.collect(), key)
        .expect("a serving certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
}
