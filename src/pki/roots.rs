//! Whom to trust as a server: the authorities that a configuration names, or those of the host where it names none.

use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Why the named authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// There is text, but no certificate in it.
    #[error("unable to load root certificates: unable to parse bytes as PEM block")]
    Empty,
    /// A block that is no PEM.
    #[error("unable to load root certificates")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// A certificate that is none.
    #[error("unable to load root certificates")]
    Certificate(#[from] rustls::Error),
}

/// The authorities of a `caBundle` in PEM; those of the host (as `SSL_CERT_FILE` and `SSL_CERT_DIR` or the distribution
/// have them) if it is empty, as upstream does for webhooks and aggregated APIs.
///
/// # Errors
/// The bundle holds no certificates.
pub fn roots(bundle: &[u8]) -> Result<Arc<RootCertStore>, RootsError> {
    static HOST: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    choose(bundle, || HOST.get_or_init(|| Arc::new(of_host())).clone())
}

fn choose(
    bundle: &[u8],
    host: impl FnOnce() -> Arc<RootCertStore>,
) -> Result<Arc<RootCertStore>, RootsError> {
    if bundle.is_empty() {
        return Ok(host());
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() { Err(RootsError::Empty) } else { Ok(Arc::new(roots)) }
}

/// Read once: hundreds of files on some hosts. A host without any trusts nobody.
fn of_host() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificate authorities of the host");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> (String, RootCertStore) {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let mut store = RootCertStore::empty();
        store.add(made.der().clone()).unwrap();
        (made.pem(), store)
    }

    #[test]
    fn the_host_is_asked_only_where_nobody_is_named() {
        let (_, host) = authority();
        let host = Arc::new(host);
        assert!(Arc::ptr_eq(&choose(b"", || host.clone()).unwrap(), &host));
        let (pem, named) = authority();
        let chosen = choose(pem.as_bytes(), || panic!("the bundle is to be used")).unwrap();
        assert_eq!(chosen.roots, named.roots);
        let error = choose(b"no certificate", || panic!("the bundle is to be used")).unwrap_err();
        assert_eq!(error.to_string(), "unable to load root certificates: unable to parse bytes as PEM block");
    }
}
