//! The node authorizer: a kubelet may read what its own pods refer to, and act on its own node and pods.
//!
//! What every node may do whatever it runs is a fixed list of rules; what depends on the pods it runs is looked up in
//! the cached pods at the time of the request, so that a kubelet that has just seen a pod can read its secrets at once.

mod references;
mod rules;

use std::sync::Arc;

use super::{Attributes, Decision, ResourceAttributes};
use crate::registry::UserInfo;
pub use references::References;

/// Prefix of a node's user name.
pub const USER_PREFIX: &str = "system:node:";
/// Group of all nodes.
pub const GROUP: &str = "system:nodes";

/// What the authorizer must know about pods and volumes.
pub trait NodeSource: Send + Sync {
    /// Whether a pod that is bound to `node` and lives in `namespace` refers to something for which `wanted` is true.
    fn any_pod(&self, node: &str, namespace: &str, wanted: &dyn Fn(&References) -> bool) -> bool;
    /// The claim (namespace, name) that a persistent volume is bound to.
    fn claim_of_volume(&self, volume: &str) -> Option<(String, String)>;
    /// The claims of the persistent volumes whose driver needs a secret on the node.
    fn claims_with_secret(&self, namespace: &str, secret: &str) -> Vec<(String, String)>;
    /// The node that a volume attachment is for.
    fn node_of_attachment(&self, attachment: &str) -> Option<String>;
    /// The node that a pod is bound to; `None` when there is no such pod.
    fn node_of_pod(&self, namespace: &str, name: &str) -> Option<String>;
}

/// The node that a user is, if it is one.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(USER_PREFIX).filter(|name| !name.is_empty())?;
    user.groups.iter().any(|group| group == GROUP).then_some(name)
}

/// The authorizer.
pub struct NodeAuthorizer {
    source: Arc<dyn NodeSource>,
}

impl NodeAuthorizer {
    /// An authorizer over a source of pods.
    pub fn new(source: Arc<dyn NodeSource>) -> Self {
        Self { source }
    }

    /// Decides a request; no opinion about users that are no nodes.
    pub fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        let no = |reason: &str| Decision::NoOpinion(reason.to_owned());
        let Some(node) = node_name(user) else { return no("") };
        let Some(r) = &attributes.resource else { return no("") };
        match (r.group, r.resource) {
            ("", "secrets" | "configmaps") => self.read_referenced(node, attributes.verb, r),
            ("", "persistentvolumeclaims") if r.subresource == "status" => rules::decide(attributes),
            ("", "persistentvolumeclaims") => self.get_referenced(node, attributes.verb, r),
            ("", "persistentvolumes") => self.get_referenced(node, attributes.verb, r),
            ("storage.k8s.io", "volumeattachments") => self.get_referenced(node, attributes.verb, r),
            ("resource.k8s.io", "resourceclaims") => self.get_referenced(node, attributes.verb, r),
            ("", "serviceaccounts") if r.subresource == "token" => {
                self.create_token(node, attributes.verb, r)
            }
            ("coordination.k8s.io", "leases") => lease(node, attributes.verb, r),
            ("storage.k8s.io", "csinodes") => csi_node(node, attributes.verb, r),
            ("", "nodes") => own_node(node, attributes.verb, r),
            ("", "pods") => self.own_pods(node, attributes, r),
            _ => rules::decide(attributes),
        }
    }

    /// Secrets and config maps: read by name, and list or watch with `metadata.name` selected.
    fn read_referenced(&self, node: &str, verb: &str, r: &ResourceAttributes<'_>) -> Decision {
        if !matches!(verb, "get" | "list" | "watch") {
            return Decision::NoOpinion("can only read resources of this type".to_owned());
        }
        if r.name.is_empty() {
            return Decision::NoOpinion("No Object name found".to_owned());
        }
        self.referenced(node, r)
    }

    fn get_referenced(&self, node: &str, verb: &str, r: &ResourceAttributes<'_>) -> Decision {
        if verb != "get" {
            return Decision::NoOpinion("can only get individual resources of this type".to_owned());
        }
        if !r.subresource.is_empty() {
            return Decision::NoOpinion("cannot get subresource".to_owned());
        }
        self.referenced(node, r)
    }

    fn create_token(&self, node: &str, verb: &str, r: &ResourceAttributes<'_>) -> Decision {
        if verb != "create" || r.name.is_empty() {
            return Decision::NoOpinion("can only create tokens for individual service accounts".to_owned());
        }
        self.referenced(node, r)
    }

    /// Pods bound to the node, by name or selected by `spec.nodeName`; admission limits what is written to them.
    fn own_pods(&self, node: &str, attributes: &Attributes<'_>, r: &ResourceAttributes<'_>) -> Decision {
        let no = |reason: String| Decision::NoOpinion(reason);
        match (r.subresource, attributes.verb) {
            ("", "get") => match self.source.node_of_pod(r.namespace, r.name) {
                Some(other) if other != node => no(format!("node '{node}' cannot get pods of other nodes")),
                // A pod that is gone is answered with 404, which tells the kubelet to clean up.
                _ => Decision::Allow(String::new()),
            },
            ("", "list" | "watch") => {
                let own = format!("spec.nodeName={node}");
                if attributes.field_selector.split(',').any(|term| term.replacen("==", "=", 1) == own) {
                    return Decision::Allow(String::new());
                }
                no(format!("can only list/watch pods with the field selector {own}"))
            }
            ("", "create" | "delete") | ("status", "get" | "update" | "patch") | ("eviction", "create") => {
                Decision::Allow(String::new())
            }
            _ => no(String::new()),
        }
    }

    fn referenced(&self, node: &str, r: &ResourceAttributes<'_>) -> Decision {
        let pods_refer = |namespace: &str, wanted: &dyn Fn(&References) -> bool| {
            self.source.any_pod(node, namespace, wanted)
        };
        let found = match r.resource {
            "secrets" => {
                pods_refer(r.namespace, &|refs| refs.secrets.contains(r.name))
                    || self
                        .source
                        .claims_with_secret(r.namespace, r.name)
                        .iter()
                        .any(|(namespace, claim)| pods_refer(namespace, &|refs| refs.claims.contains(claim)))
            }
            "configmaps" => pods_refer(r.namespace, &|refs| refs.config_maps.contains(r.name)),
            "persistentvolumeclaims" => pods_refer(r.namespace, &|refs| refs.claims.contains(r.name)),
            "resourceclaims" => pods_refer(r.namespace, &|refs| refs.resource_claims.contains(r.name)),
            "serviceaccounts" => pods_refer(r.namespace, &|refs| refs.service_account == r.name),
            "persistentvolumes" => self.source.claim_of_volume(r.name).is_some_and(|(namespace, claim)| {
                pods_refer(&namespace, &|refs| refs.claims.contains(&claim))
            }),
            "volumeattachments" => self.source.node_of_attachment(r.name).is_some_and(|own| own == node),
            _ => false,
        };
        if found {
            return Decision::Allow(String::new());
        }
        Decision::NoOpinion(format!("no relationship found between node '{node}' and this object"))
    }
}

/// A node keeps the lease of its own name in `kube-node-lease`.
fn lease(node: &str, verb: &str, r: &ResourceAttributes<'_>) -> Decision {
    if r.namespace != "kube-node-lease" {
        return Decision::NoOpinion(format!(
            "can only access leases in the {:?} system namespace",
            "kube-node-lease"
        ));
    }
    own_named(node, verb, r, &["get", "create", "update", "patch", "delete"], "lease")
}

fn csi_node(node: &str, verb: &str, r: &ResourceAttributes<'_>) -> Decision {
    own_named(node, verb, r, &["get", "create", "update", "patch", "delete"], "CSINode")
}

/// Objects that carry the node's name; the name of a create is not in the request, and admission checks it.
fn own_named(node: &str, verb: &str, r: &ResourceAttributes<'_>, verbs: &[&str], what: &str) -> Decision {
    if !verbs.contains(&verb) {
        return Decision::NoOpinion(format!("can only get, create, update, patch, or delete a node {what}"));
    }
    if verb != "create" && r.name != node {
        return Decision::NoOpinion(format!(
            "can only access node {what} with the same name as the requesting node"
        ));
    }
    Decision::Allow(String::new())
}

/// A node reads and writes its own Node; admission limits further what it may write.
fn own_node(node: &str, verb: &str, r: &ResourceAttributes<'_>) -> Decision {
    match (r.subresource, verb) {
        ("", "create") => Decision::Allow(String::new()),
        ("", "get" | "list" | "watch" | "update" | "patch") | ("status", "get" | "update" | "patch") => {
            if r.name == node {
                return Decision::Allow(String::new());
            }
            Decision::NoOpinion(format!("node '{node}' cannot access '{}', only its own Node object", r.name))
        }
        _ => Decision::NoOpinion(String::new()),
    }
}

#[cfg(test)]
mod tests;
