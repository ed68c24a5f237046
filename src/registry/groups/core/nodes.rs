//! Nodes.

use k8s_openapi::api::core::v1::{Node, NodeStatus, Taint};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell, wide};
use crate::registry::validation::{each, non_negative_quantity, one_of, text};

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
        // The place is upstream's, though taints are part of the spec.
        let at = Path::new("metadata").child("taints");
        taints(node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()), &at, errors);
        let at = Path::new("status");
        let none = NodeStatus::default();
        let status = node.status.as_ref().unwrap_or(&none);
        for (field, amounts) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
            for (name, amount) in amounts.iter().flatten() {
                let at = at.child(field).child(name.clone());
                non_negative_quantity(Some(amount), &at, errors);
            }
        }
    }

    fn validate_create(&self, node: &Node, errors: &mut FieldErrors) {
        let cidrs = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_deref()).unwrap_or_default();
        let at = Path::new("spec").child("podCIDRs");
        for (i, cidr) in cidrs.iter().enumerate() {
            each(names::is_cidr(cidr), cidr, &at.index(i), errors);
        }
        let is_v6 = |cidr: &String| cidr.contains(':');
        if cidrs.len() > 1 && !(cidrs.len() == 2 && is_v6(&cidrs[0]) != is_v6(&cidrs[1])) {
            let message = "may specify no more than one CIDR for each IP family";
            errors.push(FieldError::invalid(&at, cidrs, message));
        }
    }

    fn validate_update(&self, node: &Node, old: &Node, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        let spec = |node: &Node| node.spec.clone().unwrap_or_default();
        let (new, was) = (spec(node), spec(old));
        addresses(node, errors);
        if was.pod_cidrs.as_ref().is_some_and(|cidrs| !cidrs.is_empty()) && new.pod_cidrs != was.pod_cidrs {
            let message = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(FieldError::forbidden(&at.child("podCIDRs"), message));
        }
        let given = |id: &Option<String>| id.as_deref().is_some_and(|id| !id.is_empty());
        if given(&was.provider_id) && new.provider_id != was.provider_id {
            let message = "node updates may not change providerID except from \"\" to valid";
            errors.push(FieldError::forbidden(&at.child("providerID"), message));
        }
    }

    fn validate_status_update(&self, node: &Node, _: &Node, errors: &mut FieldErrors) {
        self.validate(node, errors);
        addresses(node, errors);
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

/// Checks taints.
fn taints<'a>(taints: impl Iterator<Item = &'a Taint>, at: &Path, errors: &mut FieldErrors) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, taint) in taints.enumerate() {
        let at = at.index(i);
        each(names::is_qualified_name(&taint.key), &taint.key, &at.child("key"), errors);
        let value = text(&taint.value);
        let messages = names::is_label_value(value);
        if !messages.is_empty() {
            errors.push(FieldError::invalid(&at.child("value"), value, messages.join(";")));
        }
        one_of(Some(&taint.effect), &EFFECTS, &at.child("effect"), errors);
        if !seen.insert((&taint.key, &taint.effect)) {
            let mut error = FieldError::duplicate(&at, taint);
            error.detail = "taints must be unique by key and effect pair".into();
            errors.push(error);
        }
    }
}

fn addresses(node: &Node, errors: &mut FieldErrors) {
    let all: Vec<_> = node.status.iter().flat_map(|status| status.addresses.iter().flatten()).collect();
    for (i, address) in all.iter().enumerate().filter(|(i, address)| all[..*i].contains(address)) {
        let at = Path::new("status").child("addresses").index(i);
        errors.push(FieldError::duplicate(&at, address));
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
    #[test]
    fn problems_are_named_as_upstream_names_them() {
        let check = |spec: Value, status: Value| {
            let node: Node = serde_json::from_value(json!({"spec": spec, "status": status})).unwrap();
            let mut errors = FieldErrors::new();
            NodeStrategy.validate(&node, &mut errors);
            NodeStrategy.validate_create(&node, &mut errors);
            NodeStrategy.validate_update(&node, &node, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        let address = json!({"type": "InternalIP", "address": "10.0.0.1"});
        let cases = [
            (
                json!({"taints": [taint], "podCIDRs": ["10.0.0.0/24", "fd00::/64"]}),
                json!({"addresses": [address]}),
                None,
            ),
            (
                json!({"taints": [taint, taint]}),
                json!({}),
                Some(
                    "metadata.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique by key and effect pair",
                ),
            ),
            (
                json!({"taints": [{"key": "a", "effect": "Never"}]}),
                json!({}),
                Some(
                    "metadata.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ),
            ),
            (
                json!({"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}),
                json!({}),
                Some(
                    "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family",
                ),
            ),
            (
                json!({}),
                json!({"addresses": [address, address]}),
                Some(
                    "status.addresses[1]: Duplicate value: {\"address\":\"10.0.0.1\",\"type\":\"InternalIP\"}",
                ),
            ),
            (
                json!({}),
                json!({"capacity": {"cpu": "-1"}}),
                Some("status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0"),
            ),
        ];
        for (spec, status, expected) in cases {
            assert_eq!(check(spec, status), Vec::from_iter(expected.map(str::to_owned)));
        }
    }
}
