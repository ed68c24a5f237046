//! Defaults of Services, and what an update keeps or drops of what the server has chosen.

use k8s_openapi::api::core::v1::{ClientIPConfig, Service, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{external, kind, wants_health_port, wants_ip, wants_node_ports};

const AFFINITY_SECONDS: i32 = 10800;

fn set_text(field: &mut Option<String>, value: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(value.to_owned());
    }
}

pub(super) fn service(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    set_text(&mut spec.session_affinity, "None");
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let client = spec
                .session_affinity_config
                .get_or_insert_with(SessionAffinityConfig::default)
                .client_ip
                .get_or_insert_with(ClientIPConfig::default);
            client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
        }
        _ => {}
    }
    set_text(&mut spec.type_, "ClusterIP");
    for port in spec.ports.iter_mut().flatten() {
        set_text(&mut port.protocol, "TCP");
        let unset = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::String(name)) => name.is_empty(),
            Some(IntOrString::Int(_)) => false,
        };
        if unset {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    if matches!(spec.type_.as_deref(), Some("ClusterIP" | "NodePort" | "LoadBalancer")) {
        set_text(&mut spec.internal_traffic_policy, "Cluster");
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
        let balancer = service.status.as_mut().and_then(|status| status.load_balancer.as_mut());
        let points = balancer.into_iter().flat_map(|balancer| balancer.ingress.iter_mut().flatten());
        for point in points.filter(|point| point.ip.as_deref().is_some_and(|ip| !ip.is_empty())) {
            point.ip_mode.get_or_insert_with(|| "VIP".to_owned());
        }
    }
    if external(service) {
        set_text(&mut service.spec.get_or_insert_default().external_traffic_policy, "Cluster");
    }
}

/// `clusterIPs` follows `clusterIP` where only that is given.
pub(super) fn normalize_ips(service: &mut Service) {
    let Some(spec) = service.spec.as_mut() else { return };
    let single = spec.cluster_ip.as_deref().unwrap_or_default();
    if !single.is_empty() && spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
        spec.cluster_ips = Some(vec![single.to_owned()]);
    }
}

/// An update that leaves out what the server chose keeps it.
pub(super) fn keep_allocated(service: &mut Service, old: &Service) {
    let (ips, ports, health) = (
        wants_ip(service) && wants_ip(old),
        wants_node_ports(service) && wants_node_ports(old),
        wants_health_port(service) && wants_health_port(old),
    );
    let (Some(spec), Some(was)) = (service.spec.as_mut(), old.spec.as_ref()) else { return };
    if ips {
        if spec.cluster_ip.as_deref().is_none_or(str::is_empty) {
            spec.cluster_ip.clone_from(&was.cluster_ip);
        }
        if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) && spec.cluster_ip == was.cluster_ip {
            spec.cluster_ips.clone_from(&was.cluster_ips);
        }
    }
    if ips && spec.ip_families.is_none() && spec.ip_family_policy.is_none() {
        spec.ip_families.clone_from(&was.ip_families);
        spec.ip_family_policy.clone_from(&was.ip_family_policy);
    }
    if ports {
        keep_node_ports(spec, was);
    }
    if health && spec.health_check_node_port.unwrap_or(0) == 0 {
        spec.health_check_node_port = was.health_check_node_port;
    }
}

/// Ports of the same name keep their node port, unless another one has it now.
fn keep_node_ports(spec: &mut ServiceSpec, was: &ServiceSpec) {
    let held = |spec: &ServiceSpec| -> Vec<i32> {
        spec.ports.iter().flatten().filter_map(|port| port.node_port).filter(|port| *port != 0).collect()
    };
    let (now, before) = (held(spec), held(was));
    let mut used: Vec<i32> = before.into_iter().filter(|port| now.contains(port)).collect();
    for port in spec.ports.iter_mut().flatten().filter(|port| port.node_port.unwrap_or(0) == 0) {
        let name = port.name.as_deref().unwrap_or_default();
        let same = was.ports.iter().flatten().rfind(|w| w.name.as_deref().unwrap_or_default() == name);
        if let Some(kept) = same.and_then(|same| same.node_port).filter(|kept| !used.contains(kept)) {
            port.node_port = Some(kept);
            used.push(kept);
        }
    }
}

/// A change of type drops what only the old type has, unless the request says otherwise.
pub(super) fn drop_unused(service: &mut Service, old: &Service) {
    let gone = |wants: fn(&Service) -> bool| wants(old) && !wants(service);
    let (ips, ports, health) = (gone(wants_ip), gone(wants_node_ports), gone(wants_health_port));
    let policy = external(old) && !external(service);
    let balancer = kind(old) == "LoadBalancer" && kind(service) != "LoadBalancer";
    let (Some(spec), Some(was)) = (service.spec.as_mut(), old.spec.as_ref()) else { return };
    if ips {
        let emptied = spec.cluster_ip.as_deref().is_none_or(str::is_empty);
        if (emptied || spec.cluster_ip == was.cluster_ip) && spec.cluster_ips == was.cluster_ips {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
        }
        if spec.ip_families == was.ip_families {
            spec.ip_families = None;
        }
        if spec.ip_family_policy == was.ip_family_policy {
            spec.ip_family_policy = None;
        }
        if spec.internal_traffic_policy == was.internal_traffic_policy {
            spec.internal_traffic_policy = None;
        }
    }
    if ports {
        for port in spec.ports.iter_mut().flatten() {
            let same = was.ports.iter().flatten().any(|w| w.node_port == port.node_port);
            port.node_port = port.node_port.filter(|_| !same);
        }
    }
    if health && spec.health_check_node_port == was.health_check_node_port {
        spec.health_check_node_port = None;
    }
    if policy && spec.external_traffic_policy == was.external_traffic_policy {
        spec.external_traffic_policy = None;
    }
    if balancer {
        if spec.allocate_load_balancer_node_ports == was.allocate_load_balancer_node_ports {
            spec.allocate_load_balancer_node_ports = None;
        }
        if spec.load_balancer_class == was.load_balancer_class {
            spec.load_balancer_class = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn node_ports_stay_with_the_names_of_ports() {
        let of = |ports: Value| -> Service {
            serde_json::from_value(json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1",
                "clusterIPs": ["10.0.0.1"], "ports": ports}}))
            .unwrap()
        };
        let old = of(
            json!([{"name": "a", "port": 1, "nodePort": 30001}, {"name": "b", "port": 2, "nodePort": 30002}]),
        );
        let mut new =
            of(json!([{"name": "b", "port": 3}, {"name": "a", "port": 1}, {"name": "c", "port": 4}]));
        new.spec.as_mut().unwrap().cluster_ip = None;
        new.spec.as_mut().unwrap().cluster_ips = None;
        keep_allocated(&mut new, &old);
        let spec = new.spec.unwrap();
        let ports: Vec<_> = spec.ports.unwrap().iter().map(|port| port.node_port).collect();
        assert_eq!(ports, [Some(30002), Some(30001), None]);
        assert_eq!(
            (spec.cluster_ip.as_deref(), spec.cluster_ips),
            (Some("10.0.0.1"), Some(vec!["10.0.0.1".into()]))
        );
    }

    #[test]
    fn what_is_reached_from_outside_has_a_policy_for_it() {
        for (spec, expected) in [
            (json!({}), None),
            (json!({"externalIPs": ["203.0.113.1"]}), Some("Cluster")),
            (json!({"type": "NodePort"}), Some("Cluster")),
            (json!({"type": "ExternalName"}), None),
        ] {
            let mut object: Service = serde_json::from_value(json!({"spec": spec})).unwrap();
            service(&mut object);
            assert_eq!(object.spec.unwrap().external_traffic_policy.as_deref(), expected, "{spec}");
        }
    }
}
