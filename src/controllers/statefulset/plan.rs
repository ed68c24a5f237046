//! The next step of a StatefulSet: which pods to create, delete or mend. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::identity;
use crate::controllers::deployment::strategy::scaled;
use crate::controllers::workload::pods;

/// What the plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The set.
    pub set: &'a StatefulSet,
    /// Name of the revision that all pods were of when the last update was complete.
    pub current: &'a str,
    /// Name of the revision of the present template.
    pub update: &'a str,
    /// The pods that the set controls.
    pub pods: &'a [Arc<Pod>],
    /// The current time.
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create the pod of this ordinal, of the present revision or of the one before.
    Create {
        /// The ordinal.
        ordinal: i32,
        /// From the present template.
        updated: bool,
    },
    /// Delete the pod.
    Delete(Arc<Pod>),
    /// Delete the pod, which has ended, so that another one takes its place.
    Recreate(Arc<Pod>),
    /// Give the pod its labels back.
    Mend(Arc<Pod>),
}

/// What to do, in order, and when to look again without any event.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// The actions.
    pub actions: Vec<Action>,
    /// A pod becomes available without any event.
    pub requeue: Option<Duration>,
}

impl Input<'_> {
    fn min_ready(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    /// The pod runs and is ready.
    pub fn is_ready(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Running" && pods::is_ready(pod)
    }

    /// The pod has been ready for long enough.
    pub fn is_available(&self, pod: &Pod) -> bool {
        self.is_ready(pod) && pods::is_available(pod, self.min_ready(), self.now)
    }

    fn is_parallel(&self) -> bool {
        let policy = self.set.spec.as_ref().and_then(|spec| spec.pod_management_policy.as_deref());
        policy == Some("Parallel")
    }

    /// The first ordinal that updates reach; `None` if pods are updated only when somebody deletes them.
    fn partition(&self) -> Option<i32> {
        let strategy = self.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return None;
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        Some(identity::first_ordinal(self.set).saturating_add(partition))
    }

    fn max_unavailable(&self) -> usize {
        let strategy = self.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let most = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let most = most.map_or(1, |most| scaled(most, identity::replicas(self.set), true));
        usize::try_from(most).unwrap_or(0).max(1)
    }

    /// A new pod of this ordinal is made from the present template.
    fn starts_updated(&self, ordinal: i32) -> bool {
        self.partition().is_none_or(|partition| ordinal >= partition)
    }
}

/// Makes the plan.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    if input.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let by_ordinal: BTreeMap<i32, &Arc<Pod>> =
        input.pods.iter().filter_map(|pod| Some((identity::ordinal(input.set, pod)?, pod))).collect();
    plan.requeue =
        pods::next_available(by_ordinal.values().map(|pod| pod.as_ref()), input.min_ready(), input.now);
    if fill(input, &by_ordinal, &mut plan) && condemn(input, &by_ordinal, &mut plan) {
        update(input, &by_ordinal, &mut plan);
    }
    plan
}

/// Sees to it that every wanted ordinal has a pod. Returns whether the next phase may begin.
fn fill(input: &Input<'_>, by_ordinal: &BTreeMap<i32, &Arc<Pod>>, plan: &mut Plan) -> bool {
    let ordered = !input.is_parallel();
    for ordinal in identity::wanted(input.set) {
        let Some(pod) = by_ordinal.get(&ordinal).copied() else {
            plan.actions.push(Action::Create { ordinal, updated: input.starts_updated(ordinal) });
            if ordered {
                return false;
            }
            continue;
        };
        if pods::is_finished(pod) && !pods::is_deleting(pod) {
            plan.actions.push(Action::Recreate(pod.clone()));
            if ordered {
                return false;
            }
            continue;
        }
        if ordered && (pods::is_deleting(pod) || !input.is_available(pod)) {
            return false;
        }
        if !is_identified(input.set, ordinal, pod) && !pods::is_deleting(pod) {
            plan.actions.push(Action::Mend(pod.clone()));
        }
    }
    // Parallel sets create, scale and update independently, but an update counts pods that are there.
    plan.actions.is_empty() || !ordered
}

fn is_identified(set: &StatefulSet, ordinal: i32, pod: &Pod) -> bool {
    let mut wanted = pod.clone();
    identity::identify(set, ordinal, &mut wanted);
    wanted.metadata == pod.metadata
}

/// Removes pods that are not wanted, the highest ordinal first. Returns whether the next phase may begin.
fn condemn(input: &Input<'_>, by_ordinal: &BTreeMap<i32, &Arc<Pod>>, plan: &mut Plan) -> bool {
    let wanted = identity::wanted(input.set);
    let ordered = !input.is_parallel();
    let condemned: Vec<_> =
        by_ordinal.iter().filter(|(n, _)| !wanted.contains(n)).map(|(_, pod)| *pod).collect();
    let healthy = |pod: &Arc<Pod>| input.is_available(pod) && !pods::is_deleting(pod);
    let first_unhealthy = condemned.iter().copied().find(|pod| !healthy(pod));
    for pod in condemned.iter().rev().copied() {
        if pods::is_deleting(pod) {
            if ordered {
                return false;
            }
            continue;
        }
        let is_first = first_unhealthy.is_some_and(|first| Arc::ptr_eq(first, pod));
        if ordered && !healthy(pod) && !is_first {
            return false;
        }
        plan.actions.push(Action::Delete(pod.clone()));
        if ordered {
            return false;
        }
    }
    true
}

/// Replaces pods of other revisions, from the highest ordinal down to the partition.
fn update(input: &Input<'_>, by_ordinal: &BTreeMap<i32, &Arc<Pod>>, plan: &mut Plan) {
    let Some(partition) = input.partition() else { return };
    let wanted = identity::wanted(input.set);
    let healthy = |pod: &Arc<Pod>| input.is_available(pod) && !pods::is_deleting(pod);
    let reached = wanted.clone().filter(|ordinal| *ordinal >= partition);
    let most = input.max_unavailable();
    // Outdated pods that serve nobody may go in any case; the others as far as enough serve.
    let mut unavailable =
        wanted.filter(|ordinal| by_ordinal.get(ordinal).is_none_or(|pod| !healthy(pod))).count();
    for ordinal in reached.rev() {
        let Some(pod) = by_ordinal.get(&ordinal).copied() else { return };
        let outdated = identity::revision(pod) != input.update;
        if outdated && !pods::is_deleting(pod) {
            if healthy(pod) {
                if unavailable >= most {
                    return;
                }
                unavailable += 1;
            }
            let known =
                |action: &Action| matches!(action, Action::Recreate(other) if Arc::ptr_eq(other, pod));
            if !plan.actions.iter().any(known) {
                plan.actions.push(Action::Delete(pod.clone()));
            }
            if most == 1 {
                return;
            }
        } else if most == 1 && !healthy(pod) {
            return;
        }
    }
}
