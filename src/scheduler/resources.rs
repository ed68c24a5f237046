//! Resource arithmetic in integers: what a pod requests and what a node offers.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::api::quantity::Quantity;

/// What a container without a CPU request counts as when nodes are scored, in thousandths.
const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container without a memory request counts as when nodes are scored.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

type Quantities = BTreeMap<String, Text>;

/// Amounts of resources. Extended resources are sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths.
    pub milli_cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Ephemeral storage in bytes.
    pub ephemeral_storage: i64,
    /// All others, huge pages included.
    pub extended: Vec<(Arc<str>, i64)>,
}

impl Resources {
    /// Reads a resource list. `pods` is not an amount that pods request and is left out.
    pub fn of(list: Option<&Quantities>) -> Self {
        let mut resources = Self::default();
        for (name, text) in list.into_iter().flatten() {
            let Ok(quantity) = Quantity::parse(&text.0) else { continue };
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli_value(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => {}
                other => resources.extended.push((other.into(), quantity.value())),
            }
        }
        resources
    }

    /// The amount of an extended resource.
    pub fn extended(&self, name: &str) -> i64 {
        self.extended
            .binary_search_by(|(known, _)| known.as_ref().cmp(name))
            .map_or(0, |at| self.extended[at].1)
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes `other` away.
    pub fn sub(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    /// Raises each amount to that of `other`.
    pub fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.extended {
            match self.extended.binary_search_by(|(known, _)| known.cmp(name)) {
                Ok(at) => self.extended[at].1 = with(self.extended[at].1, *amount),
                Err(at) => self.extended.insert(at, (name.clone(), with(0, *amount))),
            }
        }
    }
}

/// The number of pods that a node allows.
pub fn allowed_pods(list: Option<&Quantities>) -> i64 {
    let text = list.and_then(|list| list.get("pods"));
    text.and_then(|text| Quantity::parse(&text.0).ok()).map_or(0, |quantity| quantity.value())
}

/// What the pod needs on a node: the most that runs at the same time, plus overhead.
pub fn requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let of = |c: &Container| Resources::of(c.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let mut total = concurrent(spec, of);
    if let Some(pod_level) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        override_with(&mut total, pod_level);
    }
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

/// As [`requests`], with the scoring defaults for containers that request no CPU or no memory: (milli CPU, memory).
pub fn scored_requests(pod: &Pod) -> (i64, i64) {
    let Some(spec) = &pod.spec else { return (0, 0) };
    let of = |c: &Container| {
        let list = c.resources.as_ref().and_then(|r| r.requests.as_ref());
        let asks = |name: &str| list.is_some_and(|list| list.contains_key(name));
        let mut resources = Resources::of(list);
        if !asks("cpu") {
            resources.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !asks("memory") {
            resources.memory = DEFAULT_MEMORY;
        }
        resources
    };
    let mut total = concurrent(spec, of);
    if let Some(pod_level) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        override_with(&mut total, pod_level);
    }
    total.add(&Resources::of(spec.overhead.as_ref()));
    (total.milli_cpu, total.memory)
}

/// Containers run together with all sidecars; each init container runs with the sidecars started before it.
fn concurrent(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut needs = of(container);
        needs.add(&running);
        starting.raise_to(&needs);
        if container.restart_policy.as_deref() == Some("Always") {
            running = needs;
        }
    }
    for container in &spec.containers {
        running.add(&of(container));
    }
    running.raise_to(&starting);
    running
}

/// Requests of the pod as a whole take the place of the sum of its containers'.
fn override_with(total: &mut Resources, pod_level: &Quantities) {
    let given = Resources::of(Some(pod_level));
    if pod_level.contains_key("cpu") {
        total.milli_cpu = given.milli_cpu;
    }
    if pod_level.contains_key("memory") {
        total.memory = given.memory;
    }
    for (name, amount) in given.extended.into_iter().filter(|(name, _)| name.starts_with("hugepages-")) {
        total.extended.retain(|(known, _)| *known != name);
        total.add(&Resources { extended: vec![(name, amount)], ..Resources::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn container(cpu: &str, memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn sidecar(cpu: &str, memory: &str) -> Value {
        let mut sidecar = container(cpu, memory);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    }

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    #[test]
    fn requests_are_what_runs_at_the_same_time() {
        for (why, spec, milli_cpu, memory) in [
            (
                "sum of containers",
                json!({"containers": [container("100m", "1Mi"), container("1", "2Mi")]}),
                1100,
                3 << 20,
            ),
            (
                "an init container runs alone",
                json!({"containers": [container("100m", "1Mi")], "initContainers": [container("2", "1"), container("1", "9Mi")]}),
                2000,
                9 << 20,
            ),
            (
                "sidecars run with the containers",
                json!({"containers": [container("100m", "1Mi")], "initContainers": [sidecar("50m", "1Mi")]}),
                150,
                2 << 20,
            ),
            (
                "and with later init containers",
                json!({"containers": [container("100m", "0")], "initContainers": [container("200m", "0"), sidecar("50m", "0"), container("180m", "0")]}),
                230,
                0,
            ),
            (
                "overhead comes on top",
                json!({"containers": [container("100m", "1Mi")], "overhead": {"cpu": "10m"}}),
                110,
                1 << 20,
            ),
            (
                "the pod's own request counts",
                json!({"containers": [container("100m", "1Mi")], "resources": {"requests": {"cpu": "3"}}}),
                3000,
                1 << 20,
            ),
        ] {
            let requests = requests(&pod(spec));
            assert_eq!((requests.milli_cpu, requests.memory), (milli_cpu, memory), "{why}");
        }
    }

    #[test]
    fn scoring_counts_containers_without_requests() {
        let pod = pod(json!({"containers": [{"name": "a"}, container("1", "1Mi")]}));
        assert_eq!(scored_requests(&pod), (1100, DEFAULT_MEMORY + (1 << 20)));
        assert_eq!(requests(&pod).milli_cpu, 1000);
    }

    #[test]
    fn extended_resources_add_up_by_name() {
        let list = |value: Value| -> Resources {
            let list: Quantities = serde_json::from_value(value).unwrap();
            Resources::of(Some(&list))
        };
        let mut sum = list(json!({"b/gpu": "1", "ephemeral-storage": "1k", "pods": "9"}));
        sum.add(&list(json!({"a/nic": "2", "b/gpu": "3"})));
        assert_eq!((sum.extended("a/nic"), sum.extended("b/gpu"), sum.extended("c/x")), (2, 4, 0));
        sum.sub(&list(json!({"b/gpu": "1"})));
        assert_eq!((sum.extended("b/gpu"), sum.ephemeral_storage, sum.extended.len()), (3, 1000, 2));
    }
}
