//! Which Service gets the addresses of which nodes. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::client::Key;
use crate::controllers::endpointslice::plan::SERVICE_NAME;
use crate::controllers::workload::pods;

/// If any node has this label, only nodes where it is `true` serve.
const ENABLED: &str = "svccontroller.k3s.cattle.io/enablelb";
/// A Service with this label is served by nodes with the same value.
const POOL: &str = "svccontroller.k3s.cattle.io/lbpool";
/// Nodes with this label do not serve.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// What nodes themselves are reached at: the API server and the kubelet.
const RESERVED: [i32; 2] = [6443, 10250];

/// A port of a node.
type HostPort = (i32, String);

/// The state that addresses follow from.
#[derive(Debug)]
pub struct World<'a> {
    /// All Services.
    pub services: &'a [Arc<Service>],
    /// All nodes.
    pub nodes: &'a [Arc<Node>],
    /// All pods; those with host ports matter.
    pub pods: &'a [Arc<Pod>],
    /// All slices; those of Services that want local endpoints matter.
    pub slices: &'a [Arc<EndpointSlice>],
}

/// The Service is served here.
pub fn is_balanced(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() == Some("LoadBalancer")
        && spec.load_balancer_class.is_none()
        && service.metadata.deletion_timestamp.is_none()
}

/// The Service has addresses that it has no claim to, because it is no load balancer any more.
fn is_left_over(service: &Service) -> bool {
    let type_ = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    type_ != Some("LoadBalancer") && !ingress(service).is_empty()
}

/// The addresses in the Service's status.
pub fn ingress(service: &Service) -> &[LoadBalancerIngress] {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default()
}

/// The host ports that pods have, by node.
fn taken_by_pods(all: &[Arc<Pod>]) -> BTreeMap<String, BTreeSet<HostPort>> {
    let mut taken: BTreeMap<String, BTreeSet<HostPort>> = BTreeMap::new();
    for pod in all.iter().filter(|pod| !pods::is_finished(pod)) {
        let Some(node) = pods::node_name(pod) else { continue };
        let spec = pod.spec.iter();
        let ports = spec.flat_map(|spec| &spec.containers).flat_map(|c| c.ports.iter().flatten());
        for port in ports {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            if let Some(number) = port.host_port.filter(|number| *number > 0) {
                taken.entry(node.to_owned()).or_default().insert((number, protocol));
            }
        }
    }
    taken
}

fn host_ports(service: &Service) -> BTreeSet<HostPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.map(|port| (port.port, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()))).collect()
}

fn label<'a>(labels: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    labels.and_then(|labels| labels.get(key)).map(String::as_str)
}

/// The nodes that may serve, in the order of their names.
fn serving(nodes: &[Arc<Node>]) -> Vec<&Node> {
    let labelled = nodes.iter().any(|node| label(node.metadata.labels.as_ref(), ENABLED).is_some());
    let serves = |node: &&Arc<Node>| {
        let labels = node.metadata.labels.as_ref();
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
        ready
            && label(labels, EXCLUDED).is_none()
            && (!labelled || label(labels, ENABLED) == Some("true"))
            && node.metadata.deletion_timestamp.is_none()
    };
    nodes.iter().filter(serves).map(AsRef::as_ref).collect()
}

/// The node's external addresses, or its internal ones if it has none; one of each family.
fn addresses(node: &Node) -> Vec<IpAddr> {
    let of = |type_: &str| -> Vec<IpAddr> {
        let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        all.filter(|address| address.type_ == type_).filter_map(|a| a.address.parse().ok()).collect()
    };
    let external = of("ExternalIP");
    let mut found = if external.is_empty() { of("InternalIP") } else { external };
    let (mut v4, mut v6) = (false, false);
    found.retain(|ip| !std::mem::replace(if ip.is_ipv4() { &mut v4 } else { &mut v6 }, true));
    found
}

/// The nodes with a ready endpoint of the Service.
fn with_endpoints(service: &Service, slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    let of_service = slices.iter().filter(|slice| {
        slice.metadata.namespace == service.metadata.namespace
            && label(slice.metadata.labels.as_ref(), SERVICE_NAME) == service.metadata.name.as_deref()
    });
    let endpoints = of_service.flat_map(|slice| slice.endpoints.iter().flatten());
    let ready = endpoints.filter(|endpoint| {
        endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready.unwrap_or(true))
    });
    ready.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

/// The Services whose status has to change, with what it is to say.
pub fn plan(world: &World<'_>) -> Vec<(Key, Vec<LoadBalancerIngress>)> {
    let mut taken = taken_by_pods(world.pods);
    let nodes = serving(world.nodes);
    let mut balanced: Vec<_> = world.services.iter().filter(|service| is_balanced(service)).collect();
    balanced.sort_by_key(|service| {
        let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, service.metadata.namespace.clone(), service.metadata.name.clone())
    });
    let mut changes = Vec::new();
    for service in balanced {
        let wanted = addresses_of(service, &nodes, world.slices, &mut taken);
        if ingress(service) != wanted {
            changes.push((Key::of(service.as_ref()), wanted));
        }
    }
    let left_over = world.services.iter().filter(|service| is_left_over(service));
    changes.extend(left_over.map(|service| (Key::of(service.as_ref()), Vec::new())));
    changes
}

/// Takes the Service's ports on the nodes that serve it, and returns the addresses of those nodes.
fn addresses_of(
    service: &Service,
    nodes: &[&Node],
    slices: &[Arc<EndpointSlice>],
    taken: &mut BTreeMap<String, BTreeSet<HostPort>>,
) -> Vec<LoadBalancerIngress> {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = host_ports(service);
    if ports.is_empty() || ports.iter().any(|(port, _)| RESERVED.contains(port)) {
        return Vec::new();
    }
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let local_to = if local { with_endpoints(service, slices) } else { BTreeSet::new() };
    let pool = label(service.metadata.labels.as_ref(), POOL);
    let families = spec.ip_families.unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let mut found = BTreeSet::new();
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let in_pool = pool.is_none() || pool == label(node.metadata.labels.as_ref(), POOL);
        if !in_pool || taken.get(name).is_some_and(|taken| !taken.is_disjoint(&ports)) {
            continue;
        }
        taken.entry(name.to_owned()).or_default().extend(ports.iter().cloned());
        if local && !local_to.contains(name) {
            continue;
        }
        let family = |ip: &IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        found.extend(
            addresses(node).into_iter().filter(|ip| families.iter().any(|wanted| wanted == family(ip))),
        );
    }
    found.into_iter().map(to_ingress).collect()
}

fn to_ingress(ip: IpAddr) -> LoadBalancerIngress {
    LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(name: &str, second: i64, patch: Value) -> Arc<Service> {
        let created = format!("2026-01-01T00:00:{second:02}Z");
        let mut body = json!({
            "metadata": {"name": name, "namespace": "default", "creationTimestamp": created},
            "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80}]},
        });
        json_patch::merge(&mut body, &patch);
        Arc::new(serde_json::from_value(body).unwrap())
    }

    fn node(index: u8, patch: Value) -> Arc<Node> {
        let mut body = json!({
            "metadata": {"name": format!("n{index}"), "labels": {}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                       "addresses": [{"type": "InternalIP", "address": format!("10.0.0.{index}")},
                                     {"type": "InternalIP", "address": format!("fd00::{index}")},
                                     {"type": "Hostname", "address": format!("n{index}")}]},
        });
        json_patch::merge(&mut body, &patch);
        Arc::new(serde_json::from_value(body).unwrap())
    }

    /// The addresses that each Service is to have, by its name.
    fn planned(
        services: &[Arc<Service>],
        nodes: &[Arc<Node>],
        pods: &[Arc<Pod>],
    ) -> Vec<(String, Vec<String>)> {
        let changes = plan(&World { services, nodes, pods, slices: &[] });
        let ips = |all: Vec<LoadBalancerIngress>| all.into_iter().filter_map(|one| one.ip).collect();
        changes.into_iter().map(|(key, all)| (key.name().to_owned(), ips(all))).collect()
    }

    fn expect(rows: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let texts = |all: &[&str]| all.iter().map(|ip| (*ip).to_owned()).collect();
        rows.iter().map(|(name, ips)| ((*name).to_owned(), texts(ips))).collect()
    }

    #[test]
    fn a_balancer_has_the_addresses_of_all_ready_nodes() {
        let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        let external = json!({"status": {"addresses": [{"type": "ExternalIP", "address": "1.2.3.4"},
                                                       {"type": "InternalIP", "address": "10.0.0.3"}]}});
        let excluded = json!({"metadata": {"labels": {EXCLUDED: ""}}});
        let nodes = [node(1, json!({})), node(2, not_ready), node(3, external), node(4, excluded)];
        let one = service("one", 0, json!({}));
        assert_eq!(planned(&[one], &nodes, &[]), expect(&[("one", &["1.2.3.4", "10.0.0.1"])]));
        let dual = service("dual", 0, json!({"spec": {"ipFamilies": ["IPv6", "IPv4"]}}));
        assert_eq!(planned(&[dual], &nodes[..1], &[]), expect(&[("dual", &["10.0.0.1", "fd00::1"])]));
        let classed = service("classed", 0, json!({"spec": {"loadBalancerClass": "example.com/other"}}));
        assert_eq!(planned(&[classed], &nodes, &[]), expect(&[]));
    }

    #[test]
    fn one_port_of_a_node_belongs_to_the_older_service_or_to_a_pod() {
        let nodes = [node(1, json!({})), node(2, json!({}))];
        let (young, old) = (service("young", 9, json!({})), service("old", 1, json!({})));
        let both = [young.clone(), old.clone()];
        assert_eq!(planned(&both, &nodes, &[]), expect(&[("old", &["10.0.0.1", "10.0.0.2"])]));
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [
            {"name": "c", "ports": [{"containerPort": 8080, "hostPort": 80}]}]}});
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).unwrap());
        assert_eq!(planned(&[old], &nodes, &[pod]), expect(&[("old", &["10.0.0.2"])]));
        let udp = service("young", 9, json!({"spec": {"ports": [{"port": 80, "protocol": "UDP"}]}}));
        assert_eq!(planned(&[udp], &nodes[..1], &[]), expect(&[("young", &["10.0.0.1"])]));
        let api = service("api", 9, json!({"spec": {"ports": [{"port": 6443}]}}));
        assert_eq!(planned(&[api], &nodes, &[]), expect(&[]), "the node's own port");
    }

    #[test]
    fn labels_choose_nodes_and_local_traffic_its_endpoints() {
        let labelled = |key: &str, value: &str| json!({"metadata": {"labels": {key: value}}});
        let nodes = [node(1, labelled(ENABLED, "true")), node(2, json!({}))];
        let plain = service("s", 0, json!({}));
        assert_eq!(planned(&[plain], &nodes, &[]), expect(&[("s", &["10.0.0.1"])]));
        let nodes = [node(1, labelled(POOL, "a")), node(2, labelled(POOL, "b"))];
        let pooled = service("s", 0, labelled(POOL, "b"));
        assert_eq!(planned(&[pooled], &nodes, &[]), expect(&[("s", &["10.0.0.2"])]));
        let local = service("s", 0, json!({"spec": {"externalTrafficPolicy": "Local"}}));
        let slice = json!({"metadata": {"name": "s-1", "namespace": "default", "labels": {SERVICE_NAME: "s"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.42.0.9"], "nodeName": "n2"}]});
        let slices = [Arc::new(serde_json::from_value(slice).unwrap())];
        let services = [local];
        let changes = plan(&World { services: &services, nodes: &nodes, pods: &[], slices: &slices });
        assert_eq!(changes[0].1[0].ip.as_deref(), Some("10.0.0.2"));
        assert_eq!(changes[0].1.len(), 1);
    }

    #[test]
    fn addresses_go_with_the_type_and_what_is_right_is_not_written() {
        let has = json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}]}}});
        let nodes = [node(1, json!({}))];
        assert_eq!(planned(&[service("s", 0, has.clone())], &nodes, &[]), expect(&[]));
        let mut former = has;
        former["spec"]["type"] = "ClusterIP".into();
        assert_eq!(planned(&[service("s", 0, former)], &nodes, &[]), expect(&[("s", &[])]));
    }
}
