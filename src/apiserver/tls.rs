//! TLS of the listener, and who is at the other end of a connection.
//!
//! A client certificate is asked for and not required. One that no authority of ours signed does not fail the
//! handshake: the request is answered with 401, which clients can explain to their users.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

use super::authentication::add_authenticated;
use crate::pki::{Authority, Identity};
use crate::registry::UserInfo;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The serving certificate or key cannot be used.
    #[error("serving certificate")]
    Serving(#[source] rustls::Error),
    /// The serving certificate or key cannot be read.
    #[error("serving certificate")]
    ServingPem(#[source] rustls::pki_types::pem::Error),
    /// The client authority cannot be used.
    #[error("client certificate authority")]
    ClientCa(#[source] rustls::server::VerifierBuilderError),
}

/// TLS settings of the listener and the means to judge client certificates.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    judge: ClientJudge,
}

impl Tls {
    /// TLS 1.2 and later with `serving`; clients identify themselves with certificates of `client_ca`.
    pub fn new(serving: &Identity, client_ca: &Authority) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(client_ca.certificates());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(TlsError::ClientCa)?;
        let judge = ClientJudge(verifier);
        let (chain, key) = serving.to_rustls().map_err(TlsError::ServingPem)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Serving)?
            .with_client_cert_verifier(Arc::new(judge.clone()))
            .with_single_cert(chain, key)
            .map_err(TlsError::Serving)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), judge })
    }

    /// The settings for an acceptor.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Judges the certificates that a client presented.
    pub fn judge(&self, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        self.judge.judge(chain, UnixTime::now())
    }
}

/// The other end of a TLS connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// No client certificate.
    Anonymous,
    /// A certificate that this cluster did not sign, or that is no longer valid.
    Rejected,
    /// A certificate of this cluster.
    Certificate(Arc<PeerCertificate>),
}

/// A verified client certificate.
#[derive(Debug)]
pub struct PeerCertificate {
    /// Who it names: the common name is the user, the organizations are the groups.
    pub user: Arc<UserInfo>,
    /// When it stops being valid, in seconds since the epoch; a connection may outlive its certificate.
    pub not_after: i64,
}

/// Accepts any client certificate in the handshake (whose signature proves possession of the key) and judges it after.
#[derive(Clone)]
struct ClientJudge(Arc<dyn ClientCertVerifier>);

impl fmt::Debug for ClientJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientJudge")
    }
}

impl ClientJudge {
    fn judge(&self, chain: Option<&[CertificateDer<'_>]>, now: UnixTime) -> Peer {
        let Some((leaf, intermediates)) = chain.and_then(<[_]>::split_first) else { return Peer::Anonymous };
        if self.0.verify_client_cert(leaf, intermediates, now).is_err() {
            return Peer::Rejected;
        }
        match read_certificate(leaf) {
            Some(certificate) => Peer::Certificate(Arc::new(certificate)),
            None => Peer::Rejected,
        }
    }
}

fn read_certificate(leaf: &CertificateDer<'_>) -> Option<PeerCertificate> {
    let (_, cert) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let name = cert.subject().iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let mut groups: Vec<_> =
        cert.subject().iter_organization().filter_map(|org| org.as_str().ok()).map(str::to_owned).collect();
    add_authenticated(&mut groups);
    Some(PeerCertificate {
        user: Arc::new(UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }),
        not_after: cert.validity().not_after.timestamp(),
    })
}

impl ClientCertVerifier for ClientJudge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pki::ClusterPki;

    fn chain(identity: &Identity) -> Vec<CertificateDer<'static>> {
        identity.to_rustls().unwrap().0
    }

    #[test]
    fn certificates_of_the_cluster_name_user_and_groups() {
        let dir = tempfile::tempdir().unwrap();
        let pki = ClusterPki::load_or_create(dir.path(), &[]).unwrap();
        let tls = Tls::new(pki.apiserver_serving(), pki.client_ca()).unwrap();
        let jane = chain(&pki.issue_client("jane", &["devs"]).unwrap());
        let Peer::Certificate(peer) = tls.judge(Some(&jane)) else { panic!("own certificate is accepted") };
        assert_eq!(
            (peer.user.name.as_str(), peer.user.groups.join(" ")),
            ("jane", "devs system:authenticated".to_owned())
        );
        assert!(matches!(tls.judge(None), Peer::Anonymous));
    }

    #[test]
    fn certificates_of_others_and_expired_ones_are_rejected() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pki = ClusterPki::load_or_create(dir.path(), &[]).unwrap();
        let stranger = ClusterPki::load_or_create(other.path(), &[]).unwrap();
        let tls = Tls::new(pki.apiserver_serving(), pki.client_ca()).unwrap();
        assert!(matches!(tls.judge(Some(&chain(stranger.admin()))), Peer::Rejected));
        let serving = chain(pki.apiserver_serving());
        assert!(matches!(tls.judge(Some(&serving)), Peer::Rejected), "a serving certificate is no client's");
        let late = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + 366 * 86_400));
        assert!(matches!(tls.judge.judge(Some(&chain(pki.admin())), late), Peer::Rejected));
    }
}
