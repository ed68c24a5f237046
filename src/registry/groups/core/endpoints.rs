//! Endpoints.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::groups::core::services::addresses::not_special;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{each, one_of, text};

/// The columns of Endpoints.
pub const COLUMNS: &[Column] =
    &[NAME, column("Endpoints", "string", "Addresses and ports behind the Service."), AGE];

/// How many addresses a row shows.
const SHOWN: usize = 3;

/// The strategy of Endpoints.
pub struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    type Object = Endpoints;

    fn default(&self, endpoints: &mut Endpoints) {
        let ports =
            endpoints.subsets.iter_mut().flatten().flat_map(|subset| subset.ports.iter_mut().flatten());
        for port in ports.filter(|port| port.protocol.as_deref().is_none_or(str::is_empty)) {
            port.protocol = Some("TCP".into());
        }
    }

    fn validate(&self, endpoints: &Endpoints, errors: &mut FieldErrors) {
        for (i, own) in endpoints.subsets.iter().flatten().enumerate() {
            subset(own, &Path::new("subsets").index(i), errors);
        }
    }

    fn cells(&self, endpoints: &Endpoints, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&endpoints.metadata), addresses(endpoints).into(), age_cell(&endpoints.metadata, now)]
    }
}

fn addresses(endpoints: &Endpoints) -> String {
    let mut all = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        for address in subset.addresses.iter().flatten() {
            let ports = subset.ports.as_deref().unwrap_or_default();
            if ports.is_empty() {
                all.push(address.ip.clone());
            }
            all.extend(ports.iter().map(|port| match address.ip.contains(':') {
                true => format!("[{}]:{}", address.ip, port.port),
                false => format!("{}:{}", address.ip, port.port),
            }));
        }
    }
    match all.len() {
        0 => "<none>".into(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN),
        _ => all.join(","),
    }
}

fn subset(subset: &EndpointSubset, at: &Path, errors: &mut FieldErrors) {
    let none = |addresses: &Option<Vec<EndpointAddress>>| addresses.as_ref().is_none_or(Vec::is_empty);
    if none(&subset.addresses) && none(&subset.not_ready_addresses) {
        errors.push(FieldError::required(at, "must specify `addresses` or `notReadyAddresses`"));
    }
    let lists = [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)];
    for (field, addresses) in lists {
        for (i, own) in addresses.iter().flatten().enumerate() {
            address(own, &at.child(field).index(i), errors);
        }
    }
    let ports = subset.ports.as_deref().unwrap_or_default();
    for (i, own) in ports.iter().enumerate() {
        port(own, ports.len() > 1, &at.child("ports").index(i), errors);
    }
}

fn address(address: &EndpointAddress, at: &Path, errors: &mut FieldErrors) {
    let at_ip = at.child("ip");
    each(names::is_ip(&address.ip), &address.ip, &at_ip, errors);
    let host = text(&address.hostname);
    if !host.is_empty() {
        each(names::is_dns1123_label(host), host, &at.child("hostname"), errors);
    }
    if let Some(node) = address.node_name.as_deref() {
        each(names::is_dns1123_subdomain(node), node, &at.child("nodeName"), errors);
    }
    if address.ip.parse::<std::net::IpAddr>().is_err() {
        errors.push(FieldError::invalid(&at_ip, &address.ip, "must be a valid IP address"));
    }
    not_special(&address.ip, &at_ip, errors);
}

fn port(port: &EndpointPort, named: bool, at: &Path, errors: &mut FieldErrors) {
    match text(&port.name) {
        "" if named => errors.push(FieldError::required(&at.child("name"), "")),
        "" => {}
        name => each(names::is_dns1123_label(name), name, &at.child("name"), errors),
    }
    for message in names::is_port_number(i64::from(port.port)) {
        errors.push(FieldError::invalid(&at.child("port"), port.port, message));
    }
    one_of(port.protocol.as_deref(), &["SCTP", "TCP", "UDP"], &at.child("protocol"), errors);
    if let Some(protocol) = port.app_protocol.as_deref() {
        each(names::is_qualified_name(protocol), protocol, &at.child("appProtocol"), errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_are_addresses_of_peers_with_ports() {
        let good = json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]});
        let with = |key: &str, value: Value| {
            let mut subset = good.clone();
            subset[key] = value;
            subset
        };
        let cases = [
            (good.clone(), None),
            (
                json!({"ports": [{"port": 80}]}),
                Some("subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"),
            ),
            (
                with("addresses", json!([{"ip": "127.0.0.1"}])),
                Some(
                    "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ),
            ),
            (
                with("ports", json!([{"port": 80}, {"port": 81, "name": "b"}])),
                Some("subsets[0].ports[0].name: Required value"),
            ),
            (
                with("ports", json!([{"port": 0}])),
                Some("subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
            ),
            (
                with("ports", json!([{"port": 1, "protocol": "X"}])),
                Some(
                    "subsets[0].ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ),
            ),
        ];
        for (subset, expected) in cases {
            let mut object = serde_json::from_value(json!({"subsets": [subset]})).unwrap();
            EndpointsStrategy.default(&mut object);
            let mut errors = FieldErrors::new();
            EndpointsStrategy.validate(&object, &mut errors);
            let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(found, Vec::from_iter(expected.map(str::to_owned)));
        }
    }
}
