//! Whether this node takes a pod: the checks that upstream's kubelet repeats after the scheduler.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::kubelet::containers::qos::{QosClass, qos_class};
use crate::kubelet::containers::resources::{milli, pod_requests};
use crate::kubelet::eviction::Pressure;
use crate::kubelet::spec;

/// From this priority on a pod is the node's own.
const CRITICAL: i32 = 2_000_000_000;

/// Why a pod is not taken: reason and message of the event; the status says beside that it was rejected.
pub type Rejection = (String, String);

/// Decides on one pod, given those that the node runs already.
pub fn admit(
    pod: &Pod,
    running: &[&Pod],
    node: Option<&Node>,
    allowed_sysctls: &[String],
) -> Result<(), Rejection> {
    let Some(node) = node else { return Ok(()) };
    if let Some(reason) = affinity(pod, node) {
        return Err(rejected("NodeAffinity", reason));
    }
    if let Some(name) = forbidden_sysctl(pod, allowed_sysctls) {
        return Err(rejected("SysctlForbidden", &format!("forbidden sysctl: \"{name}\" not allowlisted")));
    }
    if let Some(port) = port_conflict(pod, running) {
        return Err(rejected("NodePorts", &format!("host port {port} is in use")));
    }
    resources(pod, running, node)
}

/// Kernel settings that belong to a pod alone, with what they need to be its own.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The first kernel setting that would not stay inside the pod, or that the node does not allow.
fn forbidden_sysctl(pod: &Pod, allowed: &[String]) -> Option<String> {
    let spec = spec::pod_spec(pod);
    let wanted = spec.security_context.iter().flat_map(|c| c.sysctls.iter().flatten());
    let shared = |name: &str| {
        (name.starts_with("net.") && spec.host_network == Some(true))
            || (name.starts_with("kernel.") && spec.host_ipc == Some(true))
    };
    let mut names = wanted.map(|s| s.name.replace('/', "."));
    let may = |name: &str| {
        let listed = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        SAFE_SYSCTLS.contains(&name) || allowed.iter().any(listed)
    };
    names.find(|name| !may(name) || shared(name))
}

/// A node that is short of something takes no pods that would make it worse.
pub fn under_pressure(pod: &Pod, pressure: Pressure) -> Option<Rejection> {
    let critical = spec::pod_spec(pod).priority.is_some_and(|p| p >= CRITICAL);
    let conditions = pressure.conditions();
    if critical || conditions.is_empty() {
        return None;
    }
    if conditions == ["MemoryPressure"]
        && (qos_class(pod) != QosClass::BestEffort || tolerates_memory_pressure(pod))
    {
        return None;
    }
    let message = format!("The node had condition: [{}]. ", conditions.join(" "));
    Some(("Evicted".to_owned(), message))
}

/// A pod that is to be confined by AppArmor runs nowhere else.
pub fn app_armor(pod: &Pod, enabled: bool) -> Option<Rejection> {
    let of_pod = spec::pod_spec(pod).security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
    let confined = spec::all_containers(pod).any(|(_, container)| {
        let own = container.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
        own.or(of_pod).is_some_and(|profile| profile.type_ != "Unconfined")
    });
    let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
    (confined && !enabled).then(|| rejected("AppArmor", message))
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    const KEY: &str = "node.kubernetes.io/memory-pressure";
    spec::pod_spec(pod).tolerations.iter().flatten().any(|t| {
        let effect = t.effect.as_deref().unwrap_or_default();
        let any_key = t.key.is_none() && t.operator.as_deref() == Some("Exists");
        (any_key || t.key.as_deref() == Some(KEY)) && (effect.is_empty() || effect == "NoSchedule")
    })
}

fn rejected(reason: &str, detail: &str) -> Rejection {
    (reason.to_owned(), detail.to_owned())
}

fn affinity(pod: &Pod, node: &Node) -> Option<&'static str> {
    const MISMATCH: &str = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let spec = spec::pod_spec(pod);
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let fits = required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term(t, &labels, name)));
    (!selected || !fits).then_some(MISMATCH)
}

/// Whether a node is one that the term selects.
pub fn term_matches(selector: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    term(selector, &labels, node.metadata.name.as_deref().unwrap_or_default())
}

fn term(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let names: BTreeMap<String, String> = [("metadata.name".to_owned(), name.to_owned())].into();
    expressions.iter().all(|e| requirement(e, labels)) && fields.iter().all(|f| requirement(f, &names))
}

fn requirement(r: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&r.key);
    let values = r.values.as_deref().unwrap_or_default();
    let number = |text: Option<&String>| text.and_then(|t| t.parse::<i64>().ok());
    match r.operator.as_str() {
        "In" => value.is_some_and(|v| values.contains(v)),
        "NotIn" => value.is_none_or(|v| !values.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(number(values.first())).is_some_and(|(a, b)| a > b),
        "Lt" => number(value).zip(number(values.first())).is_some_and(|(a, b)| a < b),
        _ => false,
    }
}

type HostPort = (String, i32, String);

fn host_ports(pod: &Pod) -> BTreeSet<HostPort> {
    let inits = spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c));
    inits
        .chain(spec::main_containers(pod))
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            let port = p.host_port.filter(|n| *n > 0)?;
            let ip = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            Some((p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port, ip))
        })
        .collect()
}

fn port_conflict(pod: &Pod, running: &[&Pod]) -> Option<i32> {
    let any = |ip: &str| ip == "0.0.0.0" || ip == "::";
    let wanted = host_ports(pod);
    let used: Vec<HostPort> = running.iter().flat_map(|p| host_ports(p)).collect();
    let clash = |a: &HostPort| {
        used.iter().any(|b| a.0 == b.0 && a.1 == b.1 && (a.2 == b.2 || any(&a.2) || any(&b.2)))
    };
    wanted.iter().find(|w| clash(w)).map(|w| w.1)
}

fn resources(pod: &Pod, running: &[&Pod], node: &Node) -> Result<(), Rejection> {
    let Some(allocatable) = node.status.as_ref().and_then(|s| s.allocatable.as_ref()) else { return Ok(()) };
    let amount = |name: &str| allocatable.get(name).map(milli);
    if let Some(pods) = amount("pods") {
        let used = running.len() as i64;
        if (used + 1).saturating_mul(1000) > pods {
            return Err(rejected("OutOfpods", &too_little("pods", 1, used, pods / 1000)));
        }
    }
    match short_of(pod, running, allocatable, &[]) {
        Some((name, detail)) => Err(rejected(&format!("OutOf{name}"), &detail)),
        None => Ok(()),
    }
}

/// The first resource that the node has too little of beside the pods that run, with the sentence that says so.
/// `only` names the resources that count; empty means all.
pub fn short_of(
    pod: &Pod,
    running: &[&Pod],
    allocatable: &BTreeMap<String, Quantity>,
    only: &[&str],
) -> Option<(String, String)> {
    let amount = |name: &str| allocatable.get(name).map(milli);
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    for other in running {
        for (name, amount) in pod_requests(other) {
            let entry = used.entry(name).or_default();
            *entry = entry.saturating_add(amount);
        }
    }
    let counts = |name: &str| only.is_empty() || only.contains(&name);
    for (name, wanted) in pod_requests(pod).into_iter().filter(|(n, wanted)| *wanted > 0 && counts(n)) {
        let used = used.get(&name).copied().unwrap_or(0);
        let capacity = amount(&name).unwrap_or(0);
        if used.saturating_add(wanted) > capacity {
            let unit = if name == "cpu" { 1 } else { 1000 };
            return Some((name.clone(), too_little(&name, wanted / unit, used / unit, capacity / unit)));
        }
    }
    None
}

fn too_little(name: &str, wanted: i64, used: i64, capacity: i64) -> String {
    format!(
        "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::{Value, json};

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"zone": "a", "size": "5"}},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "2"}}}))
        .unwrap()
    }

    fn reason(spec: Value, running: &[&Pod]) -> Option<String> {
        admit(&fixture::pod(spec), running, Some(&node()), &["kernel.sem*".to_owned()])
            .err()
            .map(|(reason, _)| reason)
    }

    #[test]
    fn selectors_and_affinity_must_match() {
        let affine = |key: &str, operator: &str, values: Value| {
            json!({"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]}}}})
        };
        for (spec, fits) in [
            (json!({"containers": [], "nodeSelector": {"zone": "a"}}), true),
            (json!({"containers": [], "nodeSelector": {"zone": "b"}}), false),
            (affine("zone", "In", json!(["a", "b"])), true),
            (affine("zone", "NotIn", json!(["a"])), false),
            (affine("gone", "DoesNotExist", json!(null)), true),
            (affine("size", "Gt", json!(["4"])), true),
            (affine("size", "Lt", json!(["4"])), false),
        ] {
            let want = (!fits).then(|| "NodeAffinity".to_owned());
            assert_eq!(reason(spec.clone(), &[]), want, "{spec}");
        }
    }

    #[test]
    fn a_node_under_pressure_takes_only_what_does_not_make_it_worse() {
        let memory = Pressure { memory: true, ..Pressure::default() };
        let disk = Pressure { disk: true, ..Pressure::default() };
        let best_effort = fixture::pod(json!({"containers": [{"name": "a"}]}));
        let sized =
            fixture::pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}));
        let system = fixture::pod(json!({"priority": 2_000_000_000, "containers": [{"name": "a"}]}));
        for (pod, pressure, taken) in [
            (&best_effort, Pressure::default(), true),
            (&best_effort, memory, false),
            (&sized, memory, true),
            (&sized, disk, false),
            (&system, disk, true),
        ] {
            assert_eq!(under_pressure(pod, pressure).is_none(), taken, "{pressure:?}");
        }
    }

    #[test]
    fn a_pod_that_must_be_confined_is_taken_where_that_can_be_done() {
        let profile = |type_: &str| json!({"appArmorProfile": {"type": type_}});
        for (of_pod, own, needs) in [
            (json!({}), json!({}), false),
            (profile("RuntimeDefault"), json!({}), true),
            (profile("RuntimeDefault"), profile("Unconfined"), false),
            (json!({}), profile("Localhost"), true),
        ] {
            let pod = fixture::pod(json!({"securityContext": of_pod,
                "containers": [{"name": "a", "securityContext": own}]}));
            assert_eq!(app_armor(&pod, false).is_some(), needs, "{of_pod} {own}");
            assert_eq!(app_armor(&pod, true), None);
        }
    }

    #[test]
    fn sysctls_must_stay_inside_the_pod() {
        let with = |name: &str, host_ipc: bool| {
            json!({"containers": [], "hostIPC": host_ipc,
                "securityContext": {"sysctls": [{"name": name, "value": "1"}]}})
        };
        for (name, host_ipc, fits) in [
            ("kernel.shm_rmid_forced", false, true),
            ("kernel/shm_rmid_forced", false, true),
            ("kernel.shm_rmid_forced", true, false),
            ("kernel.msgmax", false, false),
            ("kernel.sem", false, true),
            ("kernel.sem", true, false),
        ] {
            let want = (!fits).then(|| "SysctlForbidden".to_owned());
            assert_eq!(reason(with(name, host_ipc), &[]), want, "{name}");
        }
    }

    #[test]
    fn resources_and_ports_are_counted() {
        let cpu = |n: &str| json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": n}}}]});
        let running = fixture::pod(cpu("1500m"));
        assert_eq!(reason(cpu("500m"), &[&running]), None);
        let (reason_word, message) =
            admit(&fixture::pod(cpu("501m")), &[&running], Some(&node()), &[]).unwrap_err();
        assert_eq!(reason_word, "OutOfcpu");
        assert!(message.ends_with("cpu, requested: 501, used: 1500, capacity: 2000"), "{message}");
        let port = json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80}]}]});
        let taken = fixture::pod(port.clone());
        assert_eq!(reason(port, &[&taken]).as_deref(), Some("NodePorts"));
        let plain = json!({"containers": [{"name": "a"}]});
        assert_eq!(reason(plain, &[&running, &running]).as_deref(), Some("OutOfpods"));
    }
}
