//! What the kubelet must be told: identity, directories, network facts and limits.
//!
//! The values are already validated; where they come from (flags, file, environment) is not known here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use crate::host::cpus::CpuSet;
use crate::kubelet::eviction::thresholds::{self, Threshold};
use crate::kubelet::pods::backoff;

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
    /// How often the node looks at itself.
    pub node_status_update: Duration,
    /// After this time without a sign of life the node counts as gone.
    pub node_lease: Duration,
    /// Most images that the node lists.
    pub node_status_max_images: usize,
    /// Most pods per processor; no limit when 0.
    pub pods_per_core: u32,
    /// How long a pressure is told of after it was last seen.
    pub eviction_transition: Duration,
    /// Most that a pod is given after a soft threshold.
    pub eviction_max_grace: Duration,
    /// How often the logs are looked at.
    pub log_monitor: Duration,
    /// An unused image is kept at least for the first time, and no longer than the second; always when that is zero.
    pub image_ages: (Duration, Duration),
    /// How containers' limits are enforced.
    pub limits: LimitRules,
    /// Containers without a seccomp profile have the runtime's.
    pub seccomp_default: bool,
    /// Longest wait between two starts of a container that fails.
    pub max_restart_wait: Duration,
    /// Whether logs and streams of containers are served.
    pub debugging_handlers: bool,
    /// Processors for containers of their own; `None` leaves all to everybody.
    pub cpu_manager: Option<CpuManagerConfig>,
    /// How long a shutdown waits for pods, by priority from low to high; empty for not at all.
    pub shutdown: Vec<ShutdownPeriod>,
    /// Who is asked for credentials of registries: the file of kind CredentialProviderConfig, and where its programs are.
    pub credential_providers: Option<(PathBuf, PathBuf)>,
}

/// How long a shutdown waits for pods of a priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownPeriod {
    /// From this priority on, up to the next one.
    pub priority: i32,
    /// So long.
    pub grace: Duration,
}

/// The static policy of the CPU manager.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CpuManagerConfig {
    /// Processors that no container has to itself; when empty, so many of the lowest as CPU is reserved.
    pub reserved: CpuSet,
    /// Only whole cores are given.
    pub full_cores_only: bool,
    /// Nobody runs on the reserved processors.
    pub strict_reservation: bool,
}

/// How the limits of containers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRules {
    /// Whether limits of CPU are enforced.
    pub cpu_quota: bool,
    /// Microseconds over which they are.
    pub cpu_period: i64,
    /// Groups are of version 2.
    pub version2: bool,
    /// The kernel kills all processes of a container, not one of them, when memory runs out; with version 2 only.
    pub group_kill: bool,
    /// What containers may swap.
    pub swap: SwapRule,
}

/// What containers may swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SwapRule {
    /// The host has no swap, or cannot limit it: nothing is said.
    #[default]
    Unsaid,
    /// Nothing.
    Nothing,
    /// Burstable pods' containers as large a part of the host's swap as they ask for of its memory; others nothing.
    Share {
        /// The host's swap in bytes.
        swap: i64,
    },
}

impl Default for LimitRules {
    fn default() -> Self {
        Self {
            cpu_quota: true,
            cpu_period: 100_000,
            version2: false,
            group_kill: true,
            swap: SwapRule::Unsaid,
        }
    }
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
            node_status_update: Duration::from_secs(10),
            node_lease: Duration::from_secs(40),
            node_status_max_images: 50,
            pods_per_core: 0,
            eviction_transition: Duration::from_secs(300),
            eviction_max_grace: Duration::from_secs(30),
            log_monitor: Duration::from_secs(10),
            image_ages: (Duration::from_secs(120), Duration::ZERO),
            limits: LimitRules::default(),
            seccomp_default: false,
            max_restart_wait: backoff::MAX,
            debugging_handlers: true,
            cpu_manager: None,
            shutdown: Vec::new(),
            credential_providers: None,
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
