//! Answers for the registry's admission: who may bind and escalate roles.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};

use super::rbac::covers;
use super::{Attributes, Authorizer, ResourceAttributes};
use crate::apiserver::authentication::MASTERS;
use crate::registry::{BindCheck, UserInfo};

/// What users hold, by role-based access control.
pub struct Privileges {
    authorizer: Arc<Authorizer>,
}

impl Privileges {
    /// Answers by this authorizer.
    pub fn new(authorizer: Arc<Authorizer>) -> Self {
        Self { authorizer }
    }
}

impl BindCheck for Privileges {
    fn allowed(
        &self,
        user: &UserInfo,
        verb: &str,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> bool {
        let resource =
            ResourceAttributes { group, version: "*", namespace, resource: plural, subresource: "", name };
        self.authorizer
            .authorize(user, &Attributes { verb, resource: Some(resource), ..Attributes::default() })
            .allowed()
    }

    fn missing_rules(&self, user: &UserInfo, namespace: &str, rules: &[PolicyRule]) -> Vec<PolicyRule> {
        if user.groups.iter().any(|group| group == MASTERS) {
            return Vec::new();
        }
        covers(&self.authorizer.rbac().rules_for(user, namespace), rules)
    }

    fn rules_of(&self, namespace: &str, role: &RoleRef) -> Vec<PolicyRule> {
        self.authorizer.rbac().rules_of(namespace, role)
    }
}
