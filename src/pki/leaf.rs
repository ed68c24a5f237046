//! Leaf certificates: what one should say, and whether the one on disk still does.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use rcgen::{KeyPair, PublicKeyData, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::authority::{Authority, Identity, Usage};
use super::{PkiError, files};

/// A leaf with less life than this left is issued anew at start.
const RENEW_BEFORE: Duration = Duration::days(120);

/// A name in a serving certificate, in a form that compares equal whatever way it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Dns(String),
    Ip(IpAddr),
}

impl TryFrom<&Name> for SanType {
    type Error = PkiError;

    fn try_from(name: &Name) -> Result<Self, PkiError> {
        match name {
            Name::Ip(ip) => Ok(Self::IpAddress(*ip)),
            Name::Dns(dns) => Ok(Self::DnsName(
                dns.as_str().try_into().map_err(|_| PkiError::BadName { name: dns.clone() })?,
            )),
        }
    }
}

/// What a leaf certificate says.
#[derive(Debug, Clone)]
pub struct LeafSpec {
    common_name: String,
    organizations: Vec<String>,
    names: BTreeSet<Name>,
    usage: Usage,
}

impl LeafSpec {
    /// A client: its user name and its groups.
    pub fn client(common_name: &str, organizations: &[&str]) -> Self {
        Self {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|&o| o.to_owned()).collect(),
            names: BTreeSet::new(),
            usage: Usage::Client,
        }
    }

    /// A server: the DNS names and IP addresses it answers to.
    pub fn server(common_name: &str, names: impl IntoIterator<Item = String>) -> Result<Self, PkiError> {
        let names = names.into_iter().map(|name| parse_name(&name)).collect::<Result<_, _>>()?;
        Ok(Self {
            common_name: common_name.to_owned(),
            organizations: Vec::new(),
            names,
            usage: Usage::Server,
        })
    }

    /// Subject's common name.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// What the certificate is for.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    pub(super) fn organizations(&self) -> &[String] {
        &self.organizations
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter()
    }
}

fn parse_name(name: &str) -> Result<Name, PkiError> {
    if let Ok(ip) = name.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(Name::Ip(ip));
    }
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let rest = name.strip_prefix("*.").unwrap_or(name);
    if name.len() > 253 || !rest.split('.').all(label_ok) {
        return Err(PkiError::BadName { name: name.to_owned() });
    }
    Ok(Name::Dns(name.to_ascii_lowercase()))
}

/// Loads `<dir>/<file>.crt` and `.key` if they still say what `spec` says, else issues them anew.
pub(super) fn load_or_issue(
    dir: &Path,
    file: &str,
    authority: &Authority,
    spec: &LeafSpec,
    now: OffsetDateTime,
) -> Result<Identity, PkiError> {
    let (cert_path, key_path) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
    if let (Some(cert_pem), Some(key_pem)) =
        (files::read_private(&cert_path)?, files::read_private(&key_path)?)
    {
        let identity = Identity { cert_pem, key_pem };
        match reason_to_renew(&identity, authority, spec, now) {
            None => return Ok(identity),
            Some(reason) => tracing::info!(certificate = file, reason, "certificate renewed"),
        }
    }
    let identity = authority.issue(spec, now)?;
    files::write_private(&key_path, identity.key_pem.as_bytes())?;
    files::write_private(&cert_path, identity.cert_pem.as_bytes())?;
    Ok(identity)
}

/// Why a leaf on disk cannot be used any longer; `None` when it can.
fn reason_to_renew(
    identity: &Identity,
    authority: &Authority,
    spec: &LeafSpec,
    now: OffsetDateTime,
) -> Option<&'static str> {
    let Ok(der) = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()) else {
        return Some("unreadable");
    };
    let Ok((_, cert)) = x509_parser::parse_x509_certificate(&der) else { return Some("unreadable") };
    let Ok(key) = KeyPair::from_pem(&identity.key_pem) else { return Some("unreadable key") };
    if cert.public_key().raw != key.subject_public_key_info() {
        return Some("key of another certificate");
    }
    if !authority.signed(&cert) {
        return Some("signed by another authority");
    }
    if now < cert.validity().not_before.to_datetime() {
        return Some("not yet valid");
    }
    if cert.validity().not_after.to_datetime() - now < RENEW_BEFORE {
        return Some("about to expire");
    }
    if !subject_matches(&cert, spec) {
        return Some("subject changed");
    }
    (names_of(&cert).as_ref() != Some(&spec.names)).then_some("names changed")
}

fn subject_matches(cert: &X509Certificate<'_>, spec: &LeafSpec) -> bool {
    let common_names: Vec<_> = cert.subject().iter_common_name().filter_map(|a| a.as_str().ok()).collect();
    let organizations: Vec<_> = cert.subject().iter_organization().filter_map(|a| a.as_str().ok()).collect();
    common_names == [spec.common_name.as_str()] && organizations == spec.organizations
}

/// The names in a certificate; `None` when it has one that is neither a DNS name nor an IP address.
fn names_of(cert: &X509Certificate<'_>) -> Option<BTreeSet<Name>> {
    let Some(extension) = cert.subject_alternative_name().ok()? else { return Some(BTreeSet::new()) };
    extension
        .value
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::DNSName(dns) => Some(Name::Dns(dns.to_ascii_lowercase())),
            GeneralName::IPAddress(octets) => match octets.len() {
                4 => <[u8; 4]>::try_from(*octets).ok().map(|o| Name::Ip(o.into())),
                16 => <[u8; 16]>::try_from(*octets).ok().map(|o| Name::Ip(o.into())),
                _ => None,
            },
            _ => None,
        })
        .collect()
}
