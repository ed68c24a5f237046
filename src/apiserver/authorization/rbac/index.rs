//! Roles and bindings arranged by subject: a request looks only at what names its user or one of its groups.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};

use super::Objects;
use crate::apiserver::authentication::service_account;
use crate::registry::UserInfo;

/// A role given to a subject.
#[derive(Debug)]
pub struct Grant {
    /// Where it counts: `None` is everywhere.
    namespace: Option<String>,
    /// The rules of the role.
    pub rules: Arc<[PolicyRule]>,
    /// The binding in upstream's words, for the audit trail.
    pub description: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum SubjectKind {
    User,
    Group,
}

/// Everything RBAC knows, ready to be asked.
#[derive(Debug, Default)]
pub struct Index {
    cluster_roles: HashMap<String, Arc<[PolicyRule]>>,
    roles: HashMap<(String, String), Arc<[PolicyRule]>>,
    users: HashMap<String, Vec<Arc<Grant>>>,
    groups: HashMap<String, Vec<Arc<Grant>>>,
}

impl Index {
    /// Arranges objects; a binding whose role does not exist gives nothing.
    pub fn new(objects: &Objects) -> Self {
        let rules = |rules: &Option<Vec<PolicyRule>>| Arc::from(rules.clone().unwrap_or_default());
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let mut index = Self::default();
        for role in &objects.cluster_roles {
            index.cluster_roles.insert(name(&role.metadata.name), rules(&role.rules));
        }
        for role in &objects.roles {
            index
                .roles
                .insert((name(&role.metadata.namespace), name(&role.metadata.name)), rules(&role.rules));
        }
        for binding in &objects.cluster_role_bindings {
            let own = name(&binding.metadata.name);
            index.add(None, &own, &binding.role_ref, binding.subjects.as_deref().unwrap_or_default());
        }
        for binding in &objects.role_bindings {
            let own = name(&binding.metadata.name);
            let namespace = name(&binding.metadata.namespace);
            index.add(
                Some(namespace),
                &own,
                &binding.role_ref,
                binding.subjects.as_deref().unwrap_or_default(),
            );
        }
        index
    }

    fn add(&mut self, namespace: Option<String>, binding: &str, role: &RoleRef, subjects: &[Subject]) {
        let Some(rules) = self.role(namespace.as_deref().unwrap_or_default(), role) else { return };
        for subject in subjects {
            let Some((kind, name, shown)) = subject_key(subject, namespace.as_deref()) else { continue };
            let what = match &namespace {
                None => format!("ClusterRoleBinding {binding:?}"),
                Some(namespace) => format!("RoleBinding {:?}", format!("{binding}/{namespace}")),
            };
            let description = format!("{what} of {} {:?} to {shown}", role.kind, role.name);
            let grant = Arc::new(Grant { namespace: namespace.clone(), rules: rules.clone(), description });
            match kind {
                SubjectKind::User => self.users.entry(name).or_default().push(grant),
                SubjectKind::Group => self.groups.entry(name).or_default().push(grant),
            }
        }
    }

    /// The rules of a role reference, read in `namespace`.
    pub fn role(&self, namespace: &str, role: &RoleRef) -> Option<Arc<[PolicyRule]>> {
        match role.kind.as_str() {
            "ClusterRole" => self.cluster_roles.get(&role.name).cloned(),
            "Role" => self.roles.get(&(namespace.to_owned(), role.name.clone())).cloned(),
            _ => None,
        }
    }

    /// What is given to a user, by name or group, and counts in `namespace` (empty: what counts everywhere).
    pub fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
        let by_user = self.users.get(&user.name).into_iter();
        let by_group = user.groups.iter().filter_map(|group| self.groups.get(group));
        by_user.chain(by_group).flatten().map(Arc::as_ref).filter(move |grant| {
            grant.namespace.as_deref().is_none_or(|own| own == namespace && !own.is_empty())
        })
    }
}

/// Under which key a subject is found, and how it is described.
fn subject_key(subject: &Subject, namespace: Option<&str>) -> Option<(SubjectKind, String, String)> {
    let shown = |name: &str| format!("{} {name:?}", subject.kind);
    match subject.kind.as_str() {
        "User" => Some((SubjectKind::User, subject.name.clone(), shown(&subject.name))),
        "Group" => Some((SubjectKind::Group, subject.name.clone(), shown(&subject.name))),
        "ServiceAccount" => {
            // A role binding may leave the namespace of a service account to its own.
            let own = subject.namespace.as_deref().filter(|ns| !ns.is_empty()).or(namespace)?;
            let name = format!("{}{own}:{}", service_account::USER_PREFIX, subject.name);
            Some((SubjectKind::User, name, shown(&format!("{}/{own}", subject.name))))
        }
        _ => None,
    }
}
