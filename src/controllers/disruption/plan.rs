//! The status of a budget from its pods and the wanted size of their owners. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

use crate::client::clock::age;
use crate::controllers::deployment::strategy::scaled;
use crate::controllers::workload::pods;

/// After this time an eviction whose pod is still there counts as failed.
pub const DELETION_TIMEOUT: Duration = Duration::from_secs(120);
/// The condition that says whether disruptions are allowed.
const ALLOWED: &str = "DisruptionAllowed";

/// The status, and what goes with it.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The status.
    pub status: PodDisruptionBudgetStatus,
    /// When an eviction counts as failed.
    pub requeue: Option<Duration>,
    /// Names of pods that were to be evicted and are still there.
    pub not_deleted: Vec<String>,
}

/// The number of pods expected depends on their owners, not on the pods that are there.
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// Makes the status. `scale` is the sum of the sizes of the pods' owners, where the budget asks for it.
pub fn plan(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], scale: Option<i32>, now: Timestamp) -> Plan {
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let spec = budget.spec.clone().unwrap_or_default();
    let expected = scale.unwrap_or_else(|| number(pods.len()));
    let desired = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (expected - scaled(most, expected, true)).max(0),
        (None, Some(least)) => scaled(least, expected, true),
        (None, None) => 0,
    };
    let before = budget.status.clone().unwrap_or_default();
    let (disrupted, requeue, not_deleted) = disrupted(&before, pods, now);
    let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
    let healthy = pods
        .iter()
        .filter(|pod| !pods::is_deleting(pod) && !disrupted.contains_key(&name(pod)) && pods::is_ready(pod));
    let healthy = number(healthy.count());
    // A budget without pods allows nothing: they may be about to be created.
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: before.conditions,
    };
    let (value, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_condition(&mut status, (value, reason, String::new()), now);
    Plan { status, requeue, not_deleted }
}

/// The status of a budget that could not be computed: nothing may be disrupted.
pub fn failed(budget: &PodDisruptionBudget, message: String, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    status.observed_generation = budget.metadata.generation;
    for counter in [&mut status.current_healthy, &mut status.desired_healthy, &mut status.expected_pods] {
        counter.get_or_insert(0);
    }
    set_condition(&mut status, ("False", "SyncFailed", message), now);
    status
}

type Disrupted = (BTreeMap<String, Time>, Option<Duration>, Vec<String>);

/// The evictions that are under way.
fn disrupted(before: &PodDisruptionBudgetStatus, pods: &[Arc<Pod>], now: Timestamp) -> Disrupted {
    let (mut under_way, mut requeue, mut not_deleted) = (BTreeMap::new(), None, Vec::new());
    for (name, since) in before.disrupted_pods.iter().flatten() {
        let alive =
            pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(name) && !pods::is_deleting(pod));
        if !alive {
            continue;
        }
        match DELETION_TIMEOUT.checked_sub(age(now, since.0)).filter(|left| !left.is_zero()) {
            None => not_deleted.push(name.clone()),
            Some(left) => {
                requeue = Some(requeue.map_or(left, |known: Duration| known.min(left)));
                under_way.insert(name.clone(), since.clone());
            }
        }
    }
    (under_way, requeue, not_deleted)
}

fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    (value, reason, message): (&str, &str, String),
    now: Timestamp,
) {
    let generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().find(|condition| condition.type_ == ALLOWED && condition.status == value);
    let since = known.map_or(Time(now), |known| known.last_transition_time.clone());
    let new = Condition {
        type_: ALLOWED.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since,
    };
    conditions.retain(|condition| condition.type_ != ALLOWED);
    conditions.push(new);
}
