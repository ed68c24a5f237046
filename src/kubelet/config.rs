//! What the kubelet must be told: identity, directories, network facts and limits.
//!
//! The values are already validated; where they come from (flags, file, environment) is not known here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use crate::kubelet::eviction::thresholds::{self, Threshold};

pub use crate::kubelet::volumes::image::ImageMounts;

/// How control groups are named and made by the runtime on this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Plain directories below the cgroup mount.
    #[default]
    Cgroupfs,
    /// Slices that systemd owns.
    Systemd,
}

/// Configuration of one kubelet.
#[derive(Clone, Debug)]
pub struct KubeletConfig {
    /// Name of the Node object.
    pub node_name: String,
    /// Value of the `kubernetes.io/hostname` label and of the `Hostname` address.
    pub hostname: String,
    /// Addresses reported as `InternalIP`; the first one is the pods' `hostIP`.
    pub node_ips: Vec<IpAddr>,
    /// Addresses reported as `ExternalIP`.
    pub node_external_ips: Vec<IpAddr>,
    /// Holds `pods/<uid>/…`, as upstream's `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// Directory of the container logs, `/var/log/pods`.
    pub log_dir: PathBuf,
    /// Directory of static pod manifests, when there is one.
    pub manifest_dir: Option<PathBuf>,
    /// Addresses of the cluster DNS service.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster, `cluster.local`.
    pub cluster_domain: String,
    /// The host's resolver file, for pods with the `Default` DNS policy.
    pub resolv_conf: PathBuf,
    /// How many pods this node takes.
    pub max_pods: u32,
    /// Labels set at registration, beside the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// Taints set at registration.
    pub taints: Vec<Taint>,
    /// `spec.providerID`, when there is one.
    pub provider_id: Option<String>,
    /// The HTTPS server.
    pub server: ServerConfig,
    /// How the runtime names control groups.
    pub cgroup_driver: CgroupDriver,
    /// Group below which the kubelet puts `kubepods`; `None` leaves the choice to the runtime.
    pub cgroup_root: Option<String>,
    /// Withheld from allocatable: resource name to quantity.
    pub reserved: BTreeMap<String, String>,
    /// Runtime handler of pods without a RuntimeClass; empty means the runtime's default.
    pub default_runtime_handler: String,
    /// A container's log file is rotated when it passes this size.
    pub container_log_max_bytes: u64,
    /// How many log files a container keeps, the current one included.
    pub container_log_max_files: u32,
    /// Images are collected when the disk use passes the first percentage, until the second is reached.
    pub image_gc_percent: (u8, u8),
    /// When pods have to make room.
    pub eviction: Vec<Threshold>,
    /// Kernel settings beyond the safe ones that pods may change; a name, or a prefix with `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Most processes of one pod.
    pub pod_pids_limit: Option<i64>,
    /// Image pulls at the same time, over all pods.
    pub parallel_pulls: usize,
    /// How to mount images as volumes when the runtime does not do it itself.
    pub image_mounts: Option<ImageMounts>,
    /// File with the images that came from archives, which are never collected.
    pub image_record: Option<PathBuf>,
    /// How often the node status is reported when nothing changed.
    pub node_status_report: Duration,
}

/// The kubelet's HTTPS server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen; port 10250 by convention.
    pub address: SocketAddr,
    /// PEM chain of the serving certificate.
    pub cert_pem: Vec<u8>,
    /// PEM private key of the serving certificate.
    pub key_pem: Vec<u8>,
    /// PEM bundle that client certificates are verified against.
    pub client_ca_pem: Vec<u8>,
}

impl KubeletConfig {
    /// A configuration with upstream's defaults for a node of this name.
    pub fn new(
        node_name: impl Into<String>,
        node_ip: IpAddr,
        root_dir: PathBuf,
        server: ServerConfig,
    ) -> Self {
        let node_name = node_name.into();
        Self {
            hostname: node_name.clone(),
            node_name,
            node_ips: vec![node_ip],
            node_external_ips: Vec::new(),
            root_dir,
            log_dir: PathBuf::from("/var/log/pods"),
            manifest_dir: None,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            max_pods: 110,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            provider_id: None,
            server,
            cgroup_driver: CgroupDriver::default(),
            cgroup_root: None,
            reserved: BTreeMap::new(),
            default_runtime_handler: String::new(),
            container_log_max_bytes: 10 << 20,
            container_log_max_files: 5,
            image_gc_percent: (85, 80),
            eviction: thresholds::defaults(),
            allowed_unsafe_sysctls: Vec::new(),
            pod_pids_limit: None,
            // More only share the same bandwidth.
            parallel_pulls: 5,
            image_mounts: None,
            image_record: None,
            node_status_report: Duration::from_secs(300),
        }
    }

    /// Directory of one pod's volumes, hosts file and termination messages.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// Directory of links to the logs of all containers, beside that of the logs.
    pub fn log_links(&self) -> PathBuf {
        self.log_dir.with_file_name("containers")
    }

    /// Directory of one pod's container logs.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.log_dir.join(format!("{namespace}_{name}_{uid}"))
    }
}
