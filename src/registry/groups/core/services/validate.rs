//! Checks of Services.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{headless, kind, wants_ip};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, metadata};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn service(service: &Service, errors: &mut FieldErrors) {
    let at = Path::new("spec");
    let Some(spec) = &service.spec else { return };
    if spec.ports.as_ref().is_none_or(Vec::is_empty) && !headless(service) && kind(service) != "ExternalName"
    {
        errors.push(FieldError::required(&at.child("ports"), ""));
    }
    by_type(service, spec, &at, errors);
    ports(service, spec, &at, errors);
    if let Some(selector) = &spec.selector {
        metadata::validate_labels(selector, &at.child("selector"), errors);
    }
    let affinity = spec.session_affinity.as_deref().unwrap_or_default();
    if !matches!(affinity, "None" | "ClientIP") {
        errors.push(FieldError::not_supported(&at.child("sessionAffinity"), affinity, &["ClientIP", "None"]));
    }
    let timeout = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    if let Some(seconds) = timeout.filter(|seconds| !(1..=86400).contains(seconds)) {
        let at = at.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
        errors.push(FieldError::invalid(
            &at,
            seconds,
            "must be greater than 0 and less than or equal to 86400",
        ));
    }
    if !TYPES.contains(&kind(service)) {
        errors.push(FieldError::not_supported(&at.child("type"), kind(service), &TYPES));
    }
    policies(service, spec, &at, errors);
    addresses(service, spec, &at, errors);
}

fn by_type(service: &Service, spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    match kind(service) {
        "ExternalName" => {
            if spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
                let message = "may not be set when `type` is 'ExternalName'";
                errors.push(FieldError::forbidden(&at.child("clusterIPs"), message));
            }
            let name = spec.external_name.as_deref().unwrap_or_default();
            let bare = name.strip_suffix('.').unwrap_or(name);
            if bare.is_empty() {
                errors.push(FieldError::required(&at.child("externalName"), ""));
            } else {
                each(names::is_dns1123_subdomain(bare), name, &at.child("externalName"), errors);
            }
        }
        "NodePort" | "LoadBalancer" if headless(service) => {
            let message = format!("may not be set to 'None' for {} services", kind(service));
            let ips = spec.cluster_ips.clone().unwrap_or_default();
            errors.push(FieldError::invalid(&at.child("clusterIPs").index(0), ips, message));
        }
        _ => {}
    }
}

fn policies(service: &Service, spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    let external = matches!(kind(service), "NodePort" | "LoadBalancer")
        || (kind(service) == "ClusterIP" && spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()));
    let at_external = at.child("externalTrafficPolicy");
    match spec.external_traffic_policy.as_deref() {
        None | Some("") => {}
        Some(policy) if !external => {
            let message = "may only be set for externally-accessible services";
            errors.push(FieldError::invalid(&at_external, policy, message));
        }
        Some("Cluster" | "Local") => {}
        Some(other) => errors.push(FieldError::not_supported(&at_external, other, &["Cluster", "Local"])),
    }
    match spec.internal_traffic_policy.as_deref() {
        None | Some("" | "Cluster" | "Local") => {}
        Some(other) => {
            let at = at.child("internalTrafficPolicy");
            errors.push(FieldError::not_supported(&at, other, &["Cluster", "Local"]));
        }
    }
}

fn addresses(service: &Service, spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    for (i, ip) in ips.iter().enumerate() {
        let at = at.child("clusterIPs").index(i);
        if ip == "None" {
            if i > 0 {
                errors.push(FieldError::invalid(&at, ip, "only allowed as the first value"));
            }
        } else {
            each(names::is_ip(ip), ip, &at, errors);
        }
    }
    let first = ips.first().map(String::as_str).unwrap_or_default();
    let single = spec.cluster_ip.as_deref().unwrap_or_default();
    if wants_ip(service) && single != first {
        let message = "first value must match `clusterIP`";
        errors.push(FieldError::invalid(&at.child("clusterIPs").index(0), ips, message));
    }
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        each(names::is_ip(ip), ip, &at.child("externalIPs").index(i), errors);
    }
    for (i, range) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
        each(names::is_cidr(range.trim()), range, &at.child("loadBalancerSourceRanges").index(i), errors);
    }
}

fn ports(service: &Service, spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (mut seen_names, mut seen, mut seen_nodes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        let at = at.child("ports").index(i);
        name(port, ports.len() > 1, &mut seen_names, &at, errors);
        for message in names::is_port_number(i64::from(port.port)) {
            errors.push(FieldError::invalid(&at.child("port"), port.port, message));
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if protocol.is_empty() {
            errors.push(FieldError::required(&at.child("protocol"), ""));
        } else if !PROTOCOLS.contains(&protocol) {
            errors.push(FieldError::not_supported(&at.child("protocol"), protocol, &PROTOCOLS));
        }
        target(port, &at.child("targetPort"), errors);
        let node = port.node_port.unwrap_or(0);
        if node != 0 && matches!(kind(service), "ClusterIP" | "ExternalName") {
            let message = format!("may not be used when `type` is '{}'", kind(service));
            errors.push(FieldError::forbidden(&at.child("nodePort"), message));
        }
        if node != 0 && !seen_nodes.insert((protocol, node)) {
            errors.push(FieldError::duplicate(&at.child("nodePort"), node));
        }
        if !seen.insert((protocol, port.port)) {
            let value = serde_json::json!({"protocol": protocol, "port": port.port});
            errors.push(FieldError::duplicate(&at, value));
        }
    }
}

fn name<'a>(
    port: &'a ServicePort,
    required: bool,
    seen: &mut BTreeSet<&'a str>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let at = at.child("name");
    match port.name.as_deref().unwrap_or_default() {
        "" if required => errors.push(FieldError::required(&at, "")),
        "" => {}
        name => {
            each(names::is_dns1123_label(name), name, &at, errors);
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(&at, name));
            }
        }
    }
}

fn target(port: &ServicePort, at: &Path, errors: &mut FieldErrors) {
    match &port.target_port {
        Some(IntOrString::Int(number)) => {
            for message in names::is_port_number(i64::from(*number)) {
                errors.push(FieldError::invalid(at, number, message));
            }
        }
        Some(IntOrString::String(name)) => each(names::is_port_name(name), name, at, errors),
        None => {}
    }
}

/// An address that was given stays, while the Service has one at all.
pub(super) fn update(service: &Service, old: &Service, errors: &mut FieldErrors) {
    if !wants_ip(service) || !wants_ip(old) {
        return;
    }
    let ips = |service: &Service| {
        service.spec.as_ref().and_then(|spec| spec.cluster_ips.clone()).unwrap_or_default()
    };
    let (new, was) = (ips(service), ips(old));
    if let (Some(first), Some(before)) = (new.first(), was.first())
        && first != before
    {
        let at = Path::new("spec").child("clusterIPs").index(0);
        errors.push(FieldError::invalid(&at, &new, "may not change once set"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::defaults;
    use super::*;

    fn problems(spec: Value) -> Vec<String> {
        let mut value: Service =
            serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap();
        defaults::service(&mut value);
        defaults::normalize_ips(&mut value);
        let mut errors = FieldErrors::new();
        service(&value, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn problems_are_named_as_upstream_names_them() {
        let cases = [
            (json!({"ports": [{"port": 80}]}), None),
            (json!({"clusterIP": "None"}), None),
            (json!({"type": "ExternalName", "externalName": "a.b."}), None),
            (json!({}), Some("spec.ports: Required value")),
            (
                json!({"ports": [{"port": 0}]}),
                Some("spec.ports[0].port: Invalid value: 0: must be between 1 and 65535"),
            ),
            (json!({"ports": [{"port": 1}, {"port": 2}]}), Some("spec.ports[0].name: Required value")),
            (
                json!({"ports": [{"port": 1, "protocol": "X"}]}),
                Some("spec.ports[0].protocol: Unsupported value: \"X\""),
            ),
            (
                json!({"ports": [{"port": 1, "nodePort": 30000}]}),
                Some("spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"),
            ),
            (json!({"type": "X", "ports": [{"port": 1}]}), Some("spec.type: Unsupported value: \"X\"")),
            (json!({"type": "ExternalName"}), Some("spec.externalName: Required value")),
            (
                json!({"clusterIP": "1.2.3", "ports": [{"port": 1}]}),
                Some("spec.clusterIPs[0]: Invalid value: \"1.2.3\": must be a valid IP address"),
            ),
            (
                json!({"externalTrafficPolicy": "Local", "ports": [{"port": 1}]}),
                Some(
                    "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible",
                ),
            ),
        ];
        for (spec, expected) in cases {
            let found = problems(spec.clone());
            match expected {
                None => assert!(found.is_empty(), "{spec} {found:?}"),
                Some(expected) => {
                    assert!(
                        !found.is_empty() && found[0].starts_with(expected),
                        "{spec}\n{found:?}\n{expected}"
                    );
                }
            }
        }
    }
}
