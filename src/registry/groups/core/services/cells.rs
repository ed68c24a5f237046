//! How Services are printed.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::kind;
use crate::registry::table::duration::age;
use crate::registry::table::{AGE, Column, NAME, column, selector_text, wide};

/// The columns of Services.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Type", "string", "How the Service is exposed."),
    column("Cluster-IP", "string", "Address of the Service in the cluster."),
    column("External-IP", "string", "Addresses of the Service outside of the cluster."),
    column("Port(s)", "string", "Ports of the Service."),
    AGE,
    wide("Selector", "string", "Labels of the pods behind the Service."),
];

/// The cells of one Service.
pub fn cells(service: &Service, now: Timestamp) -> Vec<Value> {
    let spec = service.spec.clone().unwrap_or_default();
    let ip = spec.cluster_ips.as_ref().and_then(|ips| ips.first()).cloned();
    let ports: Vec<String> = spec
        .ports
        .iter()
        .flatten()
        .map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or_default();
            match port.node_port.unwrap_or(0) {
                0 => format!("{}/{protocol}", port.port),
                node => format!("{}:{node}/{protocol}", port.port),
            }
        })
        .collect();
    vec![
        service.metadata.name.clone().into(),
        kind(service).into(),
        ip.unwrap_or_else(|| "<none>".into()).into(),
        external(service).into(),
        if ports.is_empty() { "<none>".into() } else { ports.join(",").into() },
        age(service.metadata.creation_timestamp.as_ref().map(|t| t.0), now).into(),
        selector_text(spec.selector.as_ref()).into(),
    ]
}

fn external(service: &Service) -> String {
    let spec = service.spec.clone().unwrap_or_default();
    let mut ips: Vec<String> = Vec::new();
    match kind(service) {
        "ExternalName" => return spec.external_name.unwrap_or_default(),
        "LoadBalancer" => {
            let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.clone());
            for point in ingress.unwrap_or_default() {
                ips.extend(point.ip.or(point.hostname));
            }
            if ips.is_empty() && spec.external_ips.is_none() {
                return "<pending>".into();
            }
        }
        _ => {}
    }
    ips.extend(spec.external_ips.unwrap_or_default());
    if ips.is_empty() { "<none>".into() } else { ips.join(",") }
}
