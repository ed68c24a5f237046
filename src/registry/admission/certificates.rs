//! `CertificateApproval`, `CertificateSigning` and `CertificateSubjectRestriction`: who decides about requests for
//! certificates, and what nobody may ask for.

use async_trait::async_trait;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::registry::object::Object;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

pub(super) struct Certificates;

#[async_trait]
impl Plugin for Certificates {
    async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let of = |object: Option<&dyn Object>| {
            object.and_then(|object| object.downcast_ref::<CertificateSigningRequest>()).cloned()
        };
        let Some(new) = of(object).filter(|_| request.resource.group == GROUP) else { return Ok(()) };
        match (request.operation, request.subresource) {
            (Operation::Create, "") => restrict_subject(request, &new),
            (Operation::Update, "approval") => permitted(request, "approve", &of(old).unwrap_or(new)),
            (Operation::Update, "status") => {
                let Some(old) = of(old) else { return Ok(()) };
                let part = |request: &CertificateSigningRequest| {
                    let status = request.status.clone().unwrap_or_default();
                    (status.certificate, status.conditions.unwrap_or_default())
                };
                if part(&new) == part(&old) { Ok(()) } else { permitted(request, "sign", &old) }
            }
            _ => Ok(()),
        }
    }
}

fn permitted(request: &Request<'_>, verb: &str, object: &CertificateSigningRequest) -> Result<(), ApiError> {
    let Some(check) = request.registry.bind_check() else { return Ok(()) };
    let signer = object.spec.signer_name.as_str();
    let domain = signer.split('/').next().unwrap_or_default();
    let user = &request.cx.user;
    let allowed = [signer.to_owned(), format!("{domain}/*")]
        .iter()
        .any(|name| check.allowed(user, verb, GROUP, "signers", "", name));
    if allowed {
        return Ok(());
    }
    Err(request.forbid(format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

fn restrict_subject(request: &Request<'_>, object: &CertificateSigningRequest) -> Result<(), ApiError> {
    if object.spec.signer_name == CLIENT_SIGNER && names_masters(&object.spec.request.0) {
        return Err(
            request.forbid(format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"))
        );
    }
    Ok(())
}

fn names_masters(pem: &[u8]) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem) else { return false };
    let Ok((_, request)) = X509CertificationRequest::from_der(&pem.contents) else { return false };
    let subject = &request.certification_request_info.subject;
    subject.iter_organization().any(|organization| organization.as_str().is_ok_and(|text| text == MASTERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(organization: &str) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn masters_are_recognised() {
        assert!(names_masters(pem(MASTERS).as_bytes()));
        assert!(!names_masters(pem("dev").as_bytes()));
        assert!(!names_masters(b"no pem"));
    }
}
