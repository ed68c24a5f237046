//! Checks of Services: their type and ports, and what decides where traffic goes. Addresses are checked in `addresses`,
//! what belongs to some types only in `details`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{addresses, details, headless, kind};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, metadata, one_of, text};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const AFFINITIES: [&str; 2] = ["ClientIP", "None"];
const MAX_AFFINITY_SECONDS: i32 = 86400;
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";

/// Checks one Service.
pub(super) fn service(service: &Service, errors: &mut FieldErrors) {
    let at = Path::new("spec");
    let Some(spec) = &service.spec else { return };
    annotations(service, errors);
    let open = headless(service) || kind(service) == "ExternalName";
    if spec.ports.as_ref().is_none_or(Vec::is_empty) && !open {
        errors.push(FieldError::required(&at.child("ports"), ""));
    }
    by_type(service, spec, &at, errors);
    ports(spec, &at.child("ports"), errors);
    if let Some(selector) = &spec.selector {
        metadata::validate_labels(selector, &at.child("selector"), errors);
    }
    one_of(spec.session_affinity.as_deref(), &AFFINITIES, &at.child("sessionAffinity"), errors);
    affinity(spec, &at.child("sessionAffinityConfig"), errors);
    addresses::validate(service, spec, &at, errors);
    one_of(spec.type_.as_deref(), &TYPES, &at.child("type"), errors);
    numbers(service, spec, &at.child("ports"), errors);
    details::validate(service, spec, &at, errors);
}

fn annotations(service: &Service, errors: &mut FieldErrors) {
    let Some(annotations) = &service.metadata.annotations else { return };
    if let (Some(hints), Some(mode)) = (annotations.get(HINTS), annotations.get(MODE))
        && hints != mode
    {
        let at = Path::new("metadata").child("annotations").key(MODE);
        let message = format!("must match annotations[{HINTS}] when both are specified");
        errors.push(FieldError::invalid(&at, mode, message));
    }
}

fn by_type(service: &Service, spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    match kind(service) {
        "ExternalName" => {
            let set = [
                ("clusterIPs", spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty())),
                ("ipFamilies", spec.ip_families.as_ref().is_some_and(|families| !families.is_empty())),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ];
            for (field, _) in set.into_iter().filter(|(_, set)| *set) {
                errors.push(FieldError::forbidden(
                    &at.child(field),
                    "may not be set for ExternalName services",
                ));
            }
            let name = text(&spec.external_name);
            let name = name.strip_suffix('.').unwrap_or(name);
            match name {
                "" => errors.push(FieldError::required(&at.child("externalName"), "")),
                name => each(names::is_dns1123_subdomain(name), name, &at.child("externalName"), errors),
            }
        }
        "NodePort" | "LoadBalancer" if headless(service) => {
            let message = format!("may not be set to 'None' for {} services", kind(service));
            errors.push(FieldError::invalid(&at.child("clusterIPs").index(0), "None", message));
        }
        _ => {}
    }
}

fn ports(spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        name(port, ports.len() > 1, &mut seen, &at.child("name"), errors);
        for message in names::is_port_number(i64::from(port.port)) {
            errors.push(FieldError::invalid(&at.child("port"), port.port, message));
        }
        one_of(port.protocol.as_deref(), &PROTOCOLS, &at.child("protocol"), errors);
        target(port, &at.child("targetPort"), errors);
        if let Some(protocol) = port.app_protocol.as_deref() {
            each(names::is_qualified_name(protocol), protocol, &at.child("appProtocol"), errors);
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
    match text(&port.name) {
        "" if required => errors.push(FieldError::required(at, "")),
        "" => {}
        name => {
            each(names::is_dns1123_label(name), name, at, errors);
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(at, name));
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

/// Numbers of ports are taken once for each protocol.
fn numbers(service: &Service, spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    let ports = || spec.ports.iter().flatten().enumerate();
    let nodes = || ports().filter(|(_, port)| port.node_port.unwrap_or(0) != 0);
    if kind(service) == "ClusterIP" {
        for (i, _) in nodes() {
            let at = at.index(i).child("nodePort");
            errors.push(FieldError::forbidden(&at, "may not be used when `type` is 'ClusterIP'"));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in nodes() {
        if !seen.insert((&port.protocol, port.node_port)) {
            errors.push(FieldError::duplicate(&at.index(i).child("nodePort"), port.node_port));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports() {
        if !seen.insert((&port.protocol, port.port)) {
            // What upstream's type without its other values looks like.
            let value = serde_json::json!({"protocol": port.protocol, "port": port.port, "targetPort": 0});
            errors.push(FieldError::duplicate(&at.index(i), value));
        }
    }
}

fn affinity(spec: &ServiceSpec, at: &Path, errors: &mut FieldErrors) {
    match (spec.session_affinity.as_deref(), &spec.session_affinity_config) {
        (Some("ClientIP"), None) => {
            let message = "when session affinity type is ClientIP";
            errors.push(FieldError::required(at, message));
        }
        (Some("ClientIP"), Some(config)) => {
            let at = at.child("clientIP");
            let Some(client) = &config.client_ip else {
                errors.push(FieldError::required(&at, "when session affinity type is ClientIP"));
                return;
            };
            let at = at.child("timeoutSeconds");
            match client.timeout_seconds {
                None => errors.push(FieldError::required(&at, "when session affinity type is ClientIP")),
                Some(seconds) if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) => {
                    let message =
                        format!("must be greater than 0 and less than or equal to {MAX_AFFINITY_SECONDS}");
                    errors.push(FieldError::invalid(&at, seconds, message));
                }
                Some(_) => {}
            }
        }
        (Some("None"), Some(_)) => {
            errors.push(FieldError::forbidden(at, "must not be set when session affinity is None"));
        }
        _ => {}
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
            (json!({"externalIPs": ["203.0.113.1"], "ports": [{"port": 1}]}), None),
            (json!({}), Some("spec.ports: Required value")),
            (
                json!({"ports": [{"port": 0, "targetPort": 1}]}),
                Some("spec.ports[0].port: Invalid value: 0: must be between 1 and 65535"),
            ),
            (json!({"ports": [{"port": 1}, {"port": 2}]}), Some("spec.ports[0].name: Required value")),
            (
                json!({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}),
                Some("spec.ports[1].name: Duplicate value: \"a\""),
            ),
            (
                json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}),
                Some("spec.ports[1]: Duplicate value: {"),
            ),
            (
                json!({"ports": [{"port": 1, "protocol": "X"}]}),
                Some("spec.ports[0].protocol: Unsupported value: \"X\""),
            ),
            (
                json!({"ports": [{"port": 1, "appProtocol": "a b"}]}),
                Some("spec.ports[0].appProtocol: Invalid value: \"a b\": name part must consist of"),
            ),
            (
                json!({"ports": [{"port": 1, "nodePort": 30000}]}),
                Some("spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"),
            ),
            (json!({"type": "X", "ports": [{"port": 1}]}), Some("spec.type: Unsupported value: \"X\"")),
            (json!({"type": "ExternalName"}), Some("spec.externalName: Required value")),
            (
                json!({"type": "ExternalName", "externalName": "a", "ipFamilies": ["IPv4"]}),
                Some("spec.ipFamilies: Forbidden: may not be set for ExternalName services"),
            ),
            (
                json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 1}]}),
                Some(
                    "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
                ),
            ),
            (
                json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}},
                    "ports": [{"port": 1}]}),
                Some(
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than or equal to 86400",
                ),
            ),
            (
                json!({"sessionAffinity": "X", "ports": [{"port": 1}]}),
                Some(
                    "spec.sessionAffinity: Unsupported value: \"X\": supported values: \"ClientIP\", \"None\"",
                ),
            ),
        ];
        for (spec, expected) in cases {
            let found = problems(spec.clone());
            match expected {
                None => assert!(found.is_empty(), "{spec} {found:?}"),
                Some(expected) => {
                    assert!(
                        found.first().is_some_and(|first| first.starts_with(expected)),
                        "{spec}\n{found:?}\n{expected}"
                    );
                }
            }
        }
    }
}
