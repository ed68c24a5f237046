//! The fields of a KubeletConfiguration that have an effect, with the flags of the kubelet that are no fields.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// What of a KubeletConfiguration has an effect here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeletSettings {
    /// Directory of pods and plugins; [`super::ROOT_DIR`] when absent.
    pub root_dir: Option<PathBuf>,
    /// Labels to register with.
    pub node_labels: BTreeMap<String, String>,
    /// Taints to register with, as `KEY=VALUE:EFFECT`.
    pub node_taints: Vec<String>,
    /// File of kind CredentialProviderConfig.
    pub image_credential_provider_config: Option<PathBuf>,
    /// Directory of the programs that it names.
    pub image_credential_provider_bin_dir: Option<PathBuf>,
    /// `spec.providerID`.
    #[serde(alias = "providerID")]
    pub provider_id: Option<String>,
    /// Most pods.
    pub max_pods: Option<u32>,
    /// Most pods per processor; no limit when 0.
    pub pods_per_core: u32,
    /// Most processes of one pod; no limit when absent or not above zero.
    pub pod_pids_limit: Option<i64>,
    /// Signal to amount, for pods that are ended at once.
    pub eviction_hard: Option<BTreeMap<String, String>>,
    /// Signal to amount, for pods that are ended after a while.
    pub eviction_soft: Option<BTreeMap<String, String>>,
    /// Signal to that while.
    pub eviction_soft_grace_period: Option<BTreeMap<String, String>>,
    /// Signal to how much more than its amount must be free once pods were ended.
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    /// How long a pressure is told of after it was last seen.
    #[serde(deserialize_with = "duration")]
    pub eviction_pressure_transition_period: Option<Duration>,
    /// Most seconds that a pod is given after a soft threshold.
    pub eviction_max_pod_grace_period: Option<u64>,
    /// Thresholds that are not named keep their defaults.
    pub merge_default_eviction_settings: Option<bool>,
    /// Size at which a container's log is rotated.
    pub container_log_max_size: Option<String>,
    /// Files that a container's log may have.
    pub container_log_max_files: Option<u32>,
    /// How often the logs are looked at.
    #[serde(deserialize_with = "duration")]
    pub container_log_monitor_interval: Option<Duration>,
    /// Percentage of the disk at which images are collected.
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: Option<u8>,
    /// Percentage down to which they are.
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: Option<u8>,
    /// An unused image is kept at least so long.
    #[serde(rename = "imageMinimumGCAge", deserialize_with = "duration")]
    pub image_minimum_gc_age: Option<Duration>,
    /// An image that was not used for so long is removed; never when 0.
    #[serde(rename = "imageMaximumGCAge", deserialize_with = "duration")]
    pub image_maximum_gc_age: Option<Duration>,
    /// Resources that Kubernetes itself needs.
    pub kube_reserved: BTreeMap<String, String>,
    /// Resources that the rest of the host needs.
    pub system_reserved: BTreeMap<String, String>,
    /// Processors that the host keeps, as a list such as `0,2-3`; in the place of reserved CPU.
    #[serde(rename = "reservedSystemCPUs")]
    pub reserved_system_cpus: Option<String>,
    /// `none` or `static`.
    pub cpu_manager_policy: Option<String>,
    /// Options of the policy.
    pub cpu_manager_policy_options: BTreeMap<String, String>,
    /// Whether limits of CPU are enforced.
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: Option<bool>,
    /// The time over which they are.
    #[serde(rename = "cpuCFSQuotaPeriod", deserialize_with = "duration")]
    pub cpu_cfs_quota_period: Option<Duration>,
    /// A node with swap is refused.
    pub fail_swap_on: Option<bool>,
    /// What pods have of the node's swap.
    pub memory_swap: MemorySwap,
    /// Kills by the kernel for want of memory end one process, not the whole container.
    #[serde(rename = "singleProcessOOMKill")]
    pub single_process_oom_kill: Option<bool>,
    /// The host's resolver file for pods.
    pub resolv_conf: Option<PathBuf>,
    /// Servers of pods' names, in the place of the cluster's.
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Option<Vec<IpAddr>>,
    /// Domain of the cluster, in the place of its own.
    pub cluster_domain: Option<String>,
    /// Directory of static pods.
    pub static_pod_path: Option<PathBuf>,
    /// Directory of the pods' logs.
    pub pod_logs_dir: Option<PathBuf>,
    /// Kernel settings beyond the safe ones that pods may change; a name, or a prefix with `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Containers without a profile have the runtime's.
    pub seccomp_default: Option<bool>,
    /// Pulls at the same time.
    pub max_parallel_image_pulls: Option<usize>,
    /// One pull at a time.
    pub serialize_image_pulls: Option<bool>,
    /// Address of the HTTPS server.
    pub address: Option<IpAddr>,
    /// Port of the HTTPS server.
    pub port: Option<u16>,
    /// Whether logs, `exec`, `attach` and port forwarding are served.
    pub enable_debugging_handlers: Option<bool>,
    /// Group below which pods' groups are made.
    pub cgroup_root: Option<String>,
    /// How often the node looks at itself.
    #[serde(deserialize_with = "duration")]
    pub node_status_update_frequency: Option<Duration>,
    /// How often it reports although nothing changed.
    #[serde(deserialize_with = "duration")]
    pub node_status_report_frequency: Option<Duration>,
    /// After so many seconds without a sign of life the node counts as gone.
    pub node_lease_duration_seconds: Option<u32>,
    /// Most images that the node lists; all when -1.
    pub node_status_max_images: Option<i32>,
    /// How a container that fails again and again is started.
    pub crash_loop_back_off: CrashLoopBackOff,
    /// How long a shutdown waits for pods.
    #[serde(deserialize_with = "duration")]
    pub shutdown_grace_period: Option<Duration>,
    /// How much of that is for critical pods.
    #[serde(deserialize_with = "duration")]
    pub shutdown_grace_period_critical_pods: Option<Duration>,
    /// The same, by priority.
    pub shutdown_grace_period_by_pod_priority: Vec<ShutdownGracePeriod>,
}

/// `memorySwap`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MemorySwap {
    /// `NoSwap` or `LimitedSwap`.
    pub swap_behavior: SwapBehavior,
}

/// What pods have of the node's swap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum SwapBehavior {
    /// Nothing.
    #[default]
    #[serde(alias = "")]
    NoSwap,
    /// As large a part of it as they ask for of the memory.
    LimitedSwap,
}

/// `crashLoopBackOff`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CrashLoopBackOff {
    /// Longest wait between two starts of a container that fails, 1 s to 300 s.
    #[serde(deserialize_with = "duration")]
    pub max_container_restart_period: Option<Duration>,
}

/// An entry of `shutdownGracePeriodByPodPriority`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShutdownGracePeriod {
    /// From this priority on.
    pub priority: i32,
    /// So many seconds.
    pub shutdown_grace_period_seconds: u64,
}

/// A length of time as Go writes it, such as `1m30s`.
fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    use serde::de::Error as _;
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    let wrong = || D::Error::custom(format!("{text:?} is not a length of time such as 1m30s"));
    if text == "0" {
        return Ok(Some(Duration::ZERO));
    }
    let length: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(length).map(Some).map_err(|_| wrong())
}

impl KubeletSettings {
    /// Says what of it makes no sense.
    ///
    /// # Errors
    /// One sentence that begins with the field.
    pub(super) fn check(&self) -> Result<(), String> {
        let period = self.cpu_cfs_quota_period.unwrap_or(Duration::from_millis(100));
        if !(Duration::from_millis(1)..=Duration::from_secs(1)).contains(&period) {
            return Err("cpuCFSQuotaPeriod: it must be between 1ms and 1s".to_owned());
        }
        match self.cpu_manager_policy.as_deref() {
            None | Some("" | "none" | "static") => {}
            Some(other) => return Err(format!("cpuManagerPolicy: {other:?} is neither none nor static")),
        }
        if let Some(option) = self.cpu_manager_policy_options.iter().find(|(name, value)| {
            *value != "false" && !matches!(name.as_str(), "full-pcpus-only" | "strict-cpu-reservation")
        }) {
            return Err(format!("cpuManagerPolicyOptions: {:?} is not supported", option.0));
        }
        let longest = self.crash_loop_back_off.max_container_restart_period;
        if longest.is_some_and(|p| !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&p)) {
            return Err(
                "crashLoopBackOff.maxContainerRestartPeriod: it must be between 1s and 300s".to_owned()
            );
        }
        self.check_shutdown()?;
        if self.node_lease_duration_seconds == Some(0) {
            return Err("nodeLeaseDurationSeconds: it must be greater than 0".to_owned());
        }
        if self.node_status_max_images.is_some_and(|most| most < -1) {
            return Err("nodeStatusMaxImages: it must be -1 or greater".to_owned());
        }
        if self.serialize_image_pulls == Some(true) && self.max_parallel_image_pulls.is_some_and(|n| n > 1) {
            return Err(
                "maxParallelImagePulls: it cannot be larger than 1 unless serializeImagePulls is false"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn check_shutdown(&self) -> Result<(), String> {
        let all = self.shutdown_grace_period.unwrap_or_default();
        let critical = self.shutdown_grace_period_critical_pods.unwrap_or_default();
        if critical > all {
            return Err(
                "shutdownGracePeriodCriticalPods: it must not be longer than shutdownGracePeriod".to_owned()
            );
        }
        let second = Duration::from_secs(1);
        if [all, critical].iter().any(|p| !p.is_zero() && *p < second) {
            return Err("shutdownGracePeriod: it must be either zero or at least 1s".to_owned());
        }
        let older = !all.is_zero() || !critical.is_zero();
        if older && !self.shutdown_grace_period_by_pod_priority.is_empty() {
            return Err(
                "shutdownGracePeriodByPodPriority: it cannot be given together with shutdownGracePeriod"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
