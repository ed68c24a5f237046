//! NetworkPolicies.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{each, selector};

/// The columns of NetworkPolicies.
pub const COLUMNS: &[Column] = &[NAME, column("Pod-Selector", "string", "The pods it is about."), AGE];

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const TYPES: [&str; 2] = ["Egress", "Ingress"];

/// The strategy of NetworkPolicies.
pub struct NetworkPolicyStrategy;

fn default_ports(ports: Option<&mut Vec<NetworkPolicyPort>>) {
    for port in ports.into_iter().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".into());
    }
}

impl Strategy for NetworkPolicyStrategy {
    type Object = NetworkPolicy;

    fn default(&self, policy: &mut NetworkPolicy) {
        let spec = policy.spec.get_or_insert_default();
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let mut types = vec!["Ingress".to_owned()];
            if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) {
                types.push("Egress".into());
            }
            spec.policy_types = Some(types);
        }
        spec.ingress.iter_mut().flatten().for_each(|rule| default_ports(rule.ports.as_mut()));
        spec.egress.iter_mut().flatten().for_each(|rule| default_ports(rule.ports.as_mut()));
    }

    fn validate(&self, policy: &NetworkPolicy, errors: &mut FieldErrors) {
        let empty = NetworkPolicySpec::default();
        let spec = policy.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        selector(spec.pod_selector.as_ref(), &at.child("podSelector"), errors);
        for (i, rule) in spec.ingress.iter().flatten().enumerate() {
            let at = at.child("ingress").index(i);
            ports(rule.ports.as_deref(), &at, errors);
            peers(rule.from.as_deref(), &at.child("from"), errors);
        }
        for (i, rule) in spec.egress.iter().flatten().enumerate() {
            let at = at.child("egress").index(i);
            ports(rule.ports.as_deref(), &at, errors);
            peers(rule.to.as_deref(), &at.child("to"), errors);
        }
        let types = spec.policy_types.as_deref().unwrap_or_default();
        if types.len() > 2 {
            let message = "may not specify more than two policyTypes";
            errors.push(FieldError::invalid(&at.child("policyTypes"), types, message));
            return;
        }
        for (i, kind) in types.iter().enumerate().filter(|(_, kind)| !TYPES.contains(&kind.as_str())) {
            errors.push(FieldError::not_supported(&at.child("policyTypes").index(i), kind, &TYPES));
        }
    }

    fn cells(&self, policy: &NetworkPolicy, now: Timestamp) -> Vec<Value> {
        let pods = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
        let text = crate::registry::table::label_selector_text(pods);
        vec![name_cell(&policy.metadata), text.into(), age_cell(&policy.metadata, now)]
    }
}

fn ports(ports: Option<&[NetworkPolicyPort]>, at: &Path, errors: &mut FieldErrors) {
    for (i, port) in ports.unwrap_or_default().iter().enumerate() {
        let at = at.child("ports").index(i);
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if !PROTOCOLS.contains(&protocol) {
            errors.push(FieldError::not_supported(&at.child("protocol"), protocol, &PROTOCOLS));
        }
        match (&port.port, port.end_port) {
            (Some(IntOrString::Int(number)), end) => {
                for message in names::is_port_number(i64::from(*number)) {
                    errors.push(FieldError::invalid(&at.child("port"), number, message));
                }
                if let Some(end) = end {
                    if end < *number {
                        let message = "must be greater than or equal to `port`";
                        errors.push(FieldError::invalid(&at.child("endPort"), end, message));
                    }
                    for message in names::is_port_number(i64::from(end)) {
                        errors.push(FieldError::invalid(&at.child("endPort"), end, message));
                    }
                }
            }
            (Some(IntOrString::String(name)), end) => {
                if let Some(end) = end {
                    let message = "may not be specified when `port` is non-numeric";
                    errors.push(FieldError::invalid(&at.child("endPort"), end, message));
                }
                each(names::is_port_name(name), name, &at.child("port"), errors);
            }
            (None, Some(end)) => {
                let message = "may not be specified when `port` is not specified";
                errors.push(FieldError::invalid(&at.child("endPort"), end, message));
            }
            (None, None) => {}
        }
    }
}

fn peers(peers: Option<&[NetworkPolicyPeer]>, at: &Path, errors: &mut FieldErrors) {
    for (i, peer) in peers.unwrap_or_default().iter().enumerate() {
        let at = at.index(i);
        let selectors = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        selector(peer.pod_selector.as_ref(), &at.child("podSelector"), errors);
        selector(peer.namespace_selector.as_ref(), &at.child("namespaceSelector"), errors);
        match &peer.ip_block {
            Some(_) if selectors => {
                errors.push(FieldError::forbidden(&at, "may not specify both ipBlock and another peer"));
            }
            None if !selectors => errors.push(FieldError::required(&at, "must specify a peer")),
            None => {}
            Some(block) => {
                let at = at.child("ipBlock");
                if block.cidr.is_empty() {
                    errors.push(FieldError::required(&at.child("cidr"), ""));
                    continue;
                }
                let wrong = names::is_cidr(&block.cidr);
                let usable = wrong.is_empty();
                each(wrong, &block.cidr, &at.child("cidr"), errors);
                for (j, except) in block.except.iter().flatten().enumerate() {
                    let at = at.child("except").index(j);
                    let wrong = names::is_cidr(except);
                    if usable && wrong.is_empty() && !strictly_within(except, &block.cidr) {
                        let message = format!("must be a strict subset of `cidr` {}", block.cidr);
                        errors.push(FieldError::invalid(&at, except, message.replace("`cidr` ", "`cidr`: ")));
                    }
                    each(wrong, except, &at, errors);
                }
            }
        }
    }
}

fn parse(cidr: &str) -> Option<(u128, u32, bool)> {
    let (address, prefix) = cidr.split_once('/')?;
    let prefix: u32 = prefix.parse().ok()?;
    match address.parse().ok()? {
        std::net::IpAddr::V4(v4) => Some((u128::from(u32::from(v4)) << 96, prefix, false)),
        std::net::IpAddr::V6(v6) => Some((u128::from(v6), prefix, true)),
    }
}

fn strictly_within(inner: &str, outer: &str) -> bool {
    let (Some(inner), Some(outer)) = (parse(inner), parse(outer)) else { return false };
    let mask = if outer.1 == 0 { 0 } else { u128::MAX << (128 - outer.1) };
    inner.2 == outer.2 && inner.1 > outer.1 && inner.0 & mask == outer.0 & mask
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_name_the_directions_and_protocols() {
        let mut policy: NetworkPolicy = serde_json::from_value(json!({"spec": {"podSelector": {},
            "egress": [{"ports": [{"port": 53}]}]}}))
        .unwrap();
        NetworkPolicyStrategy.default(&mut policy);
        let spec = policy.spec.unwrap();
        assert_eq!(spec.policy_types.unwrap(), ["Ingress", "Egress"]);
        assert_eq!(spec.egress.unwrap()[0].ports.as_ref().unwrap()[0].protocol.as_deref(), Some("TCP"));
    }

    #[test]
    fn blocks_exclude_only_parts_of_themselves() {
        for (inner, outer, expected) in [
            ("10.0.1.0/24", "10.0.0.0/16", true),
            ("10.0.0.0/16", "10.0.0.0/16", false),
            ("11.0.1.0/24", "10.0.0.0/16", false),
            ("fd00::/64", "fd00::/48", true),
        ] {
            assert_eq!(strictly_within(inner, outer), expected, "{inner} {outer}");
        }
    }
}
