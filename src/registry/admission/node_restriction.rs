//! `NodeRestriction`: a node writes only its own objects. And new nodes are tainted until they are ready.

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::registry::object::Object;

const NODE_USER: &str = "system:node:";
const NODES: &str = "system:nodes";
const MIRROR: &str = "kubernetes.io/config.mirror";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const LEASES: &str = "kube-node-lease";
const ALLOWED_LABELS: [&str; 9] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

pub(super) struct NodeRestriction;

/// The node that asks, if a node asks.
fn node_of<'a>(request: &'a Request<'_>) -> Option<&'a str> {
    let user = &request.cx.user;
    user.groups.iter().any(|group| group == NODES).then(|| user.name.strip_prefix(NODE_USER)).flatten()
}

#[async_trait]
impl Plugin for NodeRestriction {
    async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(node) = node_of(request) else { return Ok(()) };
        match (request.resource.group.as_ref(), request.resource.plural.as_ref(), request.subresource) {
            ("", "pods", "") => pods(request, node, object),
            ("", "pods", "status" | "eviction") => own_pod(request, node),
            ("", "nodes", "" | "status") => nodes(request, node, object, old),
            ("", "serviceaccounts", "token") => {
                token(request, node, object.and_then(|object| object.downcast_ref::<TokenRequest>()))
            }
            ("coordination.k8s.io", "leases", _) => leases(request, node, object),
            ("storage.k8s.io", "csinodes", _) if name_of(request, object) != node => Err(request.forbid(
                format!("can only access CSINode with the same name as the requesting node {node:?}"),
            )),
            _ => Ok(()),
        }
    }
}

fn name_of<'a>(request: &Request<'a>, object: Option<&'a dyn Object>) -> &'a str {
    object.and_then(|object| object.meta().name.as_deref()).unwrap_or(request.name)
}

fn pods(request: &Request<'_>, node: &str, object: Option<&dyn Object>) -> Result<(), ApiError> {
    if request.operation == Operation::Delete {
        return own_pod(request, node);
    }
    if request.operation == Operation::Update {
        return Err(request.forbid(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        )));
    }
    let Some(pod) = object.and_then(|object| object.downcast_ref::<Pod>()) else { return Ok(()) };
    let is_mirror = pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR));
    if !is_mirror {
        return Err(request.forbid(format!(
            "pod does not have \"{MIRROR}\" annotation, node {node:?} can only create mirror pods"
        )));
    }
    let spec = pod.spec.as_ref();
    if spec.and_then(|s| s.node_name.as_deref()) != Some(node) {
        return Err(
            request.forbid(format!("node {node:?} can only create pods with spec.nodeName set to itself"))
        );
    }
    if spec.is_some_and(|s| s.service_account_name.as_deref().is_some_and(|n| !n.is_empty())) {
        return Err(
            request.forbid(format!("node {node:?} can not create pods that reference a service account"))
        );
    }
    Ok(())
}

fn own_pod(request: &Request<'_>, node: &str) -> Result<(), ApiError> {
    match request.registry.read_one::<Pod>(request.namespace, request.name)? {
        Some(pod) if pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) != Some(node) => {
            Err(request
                .forbid(format!("node {node:?} can only act on pods with spec.nodeName set to itself")))
        }
        _ => Ok(()),
    }
}

fn nodes(
    request: &Request<'_>,
    node: &str,
    object: Option<&dyn Object>,
    old: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let name = name_of(request, object);
    if name != node {
        return Err(request.forbid(format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let as_node =
        |object: Option<&dyn Object>| object.and_then(|object| object.downcast_ref::<Node>()).cloned();
    let Some(new) = as_node(object) else { return Ok(()) };
    let old = as_node(old);
    if let (Some(old), "") = (&old, request.subresource) {
        let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        if taints(&new) != taints(old) {
            return Err(request.forbid(format!("node {node:?} is not allowed to modify taints")));
        }
    }
    let before = old.and_then(|old| old.metadata.labels).unwrap_or_default();
    let after = new.metadata.labels.unwrap_or_default();
    let changed = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, _)| key)
        .chain(before.keys().filter(|key| !after.contains_key(*key)));
    let mut refused: Vec<&str> = changed.map(String::as_str).filter(|key| !may_label(key)).collect();
    if refused.is_empty() {
        return Ok(());
    }
    refused.sort_unstable();
    Err(request.forbid(format!("is not allowed to modify labels: {}", refused.join(", "))))
}

/// Whether a node may set a label on itself.
fn may_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |suffix: &str| domain == suffix || domain.ends_with(&format!(".{suffix}"));
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    within("kubelet.kubernetes.io")
        || within("node.kubernetes.io")
        || domain == "topology.kubernetes.io"
        || ALLOWED_LABELS.contains(&key)
}

fn leases(request: &Request<'_>, node: &str, object: Option<&dyn Object>) -> Result<(), ApiError> {
    if request.namespace != LEASES {
        return Err(request.forbid(format!("can only access leases in the {LEASES:?} system namespace")));
    }
    if name_of(request, object) != node {
        return Err(request.forbid(format!(
            "can only access node lease with the same name as the requesting node {node:?}"
        )));
    }
    Ok(())
}

fn token(request: &Request<'_>, node: &str, order: Option<&TokenRequest>) -> Result<(), ApiError> {
    let Some(pod) = order
        .and_then(|order| order.spec.as_ref()?.bound_object_ref.as_ref())
        .filter(|r| r.kind.as_deref() == Some("Pod") && r.api_version.as_deref() == Some("v1"))
    else {
        return Err(request.forbid("node requested token not bound to a pod"));
    };
    let name = pod.name.as_deref().unwrap_or_default();
    match request.registry.read_one::<Pod>(request.namespace, name)? {
        Some(found) if found.metadata.uid != pod.uid => Err(request.forbid(format!(
            "the UID in the bound object reference ({}) does not match the UID in record",
            pod.uid.as_deref().unwrap_or_default()
        ))),
        Some(found) if found.spec.as_ref().and_then(|s| s.node_name.as_deref()) != Some(node) => {
            Err(request.forbid("node requested token bound to a pod scheduled on a different node"))
        }
        Some(_) => Ok(()),
        None => Err(ApiError::not_found(&crate::api::error::GroupResource::new("", "pods"), name)),
    }
}

/// `TaintNodesByCondition`: a new node takes no pods until a controller has seen it ready.
pub(super) struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    async fn admit(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        _: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        if request.operation != Operation::Create || !request.is("", "nodes") {
            return Ok(false);
        }
        let Some(node) = object.downcast_mut::<Node>() else { return Ok(false) };
        let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
        if taints.iter().any(|taint| taint.key == NOT_READY && taint.effect == "NoSchedule") {
            return Ok(false);
        }
        taints.push(Taint { key: NOT_READY.into(), effect: "NoSchedule".into(), ..Default::default() });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_label_themselves_only_with_harmless_keys() {
        let cases = [
            ("example.com/a", true),
            ("plain", true),
            ("kubernetes.io/hostname", true),
            ("node.kubernetes.io/instance-type", true),
            ("kubelet.kubernetes.io/x", true),
            ("topology.kubernetes.io/zone", true),
            ("node-role.kubernetes.io/control-plane", false),
            ("node-restriction.kubernetes.io/x", false),
            ("x.node-restriction.kubernetes.io/x", false),
            ("k8s.io/x", false),
        ];
        for (key, allowed) in cases {
            assert_eq!(may_label(key), allowed, "{key}");
        }
    }
}
