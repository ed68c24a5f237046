//! CPU and memory of a container as the kernel wants them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::qos::{QosClass, qos_class};
use crate::cri::v1;
use crate::kubelet::config::{LimitRules, SwapRule};
use crate::kubelet::spec;

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

/// What of the node decides about the limits of its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLimits {
    /// The machine's memory in bytes.
    pub memory: i64,
    /// How limits are written.
    pub rules: LimitRules,
    /// Sizes of huge pages whose use can be limited, in bytes.
    pub page_sizes: Vec<u64>,
}

/// The CRI resources of a container.
pub fn linux_resources(pod: &Pod, container: &Container, node: &NodeLimits) -> v1::LinuxContainerResources {
    let NodeLimits { memory: memory_capacity, rules, page_sizes } = node;
    let cpu_limit = amount(container, true, "cpu");
    let cpu_request = amount(container, false, "cpu").or(cpu_limit).unwrap_or(0);
    let memory_limit = whole(container, true, "memory").unwrap_or(0);
    let memory_request = whole(container, false, "memory").unwrap_or(0);
    let mut out = v1::LinuxContainerResources {
        cpu_shares: shares(cpu_request),
        memory_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score_adj(pod, memory_request, *memory_capacity),
        hugepage_limits: huge_pages(container, page_sizes),
        ..v1::LinuxContainerResources::default()
    };
    if rules.cpu_quota {
        out.cpu_period = rules.cpu_period;
        out.cpu_quota = cpu_limit.map_or(0, |milli| quota(milli, rules.cpu_period));
    }
    if rules.version2 && rules.group_kill {
        out.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    let swap = match rules.swap {
        SwapRule::Unsaid => return out,
        SwapRule::Nothing => 0,
        SwapRule::Share { swap } => swap_share(pod, container, *memory_capacity, swap),
    };
    if rules.version2 {
        out.unified.insert("memory.swap.max".to_owned(), swap.to_string());
    } else {
        // Version 1 limits memory and swap together; without a limit of memory there is none of swap.
        out.memory_swap_limit_in_bytes = memory_limit;
    }
    out
}

/// What a container may swap: of the host's swap the part that it asks for of the memory. Only burstable pods swap,
/// and of their containers those that may use more memory than they ask for.
fn swap_share(pod: &Pod, container: &Container, memory: i64, swap: i64) -> i64 {
    const CRITICAL: i32 = 2_000_000_000;
    let critical = spec::pod_spec(pod).priority.is_some_and(|p| p >= CRITICAL);
    let request = whole(container, false, "memory").unwrap_or(0);
    let bounded = whole(container, true, "memory") == Some(request);
    if critical || qos_class(pod) != QosClass::Burstable || request == 0 || bounded || memory <= 0 {
        return 0;
    }
    i64::try_from(i128::from(swap) * i128::from(request) / i128::from(memory)).unwrap_or(0)
}

/// Relative weight of a CPU request in thousandths.
pub fn shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Quota per period of a CPU limit in thousandths; zero means no limit.
pub fn quota(milli: i64, period: i64) -> i64 {
    if milli == 0 { 0 } else { (milli * period / 1000).max(MIN_QUOTA) }
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

/// A limit for every size of page that there is: who asks for none gets none.
fn huge_pages(container: &Container, page_sizes: &[u64]) -> Vec<v1::HugepageLimit> {
    let limits = container.resources.iter().flat_map(|r| r.limits.iter().flatten());
    let mut all: BTreeMap<String, u64> = page_sizes.iter().map(|size| (page_name(*size), 0)).collect();
    all.extend(limits.filter_map(|(name, q)| {
        let size = page_size(name.strip_prefix("hugepages-")?)?;
        Some((page_name(size), u64::try_from(units(q)).unwrap_or(0)))
    }));
    all.into_iter().map(|(page_size, limit)| v1::HugepageLimit { page_size, limit }).collect()
}

/// The sizes of the huge pages that containers of the pod ask for, in bytes.
pub fn page_sizes(pod: &Pod) -> Vec<u64> {
    let containers = spec::init_containers(pod).iter().chain(spec::main_containers(pod));
    let asked = containers.flat_map(requests);
    let sizes = asked.filter_map(|(name, _)| page_size(name.strip_prefix("hugepages-")?));
    let sizes: BTreeSet<u64> = sizes.collect();
    sizes.into_iter().collect()
}

/// The size of huge pages in bytes, from the end of a resource's or a medium's name, such as `2Mi`.
pub fn page_size(text: &str) -> Option<u64> {
    let size = crate::api::quantity::Quantity::parse(text).ok()?.value();
    u64::try_from(size).ok().filter(|size| *size > 0)
}

/// The size of a page as the kernel names it: `2MB` where Kubernetes says `2Mi`.
pub fn page_name(bytes: u64) -> String {
    let units = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    let (unit, name) = units.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit)).unwrap_or((1, "B"));
    format!("{}{name}", bytes / unit)
}

/// The size of a page as Kubernetes names it: `2Mi`.
pub fn page_suffix(bytes: u64) -> String {
    page_name(bytes).replace('B', "i")
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

    fn node(memory: i64) -> NodeLimits {
        NodeLimits { memory, ..NodeLimits::default() }
    }

    fn pod_with(resources: serde_json::Value) -> Pod {
        fixture::pod(json!({"containers": [{"name": "a", "resources": resources}]}))
    }

    #[test]
    fn cpu_becomes_shares_and_quota() {
        for (milli, want) in [(0, 2), (1, 2), (100, 102), (1000, 1024), (10_000_000, 262_144)] {
            assert_eq!(shares(milli), want);
        }
        for (milli, want) in [(0, 0), (1, 1000), (500, 50_000), (2000, 200_000)] {
            assert_eq!(quota(milli, 100_000), want);
        }
        assert_eq!(quota(500, 10_000), 5000);
    }

    #[test]
    fn limits_stand_in_for_missing_requests() {
        let pod = pod_with(json!({"limits": {"cpu": "500m", "memory": "64Mi"}}));
        let got = linux_resources(&pod, &spec::main_containers(&pod)[0], &node(1 << 30));
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
            let got = linux_resources(&pod, container, &node(4 << 30)).oom_score_adj;
            assert_eq!(got, want, "{resources}");
        }
    }

    #[test]
    fn huge_pages_use_the_kernels_names() {
        let pod = pod_with(json!({"limits": {"hugepages-2Mi": "4Mi"}}));
        let got = linux_resources(&pod, &spec::main_containers(&pod)[0], &node(1 << 30)).hugepage_limits;
        assert_eq!((got[0].page_size.as_str(), got[0].limit), ("2MB", 4 << 20));
        // Sizes that nobody asked for are out of reach.
        let sizes = NodeLimits { page_sizes: vec![2 << 20, 1 << 30], ..node(1 << 30) };
        let got = linux_resources(&pod, &spec::main_containers(&pod)[0], &sizes).hugepage_limits;
        let got: Vec<_> = got.iter().map(|l| (l.page_size.as_str(), l.limit)).collect();
        assert_eq!(got, [("1GB", 0), ("2MB", 4 << 20)]);
        assert_eq!(page_sizes(&pod), [2 << 20]);
        assert_eq!((page_size("64Ki"), page_suffix(64 << 10).as_str()), (Some(65_536), "64Ki"));
    }

    #[test]
    fn swap_and_the_kill_of_groups_follow_the_rules_and_the_class() {
        let burstable = json!({"requests": {"memory": "256Mi"}, "limits": {"memory": "512Mi"}});
        let bounded = json!({"requests": {"memory": "256Mi", "cpu": "1"}, "limits": {"memory": "256Mi"}});
        let share = SwapRule::Share { swap: 2 << 30 };
        for (resources, swap, version2, unified, limit) in [
            (json!({}), SwapRule::Unsaid, true, None, 0),
            (json!({}), SwapRule::Nothing, true, Some("0".to_owned()), 0),
            (burstable.clone(), SwapRule::Nothing, false, None, 512 << 20),
            (burstable, share, true, Some((512 << 20).to_string()), 0),
            (bounded, share, true, Some("0".to_owned()), 0),
            (json!({}), share, true, Some("0".to_owned()), 0),
        ] {
            let pod = pod_with(resources.clone());
            let rules = LimitRules { swap, version2, ..LimitRules::default() };
            let limits = NodeLimits { rules, ..node(1 << 30) };
            let got = linux_resources(&pod, &spec::main_containers(&pod)[0], &limits);
            assert_eq!(got.unified.get("memory.swap.max").cloned(), unified, "{resources} {swap:?}");
            assert_eq!(got.memory_swap_limit_in_bytes, limit, "{resources} {swap:?}");
            assert_eq!(got.unified.contains_key("memory.oom.group"), version2);
        }
    }

    #[test]
    fn a_node_may_leave_limits_of_cpu_unenforced() {
        let pod = pod_with(json!({"limits": {"cpu": "1"}}));
        let rules = LimitRules { cpu_quota: false, ..LimitRules::default() };
        let got = linux_resources(&pod, &spec::main_containers(&pod)[0], &NodeLimits { rules, ..node(1) });
        assert_eq!((got.cpu_quota, got.cpu_period), (0, 0));
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
