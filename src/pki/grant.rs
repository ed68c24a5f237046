//! Signing a request as it stands: its subject and its alternative names, for the usages and the time that it was granted.
//!
//! Unlike `Authority::sign_csr` this trusts what the request says; the caller has checked it. As upstream's signers, the
//! start is dated back by five minutes, and the end too unless the certificate is short-lived.

use rcgen::{
    CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData,
};
use time::{Duration, OffsetDateTime};

use super::authority::{MAX_ORGANIZATIONS, OID_ORGANIZATION, check_key_strength, issue_failed};
use super::{Authority, CsrError, PkiError};

const BACKDATED: Duration = Duration::minutes(5);
/// A certificate that lasts for less is not shortened by what it is dated back.
const SHORT: Duration = Duration::hours(8);

/// What a request is granted.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// All organizations of the request's subject.
    pub organizations: &'a [String],
    /// Key usages and extended key usages, as the API spells them.
    pub usages: &'a [String],
    /// How long the certificate is to last.
    pub lifetime: std::time::Duration,
}

enum Purpose {
    Key(KeyUsagePurpose),
    Extended(ExtendedKeyUsagePurpose),
}

fn purpose(usage: &str) -> Option<Purpose> {
    use ExtendedKeyUsagePurpose as Extended;
    use KeyUsagePurpose as Key;
    Some(match usage {
        "signing" | "digital signature" => Purpose::Key(Key::DigitalSignature),
        "content commitment" => Purpose::Key(Key::ContentCommitment),
        "key encipherment" => Purpose::Key(Key::KeyEncipherment),
        "key agreement" => Purpose::Key(Key::KeyAgreement),
        "data encipherment" => Purpose::Key(Key::DataEncipherment),
        "cert sign" => Purpose::Key(Key::KeyCertSign),
        "crl sign" => Purpose::Key(Key::CrlSign),
        "encipher only" => Purpose::Key(Key::EncipherOnly),
        "decipher only" => Purpose::Key(Key::DecipherOnly),
        "any" => Purpose::Extended(Extended::Any),
        "server auth" => Purpose::Extended(Extended::ServerAuth),
        "client auth" => Purpose::Extended(Extended::ClientAuth),
        "code signing" => Purpose::Extended(Extended::CodeSigning),
        "email protection" | "s/mime" => Purpose::Extended(Extended::EmailProtection),
        "ipsec end system" => Purpose::Extended(Extended::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 5])),
        "ipsec tunnel" => Purpose::Extended(Extended::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 6])),
        "ipsec user" => Purpose::Extended(Extended::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 7])),
        "timestamping" => Purpose::Extended(Extended::TimeStamping),
        "ocsp signing" => Purpose::Extended(Extended::OcspSigning),
        "microsoft sgc" => Purpose::Extended(Extended::Other(vec![1, 3, 6, 1, 4, 1, 311, 10, 3, 3])),
        "netscape sgc" => Purpose::Extended(Extended::Other(vec![2, 16, 840, 1, 113_730, 4, 1])),
        _ => return None,
    })
}

impl Authority {
    /// Signs a request with its own subject and names; returns the certificate's PEM.
    ///
    /// # Errors
    /// The request is not valid, its key is weak, or its subject has more organizations than fit.
    pub fn grant(&self, csr_pem: &str, grant: &Grant<'_>, now: OffsetDateTime) -> Result<String, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(CsrError::Invalid)?;
        check_key_strength(&request.public_key.subject_public_key_info())?;
        let mut params = request.params;
        let name = match params.distinguished_name.get(&DnType::CommonName) {
            Some(rcgen::DnValue::Utf8String(name)) => name.clone(),
            _ => "of a request".to_owned(),
        };
        if grant.organizations.len() > MAX_ORGANIZATIONS {
            let count = grant.organizations.len();
            return Err(PkiError::TooManyOrganizations { common_name: name, count });
        }
        // Of several organizations the parsed subject has kept one.
        let attributes = [DnType::OrganizationName, DnType::CustomDnType(OID_ORGANIZATION.to_vec())];
        for (attribute, organization) in attributes.into_iter().zip(grant.organizations) {
            params.distinguished_name.push(attribute, organization.as_str());
        }
        params.is_ca = IsCa::ExplicitNoCa;
        (params.key_usages, params.extended_key_usages) = (Vec::new(), Vec::new());
        for purpose in grant.usages.iter().filter_map(|usage| purpose(usage)) {
            match purpose {
                Purpose::Key(usage) if !params.key_usages.contains(&usage) => params.key_usages.push(usage),
                Purpose::Extended(usage) if !params.extended_key_usages.contains(&usage) => {
                    params.extended_key_usages.push(usage);
                }
                Purpose::Key(_) | Purpose::Extended(_) => {}
            }
        }
        params.use_authority_key_identifier_extension = true;
        let lifetime = Duration::try_from(grant.lifetime).unwrap_or(Duration::days(365));
        params.not_before = now - BACKDATED;
        params.not_after = if lifetime < SHORT { now + lifetime } else { now + lifetime - BACKDATED };
        let signed = params.signed_by(&request.public_key, self.issuer());
        let cert = signed.map_err(|source| issue_failed(&name, source))?;
        Ok(cert.pem() + self.chain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::ClusterPki;
    use rcgen::{CertificateParams, KeyPair};
    use x509_parser::pem::Pem;

    #[test]
    fn subject_names_and_usages_are_those_of_the_request_and_its_grant() {
        let dir = tempfile::tempdir().unwrap();
        let pki = ClusterPki::load_or_create(dir.path(), &[]).unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "eve");
        params.distinguished_name.push(DnType::OrganizationName, "one");
        let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let (organizations, now) = (["one".to_owned(), "two".to_owned()], OffsetDateTime::now_utc());
        let usages = ["client auth".to_owned(), "digital signature".to_owned()];
        let grant = Grant {
            organizations: &organizations,
            usages: &usages,
            lifetime: std::time::Duration::from_secs(3600),
        };
        let signed = pki.client_ca().grant(&request, &grant, now).unwrap();
        let pem = Pem::iter_from_buffer(signed.as_bytes()).next().unwrap().unwrap();
        let cert = pem.parse_x509().unwrap();
        assert!(pki.client_ca().signed(&cert));
        let texts = |all: Vec<&x509_parser::x509::AttributeTypeAndValue<'_>>| -> Vec<String> {
            all.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(texts(cert.subject().iter_common_name().collect()), ["eve"]);
        assert_eq!(texts(cert.subject().iter_organization().collect()), ["one", "two"]);
        let usage = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(!cert.is_ca());
        let names = cert.subject_alternative_name().unwrap().unwrap().value;
        assert_eq!(names.general_names.len(), 1);
        let validity = cert.validity();
        let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(seconds, 3900, "an hour, dated back by five minutes");
    }
}
