//! Which pods back a service, at which addresses and ports, and in what condition. Pure; also used for Endpoints.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

use crate::controllers::workload::pods;

/// A port of an endpoint, with the order and equality that grouping needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The service port's name, empty for an unnamed one.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The number on the pod.
    pub port: i32,
    /// The application protocol.
    pub app_protocol: Option<String>,
}

/// An address family, as `addressType` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `IPv4`
    V4,
    /// `IPv6`
    V6,
}

impl Family {
    /// As it is spelled in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn of(address: &str) -> Option<Self> {
        address.parse::<IpAddr>().ok().map(|ip| if ip.is_ipv4() { Self::V4 } else { Self::V6 })
    }
}

/// The pods of this service are looked after by the controllers: it has a selector and is not just a name.
pub fn is_selecting(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() != Some("ExternalName") && spec.selector.as_ref().is_some_and(|map| !map.is_empty())
}

/// The service has no cluster address.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The address families of the service, its primary one first.
pub fn families(service: &Service) -> Vec<Family> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let named = spec.ip_families.iter().flatten().filter_map(|family| match family.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    });
    let named: Vec<_> = named.collect();
    if !named.is_empty() {
        return named;
    }
    vec![spec.cluster_ip.as_deref().and_then(Family::of).unwrap_or(Family::V4)]
}

/// The pod's address of this family.
pub fn address(pod: &Pod, family: Family) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    listed.chain(status.pod_ip.as_deref()).find(|ip| Family::of(ip) == Some(family))
}

/// The pod may be behind a service: it is not over and not gone.
pub fn is_candidate(pod: &Pod) -> bool {
    !pods::is_finished(pod)
}

/// The pod's hostname is published under the service.
pub fn published_hostname<'a>(service: &Service, pod: &'a Pod) -> Option<&'a str> {
    let spec = pod.spec.as_ref()?;
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let hostname = spec.hostname.as_deref().filter(|name| !name.is_empty())?;
    let same = service.metadata.name.as_deref() == Some(subdomain)
        && service.metadata.namespace == pod.metadata.namespace;
    same.then_some(hostname)
}

/// The service's ports on this pod, sorted. Named target ports that the pod does not have are left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let of_service = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut ports: Vec<_> = of_service
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol(port.protocol.as_deref()).to_owned(),
                port: target(port, pod)?,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.unwrap_or("TCP")
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let known = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let mut named = known.filter(|known| {
        known.name.as_deref() == Some(name)
            && protocol(known.protocol.as_deref()) == protocol(port.protocol.as_deref())
    });
    named.next().map(|known| known.container_port)
}

/// When the pod last changed in a way that matters to its services.
pub fn changed_at(pod: &Pod) -> Option<Timestamp> {
    let ready = pods::condition(pod, "Ready").and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    ready.or_else(|| pod.metadata.creation_timestamp.as_ref().map(|t| t.0))
}

/// Whether a change of the pod can change an endpoint.
pub fn matters(before: &Pod, after: &Pod) -> bool {
    let ips = |pod: &Pod| pod.status.as_ref().map(|s| (s.pod_ip.clone(), s.pod_ips.clone()));
    let name = |pod: &Pod| pod.spec.as_ref().map(|s| (s.hostname.clone(), s.subdomain.clone()));
    ips(before) != ips(after)
        || pods::is_ready(before) != pods::is_ready(after)
        || pods::is_deleting(before) != pods::is_deleting(after)
        || pods::is_finished(before) != pods::is_finished(after)
        || pods::node_name(before) != pods::node_name(after)
        || before.metadata.labels != after.metadata.labels
        || before.metadata.uid != after.metadata.uid
        || name(before) != name(after)
}
