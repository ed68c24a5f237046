//! Endpoints.

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::each;

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
        for (i, subset) in endpoints.subsets.iter().flatten().enumerate() {
            let at = Path::new("subsets").index(i);
            let lists =
                [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)];
            for (field, addresses) in lists {
                for (j, address) in addresses.iter().flatten().enumerate() {
                    let at = at.child(field).index(j).child("ip");
                    each(names::is_ip(&address.ip), &address.ip, &at, errors);
                }
            }
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
