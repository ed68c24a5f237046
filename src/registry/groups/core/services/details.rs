//! Checks of the fields of Services that belong to some types only: balancers and traffic; and of what balancers report.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::{external, kind, wants_health_port};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{IMMUTABLE, each, known, one_of, text};

const POLICIES: [&str; 2] = ["Cluster", "Local"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
const IP_MODES: [&str; 2] = ["Proxy", "VIP"];
const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// Checks one Service.
pub(super) fn validate(service: &Service, spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    let balanced = kind(service) == "LoadBalancer";
    ranges(service, spec, balanced, at, errors);
    if !balanced && spec.allocate_load_balancer_node_ports.is_some() {
        errors.push(FieldError::forbidden(&at.child("allocateLoadBalancerNodePorts"), ONLY));
    }
    if balanced && spec.allocate_load_balancer_node_ports.is_none() {
        // The place is upstream's.
        errors.push(FieldError::required(&Path::new("allocateLoadBalancerNodePorts"), ""));
    }
    if let Some(class) = spec.load_balancer_class.as_deref() {
        let at = at.child("loadBalancerClass");
        if balanced {
            each(names::is_qualified_name(class), class, &at, errors);
        } else {
            errors.push(FieldError::forbidden(&at, ONLY));
        }
    }
    traffic(service, spec, at, errors);
}

fn ranges(service: &Service, spec: &ServiceSpec, balanced: bool, at: &Path, errors: &mut FieldErrors) {
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    if !ranges.is_empty() {
        let at = at.child("LoadBalancerSourceRanges");
        if !balanced {
            errors.push(FieldError::forbidden(&at, ONLY));
        }
        for (i, range) in ranges.iter().enumerate() {
            each(names::is_cidr(range.trim()), range.trim(), &at.index(i), errors);
        }
        return;
    }
    let annotations = service.metadata.annotations.as_ref();
    if let Some(value) = annotations.and_then(|annotations| annotations.get(RANGES)) {
        let at = Path::new("metadata").child("annotations").key(RANGES);
        if !balanced {
            errors.push(FieldError::forbidden(&at, ONLY));
        }
        let value = value.trim();
        for range in value.split(',').map(str::trim).filter(|_| !value.is_empty()) {
            each(names::is_cidr(range), range, &at, errors);
        }
    }
}

fn traffic(service: &Service, spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    let at_external = at.child("externalTrafficPolicy");
    if external(service) {
        one_of(spec.external_traffic_policy.as_deref(), &POLICIES, &at_external, errors);
    } else if let Some(policy) = spec.external_traffic_policy.as_deref().filter(|policy| !policy.is_empty()) {
        let message = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(&at_external, policy, message));
    }
    let at_port = at.child("healthCheckNodePort");
    // Where one is wanted and not given it is drawn later.
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0) {
        if wants_health_port(service) {
            for message in names::is_port_number(i64::from(port)) {
                errors.push(FieldError::invalid(&at_port, port, message));
            }
        } else {
            let message =
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(&at_port, port, message));
        }
    }
    let at_internal = at.child("internalTrafficPolicy");
    match spec.internal_traffic_policy.as_deref() {
        None if matches!(kind(service), "ClusterIP" | "NodePort" | "LoadBalancer") => {
            errors.push(FieldError::required(&at_internal, ""));
        }
        policy => known(policy, &POLICIES, &at_internal, errors),
    }
    let distribution = spec.traffic_distribution.as_deref();
    known(distribution, &DISTRIBUTIONS, &at.child("trafficDistribution"), errors);
}

/// Checks a change.
pub(super) fn update(service: &Service, old: &Service, errors: &mut FieldErrors) {
    let (Some(spec), Some(was)) = (&service.spec, &old.spec) else { return };
    let at = Path::new("spec");
    let both = |wants: fn(&Service) -> bool| wants(service) && wants(old);
    if both(|service| kind(service) == "LoadBalancer") && spec.load_balancer_class != was.load_balancer_class
    {
        let at = at.child("loadBalancerClass");
        errors.push(FieldError::invalid(&at, &spec.load_balancer_class, "may not change once set"));
    }
    if both(wants_health_port) && spec.health_check_node_port != was.health_check_node_port {
        errors.push(FieldError::forbidden(&at.child("healthCheckNodePort"), IMMUTABLE));
    }
}

/// Checks what a balancer reports.
pub(super) fn status(service: &Service, errors: &mut FieldErrors) {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let points = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    let at = Path::new("status").child("loadBalancer").child("ingress");
    if kind(service) != "LoadBalancer" {
        if !points.is_empty() {
            let message = "may only be used when `spec.type` is 'LoadBalancer'";
            errors.push(FieldError::forbidden(&at, message));
        }
        return;
    }
    for (i, point) in points.iter().enumerate() {
        let at = at.index(i);
        let (ip, host) = (text(&point.ip), text(&point.hostname));
        if !ip.is_empty() {
            each(names::is_ip(ip), ip, &at.child("ip"), errors);
        }
        let at_mode = at.child("ipMode");
        match point.ip_mode.as_deref() {
            None if !ip.is_empty() => {
                errors.push(FieldError::required(&at_mode, "must be specified when `ip` is set"));
            }
            Some(_) if ip.is_empty() => {
                errors.push(FieldError::forbidden(&at_mode, "may not be specified when `ip` is not set"));
            }
            mode => known(mode, &IP_MODES, &at_mode, errors),
        }
        if !host.is_empty() {
            each(names::is_dns1123_subdomain(host), host, &at.child("hostname"), errors);
            if host.parse::<IpAddr>().is_ok() {
                let message = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(&at.child("hostname"), host, message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::defaults;
    use super::*;

    fn service(value: Value) -> Service {
        let mut service = serde_json::from_value(value).unwrap();
        defaults::service(&mut service);
        service
    }

    fn texts(errors: &FieldErrors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn fields_belong_to_their_types() {
        let cases = [
            (json!({"type": "LoadBalancer", "loadBalancerSourceRanges": [" 10.0.0.0/8 "]}), None),
            (json!({"externalIPs": ["10.0.0.1"], "externalTrafficPolicy": "Local"}), None),
            (
                json!({"loadBalancerClass": "a"}),
                Some("spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"),
            ),
            (
                json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}),
                Some(
                    "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                ),
            ),
            (
                json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0"]}),
                Some(
                    "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                ),
            ),
            (
                json!({"healthCheckNodePort": 30000}),
                Some(
                    "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
                ),
            ),
            (
                json!({"externalTrafficPolicy": "Local"}),
                Some(
                    "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                ),
            ),
            (
                json!({"internalTrafficPolicy": "X"}),
                Some(
                    "spec.internalTrafficPolicy: Unsupported value: \"X\": supported values: \"Cluster\", \"Local\"",
                ),
            ),
            (
                json!({"trafficDistribution": "Far"}),
                Some(
                    "spec.trafficDistribution: Unsupported value: \"Far\": supported values: \"PreferClose\", \"PreferSameZone\", \"PreferSameNode\"",
                ),
            ),
        ];
        for (spec, expected) in cases {
            let service = service(json!({"metadata": {"name": "s"}, "spec": spec}));
            let mut errors = FieldErrors::new();
            validate(&service, service.spec.as_ref().unwrap(), &Path::new("spec"), &mut errors);
            assert_eq!(texts(&errors), Vec::from_iter(expected.map(str::to_owned)));
        }
    }

    #[test]
    fn balancers_report_addresses_or_names() {
        let at = "status.loadBalancer.ingress";
        let cases = [
            ("LoadBalancer", json!({"ip": "203.0.113.1"}), None),
            ("LoadBalancer", json!({"hostname": "a.example.com"}), None),
            (
                "ClusterIP",
                json!({"ip": "203.0.113.1"}),
                Some(format!("{at}: Forbidden: may only be used when `spec.type` is 'LoadBalancer'")),
            ),
            (
                "LoadBalancer",
                json!({"ip": "203.0.113.1", "ipMode": "X"}),
                Some(format!(
                    "{at}[0].ipMode: Unsupported value: \"X\": supported values: \"Proxy\", \"VIP\""
                )),
            ),
            (
                "LoadBalancer",
                json!({"hostname": "a", "ipMode": "VIP"}),
                Some(format!("{at}[0].ipMode: Forbidden: may not be specified when `ip` is not set")),
            ),
            (
                "LoadBalancer",
                json!({"hostname": "10.0.0.1"}),
                Some(format!(
                    "{at}[0].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"
                )),
            ),
        ];
        for (kind, point, expected) in cases {
            let service = service(json!({"metadata": {"name": "s"}, "spec": {"type": kind},
                "status": {"loadBalancer": {"ingress": [point]}}}));
            let mut errors = FieldErrors::new();
            status(&service, &mut errors);
            assert_eq!(texts(&errors), Vec::from_iter(expected));
        }
    }
}
