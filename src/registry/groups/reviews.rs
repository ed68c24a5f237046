//! `authentication.k8s.io` and `authorization.k8s.io`: creates that are answered and not stored.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};

use crate::registry::resource::{Resource, Scope};

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![
        Resource::review::<SelfSubjectReview>("selfsubjectreviews", Scope::Cluster),
        Resource::review::<TokenReview>("tokenreviews", Scope::Cluster),
        Resource::review::<LocalSubjectAccessReview>("localsubjectaccessreviews", Scope::Namespaced),
        Resource::review::<SelfSubjectAccessReview>("selfsubjectaccessreviews", Scope::Cluster),
        Resource::review::<SelfSubjectRulesReview>("selfsubjectrulesreviews", Scope::Cluster),
        Resource::review::<SubjectAccessReview>("subjectaccessreviews", Scope::Cluster),
    ]
}
