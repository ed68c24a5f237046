//! What a PKCS#10 request asks for, and whether a built-in signer grants that. Pure.

use std::collections::BTreeSet;

use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

/// The signer of clients of the API.
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// The signer of kubelets as clients.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// The signer of kubelets as servers.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// The signer of everything else.
pub const LEGACY: &str = "kubernetes.io/legacy-unknown";

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
const DIGITAL_SIGNATURE: &str = "digital signature";
const KEY_ENCIPHERMENT: &str = "key encipherment";
const CLIENT_AUTH: &str = "client auth";
const SERVER_AUTH: &str = "server auth";

/// Subject and alternative names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requested {
    /// Common name of the subject.
    pub common_name: String,
    /// Organizations of the subject.
    pub organizations: Vec<String>,
    /// Number of DNS names.
    pub dns: usize,
    /// Number of IP addresses.
    pub ips: usize,
    /// Number of mail addresses.
    pub emails: usize,
    /// Number of URIs.
    pub uris: usize,
}

impl Requested {
    /// Reads a PEM-encoded request; `None` if it is none.
    pub fn parse(pem: &[u8]) -> Option<Self> {
        let pem = Pem::iter_from_buffer(pem).next()?.ok()?;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
        let subject = &request.certification_request_info.subject;
        let texts = |all: &mut dyn Iterator<Item = Option<String>>| all.flatten().collect::<Vec<_>>();
        let common = texts(&mut subject.iter_common_name().map(|name| name.as_str().ok().map(str::to_owned)));
        let organizations =
            texts(&mut subject.iter_organization().map(|name| name.as_str().ok().map(str::to_owned)));
        let mut requested = Self {
            common_name: common.into_iter().next().unwrap_or_default(),
            organizations,
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(_) => requested.dns += 1,
                    GeneralName::IPAddress(_) => requested.ips += 1,
                    GeneralName::RFC822Name(_) => requested.emails += 1,
                    GeneralName::URI(_) => requested.uris += 1,
                    _ => {}
                }
            }
        }
        Some(requested)
    }

    fn names_a_node(&self) -> Result<(), &'static str> {
        if self.organizations != [NODES] {
            return Err("subject organization is not system:nodes");
        }
        if !self.common_name.starts_with(NODE_PREFIX) {
            return Err("subject common name does not begin with system:node: ");
        }
        Ok(())
    }
}

/// The usages are those of a kubelet: a signature, perhaps encipherment, and `auth`.
fn are_kubelet_usages(usages: &[String], auth: &str) -> Result<(), String> {
    let given: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let short = BTreeSet::from([DIGITAL_SIGNATURE, auth]);
    let long = BTreeSet::from([DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, auth]);
    if given == short || given == long {
        return Ok(());
    }
    let known: Vec<_> = long.into_iter().collect();
    Err(format!("usages did not match [{}]", known.join(" ")))
}

/// Whether `signer` grants the request.
///
/// # Errors
/// It does not, in upstream's words.
pub fn check(signer: &str, requested: &Requested, usages: &[String]) -> Result<(), String> {
    match signer {
        CLIENT => check_client(usages),
        KUBELET_CLIENT => {
            requested.names_a_node()?;
            for (count, why) in [
                (requested.dns, "DNS subjectAltNames are not allowed"),
                (requested.emails, "Email subjectAltNames are not allowed"),
                (requested.ips, "IP subjectAltNames are not allowed"),
                (requested.uris, "URI subjectAltNames are not allowed"),
            ] {
                if count > 0 {
                    return Err(why.to_owned());
                }
            }
            are_kubelet_usages(usages, CLIENT_AUTH)
        }
        KUBELET_SERVING => {
            requested.names_a_node()?;
            for (bad, why) in [
                (requested.dns + requested.ips == 0, "DNS or IP subjectAltName is required"),
                (requested.emails > 0, "Email subjectAltNames are not allowed"),
                (requested.uris > 0, "URI subjectAltNames are not allowed"),
            ] {
                if bad {
                    return Err(why.to_owned());
                }
            }
            are_kubelet_usages(usages, SERVER_AUTH)
        }
        _ => Ok(()),
    }
}

fn check_client(usages: &[String]) -> Result<(), String> {
    let known = [DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, CLIENT_AUTH];
    if let Some(other) = usages.iter().find(|usage| !known.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.iter().any(|usage| usage == CLIENT_AUTH) {
        return Err(format!("missing required usage for client certificate: {CLIENT_AUTH}"));
    }
    Ok(())
}
