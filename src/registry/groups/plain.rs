//! Groups whose kinds need nothing but their row.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};

use crate::registry::resource::{Resource, STATUS};

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
