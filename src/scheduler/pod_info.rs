//! What the scheduler knows about a pod, computed once when the pod appears or changes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Affinity, Pod, PodSpec, Volume};

use super::affinity::PodTerms;
use super::resources::{self, Resources};
use crate::client::{Key, volumes};

/// A host port that a pod wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// The host address; `0.0.0.0` stands for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// The two cannot both be bound on one host.
    pub fn conflicts(&self, other: &Self) -> bool {
        let all = |ip: &str| ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || all(&self.ip) || all(&other.ip))
    }
}

/// A pod with everything that plugins ask for again and again.
#[derive(Debug)]
pub struct PodInfo {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its namespace and name.
    pub key: Key,
    /// Its uid.
    pub uid: Arc<str>,
    /// Its requests.
    pub requests: Resources,
    /// Its requests as counted for scoring: milli CPU and memory.
    pub scored: (i64, i64),
    /// Its host ports.
    pub ports: Vec<HostPort>,
    /// Its priority.
    pub priority: i32,
    /// The uid of its controller.
    pub owner: Option<Arc<str>>,
    /// Its inter-pod affinity terms, with parsed selectors.
    pub terms: PodTerms,
    /// The claims that it uses.
    pub claims: Vec<Key>,
    /// Those of them that are made for it alone.
    pub ephemeral_claims: Vec<Key>,
}

impl PodInfo {
    /// Reads the pod.
    pub fn new(pod: Arc<Pod>) -> Arc<Self> {
        let controller = crate::client::owner::controller_of(pod.as_ref());
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        Arc::new(Self {
            key: Key::of(pod.as_ref()),
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            requests: resources::requests(&pod),
            scored: resources::scored_requests(&pod),
            ports: host_ports(&pod),
            priority: pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0),
            owner: controller.map(|owner| owner.uid.as_str().into()),
            terms: PodTerms::of(&pod, namespace),
            claims: claims_of(&pod, |_| true),
            ephemeral_claims: claims_of(&pod, |volume| volume.ephemeral.is_some()),
            pod,
        })
    }

    /// The pod's namespace.
    pub fn namespace(&self) -> &str {
        self.key.namespace()
    }

    /// The pod's spec.
    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// The pod's affinity rules.
    pub fn affinity(&self) -> Option<&Affinity> {
        self.spec()?.affinity.as_ref()
    }

    /// The value of a label of the pod.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.pod.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// The node the pod is bound to.
    pub fn node_name(&self) -> Option<&str> {
        self.spec()?.node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// The pod is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }
}

/// The pod's containers have all ended.
pub fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The claims of the pod's volumes that `wanted` admits.
fn claims_of(pod: &Pod, wanted: impl Fn(&Volume) -> bool) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let names = volumes::claim_names(pod, wanted);
    names.iter().map(|name| Key::new(namespace, name)).collect()
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = sidecars.chain(&spec.containers).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty());
            Some(HostPort {
                ip: ip.unwrap_or_else(|| "0.0.0.0".to_owned()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_conflict_on_overlapping_addresses() {
        let port =
            |ip: &str, protocol: &str, port| HostPort { ip: ip.into(), protocol: protocol.into(), port };
        let tcp = port("127.0.0.1", "TCP", 80);
        for (other, conflicts) in [
            (port("127.0.0.1", "TCP", 80), true),
            (port("0.0.0.0", "TCP", 80), true),
            (port("127.0.0.2", "TCP", 80), false),
            (port("127.0.0.1", "UDP", 80), false),
            (port("127.0.0.1", "TCP", 81), false),
        ] {
            assert_eq!((tcp.conflicts(&other), other.conflicts(&tcp)), (conflicts, conflicts), "{other:?}");
        }
    }
}
