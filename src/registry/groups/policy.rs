//! `policy`.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::registry::resource::{Resource, STATUS};

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![
        Resource::plain::<PodDisruptionBudget>().short(&["pdb"]).with(STATUS).generation().conditional_only(),
    ]
}
