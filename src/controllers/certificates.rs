//! CertificateSigningRequests: the kubelets' own are approved, approved ones are signed, old ones are deleted.
//!
//! [`approve`] asks for the requester's right with a SubjectAccessReview; [`sign`] holds the rules of the four built-in
//! signers and leaves the signing itself to the [`Signer`] of the settings; [`clean`] keeps upstream's times.

pub mod clean;
pub mod request;

mod approve;
mod sign;

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

pub use approve::run as run_approver;
pub use clean::run as run_cleaner;
pub use sign::run as run_signer;

/// Signs requests with the authorities of the cluster.
pub trait Signer: Debug + Send + Sync {
    /// Signs; returns the certificate as PEM.
    ///
    /// # Errors
    /// The request cannot be signed, and why not.
    fn sign(&self, order: &Order<'_>) -> Result<String, Refusal>;
}

/// Why a request could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// One request to sign.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The name of the signer.
    pub signer: &'a str,
    /// The request, PEM.
    pub request_pem: &'a str,
    /// The organizations of its subject, each of them.
    pub organizations: &'a [String],
    /// What the certificate may be used for, as the API spells it.
    pub usages: &'a [String],
    /// How long it is to last.
    pub lifetime: Duration,
}

/// Whether the request has a condition of this type.
pub(crate) fn has(request: &CertificateSigningRequest, type_: &str) -> bool {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// The certificate has been issued.
pub(crate) fn is_issued(request: &CertificateSigningRequest) -> bool {
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate.is_some_and(|certificate| !certificate.0.is_empty())
}

#[cfg(test)]
mod tests;
