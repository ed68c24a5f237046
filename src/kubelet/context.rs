//! What all parts of one kubelet share.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Client;
use tokio::sync::watch;

use crate::client::Recorder;
use crate::client::informer::Informer;
use crate::cri::Runtime;
use crate::host::Host;
use crate::kubelet::config::KubeletConfig;
use crate::kubelet::containers::field_ref::NodeFacts;
use crate::kubelet::containers::resources::{self, NodeLimits};
use crate::kubelet::containers::user_namespace::{self, Ranges};
use crate::kubelet::cpus::CpuManager;
use crate::kubelet::devices::Devices;
use crate::kubelet::events::PodEvents;
use crate::kubelet::eviction::Pressure;
use crate::kubelet::images::Images;
use crate::kubelet::probes::counts::Counts;
use crate::kubelet::spec;
use crate::kubelet::volumes::Volumes;
use crate::kubelet::volumes::fresh::Watches;

/// Handles on everything that pod workers use.
pub struct Context {
    /// Configuration.
    pub config: Arc<KubeletConfig>,
    /// The API.
    pub client: Client,
    /// The container runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The machine.
    pub host: Host,
    /// Events.
    pub recorder: Recorder,
    /// Images.
    pub images: Images,
    /// Tries of probes.
    pub probes: Arc<Counts>,
    /// Ids of pods with users of their own.
    pub users: Ranges,
    /// Devices of device plugins.
    pub devices: Arc<Devices>,
    /// Volumes.
    pub volumes: Arc<Volumes>,
    /// Watches of ConfigMaps and Secrets.
    pub watches: Arc<Watches>,
    /// All Services, for environments.
    pub services: Informer<Service>,
    /// The node as the API has it.
    pub node: watch::Receiver<Option<Arc<Node>>>,
    /// What the node is short of.
    pub pressure: watch::Receiver<Pressure>,
    /// Scheme of container ids.
    pub runtime_name: String,
    /// The machine's memory in bytes.
    pub memory: i64,
    /// What of the node decides about the limits of containers.
    pub limits: NodeLimits,
    /// Processors that containers have to themselves.
    pub cpus: Option<Arc<CpuManager>>,
    /// The machine is about to go down.
    pub shutdown: watch::Receiver<bool>,
}

impl Context {
    /// The time.
    pub fn now(&self) -> Timestamp {
        self.host.clock.now()
    }

    /// Events about a pod.
    pub fn events(&self, pod: &Pod) -> PodEvents {
        PodEvents::new(&self.recorder, pod)
    }

    /// What only the node knows about a pod.
    pub fn facts(&self, pod_ips: Vec<String>) -> NodeFacts {
        let node = self.node.borrow().clone();
        let allocatable = node.as_ref().and_then(|n| n.status.as_ref()?.allocatable.as_ref());
        let get = |name: &str| allocatable.and_then(|a| a.get(name));
        NodeFacts {
            pod_ips,
            host_ips: self.config.node_ips.iter().map(ToString::to_string).collect(),
            node_name: self.config.node_name.clone(),
            allocatable_milli_cpu: get("cpu").map_or(0, resources::milli),
            allocatable_memory: get("memory").map_or(0, resources::units),
        }
    }

    /// The pod's resolver configuration, and what had to be left out of it.
    pub fn dns(&self, pod: &Pod) -> (crate::cri::v1::DnsConfig, Vec<String>) {
        use crate::kubelet::containers::resolver::{Names, dns_config};
        let text = match std::fs::read_to_string(&self.config.resolv_conf) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(path = %self.config.resolv_conf.display(), %error, "resolver file not readable");
                String::new()
            }
        };
        let names = Names {
            cluster_dns: &self.config.cluster_dns,
            cluster_domain: &self.config.cluster_domain,
            host_resolv_conf: &text,
        };
        dns_config(pod, &names)
    }

    /// First host id of a pod with users of its own.
    ///
    /// # Errors
    /// There is none, or it cannot be kept.
    pub fn first_user(&self, pod: &Pod) -> std::io::Result<Option<u32>> {
        let pods = self.config.root_dir.join("pods");
        user_namespace::wanted(pod).then(|| self.users.of(&pods, spec::uid(pod))).transpose()
    }

    /// Directory of a pod's logs.
    pub fn log_dir(&self, pod: &Pod) -> std::path::PathBuf {
        self.config.pod_log_dir(spec::namespace(pod), spec::name(pod), spec::uid(pod))
    }
}
