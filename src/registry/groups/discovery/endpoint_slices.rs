//! EndpointSlices.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{each, immutable};

const TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 20000;
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
        if endpoint.addresses.is_empty() {
            errors.push(FieldError::required(&at.child("addresses"), "must contain at least 1 address"));
        }
        for (j, address) in endpoint.addresses.iter().enumerate() {
            let at = at.child("addresses").index(j);
            match slice.address_type.as_str() {
                "FQDN" => each(names::is_dns1123_subdomain(address), address, &at, errors),
                _ => each(names::is_ip(address), address, &at, errors),
            }
        }
        if let Some(hostname) = endpoint.hostname.as_deref().filter(|h| !h.is_empty()) {
            each(names::is_dns1123_label(hostname), hostname, &at.child("hostname"), errors);
        }
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
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            each(names::is_dns1123_label(name), name, &at.child("name"), errors);
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            errors.push(FieldError::not_supported(&at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]));
        }
    }
}
