//! `admissionregistration.k8s.io`: webhooks and policies that have a say in writes.

pub(super) mod checks;
mod policies;
mod webhooks;

use crate::registry::resource::{Resource, STATUS};

/// The rows.
pub fn rows() -> Vec<Resource> {
    let extensions = &["api-extensions"];
    vec![
        Resource::of(policies::MutatingPolicy).categories(extensions).generation(),
        Resource::of(policies::MutatingBinding).categories(extensions).generation(),
        Resource::of(webhooks::Mutating).categories(extensions).generation(),
        Resource::of(policies::ValidatingPolicy).categories(extensions).with(STATUS).generation(),
        Resource::of(policies::ValidatingBinding).categories(extensions).generation(),
        Resource::of(webhooks::Validating).categories(extensions).generation(),
    ]
}
