//! The status of a deployment: counters, availability, progress and its deadline.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSetStatus};
use k8s_openapi::jiff::Timestamp;

use super::conditions::{self as c, AVAILABLE, PROGRESSING, REPLICA_FAILURE};
use super::sets::{Draft, Sets};
use super::strategy::Limits;

/// The seconds a rollout may take without progress; `None` when there is no deadline.
pub fn progress_deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then_some(seconds)
}

/// Counters and availability. `before` carries conditions and the collision count.
pub fn counters(
    deployment: &Deployment,
    before: &DeploymentStatus,
    sets: &Sets,
    now: Timestamp,
) -> DeploymentStatus {
    let limits = Limits::of(deployment);
    let observed = |count: fn(&ReplicaSetStatus) -> i32| -> i32 {
        sets.all().filter_map(|set| set.original.status.as_ref()).map(count).sum()
    };
    let available = observed(|s| s.available_replicas.unwrap_or(0));
    let updated = sets.new.as_ref().and_then(|new| new.original.status.as_ref()).map_or(0, |s| s.replicas);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(observed(|s| s.replicas)),
        updated_replicas: Some(updated),
        ready_replicas: Some(observed(|s| s.ready_replicas.unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((sets.total_replicas() - available).max(0)),
        terminating_replicas: Some(observed(|s| s.terminating_replicas.unwrap_or(0))),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
    };
    let condition = if available >= limits.min_available() {
        c::new(AVAILABLE, "True", c::MINIMUM_AVAILABLE, "Deployment has minimum availability.", now)
    } else {
        let message = "Deployment does not have minimum availability.";
        c::new(AVAILABLE, "False", c::MINIMUM_UNAVAILABLE, message, now)
    };
    c::set(&mut status, condition);
    status
}

/// Counters plus progress, timeout and failures, for a deployment that is rolling out or rolled out.
pub fn rollout(
    deployment: &Deployment,
    before: &DeploymentStatus,
    sets: &Sets,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = counters(deployment, before, sets, now);
    match progress_deadline(deployment) {
        None => c::remove(&mut status, PROGRESSING),
        Some(deadline) => progress(deployment, before, sets, deadline, &mut status, now),
    }
    let failure = failures(sets, now);
    c::remove(&mut status, REPLICA_FAILURE);
    status.conditions.get_or_insert_default().extend(failure);
    status
}

fn progress(
    deployment: &Deployment,
    before: &DeploymentStatus,
    sets: &Sets,
    deadline: i32,
    status: &mut DeploymentStatus,
    now: Timestamp,
) {
    let current = c::get(before, PROGRESSING);
    let reason = current.and_then(|c| c.reason.as_deref());
    if status.replicas == status.updated_replicas && reason == Some(c::NEW_SET_AVAILABLE) {
        return;
    }
    let subject = match &sets.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.original.metadata.name.as_deref().unwrap_or_default()),
        None => format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        c::set(status, c::new(PROGRESSING, "True", c::NEW_SET_AVAILABLE, message, now));
    } else if is_progressing(before, status) {
        let message = format!("{subject} is progressing.");
        c::replace(status, c::new(PROGRESSING, "True", c::SET_UPDATED, message, now));
    } else if is_timed_out(before, deadline, now) {
        let message = format!("{subject} has timed out progressing.");
        c::set(status, c::new(PROGRESSING, "False", c::TIMED_OUT, message, now));
    }
}

/// All pods are of the current template and available, and nothing else is left.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Limits::of(deployment).replicas;
    [status.updated_replicas, status.replicas, status.available_replicas]
        .into_iter()
        .all(|count| count.unwrap_or(0) == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

fn is_progressing(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let old = |s: &DeploymentStatus| s.replicas.unwrap_or(0) - s.updated_replicas.unwrap_or(0);
    now.updated_replicas.unwrap_or(0) > before.updated_replicas.unwrap_or(0)
        || old(now) < old(before)
        || now.ready_replicas.unwrap_or(0) > before.ready_replicas.unwrap_or(0)
        || now.available_replicas.unwrap_or(0) > before.available_replicas.unwrap_or(0)
}

fn is_timed_out(before: &DeploymentStatus, deadline: i32, now: Timestamp) -> bool {
    let Some(condition) = c::get(before, PROGRESSING) else { return false };
    match condition.reason.as_deref() {
        Some(c::NEW_SET_AVAILABLE) => false,
        Some(c::TIMED_OUT) => true,
        _ => left_until_deadline(condition, deadline, now).is_some_and(|left| left.is_zero()),
    }
}

fn left_until_deadline(
    condition: &k8s_openapi::api::apps::v1::DeploymentCondition,
    deadline: i32,
    now: Timestamp,
) -> Option<Duration> {
    let since = condition.last_update_time.as_ref()?.0;
    let been = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(Duration::from_secs(deadline.unsigned_abs().into()).saturating_sub(been))
}

/// When the deadline has to be checked, if nothing happens before.
pub fn recheck(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let deadline = progress_deadline(deployment)?;
    let condition = c::get(status, PROGRESSING)?;
    let settled = matches!(condition.reason.as_deref(), Some(c::NEW_SET_AVAILABLE | c::TIMED_OUT));
    if settled || is_complete(deployment, status) {
        return None;
    }
    left_until_deadline(condition, deadline, now).map(|left| left + Duration::from_secs(1))
}

/// The condition of a paused or resumed deployment.
pub fn paused(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if progress_deadline(deployment).is_none() {
        return;
    }
    let reason = c::get(status, PROGRESSING).and_then(|c| c.reason.as_deref());
    let known_paused = reason == Some(c::PAUSED);
    let is_paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    if reason == Some(c::TIMED_OUT) || is_paused == known_paused {
        return;
    }
    let condition = if is_paused {
        c::new(PROGRESSING, "Unknown", c::PAUSED, "Deployment is paused", now)
    } else {
        c::new(PROGRESSING, "Unknown", c::RESUMED, "Deployment is resumed", now)
    };
    c::set(status, condition);
}

/// The failure of the new set or, if it has none, of any set.
fn failures(sets: &Sets, now: Timestamp) -> Option<k8s_openapi::api::apps::v1::DeploymentCondition> {
    let failure = |set: &Draft| {
        let conditions = set.original.status.as_ref()?.conditions.as_ref()?;
        let found = conditions.iter().find(|c| c.type_ == REPLICA_FAILURE)?;
        let (reason, message) = (found.reason.as_deref().unwrap_or_default(), found.message.clone());
        let mut condition = c::new(REPLICA_FAILURE, &found.status, reason, message.unwrap_or_default(), now);
        condition.last_transition_time = found.last_transition_time.clone();
        condition.last_update_time = found.last_transition_time.clone();
        Some(condition)
    };
    sets.new.as_ref().and_then(failure).or_else(|| sets.old.iter().find_map(failure))
}

/// Whether both statuses say the same; absent counters are zero, and the order of conditions does not matter.
pub fn same(a: &DeploymentStatus, b: &DeploymentStatus) -> bool {
    let counters = |s: &DeploymentStatus| {
        [
            s.replicas,
            s.updated_replicas,
            s.ready_replicas,
            s.available_replicas,
            s.unavailable_replicas,
            s.terminating_replicas,
            s.collision_count,
        ]
        .map(|count| count.unwrap_or(0))
    };
    let (of_a, of_b) =
        (a.conditions.as_deref().unwrap_or_default(), b.conditions.as_deref().unwrap_or_default());
    counters(a) == counters(b)
        && a.observed_generation == b.observed_generation
        && of_a.len() == of_b.len()
        && of_a.iter().all(|condition| of_b.contains(condition))
}
