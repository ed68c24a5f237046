//! A certificate authority: loading or making it, issuing and signing leaf certificates.

use std::fmt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::X509Certificate;

use super::leaf::LeafSpec;
use super::{PkiError, files};

/// How long an authority is valid.
const AUTHORITY_LIFETIME: Duration = Duration::days(3650);
/// How long a leaf certificate is valid.
pub(super) const LEAF_LIFETIME: Duration = Duration::days(365);
/// How far certificates are dated back, so that a node whose clock is behind accepts them.
const CLOCK_SKEW: Duration = Duration::hours(1);
/// Organizations a subject can carry: the certificate library keeps one value per attribute name, and knows two names
/// for this attribute.
pub(super) const MAX_ORGANIZATIONS: usize = 2;
/// Object identifier of the organization attribute.
pub(super) const OID_ORGANIZATION: [u64; 4] = [2, 5, 4, 10];

/// What a leaf certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Proves who a client is.
    Client,
    /// Proves which host a server is.
    Server,
}

/// Why a certificate signing request is refused.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    /// Not a PEM-encoded PKCS#10 request, or its signature does not prove possession of the key.
    #[error("not a valid PEM certificate signing request")]
    Invalid(#[source] rcgen::Error),
    /// The key is of a kind or strength that is not accepted.
    #[error("the key must be ECDSA P-256, P-384, P-521, Ed25519 or RSA with at least 2048 bits")]
    WeakKey,
}

/// A leaf certificate (with intermediates, if any) and its private key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Certificate chain, leaf first.
    pub cert_pem: String,
    /// Private key, PKCS#8.
    pub key_pem: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// The chain and key in the form rustls wants.
    pub fn to_rustls(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), rustls::pki_types::pem::Error> {
        let chain = CertificateDer::pem_slice_iter(self.cert_pem.as_bytes()).collect::<Result<_, _>>()?;
        Ok((chain, PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?))
    }
}

/// A certificate authority with its private key.
pub struct Authority {
    cert_pem: String,
    /// Appended to leaves when the authority itself is an intermediate.
    chain: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

impl Authority {
    /// Loads `<dir>/<name>.crt` and `.key`, or makes them.
    ///
    /// The key is written before the certificate: a key alone is what a crash leaves, and is completed; a certificate
    /// alone is a lost key, and an error.
    pub(super) fn load_or_create(dir: &Path, name: &str, now: OffsetDateTime) -> Result<Self, PkiError> {
        let (cert_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        let unreadable = |path: &Path, expected| PkiError::Unreadable {
            path: path.to_owned(),
            dir: dir.to_owned(),
            expected,
        };
        let (cert, key) = (files::read_private(&cert_path)?, files::read_private(&key_path)?);
        let (cert_pem, key_pair) = match (cert, key) {
            (Some(_), None) => {
                return Err(PkiError::MissingKey { cert: cert_path, key: key_path, dir: dir.to_owned() });
            }
            (Some(cert), Some(key)) => {
                let pair =
                    KeyPair::from_pem(&key).map_err(|_| unreadable(&key_path, "a PKCS#8 private key"))?;
                (cert, pair)
            }
            (None, key) => {
                let pair = match key {
                    Some(key) => {
                        KeyPair::from_pem(&key).map_err(|_| unreadable(&key_path, "a PKCS#8 private key"))?
                    }
                    None => {
                        let pair = KeyPair::generate().map_err(|source| issue_failed(name, source))?;
                        files::write_private(&key_path, pair.serialize_pem().as_bytes())?;
                        pair
                    }
                };
                let cert = self_signed(name, &pair, now)?;
                files::write_private(&cert_path, cert.as_bytes())?;
                tracing::info!(authority = name, "certificate authority created");
                (cert, pair)
            }
        };
        let not_a_ca = || unreadable(&cert_path, "the PEM certificate of a certificate authority");
        check(&cert_pem, &key_pair, &cert_path, &key_path, now)
            .map_err(|error| error.unwrap_or_else(not_a_ca))?;
        let chain = chain_of(&cert_pem).ok_or_else(not_a_ca)?;
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key_pair).map_err(|_| not_a_ca())?;
        Ok(Self { cert_pem, chain, issuer })
    }

    /// The authority's certificate as it stands in its file.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The authority's certificates as trust anchors.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.cert_pem.as_bytes()).filter_map(Result::ok).collect()
    }

    /// Issues a leaf with a new P-256 key.
    pub fn issue(&self, spec: &LeafSpec, now: OffsetDateTime) -> Result<Identity, PkiError> {
        let key = KeyPair::generate().map_err(|source| issue_failed(spec.common_name(), source))?;
        let cert_pem = self.sign(&key, spec, now)?;
        Ok(Identity { cert_pem, key_pem: key.serialize_pem() })
    }

    /// Signs the public key of a certificate signing request with the subject, names and usage of `spec`.
    pub fn sign_csr(&self, csr_pem: &str, spec: &LeafSpec, now: OffsetDateTime) -> Result<String, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(CsrError::Invalid)?;
        check_key_strength(&request.public_key.subject_public_key_info())?;
        self.sign(&request.public_key, spec, now)
    }

    /// What signs.
    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// What a leaf must carry besides itself, PEM.
    pub(super) fn chain(&self) -> &str {
        &self.chain
    }

    /// Whether this authority signed `cert`.
    pub(super) fn signed(&self, cert: &X509Certificate<'_>) -> bool {
        let Some(der) = self.certificates().into_iter().next() else { return false };
        x509_parser::parse_x509_certificate(&der).is_ok_and(|(_, ca)| {
            cert.verify_signature(Some(ca.public_key())).is_ok() && cert.issuer() == ca.subject()
        })
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        spec: &LeafSpec,
        now: OffsetDateTime,
    ) -> Result<String, PkiError> {
        let params = leaf_params(spec, now)?;
        let cert =
            params.signed_by(key, &self.issuer).map_err(|source| issue_failed(spec.common_name(), source))?;
        Ok(cert.pem() + &self.chain)
    }
}

pub(super) fn issue_failed(subject: &str, source: rcgen::Error) -> PkiError {
    PkiError::Issue { subject: subject.to_owned(), source }
}

fn self_signed(name: &str, key: &KeyPair, now: OffsetDateTime) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("kube-lite-{name}@{}", now.unix_timestamp()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + AUTHORITY_LIFETIME;
    Ok(params.self_signed(key).map_err(|source| issue_failed(name, source))?.pem())
}

fn leaf_params(spec: &LeafSpec, now: OffsetDateTime) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if spec.organizations().len() > MAX_ORGANIZATIONS {
        return Err(PkiError::TooManyOrganizations {
            common_name: spec.common_name().to_owned(),
            count: spec.organizations().len(),
        });
    }
    let attributes = [DnType::OrganizationName, DnType::CustomDnType(OID_ORGANIZATION.to_vec())];
    for (attribute, organization) in attributes.into_iter().zip(spec.organizations()) {
        params.distinguished_name.push(attribute, organization.as_str());
    }
    params.distinguished_name.push(DnType::CommonName, spec.common_name());
    params.subject_alt_names = spec.names().map(SanType::try_from).collect::<Result<_, _>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![match spec.usage() {
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + LEAF_LIFETIME;
    Ok(params)
}

/// Checks an authority's files against each other and the clock. `Err(None)`: the certificate is no authority's.
fn check(
    cert_pem: &str,
    key: &KeyPair,
    cert_path: &Path,
    key_path: &Path,
    now: OffsetDateTime,
) -> Result<(), Option<PkiError>> {
    let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|_| None)?;
    let (_, cert) = x509_parser::parse_x509_certificate(&der).map_err(|_| None)?;
    if !cert.is_ca() {
        return Err(None);
    }
    if cert.public_key().raw != key.subject_public_key_info() {
        return Err(Some(PkiError::Mismatch { cert: cert_path.to_owned(), key: key_path.to_owned() }));
    }
    let (not_before, not_after) =
        (cert.validity().not_before.to_datetime(), cert.validity().not_after.to_datetime());
    if now < not_before || now >= not_after {
        return Err(Some(PkiError::OutsideValidity {
            cert: cert_path.to_owned(),
            not_before,
            not_after,
            now,
        }));
    }
    Ok(())
}

/// What a leaf must carry besides itself: nothing below a self-signed authority, else the authority's own chain.
fn chain_of(cert_pem: &str) -> Option<String> {
    let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).ok()?;
    let (_, cert) = x509_parser::parse_x509_certificate(&der).ok()?;
    Some(if cert.issuer() == cert.subject() { String::new() } else { cert_pem.to_owned() })
}

pub(super) fn check_key_strength(spki_der: &[u8]) -> Result<(), CsrError> {
    use x509_parser::prelude::FromDer;
    use x509_parser::public_key::PublicKey;
    let (_, spki) =
        x509_parser::x509::SubjectPublicKeyInfo::from_der(spki_der).map_err(|_| CsrError::WeakKey)?;
    match spki.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < 2048 => Err(CsrError::WeakKey),
        Ok(PublicKey::DSA(_)) | Err(_) => Err(CsrError::WeakKey),
        Ok(_) => Ok(()),
    }
}
