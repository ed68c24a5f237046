//! Groups whose kinds need nothing but their row.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::registry::resource::{NameRule, Resource, STATUS, SelectableField, Subresource, SubresourceRole};

const APPROVAL: Subresource = Subresource {
    name: "approval",
    role: SubresourceRole::Part,
    body: None,
    verbs: &["get", "patch", "update"],
};

const CSR_FIELDS: &[SelectableField] =
    &[SelectableField { label: "spec.signerName", path: &["spec", "signerName"], absent: "" }];

/// `certificates.k8s.io`.
pub fn certificates() -> Vec<Resource> {
    let csr = Resource::plain::<CertificateSigningRequest>();
    vec![csr.short(&["csr"]).names(NameRule::Any).with(APPROVAL).with(STATUS).selectable(CSR_FIELDS)]
}

/// `admissionregistration.k8s.io`.
pub fn admission() -> Vec<Resource> {
    let extensions = &["api-extensions"];
    vec![
        Resource::plain::<MutatingAdmissionPolicy>().categories(extensions).generation(),
        Resource::plain::<MutatingAdmissionPolicyBinding>().categories(extensions).generation(),
        Resource::plain::<MutatingWebhookConfiguration>().categories(extensions).generation(),
        Resource::plain::<ValidatingAdmissionPolicy>().categories(extensions).with(STATUS).generation(),
        Resource::plain::<ValidatingAdmissionPolicyBinding>().categories(extensions).generation(),
        Resource::plain::<ValidatingWebhookConfiguration>().categories(extensions).generation(),
    ]
}

/// `scheduling.k8s.io`.
pub fn scheduling() -> Vec<Resource> {
    vec![Resource::plain::<PriorityClass>().short(&["pc"]).generation()]
}

/// `node.k8s.io`.
pub fn node() -> Vec<Resource> {
    vec![Resource::plain::<RuntimeClass>().conditional_only()]
}

/// `flowcontrol.apiserver.k8s.io`.
pub fn flow_control() -> Vec<Resource> {
    vec![
        Resource::plain::<FlowSchema>().with(STATUS).generation(),
        Resource::plain::<PriorityLevelConfiguration>().with(STATUS).generation(),
    ]
}
