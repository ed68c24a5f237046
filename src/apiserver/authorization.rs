//! May a user do what a request asks? Node authorizer, then RBAC; `system:masters` may do everything.
//!
//! Nothing is copied out of the cache on a schedule: both look at the cached objects when asked, and remember what they
//! compiled for as long as the cache holds the same objects. A new role binding counts for the next request.

pub mod escalation;
pub mod node;
pub mod rbac;

use crate::api::error::{ApiError, GroupResource};
use crate::registry::UserInfo;

use super::authentication::MASTERS;
use super::request_info::RequestInfo;

/// What a user wants to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// Verb.
    pub verb: &'a str,
    /// The resource; `None` for a path.
    pub resource: Option<ResourceAttributes<'a>>,
    /// The path, when there is no resource.
    pub path: &'a str,
    /// Field selector of a list, a watch or a delete of a collection.
    pub field_selector: &'a str,
}

/// The resource that a user wants to act on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceAttributes<'a> {
    /// API group; empty is core.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Namespace; empty is cluster-wide.
    pub namespace: &'a str,
    /// Plural name.
    pub resource: &'a str,
    /// Subresource or empty.
    pub subresource: &'a str,
    /// Object or empty.
    pub name: &'a str,
}

impl<'a> Attributes<'a> {
    /// What a request asks for.
    pub fn of(info: &'a RequestInfo) -> Self {
        let resource = info.target.as_ref().map(|target| ResourceAttributes {
            group: &target.group,
            version: &target.version,
            namespace: &target.namespace,
            resource: &target.resource,
            subresource: &target.subresource,
            name: &target.name,
        });
        Self { verb: &info.verb, resource, path: &info.path, field_selector: info.param("fieldSelector") }
    }
}

/// The outcome of an authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, and why.
    Allow(String),
    /// Nobody allowed it; the text may say more than "no".
    NoOpinion(String),
}

impl Decision {
    /// Whether the user may go on.
    pub fn allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// The chain of authorizers.
pub struct Authorizer {
    node: node::NodeAuthorizer,
    rbac: rbac::Rbac,
}

impl Authorizer {
    /// Authorizers over cached objects.
    pub fn new(node: node::NodeAuthorizer, rbac: rbac::Rbac) -> Self {
        Self { node, rbac }
    }

    /// Role-based access control by itself, for the checks against privilege escalation.
    pub fn rbac(&self) -> &rbac::Rbac {
        &self.rbac
    }

    /// Decides.
    pub fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        if user.groups.iter().any(|group| group == MASTERS) {
            return Decision::Allow(String::new());
        }
        let node = self.node.authorize(user, attributes);
        if node.allowed() {
            return node;
        }
        match (self.rbac.authorize(user, attributes), node) {
            (Decision::NoOpinion(_), Decision::NoOpinion(reason)) if !reason.is_empty() => {
                Decision::NoOpinion(reason)
            }
            (decision, _) => decision,
        }
    }

    /// Decides, with the error that upstream's clients know.
    pub fn check(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        match self.authorize(user, attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(forbidden(user, attributes, &reason)),
        }
    }
}

/// 403 in upstream's words.
pub fn forbidden(user: &UserInfo, attributes: &Attributes<'_>, reason: &str) -> ApiError {
    let mut message = format!("User {:?} cannot {}", user.name, attributes.verb);
    let (resource, name) = match &attributes.resource {
        None => {
            message.push_str(&format!(" path {:?}", attributes.path));
            (GroupResource::new("", ""), "")
        }
        Some(r) => {
            let slash = if r.subresource.is_empty() { "" } else { "/" };
            message.push_str(&format!(
                " resource {:?} in API group {:?}",
                format!("{}{slash}{}", r.resource, r.subresource),
                r.group
            ));
            if r.namespace.is_empty() {
                message.push_str(" at the cluster scope");
            } else {
                message.push_str(&format!(" in the namespace {:?}", r.namespace));
            }
            (GroupResource::new(r.group, r.resource), r.name)
        }
    };
    if !reason.is_empty() {
        message.push_str(&format!(": {reason}"));
    }
    ApiError::forbidden(&resource, name, message)
}

#[cfg(test)]
mod tests;
