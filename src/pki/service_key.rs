//! The key that signs service-account tokens.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};

use super::{PkiError, files};

const FILE: &str = "service.key";

/// Signature algorithms of service-account tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// ECDSA on P-256: what a new cluster gets.
    Es256,
    /// RSA PKCS#1 v1.5 with SHA-256: for keys brought along.
    Rs256,
}

impl From<SigningAlgorithm> for Algorithm {
    fn from(algorithm: SigningAlgorithm) -> Self {
        match algorithm {
            SigningAlgorithm::Es256 => Self::ES256,
            SigningAlgorithm::Rs256 => Self::RS256,
        }
    }
}

/// The signing key, ready for use, and its public half.
pub struct ServiceKey {
    algorithm: SigningAlgorithm,
    encoding: EncodingKey,
    decoding: DecodingKey,
    key_id: String,
    jwk: Jwk,
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl ServiceKey {
    /// Loads `<dir>/service.key`, or makes it.
    pub(super) fn load_or_create(dir: &Path) -> Result<Self, PkiError> {
        let path = dir.join(FILE);
        let pem = match files::read_private(&path)? {
            Some(pem) => pem,
            None => {
                let key = KeyPair::generate()
                    .map_err(|source| PkiError::Issue { subject: FILE.to_owned(), source })?;
                let pem = key.serialize_pem();
                files::write_private(&path, pem.as_bytes())?;
                pem
            }
        };
        Self::from_pem(&pem).ok_or_else(|| PkiError::Unreadable {
            path,
            dir: dir.to_owned(),
            expected: "an ECDSA P-256 or RSA private key",
        })
    }

    /// A key from its PEM; `None` when it is of no usable kind.
    pub fn from_pem(pem: &str) -> Option<Self> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        let pair = KeyPair::try_from(&der).ok()?;
        let algorithm = match pair.algorithm() {
            a if *a == rcgen::PKCS_ECDSA_P256_SHA256 => SigningAlgorithm::Es256,
            a if *a == rcgen::PKCS_RSA_SHA256 => SigningAlgorithm::Rs256,
            _ => return None,
        };
        let encoding = match (algorithm, &der) {
            // The DER constructors of the token library want PKCS#8 for ECDSA and PKCS#1 for RSA.
            (SigningAlgorithm::Es256, _) => EncodingKey::from_ec_der(pair.serialized_der()),
            (SigningAlgorithm::Rs256, PrivateKeyDer::Pkcs1(key)) => {
                EncodingKey::from_rsa_der(key.secret_pkcs1_der())
            }
            (SigningAlgorithm::Rs256, _) => EncodingKey::from_rsa_pem(pem.as_bytes()).ok()?,
        };
        let mut jwk = Jwk::from_encoding_key(&encoding, algorithm.into()).ok()?;
        let spki = SubjectPublicKeyInfoDer::from(pair.subject_public_key_info());
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki);
        let key_id = URL_SAFE_NO_PAD.encode(digest);
        jwk.common.key_id = Some(key_id.clone());
        jwk.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { algorithm, encoding, decoding, key_id, jwk })
    }

    /// Algorithm of the signatures.
    pub fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// The private half.
    pub fn encoding_key(&self) -> &EncodingKey {
        &self.encoding
    }

    /// The public half.
    pub fn decoding_key(&self) -> &DecodingKey {
        &self.decoding
    }

    /// Name of the key in token headers: the hash of its public half, as upstream names it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public half as published under `/openid/v1/jwks`.
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_key_signs_what_its_public_half_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let key = ServiceKey::load_or_create(dir.path()).unwrap();
        assert_eq!(key.algorithm(), SigningAlgorithm::Es256);
        let header = jsonwebtoken::Header::new(key.algorithm().into());
        let claims = serde_json::json!({"sub": "x", "exp": 4_000_000_000_u64});
        let token = jsonwebtoken::encode(&header, &claims, key.encoding_key()).unwrap();
        let validation = jsonwebtoken::Validation::new(key.algorithm().into());
        let read =
            jsonwebtoken::decode::<serde_json::Value>(&token, key.decoding_key(), &validation).unwrap();
        assert_eq!(read.claims["sub"], "x");
        let again = ServiceKey::load_or_create(dir.path()).unwrap();
        assert_eq!(again.key_id(), key.key_id());
    }

    #[test]
    fn garbage_is_no_key() {
        assert!(ServiceKey::from_pem("").is_none());
        assert!(
            ServiceKey::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").is_none()
        );
    }
}
