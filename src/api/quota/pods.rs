//! What pods use of a ResourceQuota.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, Pod, PodAffinityTerm, PodSpec, ResourceRequirements, ScopedResourceSelectorRequirement,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Amounts, add, one, parse, selects};
use crate::api::quantity::Quantity;

const NAMED: [&str; 10] = [
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

/// Resources that every container must state when a quota limits them.
const STATED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Whether a quota that names `resource` says something about pods.
pub(super) fn concerns(resource: &str) -> bool {
    NAMED.contains(&resource)
        || resource.starts_with("hugepages-")
        || resource.starts_with("requests.hugepages-")
        || resource.strip_prefix("requests.").is_some_and(|rest| rest.contains('/'))
}

fn names(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::new();
    for (name, amount) in requests {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            used.insert(name.clone(), *amount);
            used.insert(format!("requests.{name}"), *amount);
        } else if name.contains('/') {
            used.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
    used
}

fn of(resources: Option<&ResourceRequirements>, which: Which) -> Amounts {
    parse(resources.and_then(|resources| match which {
        Which::Requests => resources.requests.as_ref(),
        Which::Limits => resources.limits.as_ref(),
    }))
}

/// Requests or limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// What the scheduler sets aside.
    Requests,
    /// What the kernel allows.
    Limits,
}

/// What a pod as a whole requests or is limited to: its containers together, or an init container (with the sidecars
/// started before it) where that needs more, or what the pod itself says; and the overhead.
pub fn total(spec: &PodSpec, which: Which) -> Amounts {
    let mut sum = Amounts::new();
    for container in &spec.containers {
        add(&mut sum, &of(container.resources.as_ref(), which));
    }
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut now = of(container.resources.as_ref(), which);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sum, &now);
            add(&mut sidecars, &now);
            now.clone_from(&sidecars);
        } else {
            add(&mut now, &sidecars);
        }
        raise(&mut most, &now);
    }
    raise(&mut sum, &most);
    for (name, amount) in of(spec.resources.as_ref(), which) {
        sum.insert(name, amount);
    }
    let overhead = parse(spec.overhead.as_ref());
    for (name, amount) in &overhead {
        // A limit that is not there is not made by the overhead.
        if which == Which::Requests || sum.contains_key(name) {
            add(&mut sum, &Amounts::from([(name.clone(), *amount)]));
        }
    }
    sum
}

fn raise(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = (*entry).max(*amount);
    }
}

/// Whether a pod still counts: it has not ended, and the time it was given to end has not passed.
pub fn counts(pod: &Pod, now: Timestamp) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Failed" | "Succeeded")) {
        return false;
    }
    let (Some(deleted), Some(grace)) =
        (&pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds)
    else {
        return true;
    };
    let end = deleted.0.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(deleted.0);
    now <= end
}

/// What a pod uses.
pub fn usage(pod: &Pod, now: Timestamp) -> Amounts {
    let mut used = super::count("", "pods");
    if !counts(pod, now) {
        return used;
    }
    used.insert("pods".into(), one());
    if let Some(spec) = &pod.spec {
        used.append(&mut names(&total(spec, Which::Requests), &total(spec, Which::Limits)));
    }
    used
}

/// What containers fail to state though a quota limits `limited`: `cpu for: a,b; memory for: a`.
pub fn unstated(pod: &Pod, limited: &BTreeSet<String>) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let overall = spec.resources.as_ref();
    if overall.is_some_and(|r| r.requests.is_some() || r.limits.is_some()) {
        return None;
    }
    let required: Vec<&str> = STATED.into_iter().filter(|name| limited.contains(*name)).collect();
    let mut missing: std::collections::BTreeMap<&str, BTreeSet<&str>> = Default::default();
    let containers: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    for container in containers {
        let resources = container.resources.as_ref();
        let stated = names(&of(resources, Which::Requests), &of(resources, Which::Limits));
        for name in required.iter().filter(|name| !stated.contains_key(**name)) {
            missing.entry(name).or_default().insert(&container.name);
        }
    }
    if missing.is_empty() {
        return None;
    }
    let parts: Vec<String> = missing
        .into_iter()
        .map(|(name, containers)| {
            let containers: Vec<&str> = containers.into_iter().collect();
            format!("{name} for: {}", containers.join(","))
        })
        .collect();
    Some(parts.join("; "))
}

/// Whether a pod has no requests and no limits on CPU and memory at all.
pub fn best_effort(spec: &PodSpec) -> bool {
    let set = |resources: Option<&ResourceRequirements>| {
        [Which::Requests, Which::Limits].into_iter().any(|which| {
            let amounts = of(resources, which);
            ["cpu", "memory"].iter().any(|name| amounts.get(*name).is_some_and(|a| !a.is_zero()))
        })
    };
    !set(spec.resources.as_ref())
        && !spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .any(|container| set(container.resources.as_ref()))
}

/// Whether the pod wants to be near, or far from, pods of other namespaces.
fn crosses_namespaces(spec: &PodSpec) -> bool {
    let crosses = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|names| !names.is_empty()) || term.namespace_selector.is_some()
    };
    let Some(affinity) = &spec.affinity else { return false };
    let near = affinity.pod_affinity.iter().flat_map(|affinity| {
        let must = affinity.required_during_scheduling_ignored_during_execution.iter().flatten();
        let may = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        must.chain(may.map(|weighted| &weighted.pod_affinity_term))
    });
    let far = affinity.pod_anti_affinity.iter().flat_map(|affinity| {
        let must = affinity.required_during_scheduling_ignored_during_execution.iter().flatten();
        let may = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        must.chain(may.map(|weighted| &weighted.pod_affinity_term))
    });
    near.chain(far).any(crosses)
}

/// Whether a quota with these scopes is about a pod.
pub fn scopes_select(scopes: &[ScopedResourceSelectorRequirement], pod: &Pod) -> bool {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let ends = spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
    scopes.iter().all(|scope| match scope.scope_name.as_str() {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort(spec),
        "NotBestEffort" => !best_effort(spec),
        "PriorityClass" => selects(scope, spec.priority_class_name.as_deref()),
        "CrossNamespacePodAffinity" => crosses_namespaces(spec),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn container(name: &str, cpu: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
    }

    #[test]
    fn init_containers_count_when_they_need_more() {
        let now = Timestamp::now();
        let mut sidecar = container("s", "200m");
        sidecar["restartPolicy"] = "Always".into();
        let object = pod(json!({"containers": [container("a", "100m"), container("b", "1")],
            "initContainers": [sidecar, container("i", "2")], "overhead": {"cpu": "50m"}}));
        let used = usage(&object, now);
        assert_eq!(used["requests.cpu"].to_string(), "2250m");
        assert_eq!((used["pods"].value(), used["count/pods"].value()), (1, 1));
        let mut ended = object;
        ended.status = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
        assert_eq!(usage(&ended, now).len(), 1, "an ended pod is counted as an object alone");
    }

    #[test]
    fn containers_state_what_a_quota_limits() {
        let object = pod(json!({"containers": [container("a", "1"), {"name": "b"}]}));
        let limited = ["cpu", "limits.memory", "pods"].map(str::to_owned).into();
        assert_eq!(unstated(&object, &limited).unwrap(), "cpu for: b; limits.memory for: a,b");
        assert!(unstated(&object, &["pods".to_owned()].into()).is_none());
    }

    #[test]
    fn scopes_tell_pods_apart() {
        let scope = |name: &str, operator: &str, values: &[&str]| ScopedResourceSelectorRequirement {
            scope_name: name.into(),
            operator: operator.into(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        let plain = pod(json!({"containers": [{"name": "a"}]}));
        let busy = pod(json!({"containers": [container("a", "1")], "activeDeadlineSeconds": 5,
            "priorityClassName": "high"}));
        for (name, operator, values, on_plain, on_busy) in [
            ("BestEffort", "Exists", &[][..], true, false),
            ("NotBestEffort", "Exists", &[], false, true),
            ("Terminating", "Exists", &[], false, true),
            ("PriorityClass", "In", &["high"], false, true),
            ("PriorityClass", "NotIn", &["high"], true, false),
            ("PriorityClass", "DoesNotExist", &[], true, false),
            ("CrossNamespacePodAffinity", "Exists", &[], false, false),
        ] {
            let scopes = [scope(name, operator, values)];
            assert_eq!(scopes_select(&scopes, &plain), on_plain, "{name} {operator}");
            assert_eq!(scopes_select(&scopes, &busy), on_busy, "{name} {operator}");
        }
    }
}
