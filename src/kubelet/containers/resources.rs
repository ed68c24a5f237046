//! CPU and memory of a container as the kernel wants them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::qos::{QosClass, qos_class};
use crate::cri::v1;
use crate::kubelet::spec;

const CPU_PERIOD: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA: i64 = 1000;

/// A quantity in thousandths, rounded up; what cannot be read counts as zero.
pub fn milli(q: &Quantity) -> i64 {
    crate::api::quantity::Quantity::parse(&q.0).map(|q| q.milli_value()).unwrap_or(0)
}

/// A quantity in whole units, rounded up; what cannot be read counts as zero.
pub fn units(q: &Quantity) -> i64 {
    crate::api::quantity::Quantity::parse(&q.0).map(|q| q.value()).unwrap_or(0)
}

/// A limit or request of a container, in thousandths.
pub fn amount(container: &Container, limit: bool, name: &str) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    let list = if limit { resources.limits.as_ref() } else { resources.requests.as_ref() };
    list.and_then(|l| l.get(name)).map(milli)
}

fn whole(container: &Container, limit: bool, name: &str) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    let list = if limit { resources.limits.as_ref() } else { resources.requests.as_ref() };
    list.and_then(|l| l.get(name)).map(units)
}

/// The CRI resources of a container.
pub fn linux_resources(
    pod: &Pod,
    container: &Container,
    memory_capacity: i64,
) -> v1::LinuxContainerResources {
    let cpu_limit = amount(container, true, "cpu");
    let cpu_request = amount(container, false, "cpu").or(cpu_limit).unwrap_or(0);
    let memory_limit = whole(container, true, "memory").unwrap_or(0);
    let memory_request = whole(container, false, "memory").unwrap_or(0);
    v1::LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: cpu_limit.map_or(0, quota),
        cpu_shares: shares(cpu_request),
        memory_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score_adj(pod, memory_request, memory_capacity),
        hugepage_limits: huge_pages(container),
        unified: BTreeMap::default().into_iter().collect(),
        ..v1::LinuxContainerResources::default()
    }
}

/// Relative weight of a CPU request in thousandths.
pub fn shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Quota per period of a CPU limit in thousandths; zero means no limit.
pub fn quota(milli: i64) -> i64 {
    if milli == 0 { 0 } else { (milli * CPU_PERIOD / 1000).max(MIN_QUOTA) }
}

/// How readily the kernel kills the container when memory runs out.
pub fn oom_score_adj(pod: &Pod, memory_request: i64, memory_capacity: i64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    const NODE_CRITICAL: i32 = 2_000_001_000;
    if spec::pod_spec(pod).priority.is_some_and(|p| p >= NODE_CRITICAL) {
        return GUARANTEED;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => GUARANTEED,
        QosClass::BestEffort => BEST_EFFORT,
        QosClass::Burstable if memory_capacity <= 0 => BEST_EFFORT - 1,
        QosClass::Burstable => {
            let share = i128::from(memory_request) * 1000 / i128::from(memory_capacity);
            let adjust = BEST_EFFORT - i64::try_from(share).unwrap_or(BEST_EFFORT);
            // Always above guaranteed pods and below best-effort ones.
            adjust.clamp(BEST_EFFORT + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

fn huge_pages(container: &Container) -> Vec<v1::HugepageLimit> {
    let limits = container.resources.iter().flat_map(|r| r.limits.iter().flatten());
    limits
        .filter_map(|(name, q)| {
            let size = name.strip_prefix("hugepages-")?;
            // The kernel says KB, MB and GB where Kubernetes says Ki, Mi and Gi.
            let page_size = size.strip_suffix('i').map(|s| format!("{s}B"))?;
            Some(v1::HugepageLimit { page_size, limit: u64::try_from(units(q)).unwrap_or(0) })
        })
        .collect()
}

/// What a whole pod asks for: the larger of its containers' sum and of any moment of its initialisation.
pub fn pod_requests(pod: &Pod) -> BTreeMap<String, i64> {
    let mut running: BTreeMap<String, i64> = BTreeMap::new();
    let mut peak: BTreeMap<String, i64> = BTreeMap::new();
    for init in spec::init_containers(pod) {
        let own = requests(init);
        if spec::is_sidecar(init) {
            add(&mut running, &own);
            raise(&mut peak, &running);
        } else {
            let mut together = running.clone();
            add(&mut together, &own);
            raise(&mut peak, &together);
        }
    }
    for main in spec::main_containers(pod) {
        add(&mut running, &requests(main));
    }
    raise(&mut peak, &running);
    let overhead = spec::pod_spec(pod).overhead.iter().flatten();
    add(&mut peak, &overhead.map(|(k, q)| (k.clone(), milli(q))).collect());
    peak
}

/// What a whole pod may use at most, in thousandths; `None` when one of its containers has no limit.
pub fn pod_limit(pod: &Pod, name: &str) -> Option<i64> {
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c));
    sidecars.chain(spec::main_containers(pod)).map(|c| amount(c, true, name)).sum()
}

fn requests(container: &Container) -> BTreeMap<String, i64> {
    let Some(resources) = &container.resources else { return BTreeMap::new() };
    let mut out: BTreeMap<String, i64> =
        resources.limits.iter().flatten().map(|(k, q)| (k.clone(), milli(q))).collect();
    out.extend(resources.requests.iter().flatten().map(|(k, q)| (k.clone(), milli(q))));
    out
}

fn add(sum: &mut BTreeMap<String, i64>, own: &BTreeMap<String, i64>) {
    for (name, amount) in own {
        let entry = sum.entry(name.clone()).or_default();
        *entry = entry.saturating_add(*amount);
    }
}

fn raise(peak: &mut BTreeMap<String, i64>, other: &BTreeMap<String, i64>) {
    for (name, amount) in other {
        let entry = peak.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::json;

    fn pod_with(resources: serde_json::Value) -> Pod {
        fixture::pod(json!({"containers": [{"name": "a", "resources": resources}]}))
    }

    #[test]
    fn cpu_becomes_shares_and_quota() {
        for (milli, want) in [(0, 2), (1, 2), (100, 102), (1000, 1024), (10_000_000, 262_144)] {
            assert_eq!(shares(milli), want);
        }
        for (milli, want) in [(0, 0), (1, 1000), (500, 50_000), (2000, 200_000)] {
            assert_eq!(quota(milli), want);
        }
    }

    #[test]
    fn limits_stand_in_for_missing_requests() {
        let pod = pod_with(json!({"limits": {"cpu": "500m", "memory": "64Mi"}}));
        let got = linux_resources(&pod, &spec::main_containers(&pod)[0], 1 << 30);
        assert_eq!((got.cpu_shares, got.cpu_quota, got.memory_limit_in_bytes), (512, 50_000, 64 << 20));
    }

    #[test]
    fn oom_scores_follow_the_qos_class() {
        for (resources, want) in [
            (json!({}), 1000),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}),
                -997,
            ),
            (json!({"requests": {"memory": "1Gi"}}), 750),
            (json!({"requests": {"memory": "1"}}), 999),
            (json!({"requests": {"memory": "400Gi"}}), 3),
        ] {
            let pod = pod_with(resources.clone());
            let container = &spec::main_containers(&pod)[0];
            let got = linux_resources(&pod, container, 4 << 30).oom_score_adj;
            assert_eq!(got, want, "{resources}");
        }
    }

    #[test]
    fn huge_pages_use_the_kernels_names() {
        let pod = pod_with(json!({"limits": {"hugepages-2Mi": "4Mi"}}));
        let got = linux_resources(&pod, &spec::main_containers(&pod)[0], 1 << 30).hugepage_limits;
        assert_eq!((got[0].page_size.as_str(), got[0].limit), ("2MB", 4 << 20));
    }

    #[test]
    fn pod_requests_cover_every_moment() {
        let pod = fixture::pod(json!({
            "initContainers": [
                {"name": "big", "resources": {"requests": {"cpu": "3"}}},
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
                {"name": "late", "resources": {"requests": {"memory": "1Gi"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Mi"}}}]}));
        let got = pod_requests(&pod);
        assert_eq!((got["cpu"], got["memory"]), (3000, (1 << 30) * 1000));
    }
}
