//! EndpointSlices.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::groups::core::services::addresses::not_special;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{each, immutable, known, metadata, text};

const TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 20000;
const MAX_ADDRESSES: usize = 100;
const MAX_TOPOLOGY: usize = 16;
const MAX_HINTS: usize = 8;
const SHOWN: usize = 3;

/// The columns of EndpointSlices.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("AddressType", "string", "Family of the addresses."),
    column("Ports", "string", "Ports of the endpoints."),
    column("Endpoints", "string", "Addresses of the endpoints."),
    AGE,
];

/// The strategy of EndpointSlices.
pub struct EndpointSliceStrategy;

impl Strategy for EndpointSliceStrategy {
    type Object = EndpointSlice;

    fn default(&self, slice: &mut EndpointSlice) {
        for port in slice.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            if port.protocol.as_deref().is_none_or(str::is_empty) {
                port.protocol = Some("TCP".into());
            }
        }
    }

    fn validate(&self, slice: &EndpointSlice, errors: &mut FieldErrors) {
        let kind = slice.address_type.as_str();
        if kind.is_empty() {
            errors.push(FieldError::required(&Path::new("addressType"), ""));
        } else if !TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(&Path::new("addressType"), kind, &TYPES));
        }
        endpoints(slice, &Path::new("endpoints"), errors);
        ports(slice, &Path::new("ports"), errors);
    }

    fn validate_update(&self, slice: &EndpointSlice, old: &EndpointSlice, errors: &mut FieldErrors) {
        immutable(&slice.address_type, &old.address_type, &Path::new("addressType"), errors);
    }

    fn counts_as_spec_change(&self, slice: &EndpointSlice, old: &EndpointSlice) -> bool {
        slice.metadata.labels != old.metadata.labels
    }

    fn cells(&self, slice: &EndpointSlice, now: Timestamp) -> Vec<Value> {
        let ports: Vec<String> = slice
            .ports
            .iter()
            .flatten()
            .map(|port| port.port.map_or_else(|| "*".to_owned(), |number| number.to_string()))
            .collect();
        let addresses: Vec<String> =
            slice.endpoints.iter().flatten().flat_map(|e| e.addresses.clone()).collect();
        vec![
            name_cell(&slice.metadata),
            slice.address_type.clone().into(),
            short(&ports, "<unset>").into(),
            short(&addresses, "<unset>").into(),
            age_cell(&slice.metadata, now),
        ]
    }
}

/// The first few, and how many more.
fn short(items: &[String], none: &str) -> String {
    match items.len() {
        0 => none.to_owned(),
        n if n > SHOWN => format!("{} + {} more...", items[..SHOWN].join(","), n - SHOWN),
        _ => items.join(","),
    }
}

fn endpoints(slice: &EndpointSlice, at: &Path, errors: &mut FieldErrors) {
    let list = slice.endpoints.as_deref().unwrap_or_default();
    if list.len() > MAX_ENDPOINTS {
        errors.push(FieldError::too_many(at, list.len(), MAX_ENDPOINTS));
        return;
    }
    for (i, endpoint) in list.iter().enumerate() {
        let at = at.index(i);
        addresses(&endpoint.addresses, &slice.address_type, &at.child("addresses"), errors);
        if let Some(node) = endpoint.node_name.as_deref() {
            each(names::is_dns1123_subdomain(node), node, &at.child("nodeName"), errors);
        }
        if let Some(topology) = &endpoint.deprecated_topology {
            let at = at.child("deprecatedTopology");
            if topology.len() > MAX_TOPOLOGY {
                errors.push(FieldError::too_many(&at, topology.len(), MAX_TOPOLOGY));
            }
            metadata::validate_labels(topology, &at, errors);
        }
        if let Some(hostname) = endpoint.hostname.as_deref() {
            each(names::is_dns1123_label(hostname), hostname, &at.child("hostname"), errors);
        }
        if let Some(own) = &endpoint.hints {
            let zones: Vec<&str> = own.for_zones.iter().flatten().map(|zone| zone.name.as_str()).collect();
            let nodes: Vec<&str> = own.for_nodes.iter().flatten().map(|node| node.name.as_str()).collect();
            let at = at.child("hints");
            hints(&zones, names::is_label_value, &at.child("forZones"), errors);
            hints(&nodes, names::is_dns1123_subdomain, &at.child("forNodes"), errors);
        }
    }
}

fn addresses(list: &[String], kind: &str, at: &Path, errors: &mut FieldErrors) {
    if list.is_empty() {
        errors.push(FieldError::required(at, "must contain at least 1 address"));
    } else if list.len() > MAX_ADDRESSES {
        errors.push(FieldError::too_many(at, list.len(), MAX_ADDRESSES));
    }
    for (i, address) in list.iter().enumerate() {
        let at = at.index(i);
        let parsed = address.parse::<IpAddr>().ok();
        match kind {
            "IPv4" if parsed.is_none_or(|ip| !ip.is_ipv4()) => {
                errors.push(FieldError::invalid(&at, address, "must be a valid IPv4 address"));
            }
            "IPv6" if parsed.is_none_or(|ip| !ip.is_ipv6()) => {
                errors.push(FieldError::invalid(&at, address, "must be a valid IPv6 address"));
            }
            "IPv4" | "IPv6" => not_special(address, &at, errors),
            "FQDN" => domain(address, &at, errors),
            _ => {}
        }
    }
}

fn domain(name: &str, at: &Path, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.push(FieldError::required(at, ""));
        return;
    }
    let bare = name.strip_suffix('.').unwrap_or(name);
    let messages = names::is_dns1123_subdomain(bare);
    if messages.is_empty() && !bare.contains('.') {
        let message = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(at, bare, message));
    }
    each(messages, bare, at, errors);
}

fn hints(list: &[&str], rule: fn(&str) -> Vec<String>, at: &Path, errors: &mut FieldErrors) {
    if list.len() > MAX_HINTS {
        errors.push(FieldError::too_many(at, list.len(), MAX_HINTS));
        return;
    }
    for (i, name) in list.iter().enumerate() {
        let at = at.index(i).child("name");
        if list[..i].contains(name) {
            errors.push(FieldError::duplicate(&at, name));
        }
        each(rule(name), name, &at, errors);
    }
}

fn ports(slice: &EndpointSlice, at: &Path, errors: &mut FieldErrors) {
    let list = slice.ports.as_deref().unwrap_or_default();
    if list.len() > MAX_PORTS {
        errors.push(FieldError::too_many(at, list.len(), MAX_PORTS));
        return;
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, port) in list.iter().enumerate() {
        let at = at.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            each(names::is_dns1123_label(name), name, &at.child("name"), errors);
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        }
        known(Some(text(&port.protocol)), &["SCTP", "TCP", "UDP"], &at.child("protocol"), errors);
        if let Some(protocol) = port.app_protocol.as_deref() {
            each(names::is_qualified_name(protocol), protocol, &at.child("appProtocol"), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn slices_are_addresses_of_one_family() {
        let with = |kind: &str, endpoint: Value, ports: Value| -> EndpointSlice {
            serde_json::from_value(json!({"addressType": kind, "endpoints": [endpoint], "ports": ports}))
                .unwrap()
        };
        let of = |address: &str| json!({"addresses": [address]});
        let cases = [
            (with("IPv4", of("10.0.0.1"), json!([{"port": 1}])), None),
            (with("FQDN", of("a.example."), json!([])), None),
            (
                with("IPv4", of("fd00::1"), json!([])),
                Some("endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address"),
            ),
            (
                with("IPv4", of("169.254.0.1"), json!([])),
                Some(
                    "endpoints[0].addresses[0]: Invalid value: \"169.254.0.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
                ),
            ),
            (
                with("FQDN", of("single"), json!([])),
                Some(
                    "endpoints[0].addresses[0]: Invalid value: \"single\": should be a domain with at least two segments separated by dots",
                ),
            ),
            (
                with("IPv4", json!({"addresses": []}), json!([])),
                Some("endpoints[0].addresses: Required value: must contain at least 1 address"),
            ),
            (
                with(
                    "IPv4",
                    json!({"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "a"}, {"name": "a"}]}}),
                    json!([]),
                ),
                Some("endpoints[0].hints.forZones[1].name: Duplicate value: \"a\""),
            ),
            (
                with("IPv4", of("10.0.0.1"), json!([{"port": 1}, {"port": 2}])),
                Some("ports[1].name: Duplicate value: \"\""),
            ),
            (
                with("Other", of("10.0.0.1"), json!([])),
                Some(
                    "addressType: Unsupported value: \"Other\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
                ),
            ),
        ];
        for (mut slice, expected) in cases {
            EndpointSliceStrategy.default(&mut slice);
            let mut errors = FieldErrors::new();
            EndpointSliceStrategy.validate(&slice, &mut errors);
            let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(found, Vec::from_iter(expected.map(str::to_owned)));
        }
    }
}
