//! What a DaemonSet needs next: pods to create and to delete. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;

use super::place::{self, Fit};
use super::rolling::{self, Limits};
use crate::controllers::workload::pods;

/// Most creates or deletes in one reconcile.
const BURST: usize = 250;

/// What the plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The set.
    pub set: &'a DaemonSet,
    /// The hash of its present template.
    pub hash: &'a str,
    /// All nodes.
    pub nodes: &'a [Arc<Node>],
    /// The pods that the set controls.
    pub pods: &'a [Arc<Pod>],
    /// The current time.
    pub now: Timestamp,
}

/// One node and the set's pods there, oldest first, those that have a node before those that wait for it.
#[derive(Debug)]
pub struct Spot<'a> {
    /// The node's name.
    pub node: &'a str,
    /// What the node means to the set.
    pub fit: Fit,
    /// The pods.
    pub pods: Vec<Arc<Pod>>,
}

impl Input<'_> {
    /// `spec.minReadySeconds`.
    pub fn min_ready(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    /// The pod has been ready for long enough.
    pub fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready(), self.now)
    }
}

/// What is to be done about pods.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// The nodes that need a pod.
    pub create: Vec<String>,
    /// The pods that must go.
    pub delete: Vec<Arc<Pod>>,
    /// The pods that ended though they never should; they go with a growing delay.
    pub ended: Vec<Arc<Pod>>,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty() && self.ended.is_empty()
    }
}

/// Sorts the pods to their nodes. Pods of nodes that do not exist come back separately.
pub fn spots<'a>(input: &Input<'a>) -> (Vec<Spot<'a>>, Vec<Arc<Pod>>) {
    let mut by_node: BTreeMap<&str, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in input.pods {
        by_node.entry(place::node_of(pod).unwrap_or_default()).or_default().push(pod.clone());
    }
    let spots = input.nodes.iter().map(|node| {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut pods = by_node.remove(name).unwrap_or_default();
        pods.sort_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (pods::node_name(pod).is_none(), created, pod.metadata.name.clone())
        });
        Spot { node: name, fit: place::fit(input.set, node), pods }
    });
    (spots.collect(), by_node.into_values().flatten().collect())
}

/// Makes the plan.
pub fn plan(input: &Input<'_>) -> Plan {
    if input.set.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let (spots, lost) = spots(input);
    let limits = Limits::of(input.set, spots.iter().filter(|spot| spot.fit == Fit::Run).count());
    let mut plan = Plan::default();
    // Pods that are bound to a node are left to the pod garbage collector.
    let unbound = |pod: &Arc<Pod>| pods::node_name(pod).is_none() && !pods::is_deleting(pod);
    plan.delete.extend(lost.into_iter().filter(unbound));
    for spot in &spots {
        keep_one(input, spot, limits.max_surge > 0, &mut plan);
    }
    if plan.is_empty()
        && let Some(limits) = limits.rolling()
    {
        rolling::update(input, &spots, limits, &mut plan);
    }
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    plan
}

/// One pod where one belongs, none where none belongs.
fn keep_one(input: &Input<'_>, spot: &Spot<'_>, surge: bool, plan: &mut Plan) {
    if spot.fit == Fit::Leave {
        plan.delete.extend(spot.pods.iter().filter(|pod| !pods::is_deleting(pod)).cloned());
        return;
    }
    if spot.pods.is_empty() {
        if spot.fit == Fit::Run {
            plan.create.push(spot.node.to_owned());
        }
        return;
    }
    let alive = spot.pods.iter().filter(|pod| !pods::is_deleting(pod));
    let (ended, running): (Vec<_>, Vec<_>) = alive.cloned().partition(|pod| pods::is_finished(pod));
    plan.ended.extend(ended);
    if running.len() <= 1 {
        return;
    }
    if !surge {
        plan.delete.extend(running.into_iter().skip(1));
        return;
    }
    let (new, old): (Vec<_>, Vec<_>) =
        running.into_iter().partition(|pod| place::is_updated(input.set, pod, input.hash));
    let pair = (new.first().cloned(), old.first().cloned());
    plan.delete.extend(new.into_iter().skip(1).chain(old.into_iter().skip(1)));
    if let (Some(new), Some(old)) = pair
        && (!pods::is_ready(&old) || input.is_available(&new))
    {
        plan.delete.push(old);
    }
}
