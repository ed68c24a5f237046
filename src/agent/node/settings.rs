//! What a KubeletConfiguration says beyond what the flags of the node do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::api::quantity::Quantity;
use crate::config::{KubeletSettings, SwapBehavior};
use crate::host::Host;
use crate::host::cpus::CpuSet;
use crate::kubelet::{CpuManagerConfig, KubeletConfig, ShutdownPeriod, SwapRule};

/// From this priority on a pod is critical.
const CRITICAL: i32 = 2_000_000_000;

/// Sets what the settings say.
pub fn apply(settings: &KubeletSettings, host: &Host, kubelet: &mut KubeletConfig) {
    kubelet.pod_pids_limit = settings.pod_pids_limit.filter(|limit| *limit > 0);
    kubelet.pods_per_core = settings.pods_per_core;
    kubelet.allowed_unsafe_sysctls.clone_from(&settings.allowed_unsafe_sysctls);
    kubelet.reserved = sum(&settings.kube_reserved, &settings.system_reserved);
    kubelet.seccomp_default = settings.seccomp_default == Some(true);
    kubelet.debugging_handlers = settings.enable_debugging_handlers != Some(false);
    apply_disk(settings, kubelet);
    apply_node(settings, kubelet);
    apply_limits(settings, host, kubelet);
    kubelet.shutdown = shutdown(settings);
    let longest = settings.crash_loop_back_off.max_container_restart_period;
    kubelet.max_restart_wait = longest.unwrap_or(kubelet.max_restart_wait);
    let providers = settings.image_credential_provider_config.clone();
    kubelet.credential_providers = providers.zip(settings.image_credential_provider_bin_dir.clone());
}

/// Logs, images, eviction.
fn apply_disk(settings: &KubeletSettings, kubelet: &mut KubeletConfig) {
    if let Some(size) = settings.container_log_max_size.as_deref().and_then(amount) {
        kubelet.container_log_max_bytes = u64::try_from(size.value()).unwrap_or(u64::MAX);
    }
    if let Some(files) = settings.container_log_max_files {
        kubelet.container_log_max_files = files.max(2);
    }
    set(&mut kubelet.log_monitor, settings.container_log_monitor_interval);
    let (high, low) = &mut kubelet.image_gc_percent;
    *high = settings.image_gc_high_threshold_percent.unwrap_or(*high);
    *low = settings.image_gc_low_threshold_percent.unwrap_or(*low).min(*high);
    set(&mut kubelet.image_ages.0, settings.image_minimum_gc_age);
    set(&mut kubelet.image_ages.1, settings.image_maximum_gc_age);
    let serial = (settings.serialize_image_pulls == Some(true)).then_some(1);
    kubelet.parallel_pulls = settings.max_parallel_image_pulls.or(serial).unwrap_or(kubelet.parallel_pulls);
    set(&mut kubelet.eviction_transition, settings.eviction_pressure_transition_period);
    set(&mut kubelet.eviction_max_grace, settings.eviction_max_pod_grace_period.map(Duration::from_secs));
}

/// What the node tells of itself, and when.
fn apply_node(settings: &KubeletSettings, kubelet: &mut KubeletConfig) {
    set(&mut kubelet.node_status_update, settings.node_status_update_frequency);
    // As upstream: who looks rarely reports as rarely.
    let update = settings.node_status_update_frequency.filter(|period| !period.is_zero());
    set(&mut kubelet.node_status_report, settings.node_status_report_frequency.or(update));
    set(&mut kubelet.node_lease, settings.node_lease_duration_seconds.map(|s| Duration::from_secs(s.into())));
    if let Some(most) = settings.node_status_max_images {
        kubelet.node_status_max_images = usize::try_from(most).unwrap_or(usize::MAX);
    }
}

/// Processors, memory, swap.
fn apply_limits(settings: &KubeletSettings, host: &Host, kubelet: &mut KubeletConfig) {
    let limits = &mut kubelet.limits;
    limits.cpu_quota = settings.cpu_cfs_quota != Some(false);
    if let Some(period) = settings.cpu_cfs_quota_period {
        limits.cpu_period = i64::try_from(period.as_micros()).unwrap_or(limits.cpu_period);
    }
    limits.group_kill = settings.single_process_oom_kill != Some(true);
    limits.version2 = host.cgroups.version() == crate::host::cgroups::Version::V2;
    let swap = i64::try_from(host.machine.info().swap).unwrap_or(i64::MAX);
    limits.swap = match settings.memory_swap.swap_behavior {
        // Version 1 cannot limit swap beside memory.
        SwapBehavior::LimitedSwap if limits.version2 => SwapRule::Share { swap },
        _ => SwapRule::Nothing,
    };
    // Checked before anything was made.
    let reserved = reserved_processors(settings).unwrap_or_default();
    if !reserved.is_empty() {
        // As upstream, the list stands in the place of every other reserve of processors.
        kubelet.reserved.insert("cpu".to_owned(), reserved.len().to_string());
    }
    let option =
        |name: &str| settings.cpu_manager_policy_options.get(name).is_some_and(|value| value == "true");
    kubelet.cpu_manager =
        (settings.cpu_manager_policy.as_deref() == Some("static")).then(|| CpuManagerConfig {
            reserved,
            full_cores_only: option("full-pcpus-only"),
            strict_reservation: option("strict-cpu-reservation"),
        });
}

/// The processors of `reservedSystemCPUs`.
///
/// # Errors
/// The text is no list of processors.
pub fn reserved_processors(settings: &KubeletSettings) -> Result<CpuSet, String> {
    settings.reserved_system_cpus.as_deref().unwrap_or_default().parse()
}

/// The periods by priority, those of the two older fields included.
fn shutdown(settings: &KubeletSettings) -> Vec<ShutdownPeriod> {
    let by_priority = &settings.shutdown_grace_period_by_pod_priority;
    let mut periods: Vec<_> = by_priority
        .iter()
        .map(|period| ShutdownPeriod {
            priority: period.priority,
            grace: Duration::from_secs(period.shutdown_grace_period_seconds),
        })
        .collect();
    let all = settings.shutdown_grace_period.unwrap_or_default();
    if periods.is_empty() && !all.is_zero() {
        let critical = settings.shutdown_grace_period_critical_pods.unwrap_or_default();
        periods.push(ShutdownPeriod { priority: 0, grace: all.saturating_sub(critical) });
        periods.push(ShutdownPeriod { priority: CRITICAL, grace: critical });
    }
    periods.sort_by_key(|period| period.priority);
    periods
}

/// Nothing, and zero, leave the default.
fn set(field: &mut Duration, value: Option<Duration>) {
    if let Some(value) = value.filter(|value| !value.is_zero()) {
        *field = value;
    }
}

fn amount(text: &str) -> Option<Quantity> {
    Quantity::parse(text).ok()
}

/// Two lists of reserved resources together, in thousandths where that is needed.
fn sum(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let of = |list: &BTreeMap<String, String>, name: &str| {
        list.get(name).and_then(|text| amount(text)).map_or(0, |quantity| quantity.milli_value())
    };
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    names
        .into_iter()
        .map(|name| match of(a, name).saturating_add(of(b, name)) {
            whole if whole % 1000 == 0 => (name.clone(), (whole / 1000).to_string()),
            milli => (name.clone(), format!("{milli}m")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;
    use serde_json::{Value, json};

    #[test]
    fn reserved_resources_add_up() {
        let list = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned())).collect()
        };
        let got = sum(&list(&[("cpu", "100m"), ("memory", "1Gi")]), &list(&[("cpu", "200m"), ("pid", "5")]));
        assert_eq!(got, list(&[("cpu", "300m"), ("memory", "1073741824"), ("pid", "5")]));
    }

    fn applied(settings: Value) -> KubeletConfig {
        let settings: KubeletSettings = serde_json::from_value(settings).unwrap();
        let server = crate::kubelet::ServerConfig {
            address: "127.0.0.1:0".parse().unwrap(),
            cert_pem: Vec::new(),
            key_pem: Vec::new(),
            client_ca_pem: Vec::new(),
        };
        let mut kubelet = KubeletConfig::new("n", "10.0.0.1".parse().unwrap(), "/root-dir".into(), server);
        apply(&settings, &FakeHost::default().host(), &mut kubelet);
        kubelet
    }

    #[test]
    fn times_that_are_zero_or_unsaid_leave_the_defaults() {
        let plain = applied(json!({}));
        assert_eq!((plain.node_status_update.as_secs(), plain.node_status_report.as_secs()), (10, 300));
        assert_eq!((plain.eviction_transition.as_secs(), plain.max_restart_wait.as_secs()), (300, 300));
        let got =
            applied(json!({"nodeStatusUpdateFrequency": "4s", "evictionPressureTransitionPeriod": "0s",
            "crashLoopBackOff": {"maxContainerRestartPeriod": "7s"}, "nodeLeaseDurationSeconds": 8}));
        assert_eq!((got.node_status_update.as_secs(), got.node_status_report.as_secs()), (4, 4));
        assert_eq!((got.eviction_transition.as_secs(), got.max_restart_wait.as_secs()), (300, 7));
        assert_eq!(got.node_lease.as_secs(), 8);
    }

    #[test]
    fn shutdown_periods_are_sorted_and_the_older_fields_are_two_of_them() {
        let periods = |settings: Value| -> Vec<(i32, u64)> {
            applied(settings).shutdown.iter().map(|p| (p.priority, p.grace.as_secs())).collect()
        };
        assert_eq!(periods(json!({})), []);
        let older = json!({"shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "10s"});
        assert_eq!(periods(older), [(0, 20), (2_000_000_000, 10)]);
        let newer = json!({"shutdownGracePeriodByPodPriority": [
            {"priority": 100, "shutdownGracePeriodSeconds": 5}, {"priority": 0, "shutdownGracePeriodSeconds": 9}]});
        assert_eq!(periods(newer), [(0, 9), (100, 5)]);
    }

    #[test]
    fn processors_and_swap_follow_their_policies() {
        let plain = applied(json!({}));
        assert_eq!((plain.cpu_manager, plain.limits.swap), (None, SwapRule::Nothing));
        let got = applied(json!({"cpuManagerPolicy": "static", "reservedSystemCPUs": "0-1",
            "cpuManagerPolicyOptions": {"full-pcpus-only": "true"}, "memorySwap": {"swapBehavior": "LimitedSwap"},
            "cpuCFSQuota": false, "cpuCFSQuotaPeriod": "10ms"}));
        assert_eq!(got.reserved["cpu"], "2");
        let cpus = got.cpu_manager.unwrap();
        assert_eq!((cpus.reserved.to_string().as_str(), cpus.full_cores_only), ("0-1", true));
        assert_eq!(got.limits.swap, SwapRule::Share { swap: 0 });
        assert_eq!((got.limits.cpu_quota, got.limits.cpu_period), (false, 10_000));
    }
}
