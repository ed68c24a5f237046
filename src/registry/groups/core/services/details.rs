//! Checks of the fields of Services that belong to some types only: families, balancers, affinity, traffic.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::{kind, wants_health_port, wants_ip};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::validation::IMMUTABLE;

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];
const ONCE: &str = "may not change once set";

/// Checks one Service.
pub(super) fn validate(service: &Service, errors: &mut FieldErrors) {
    let Some(spec) = &service.spec else { return };
    let at = Path::new("spec");
    families(service, spec, &at, errors);
    balancer(service, spec, &at, errors);
    if spec.session_affinity.as_deref() == Some("None") && spec.session_affinity_config.is_some() {
        let message = "must not be set when session affinity is None";
        errors.push(FieldError::forbidden(&at.child("sessionAffinityConfig"), message));
    }
    if let Some(value) = spec.traffic_distribution.as_deref().filter(|value| !DISTRIBUTIONS.contains(value)) {
        errors.push(FieldError::not_supported(&at.child("trafficDistribution"), value, &DISTRIBUTIONS));
    }
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        let at = at.child("externalIPs").index(i);
        let Ok(parsed) = ip.parse::<std::net::IpAddr>() else { continue };
        if parsed.is_unspecified() {
            errors.push(FieldError::invalid(&at, ip, format!("may not be unspecified ({ip})")));
        } else if parsed.is_loopback() {
            let message = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
            errors.push(FieldError::invalid(&at, ip, message));
        }
    }
}

fn families(service: &Service, spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    if kind(service) == "ExternalName" {
        for (field, set) in
            [("ipFamilyPolicy", spec.ip_family_policy.is_some()), ("ipFamilies", !families.is_empty())]
        {
            if set {
                let message = "may not be set when `type` is 'ExternalName'";
                errors.push(FieldError::forbidden(&at.child(field), message));
            }
        }
        return;
    }
    for (i, family) in families.iter().enumerate() {
        let at = at.child("ipFamilies").index(i);
        if !FAMILIES.contains(&family.as_str()) {
            errors.push(FieldError::not_supported(&at, family, &FAMILIES));
        }
        if families[..i].contains(family) {
            errors.push(FieldError::duplicate(&at, family));
        }
    }
    if let Some(policy) = spec.ip_family_policy.as_deref().filter(|policy| !FAMILY_POLICIES.contains(policy))
    {
        errors.push(FieldError::not_supported(&at.child("ipFamilyPolicy"), policy, &FAMILY_POLICIES));
    }
}

fn balancer(service: &Service, spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    let only = "may only be used when `type` is 'LoadBalancer'";
    if kind(service) != "LoadBalancer" {
        let fields = [
            ("loadBalancerClass", spec.load_balancer_class.is_some()),
            ("allocateLoadBalancerNodePorts", spec.allocate_load_balancer_node_ports.is_some()),
            (
                "loadBalancerSourceRanges",
                spec.load_balancer_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty()),
            ),
        ];
        for (field, _) in fields.into_iter().filter(|(_, set)| *set) {
            errors.push(FieldError::forbidden(&at.child(field), only));
        }
    } else if spec.allocate_load_balancer_node_ports.is_none() {
        errors.push(FieldError::required(&at.child("allocateLoadBalancerNodePorts"), ""));
    }
    let port = spec.health_check_node_port.unwrap_or(0);
    if port != 0 && !wants_health_port(service) {
        let message = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid(&at.child("healthCheckNodePort"), port, message));
    }
}

/// Checks a change.
pub(super) fn update(service: &Service, old: &Service, errors: &mut FieldErrors) {
    let (Some(spec), Some(was)) = (&service.spec, &old.spec) else { return };
    let at = Path::new("spec");
    let both = |wants: fn(&Service) -> bool| wants(service) && wants(old);
    if both(|service| kind(service) == "LoadBalancer") && spec.load_balancer_class != was.load_balancer_class
    {
        errors.push(FieldError::invalid(&at.child("loadBalancerClass"), &spec.load_balancer_class, ONCE));
    }
    if both(wants_health_port) && spec.health_check_node_port != was.health_check_node_port {
        let at = at.child("healthCheckNodePort");
        errors.push(FieldError::invalid(&at, spec.health_check_node_port, IMMUTABLE));
    }
    let first = |spec: &ServiceSpec| spec.ip_families.as_ref().and_then(|families| families.first()).cloned();
    if both(wants_ip) && first(was).is_some() && first(spec) != first(was) {
        let at = at.child("ipFamilies").index(0);
        errors.push(FieldError::invalid(&at, &spec.ip_families, ONCE));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap()
    }

    #[test]
    fn fields_belong_to_their_types() {
        for (spec, expected) in [
            (json!({"type": "ClusterIP", "ipFamilies": ["IPv4"]}), vec![]),
            (json!({"type": "ClusterIP", "loadBalancerClass": "a"}), vec!["spec.loadBalancerClass"]),
            (json!({"type": "ClusterIP", "healthCheckNodePort": 30000}), vec!["spec.healthCheckNodePort"]),
            (json!({"type": "ClusterIP", "ipFamilies": ["IPv4", "IPv4"]}), vec!["spec.ipFamilies[1]"]),
            (json!({"type": "ClusterIP", "ipFamilyPolicy": "Both"}), vec!["spec.ipFamilyPolicy"]),
            (json!({"type": "ExternalName", "ipFamilies": ["IPv4"]}), vec!["spec.ipFamilies"]),
            (
                json!({"sessionAffinity": "None", "sessionAffinityConfig": {}}),
                vec!["spec.sessionAffinityConfig"],
            ),
            (json!({"externalIPs": ["127.0.0.1"]}), vec!["spec.externalIPs[0]"]),
            (json!({"trafficDistribution": "Far"}), vec!["spec.trafficDistribution"]),
        ] {
            let mut errors = FieldErrors::new();
            validate(&service(spec.clone()), &mut errors);
            let found: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(found, expected, "{spec}");
        }
    }

    #[test]
    fn the_first_family_stays() {
        let mut errors = FieldErrors::new();
        let of = |family: &str| service(json!({"type": "ClusterIP", "ipFamilies": [family]}));
        update(&of("IPv4"), &of("IPv4"), &mut errors);
        assert!(errors.is_empty(), "{errors}");
        update(&of("IPv6"), &of("IPv4"), &mut errors);
        assert_eq!(errors.iter().next().unwrap().field, "spec.ipFamilies[0]");
    }
}
