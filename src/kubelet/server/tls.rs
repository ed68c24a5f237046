//! The kubelet's own certificate, and the authority whose client certificates it believes.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig as TlsConfig};

use crate::kubelet::ServerConfig;

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text does not hold what it should.
    #[error("read {what}")]
    Pem {
        /// Which one.
        what: &'static str,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The authority cannot be used to check clients.
    #[error("client authority")]
    Authority(#[source] VerifierBuilderError),
    /// Certificate and key do not fit.
    #[error("serving certificate and key")]
    Serving(#[source] rustls::Error),
}

/// TLS 1.2 and later; a client certificate is asked for, and must be the authority's if one is given.
pub(super) fn config(config: &ServerConfig) -> Result<TlsConfig, TlsError> {
    let pem = |what: &'static str| move |source| TlsError::Pem { what, source };
    let certificates = |text: &[u8], what| -> Result<Vec<CertificateDer<'static>>, TlsError> {
        CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(pem(what))
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&config.client_ca_pem, "the client authority")?);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Authority)?;
    let chain = certificates(&config.cert_pem, "the serving certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&config.key_pem).map_err(pem("the serving key"))?;
    let mut tls = TlsConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Serving)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Serving)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}
