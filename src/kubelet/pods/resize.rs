//! In-place resize: what a pod's containers were promised (allocated), what their processes already have (actuated),
//! and what has to be done so that both agree with the spec. No I/O but the file that keeps the promise.
//!
//! Invariant: everything but this module sees pods with their allocated resources. A container carries the resources
//! it was made with as an annotation, so the file exists only for pods that were resized.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Node, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};

use super::admission::short_of;
use crate::kubelet::containers::resources::{milli, pod_requests};
use crate::kubelet::observed::ObservedPod;
use crate::kubelet::spec;

/// Resources that may change while a container runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];
const FILE: &str = "allocation.json";

/// What one pod was promised, and what its containers have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// Promised, by name of the container.
    pub allocated: BTreeMap<String, ResourceRequirements>,
    /// Applied since the container was made, by the runtime's id.
    pub actuated: BTreeMap<String, ResourceRequirements>,
}

/// Whether the node can give what the spec now asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It asks for nothing new.
    Same,
    /// It can be given.
    Fits,
    /// Never on this node.
    Infeasible(String),
    /// Not now.
    Deferred(String),
}

/// What a container needs to have its allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The runtime is asked to change the running container.
    Update,
    /// Its policy asks for a new start.
    Restart,
}

fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    spec::init_containers(pod).iter().chain(spec::main_containers(pod))
}

fn amount<'a>(resources: &'a ResourceRequirements, limit: bool, name: &str) -> Option<&'a Quantity> {
    let list = if limit { resources.limits.as_ref() } else { resources.requests.as_ref() };
    list.and_then(|l| l.get(name))
}

/// Whether a resource's request and limit are the same amounts.
fn same_of(name: &str, a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    [true, false].iter().all(|limit| amount(a, *limit, name).map(milli) == amount(b, *limit, name).map(milli))
}

fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    RESIZABLE.iter().all(|name| same_of(name, a, b))
}

/// The requests and limits of the spec as it is.
fn asked(pod: &Pod) -> BTreeMap<String, ResourceRequirements> {
    resizable(pod).map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default())).collect()
}

impl Allocation {
    /// The promise made before: from the file, or from what the containers were made with, or the spec's own.
    pub fn recover(directory: &Path, pod: &Pod, observed: &ObservedPod) -> Self {
        let text = std::fs::read(directory.join(FILE)).ok();
        if let Some(kept) = text.and_then(|t| serde_json::from_slice::<Self>(&t).ok()) {
            return kept;
        }
        let mut allocated = asked(pod);
        for (name, resources) in &mut allocated {
            if let Some(made_with) = observed.latest(name).and_then(|c| c.resources.as_ref()) {
                resources.clone_from(made_with);
            }
        }
        Self { allocated, actuated: BTreeMap::new() }
    }

    /// Keeps the promise where a restarted kubelet finds it.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, directory: &Path) -> std::io::Result<()> {
        let new = directory.join(format!("{FILE}.new"));
        let text = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        std::fs::create_dir_all(directory)?;
        std::fs::write(&new, text)?;
        std::fs::rename(new, directory.join(FILE))
    }

    /// The pod with the resources that it was promised.
    pub fn apply(&self, pod: &Pod) -> Option<Pod> {
        let differs = |c: &Container| {
            let own = c.resources.clone().unwrap_or_default();
            self.allocated.get(&c.name).is_some_and(|a| !same(a, &own))
        };
        if !resizable(pod).any(differs) {
            return None;
        }
        let mut pod = pod.clone();
        let spec = pod.spec.as_mut()?;
        for c in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            if let Some(allocated) = self.allocated.get(&c.name) {
                let own = c.resources.get_or_insert_default();
                for (list, from) in
                    [(&mut own.limits, &allocated.limits), (&mut own.requests, &allocated.requests)]
                {
                    replace(list, from.as_ref());
                }
            }
        }
        Some(pod)
    }

    /// Whether the spec asks for something else than was promised, and whether the node has it.
    pub fn judge(&self, wanted: &Pod, others: &[&Pod], node: Option<&Node>) -> Verdict {
        if self.apply(wanted).is_none() {
            return Verdict::Same;
        }
        let allocatable = node.and_then(|n| n.status.as_ref()).and_then(|s| s.allocatable.as_ref());
        let Some(allocatable) = allocatable else { return Verdict::Fits };
        let requests = pod_requests(wanted);
        for name in RESIZABLE {
            let unit = if name == "cpu" { 1 } else { 1000 };
            let (asked, most) = (requests.get(name).copied(), allocatable.get(name).map(milli));
            let (Some(asked), Some(most)) = (asked, most) else { continue };
            if asked > most {
                let (asked, most) = (asked / unit, most / unit);
                let text =
                    format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {most}");
                return Verdict::Infeasible(text);
            }
        }
        match short_of(wanted, others, allocatable, &RESIZABLE) {
            Some((_, detail)) => Verdict::Deferred(detail),
            None => Verdict::Fits,
        }
    }

    /// Promises what the spec asks for.
    pub fn grant(&mut self, wanted: &Pod) {
        self.allocated = asked(wanted);
    }

    /// What the running container `id` has.
    pub fn actuated<'a>(
        &'a self,
        id: &str,
        made_with: Option<&'a ResourceRequirements>,
    ) -> Option<&'a ResourceRequirements> {
        self.actuated.get(id).or(made_with)
    }

    /// What has to happen to a container that has `now` so that it gets its allocation.
    pub fn change(&self, container: &Container, now: Option<&ResourceRequirements>) -> Change {
        let (Some(wanted), Some(now)) = (self.allocated.get(&container.name), now) else {
            return Change::None;
        };
        let changed: Vec<&str> = RESIZABLE.into_iter().filter(|name| !same_of(name, wanted, now)).collect();
        let restart = |name: &&str| {
            let policies = container.resize_policy.iter().flatten();
            policies.into_iter().any(|p| p.resource_name == **name && p.restart_policy == "RestartContainer")
        };
        match changed.as_slice() {
            [] => Change::None,
            some if some.iter().any(restart) => Change::Restart,
            _ => Change::Update,
        }
    }
}

fn replace(list: &mut Option<BTreeMap<String, Quantity>>, from: Option<&BTreeMap<String, Quantity>>) {
    for name in RESIZABLE {
        match from.and_then(|f| f.get(name)) {
            Some(quantity) => drop(list.get_or_insert_default().insert(name.to_owned(), quantity.clone())),
            None => drop(list.as_mut().and_then(|l| l.remove(name))),
        }
    }
    *list = list.take().filter(|l| !l.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::{Value, json};

    fn pod(cpu: &str, policy: &str) -> Pod {
        fixture::pod(json!({"containers": [{"name": "a", "image": "img",
            "resources": {"requests": {"cpu": cpu, "memory": "10Mi"}, "limits": {"cpu": cpu}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]}]}))
    }

    fn node(cpu: &str) -> Node {
        serde_json::from_value(json!({"status": {"allocatable": {"cpu": cpu, "memory": "1Gi"}}})).unwrap()
    }

    fn promised(pod: &Pod) -> Allocation {
        Allocation::recover(Path::new("/none"), pod, &ObservedPod::default())
    }

    #[test]
    fn a_resize_is_granted_deferred_or_infeasible() {
        let allocation = promised(&pod("1", "NotRequired"));
        let other = pod("1", "NotRequired");
        for (wanted, want) in [
            ("1000m", Verdict::Same),
            ("2", Verdict::Fits),
            (
                "2500m",
                Verdict::Deferred(
                    "Node didn't have enough resource: cpu, requested: 2500, used: 1000, capacity: 3000"
                        .into(),
                ),
            ),
            (
                "4",
                Verdict::Infeasible(
                    "Node didn't have enough capacity: cpu, requested: 4000, capacity: 3000".into(),
                ),
            ),
        ] {
            let got = allocation.judge(&pod(wanted, "NotRequired"), &[&other], Some(&node("3")));
            assert_eq!(got, want, "{wanted}");
        }
    }

    #[test]
    fn until_it_is_granted_the_pod_has_what_it_was_promised() {
        let mut allocation = promised(&pod("1", "NotRequired"));
        let wanted = pod("2", "NotRequired");
        let shown = serde_json::to_value(allocation.apply(&wanted).unwrap()).unwrap();
        let resources = &shown["spec"]["containers"][0]["resources"];
        assert_eq!(*resources, json!({"requests": {"cpu": "1", "memory": "10Mi"}, "limits": {"cpu": "1"}}));
        allocation.grant(&wanted);
        assert_eq!(allocation.apply(&wanted), None);
    }

    #[test]
    fn the_policy_of_what_changed_decides_between_update_and_restart() {
        let before: ResourceRequirements = serde_json::from_value(
            json!({"requests": {"cpu": "1", "memory": "10Mi"}, "limits": {"cpu": "1"}}),
        )
        .unwrap();
        for (cpu, policy, want) in [
            ("1000m", "RestartContainer", Change::None),
            ("2", "NotRequired", Change::Update),
            ("2", "RestartContainer", Change::Restart),
        ] {
            let wanted = pod(cpu, policy);
            let container = &spec::main_containers(&wanted)[0];
            assert_eq!(promised(&wanted).change(container, Some(&before)), want, "{cpu} {policy}");
        }
    }

    #[test]
    fn a_restarted_kubelet_knows_the_promise() {
        let dir = tempfile::tempdir().unwrap();
        let made_with: Value = json!({"requests": {"cpu": "3"}});
        let mut running = fixture::running("a");
        running.resources = serde_json::from_value(made_with).ok();
        let observed = fixture::observed(vec![running]);
        let recovered = Allocation::recover(dir.path(), &pod("1", "NotRequired"), &observed);
        assert_eq!(recovered.allocated["a"].requests.as_ref().unwrap()["cpu"].0, "3");
        let mut saved = recovered.clone();
        saved.grant(&pod("5", "NotRequired"));
        saved.save(dir.path()).unwrap();
        assert_eq!(Allocation::recover(dir.path(), &pod("1", "NotRequired"), &observed), saved);
    }
}
