//! What the DNS reads of the cluster: Services and the endpoints behind them, by name and by address.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

use crate::client::{Informer, Informers, Key};

const BY_SERVICE: &str = "dns-service";
const BY_ADDRESS: &str = "dns-address";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Read access to Services and EndpointSlices.
pub(super) struct View {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

/// A port that endpoints share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedPort {
    pub(super) name: String,
    /// `tcp`, `udp` or `sctp`.
    pub(super) protocol: String,
    pub(super) port: u16,
}

/// One address of a headless Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) address: IpAddr,
    /// The endpoint's host name, or its address with dashes.
    pub(super) hostname: String,
    pub(super) ports: Vec<NamedPort>,
}

impl View {
    pub(super) fn new(informers: &Informers) -> Self {
        let services = informers.get::<Service>();
        let slices = informers.get::<EndpointSlice>();
        services.add_index(BY_ADDRESS, |service| {
            cluster_addresses(service).iter().map(ToString::to_string).collect()
        });
        slices.add_index(BY_SERVICE, |slice| service_of(slice).into_iter().collect());
        slices.add_index(BY_ADDRESS, |slice| {
            slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect()
        });
        View { services, slices }
    }

    /// Both lists are complete: before, a missing name proves nothing.
    pub(super) fn is_complete(&self) -> bool {
        self.services.has_synced() && self.slices.has_synced()
    }

    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(&Key::new(namespace, name))
    }

    /// Whether any Service lies in the namespace; its name then exists in the DNS.
    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        !self.services.in_namespace(namespace).is_empty()
    }

    /// The addresses of a headless Service that clients may use: those that are ready, or all where it says so.
    pub(super) fn backends(&self, service: &Service) -> Vec<Backend> {
        let publish_all =
            service.spec.as_ref().is_some_and(|spec| spec.publish_not_ready_addresses == Some(true));
        let key = format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any());
        let mut found = Vec::new();
        for slice in self.slices.by_index(BY_SERVICE, &key) {
            let ports = ports_of(&slice);
            let endpoints = slice.endpoints.iter().flatten().filter(|one| publish_all || is_ready(one));
            found.extend(endpoints.flat_map(|endpoint| backends_of(endpoint, &ports)));
        }
        found.sort_by(|a, b| (a.address, &a.hostname).cmp(&(b.address, &b.hostname)));
        found.dedup();
        found
    }

    /// The Service that has the cluster address.
    pub(super) fn service_at(&self, address: IpAddr) -> Option<Arc<Service>> {
        self.services.by_index(BY_ADDRESS, &address.to_string()).into_iter().next()
    }

    /// The headless Services, and the host name in them, that the endpoint address belongs to.
    pub(super) fn headless_at(&self, address: IpAddr) -> Vec<(Arc<Service>, String)> {
        let mut found = Vec::new();
        for slice in self.slices.by_index(BY_ADDRESS, &address.to_string()) {
            let service = service_of(&slice).and_then(|key| {
                let (namespace, name) = key.split_once('/')?;
                self.service(namespace, name)
            });
            if let Some(service) = service.filter(|service| is_headless(service)) {
                let hostname = self.backends(&service).into_iter().find(|one| one.address == address);
                found.extend(hostname.map(|backend| (service, backend.hostname)));
            }
        }
        found
    }
}

/// The cluster addresses of a Service; none for a headless one and for an external name.
pub(super) fn cluster_addresses(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let all = spec.cluster_ips.iter().flatten();
    let mut addresses: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    if addresses.is_empty() {
        addresses.extend(spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    addresses
}

/// Whether clients are given the endpoints themselves.
pub(super) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

/// The named ports of a Service, as SRV records tell them.
pub(super) fn service_ports(service: &Service) -> Vec<NamedPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(NamedPort {
                name: port.name.clone().filter(|name| !name.is_empty())?,
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                port: u16::try_from(port.port).ok()?,
            })
        })
        .collect()
}

fn ports_of(slice: &EndpointSlice) -> Vec<NamedPort> {
    let ports = slice.ports.iter().flatten();
    ports
        .filter_map(|port| {
            Some(NamedPort {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                port: u16::try_from(port.port?).ok()?,
            })
        })
        .collect()
}

fn backends_of(endpoint: &Endpoint, ports: &[NamedPort]) -> Vec<Backend> {
    let parsed = endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
    parsed
        .map(|address| Backend {
            address,
            hostname: endpoint.hostname.clone().unwrap_or_else(|| dashed(address)),
            ports: ports.to_vec(),
        })
        .collect()
}

/// An address as a label: `10-42-0-7`.
pub(super) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn is_ready(endpoint: &Endpoint) -> bool {
    // Unknown is to be taken as ready.
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn service_of(slice: &EndpointSlice) -> Option<String> {
    let name = slice.labels().get(SERVICE_NAME)?;
    Some(format!("{}/{name}", slice.namespace()?))
}
