//! `certificates.k8s.io`: requests for certificates.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::context::RequestContext;
use crate::registry::resource::{NameRule, Resource, STATUS, SelectableField, Subresource, SubresourceRole};
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, duration, name_cell};
use crate::registry::validation::required;
use crate::registry::write::system;

const COLUMNS: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", "string", "Who is to sign."),
    column("Requestor", "string", "Who asks."),
    column("RequestedDuration", "string", "How long the certificate is to last."),
    column("Condition", "string", "What became of the request."),
];

const APPROVAL: Subresource = Subresource {
    name: "approval",
    role: SubresourceRole::Part,
    body: None,
    verbs: &["get", "patch", "update"],
};
const FIELDS: &[SelectableField] =
    &[SelectableField { label: "spec.signerName", path: &["spec", "signerName"], absent: "" }];

const MIN_SECONDS: i32 = 600;
const PEM_TYPE: &str = "CERTIFICATE REQUEST";
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

struct RequestStrategy;

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![
        Resource::of(RequestStrategy)
            .columns(COLUMNS)
            .short(&["csr"])
            .names(NameRule::Any)
            .with(APPROVAL)
            .with(STATUS)
            .selectable(FIELDS),
    ]
}

impl Strategy for RequestStrategy {
    type Object = CertificateSigningRequest;

    /// Who asks is what the server knows, not what the request says.
    fn prepare_for_create(&self, cx: &RequestContext, request: &mut CertificateSigningRequest) {
        let user = &cx.user;
        let spec = &mut request.spec;
        spec.username = Some(user.name.clone()).filter(|name| !name.is_empty());
        spec.uid = Some(user.uid.clone()).filter(|uid| !uid.is_empty());
        spec.groups = (!user.groups.is_empty()).then(|| user.groups.clone());
        spec.extra = (!user.extra.is_empty()).then(|| user.extra.clone());
        request.status = Some(CertificateSigningRequestStatus::default());
    }

    fn prepare_for_update(
        &self,
        _: &RequestContext,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        new.spec = old.spec.clone();
    }

    fn prepare_for_status_update(
        &self,
        _: &RequestContext,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        date_conditions(new, old);
    }

    fn prepare_for_part(
        &self,
        _: &str,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        date_conditions(new, old);
    }

    /// Whether a request is approved is not for the signer to say.
    fn validate_status_update(
        &self,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
        errors: &mut FieldErrors,
    ) {
        conditions(new, errors);
        let at = Path::new("status").child("conditions");
        for kind in ["Approved", "Denied", "Failed"] {
            let verb = match (has_condition(new, kind), has_condition(old, kind)) {
                (true, false) if kind != "Failed" => "add",
                (false, true) => "remove",
                _ => continue,
            };
            let message = format!("updates may not {verb} a condition of type {kind:?}");
            errors.push(FieldError::forbidden(&at, message));
        }
        certificate_stays(new, old, errors);
        let issued = new.status.as_ref().and_then(|status| status.certificate.as_ref());
        if let Some(Err(why)) = issued.map(|bytes| check_certificates(&bytes.0)) {
            let at = Path::new("status").child("certificate");
            errors.push(FieldError::invalid(&at, "<certificate data>", why));
        }
    }

    fn validate_part(
        &self,
        _: &str,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
        errors: &mut FieldErrors,
    ) {
        let at = Path::new("status").child("conditions");
        for kind in ["Approved", "Denied", "Failed"] {
            if has_condition(old, kind) && !has_condition(new, kind) {
                let message = format!("updates may not remove a condition of type {kind:?}");
                errors.push(FieldError::forbidden(&at, message));
            }
        }
    }

    fn validate(&self, request: &CertificateSigningRequest, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        let spec = &request.spec;
        if let Err(why) = parse(&spec.request) {
            errors.push(FieldError::invalid(&at.child("request"), &spec.request, why));
        }
        let usages = spec.usages.as_deref().unwrap_or_default();
        if usages.is_empty() {
            errors.push(FieldError::required(&at.child("usages"), ""));
        }
        for (i, usage) in usages.iter().enumerate().filter(|(_, usage)| !USAGES.contains(&usage.as_str())) {
            errors.push(FieldError::not_supported(&at.child("usages").index(i), usage, &USAGES));
        }
        for (i, usage) in usages.iter().enumerate().filter(|(i, usage)| usages[..*i].contains(usage)) {
            errors.push(FieldError::duplicate(&at.child("usages").index(i), usage));
        }
        signer(&spec.signer_name, &at.child("signerName"), errors);
        if let Some(seconds) = spec.expiration_seconds.filter(|seconds| *seconds < MIN_SECONDS) {
            let message = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid(&at.child("expirationSeconds"), seconds, message));
        }
        conditions(request, errors);
    }

    fn cells(&self, request: &CertificateSigningRequest, now: Timestamp) -> Vec<Value> {
        let spec = &request.spec;
        let wanted = spec.expiration_seconds.map(|seconds| duration::human(seconds.into()));
        vec![
            name_cell(&request.metadata),
            age_cell(&request.metadata, now),
            spec.signer_name.clone().into(),
            spec.username.clone().unwrap_or_default().into(),
            wanted.unwrap_or_else(|| "<none>".into()).into(),
            outcome(request).into(),
        ]
    }
}

/// Checks that the bytes are a PEM-encoded request for a certificate.
fn parse(request: &ByteString) -> Result<(), String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(&request.0)
        .map_err(|_| format!("PEM block type must be {PEM_TYPE}"))?;
    if pem.label != PEM_TYPE {
        return Err(format!("PEM block type must be {PEM_TYPE}"));
    }
    X509CertificationRequest::from_der(&pem.contents).map(|_| ()).map_err(|error| error.to_string())
}

/// Checks what a signer writes: certificates in PEM and nothing that is none.
fn check_certificates(bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut found = 0;
    for pem in x509_parser::pem::Pem::iter_from_buffer(bytes) {
        // As Go's decoder, which ends where it finds no further block.
        let Ok(pem) = pem else { break };
        if pem.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", pem.label));
        }
        pem.parse_x509().map_err(|error| error.to_string())?;
        found += 1;
    }
    if found == 0 { Err("must contain at least one CERTIFICATE PEM block".into()) } else { Ok(()) }
}

fn signer(name: &str, at: &Path, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.push(FieldError::required(at, ""));
        return;
    }
    if name == "kubernetes.io/legacy-unknown" {
        let message = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid(at, name, message));
        return;
    }
    let Some((domain, path)) = name.split_once('/') else {
        let message = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(at, name, message));
        return;
    };
    required(path, at, errors);
    for message in names::is_dns1123_subdomain(domain) {
        errors.push(FieldError::invalid(at, domain, format!("validating label {domain:?}: {message}")));
    }
    if !domain.contains('.') {
        let message = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(at, domain, message));
    }
}

fn conditions(request: &CertificateSigningRequest, errors: &mut FieldErrors) {
    let all = request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let at = Path::new("status").child("conditions");
    let (mut seen, mut approved, mut denied) = (std::collections::BTreeSet::new(), false, false);
    for (i, condition) in all.iter().enumerate() {
        let at = at.index(i);
        required(&condition.type_, &at.child("type"), errors);
        let decides = matches!(condition.type_.as_str(), "Approved" | "Denied" | "Failed");
        match condition.status.as_str() {
            "" => errors.push(FieldError::required(&at.child("status"), "")),
            "True" => {}
            other if decides => errors.push(FieldError::not_supported(&at.child("status"), other, &["True"])),
            _ => {}
        }
        approved |= condition.type_ == "Approved";
        denied |= condition.type_ == "Denied";
        if approved && denied {
            let message = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(&at.child("type"), &condition.type_, message));
        }
        if !seen.insert(&condition.type_) {
            errors.push(FieldError::duplicate(&at.child("type"), &condition.type_));
        }
    }
}

fn has_condition(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|condition| condition.type_ == kind)
}

/// An issued certificate is not replaced.
fn certificate_stays(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    errors: &mut FieldErrors,
) {
    let certificate = |request: &CertificateSigningRequest| {
        let bytes = request.status.as_ref().and_then(|status| status.certificate.clone());
        bytes.filter(|bytes| !bytes.0.is_empty())
    };
    if certificate(old).is_some() && certificate(new) != certificate(old) {
        let at = Path::new("status").child("certificate");
        errors.push(FieldError::forbidden(&at, "updates may not change existing certificate content"));
    }
}

/// Dates conditions that are new or changed.
fn date_conditions(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    let before: &[CertificateSigningRequestCondition] =
        old.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let now = Time(system::now().0);
    for condition in new.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten()) {
        let was = before.iter().find(|was| was.type_ == condition.type_);
        condition.last_update_time.get_or_insert_with(|| now.clone());
        if condition.last_transition_time.is_none() {
            let same = was.filter(|was| was.status == condition.status);
            condition.last_transition_time =
                same.and_then(|was| was.last_transition_time.clone()).or(Some(now.clone()));
        }
    }
}

fn outcome(request: &CertificateSigningRequest) -> String {
    let status = request.status.clone().unwrap_or_default();
    let has = |kind: &str| status.conditions.iter().flatten().any(|condition| condition.type_ == kind);
    let mut words = Vec::new();
    if has("Denied") {
        words.push("Denied");
    } else if has("Approved") {
        words.push("Approved");
    } else {
        words.push("Pending");
    }
    if has("Failed") {
        words.push("Failed");
    }
    if status.certificate.is_some_and(|certificate| !certificate.0.is_empty()) {
        words.push("Issued");
    }
    words.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_checked() {
        let object: CertificateSigningRequest = serde_json::from_value(json!({"metadata": {"name": "r"},
            "spec": {"request": "", "signerName": "x", "expirationSeconds": 5, "usages": ["flying"]},
            "status": {"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]}}))
        .unwrap();
        let mut errors = FieldErrors::new();
        RequestStrategy.validate(&object, &mut errors);
        let found: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            found,
            [
                "spec.request",
                "spec.usages[0]",
                "spec.signerName",
                "spec.expirationSeconds",
                "status.conditions[1].type"
            ]
        );
    }

    #[test]
    fn the_server_says_who_asks() {
        let mut cx = RequestContext::default();
        cx.user = std::sync::Arc::new(crate::registry::UserInfo {
            name: "eve".into(),
            groups: vec!["g".into()],
            ..Default::default()
        });
        let mut object = CertificateSigningRequest::default();
        object.spec.username = Some("admin".into());
        RequestStrategy.prepare_for_create(&cx, &mut object);
        assert_eq!(object.spec.username.as_deref(), Some("eve"));
        assert_eq!(object.spec.groups, Some(vec!["g".to_owned()]));
    }

    #[test]
    fn a_signer_writes_certificates_alone() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.example.com".to_owned()]).unwrap();
        let certificate = params.clone().self_signed(&key).unwrap().pem();
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        assert_eq!(check_certificates(b""), Ok(()));
        assert_eq!(check_certificates(format!("{certificate}\n{certificate}").as_bytes()), Ok(()));
        let none = Err("must contain at least one CERTIFICATE PEM block".to_owned());
        assert_eq!(check_certificates(b"garbage"), none);
        let other = Err("only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\"".to_owned());
        assert_eq!(check_certificates(request.as_bytes()), other);
    }

    #[test]
    fn decisions_and_failures_are_not_taken_back() {
        let request = |kinds: &[&str]| -> CertificateSigningRequest {
            let conditions: Vec<Value> =
                kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
            serde_json::from_value(
                json!({"spec": {"request": "", "signerName": "a.b/c"}, "status": {"conditions": conditions}}),
            )
            .unwrap()
        };
        let told = |new: &[&str], old: &[&str]| {
            let mut errors = FieldErrors::new();
            RequestStrategy.validate_status_update(&request(new), &request(old), &mut errors);
            errors.iter().map(|error| error.detail.clone()).collect::<Vec<_>>()
        };
        assert!(told(&["Failed"], &[]).is_empty());
        assert_eq!(told(&[], &["Failed"]), ["updates may not remove a condition of type \"Failed\""]);
        assert_eq!(told(&["Approved"], &[]), ["updates may not add a condition of type \"Approved\""]);
    }
}
