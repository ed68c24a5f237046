//! The asking side of a certificate: a node's key and its PKCS#10 request (RFC 2986).

use rcgen::{CertificateParams, KeyPair};

use super::PkiError;

/// A private key and the request that proves its possession, both PEM.
pub struct SigningRequest {
    /// The private key, PKCS#8.
    pub key_pem: String,
    /// The request. What it is good for is the signer's decision, so it names nothing.
    pub csr_pem: String,
}

impl SigningRequest {
    /// A request for the given key, or for a new one where there is none.
    ///
    /// # Errors
    /// The key cannot be read or used.
    pub fn new(key_pem: Option<&str>) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Issue { subject: "of this node".to_owned(), source };
        let key = match key_pem {
            Some(pem) => KeyPair::from_pem(pem),
            None => KeyPair::generate(),
        };
        let key = key.map_err(failed)?;
        let csr = CertificateParams::default().serialize_request(&key).map_err(failed)?;
        Ok(Self { key_pem: key.serialize_pem(), csr_pem: csr.pem().map_err(failed)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{ClusterPki, LeafSpec};

    #[test]
    fn authority_signs_the_request_and_the_key_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let pki = ClusterPki::load_or_create(dir.path(), &[]).unwrap();
        let request = SigningRequest::new(None).unwrap();
        let cert =
            pki.sign_csr(&request.csr_pem, &LeafSpec::client("system:node:a", &["system:nodes"])).unwrap();
        assert!(cert.starts_with("-----BEGIN CERTIFICATE-----"));
        let again = SigningRequest::new(Some(&request.key_pem)).unwrap();
        assert_eq!(again.key_pem, request.key_pem);
        assert!(SigningRequest::new(Some("not a key")).is_err());
    }
}
