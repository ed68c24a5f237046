//! Defaults of Services, and what an update keeps or drops of what the server has chosen.

use k8s_openapi::api::core::v1::{ClientIPConfig, Service, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{kind, wants_health_port, wants_ip, wants_node_ports};

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
    match spec.type_.as_deref() {
        Some("NodePort" | "LoadBalancer") => {
            set_text(&mut spec.external_traffic_policy, "Cluster");
            set_text(&mut spec.internal_traffic_policy, "Cluster");
        }
        Some("ClusterIP") => set_text(&mut spec.internal_traffic_policy, "Cluster"),
        _ => {}
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}

/// `clusterIP` is the first of `clusterIPs`: either may be given.
pub(super) fn normalize_ips(service: &mut Service) {
    let Some(spec) = service.spec.as_mut() else { return };
    let single = spec.cluster_ip.as_deref().unwrap_or_default();
    let first = spec.cluster_ips.as_ref().and_then(|ips| ips.first()).map_or("", String::as_str);
    match (single.is_empty(), first.is_empty()) {
        (false, true) => spec.cluster_ips = Some(vec![single.to_owned()]),
        (true, false) => spec.cluster_ip = Some(first.to_owned()),
        _ => {}
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
    if ips && spec.cluster_ip.as_deref().is_none_or(str::is_empty) && spec.cluster_ips.is_none() {
        spec.cluster_ip.clone_from(&was.cluster_ip);
        spec.cluster_ips.clone_from(&was.cluster_ips);
    }
    if ips && spec.ip_families.is_none() && spec.ip_family_policy.is_none() {
        spec.ip_families.clone_from(&was.ip_families);
        spec.ip_family_policy.clone_from(&was.ip_family_policy);
    }
    if ports {
        for port in spec.ports.iter_mut().flatten().filter(|port| port.node_port.unwrap_or(0) == 0) {
            let same =
                was.ports.iter().flatten().find(|w| (w.port, &w.protocol) == (port.port, &port.protocol));
            port.node_port = same.and_then(|same| same.node_port);
        }
    }
    if health && spec.health_check_node_port.unwrap_or(0) == 0 {
        spec.health_check_node_port = was.health_check_node_port;
    }
}

/// A change of type drops what only the old type has, unless the request says otherwise.
pub(super) fn drop_unused(service: &mut Service, old: &Service) {
    let gone = |wants: fn(&Service) -> bool| wants(old) && !wants(service);
    let (ips, ports, health) = (gone(wants_ip), gone(wants_node_ports), gone(wants_health_port));
    let external = |service: &Service| matches!(kind(service), "NodePort" | "LoadBalancer");
    let policy = external(old) && !external(service);
    let balancer = kind(old) == "LoadBalancer" && kind(service) != "LoadBalancer";
    let (Some(spec), Some(was)) = (service.spec.as_mut(), old.spec.as_ref()) else { return };
    if ips && (spec.cluster_ip == was.cluster_ip) {
        spec.cluster_ip = None;
        spec.cluster_ips = None;
        spec.ip_families = None;
        spec.ip_family_policy = None;
        spec.internal_traffic_policy = None;
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
