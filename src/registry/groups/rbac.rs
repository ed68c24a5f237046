//! `rbac.authorization.k8s.io`.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};

use crate::registry::resource::{NameRule, Resource};

/// The rows.
pub fn rows() -> Vec<Resource> {
    let rows = [
        Resource::plain::<ClusterRoleBinding>(),
        Resource::plain::<ClusterRole>(),
        Resource::plain::<RoleBinding>(),
        Resource::plain::<Role>(),
    ];
    rows.into_iter().map(|row| row.names(NameRule::PathSegment).create_on_update()).collect()
}
