//! Nodes.

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell, wide};
use crate::registry::validation::each;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE: &str = "kubernetes.io/role";
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// The columns of nodes.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "Whether the node is ready, and takes pods."),
    column("Roles", "string", "Roles of the node."),
    AGE,
    column("Version", "string", "Version of the kubelet."),
    wide("Internal-IP", "string", "Address of the node within the cluster."),
    wide("External-IP", "string", "Address of the node outside of the cluster."),
    wide("OS-Image", "string", "Operating system of the node."),
    wide("Kernel-Version", "string", "Kernel of the node."),
    wide("Container-Runtime", "string", "Container runtime of the node."),
];

/// The strategy of nodes.
pub struct NodeStrategy;

impl Strategy for NodeStrategy {
    type Object = Node;

    fn default(&self, node: &mut Node) {
        let status = node.status.get_or_insert_default();
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    fn validate(&self, node: &Node, errors: &mut FieldErrors) {
        let Some(spec) = &node.spec else { return };
        let at = Path::new("spec");
        let mut seen = std::collections::BTreeSet::new();
        for (i, taint) in spec.taints.iter().flatten().enumerate() {
            let at = at.child("taints").index(i);
            each(names::is_qualified_name(&taint.key), &taint.key, &at.child("key"), errors);
            let value = taint.value.as_deref().unwrap_or_default();
            each(names::is_label_value(value), value, &at.child("value"), errors);
            if taint.effect.is_empty() {
                errors.push(FieldError::required(&at.child("effect"), ""));
            } else if !EFFECTS.contains(&taint.effect.as_str()) {
                errors.push(FieldError::not_supported(&at.child("effect"), &taint.effect, &EFFECTS));
            }
            if !seen.insert((&taint.key, &taint.effect)) {
                errors.push(FieldError::duplicate(&at, taint));
            }
        }
        for (i, cidr) in spec.pod_cidrs.iter().flatten().enumerate() {
            each(names::is_cidr(cidr), cidr, &at.child("podCIDRs").index(i), errors);
        }
    }

    fn validate_update(&self, node: &Node, old: &Node, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        let spec = |node: &Node| node.spec.clone().unwrap_or_default();
        let (new, was) = (spec(node), spec(old));
        if was.pod_cidrs.is_some() && new.pod_cidrs != was.pod_cidrs {
            let message = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(FieldError::forbidden(&at.child("podCIDRs"), message));
        }
        let given = |id: &Option<String>| id.as_deref().is_some_and(|id| !id.is_empty());
        if given(&was.provider_id) && new.provider_id != was.provider_id {
            let message = "node updates may not change providerID except from \"\" to valid";
            errors.push(FieldError::forbidden(&at.child("providerID"), message));
        }
    }

    fn cells(&self, node: &Node, now: Timestamp) -> Vec<Value> {
        let empty = NodeStatus::default();
        let status = node.status.as_ref().unwrap_or(&empty);
        let info = status.node_info.clone().unwrap_or_default();
        let address = |kind: &str| {
            let mut addresses = status.addresses.iter().flatten();
            addresses.find(|a| a.type_ == kind).map_or("<none>", |a| a.address.as_str()).to_owned()
        };
        let or_unknown = |text: String| if text.is_empty() { "<unknown>".to_owned() } else { text };
        vec![
            name_cell(&node.metadata),
            condition(node).into(),
            roles(node).into(),
            age_cell(&node.metadata, now),
            info.kubelet_version.into(),
            address("InternalIP").into(),
            address("ExternalIP").into(),
            or_unknown(info.os_image).into(),
            or_unknown(info.kernel_version).into(),
            or_unknown(info.container_runtime_version).into(),
        ]
    }
}

fn condition(node: &Node) -> String {
    let mut conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut text = match conditions.find(|c| c.type_ == "Ready") {
        Some(ready) if ready.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(node: &Node) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in node.metadata.labels.iter().flatten() {
        match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => roles.push(role),
            None if key == ROLE && !value.is_empty() => roles.push(value),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_shows_readiness_and_roles() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "", "x": "y"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0"}},
        }))
        .unwrap();
        let cells: Vec<String> = NodeStrategy
            .cells(&node, Timestamp::now())
            .iter()
            .map(|cell| cell.as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(cells[..3], ["n", "Ready,SchedulingDisabled", "control-plane"]);
        assert_eq!(cells[4..7], ["v1.36.0", "10.0.0.1", "<none>"]);
    }
}
