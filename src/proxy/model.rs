//! What the rules are made from: every port of every Service, with the endpoints that may serve it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Services with this label are left to another proxy.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// Upstream's default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: i32 = 10800;

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServicePort {
    /// `namespace/name:port`, or `namespace/name` for a port without a name; upstream's key of a port.
    pub(super) name: String,
    /// `tcp`, `udp` or `sctp`.
    pub(super) protocol: String,
    pub(super) cluster_ips: Vec<IpAddr>,
    pub(super) port: u16,
    pub(super) node_port: Option<u16>,
    pub(super) external_ips: Vec<IpAddr>,
    pub(super) load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer's addresses; everybody when empty.
    pub(super) source_ranges: Vec<String>,
    /// Seconds that a client stays with its endpoint.
    pub(super) affinity: Option<u32>,
    /// Traffic from inside the cluster goes to endpoints of this node only.
    pub(super) internal_local: bool,
    /// Traffic from outside the cluster goes to endpoints of this node only, and keeps its source.
    pub(super) external_local: bool,
    pub(super) endpoints: Vec<Target>,
}

/// An endpoint that may be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// It runs on this node.
    pub(super) local: bool,
}

/// The ports of all Services that this proxy serves, in the order of their names.
pub(super) fn service_ports(
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
    node: &str,
) -> Vec<ServicePort> {
    let mut of_service: BTreeMap<(String, String), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        if let (Some(namespace), Some(name)) = (slice.namespace(), slice.labels().get(SERVICE_NAME)) {
            of_service.entry((namespace, name.clone())).or_default().push(slice);
        }
    }
    let mut ports = Vec::new();
    for service in services.iter().filter(|service| is_served(service)) {
        let key = (service.namespace().unwrap_or_default(), service.name_any());
        let slices = of_service.get(&key).map_or(&[][..], Vec::as_slice);
        let Some(spec) = &service.spec else { continue };
        let api_ports = spec.ports.iter().flatten();
        ports.extend(api_ports.filter_map(|port| service_port(service, spec, port, slices, node)));
    }
    ports.sort_by(|a, b| (&a.name, &a.protocol).cmp(&(&b.name, &b.protocol)));
    ports
}

/// It has a cluster address and no other proxy wants it.
fn is_served(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let has_address = spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty() && ip != "None");
    has_address
        && spec.type_.as_deref() != Some("ExternalName")
        && !service.labels().contains_key(OTHER_PROXY)
}

fn service_port(
    service: &Service,
    spec: &ServiceSpec,
    port: &ApiPort,
    slices: &[&EndpointSlice],
    node: &str,
) -> Option<ServicePort> {
    let key = format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any());
    let port_name = port.name.as_deref().unwrap_or_default();
    let balancer = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
    let ingress = balancer.flat_map(|balancer| balancer.ingress.iter().flatten());
    // A balancer in proxy mode sends traffic through itself: its addresses must not be short-cut.
    let direct = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    Some(ServicePort {
        name: if port_name.is_empty() { key } else { format!("{key}:{port_name}") },
        protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
        cluster_ips: addresses(spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip)),
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
        external_ips: addresses(spec.external_ips.iter().flatten()),
        load_balancer_ips: direct.filter_map(|ingress| ingress.ip.as_deref()?.parse().ok()).collect(),
        source_ranges: spec.load_balancer_source_ranges.clone().unwrap_or_default(),
        affinity: affinity(spec),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        endpoints: targets(slices, port_name, node),
    })
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let configured = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = configured.and_then(|client| client.timeout_seconds).unwrap_or(AFFINITY_SECONDS);
    u32::try_from(seconds).ok()
}

/// Parsed, sorted and each once.
fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut parsed: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
    parsed.sort_unstable();
    parsed.dedup();
    parsed
}

/// The endpoints that are ready, or, when none is, those that still serve while they terminate.
fn targets(slices: &[&EndpointSlice], port_name: &str, node: &str) -> Vec<Target> {
    let (mut ready, mut terminating) = (Vec::new(), Vec::new());
    for slice in slices {
        let ports = slice.ports.iter().flatten();
        let number = ports
            .filter(|port| port.name.as_deref().unwrap_or_default() == port_name)
            .find_map(|port| u16::try_from(port.port?).ok());
        let Some(number) = number else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let into = match use_of(endpoint) {
                Use::Ready => &mut ready,
                Use::Terminating => &mut terminating,
                Use::Not => continue,
            };
            // All addresses of an endpoint are the same pod's: the first is enough.
            let address = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
            into.extend(address.map(|address| Target {
                address: SocketAddr::new(address, number),
                local: endpoint.node_name.as_deref() == Some(node),
            }));
        }
    }
    let mut chosen = if ready.is_empty() { terminating } else { ready };
    chosen.sort();
    chosen.dedup();
    chosen
}

enum Use {
    Ready,
    Terminating,
    Not,
}

fn use_of(endpoint: &Endpoint) -> Use {
    let Some(conditions) = &endpoint.conditions else { return Use::Ready };
    // Unknown is to be taken as ready.
    if conditions.ready.unwrap_or(true) {
        return Use::Ready;
    }
    if conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false) {
        return Use::Terminating;
    }
    Use::Not
}

#[cfg(test)]
pub(super) mod tests;
