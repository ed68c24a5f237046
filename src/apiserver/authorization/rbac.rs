//! Role-based access control over the cached roles and bindings, compiled once per change of any of them.

mod index;
mod rules;

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef};

use super::{Attributes, Decision};
use crate::registry::UserInfo;
pub use index::Index;
pub use rules::{covers, rule_allows};

/// All RBAC objects of the cluster at one time.
#[derive(Clone, Default)]
pub struct Objects {
    /// Roles.
    pub roles: Vec<Arc<Role>>,
    /// Cluster roles.
    pub cluster_roles: Vec<Arc<ClusterRole>>,
    /// Role bindings.
    pub role_bindings: Vec<Arc<RoleBinding>>,
    /// Cluster role bindings.
    pub cluster_role_bindings: Vec<Arc<ClusterRoleBinding>>,
}

/// Where RBAC objects come from.
pub trait RbacSource: Send + Sync {
    /// A number that changes whenever any RBAC object does.
    fn version(&self) -> u64;
    /// The objects now.
    fn objects(&self) -> Objects;
}

/// The authorizer.
pub struct Rbac {
    source: Arc<dyn RbacSource>,
    compiled: Mutex<Option<(u64, Arc<Index>)>>,
}

impl Rbac {
    /// An authorizer over a source of objects.
    pub fn new(source: Arc<dyn RbacSource>) -> Self {
        Self { source, compiled: Mutex::new(None) }
    }

    /// The index over the present objects.
    pub fn index(&self) -> Arc<Index> {
        // The version is read first: an object that changes in between makes the next call compile again.
        let version = self.source.version();
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, index)) = compiled.as_ref()
            && *at == version
        {
            return index.clone();
        }
        let index = Arc::new(Index::new(&self.source.objects()));
        *compiled = Some((version, index.clone()));
        index
    }

    /// Decides a request.
    pub fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        let namespace = attributes.resource.as_ref().map_or("", |resource| resource.namespace);
        let index = self.index();
        match index
            .grants(user, namespace)
            .find(|grant| grant.rules.iter().any(|rule| rule_allows(rule, attributes)))
        {
            Some(grant) => Decision::Allow(format!("RBAC: allowed by {}", grant.description)),
            None => Decision::NoOpinion(String::new()),
        }
    }

    /// Every rule that holds for a user in a namespace (empty: cluster-wide ones only).
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        self.index().grants(user, namespace).flat_map(|grant| grant.rules.iter().cloned()).collect()
    }

    /// The rules behind a role reference, read in `namespace`; none when there is no such role.
    pub fn rules_of(&self, namespace: &str, role: &RoleRef) -> Vec<PolicyRule> {
        self.index().role(namespace, role).map(|rules| rules.to_vec()).unwrap_or_default()
    }
}
