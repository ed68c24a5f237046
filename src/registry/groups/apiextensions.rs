//! `apiextensions.k8s.io`: CustomResourceDefinitions.

mod behaviour;
mod names;
mod validate;
mod versions;

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::registry::resource::{Resource, STATUS};

/// The rows.
pub fn rows() -> Vec<Resource> {
    let mut row = Resource::plain::<CustomResourceDefinition>()
        .short(&["crd", "crds"])
        .categories(&["api-extensions"])
        .with(STATUS)
        .generation()
        .conditional_only()
        .prefix("/registry/apiextensions.k8s.io/customresourcedefinitions/");
    row.behaviour = Arc::new(behaviour::Definitions);
    vec![row]
}

#[cfg(test)]
mod tests;
