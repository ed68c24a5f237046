//! Rolling updates of a DaemonSet: which old pods may go, or which nodes may get a second pod.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::place::{self, Fit};
use super::plan::{Input, Plan, Spot};
use crate::controllers::deployment::strategy::scaled;
use crate::controllers::workload::pods;

/// What the update strategy allows, in pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    rolling: bool,
    /// How many nodes may have a second pod.
    pub max_surge: usize,
    /// How many nodes may be without an available pod.
    pub max_unavailable: usize,
}

impl Limits {
    /// Reads the strategy of a set that runs on `desired` nodes.
    pub fn of(set: &DaemonSet, desired: usize) -> Self {
        let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return Self { rolling: false, max_surge: 0, max_unavailable: 0 };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let total = i32::try_from(desired).unwrap_or(i32::MAX);
        let count = |value: Option<&IntOrString>, default: i32| {
            let value = value.map_or(default, |value| scaled(value, total, true));
            usize::try_from(value).unwrap_or(0)
        };
        let max_surge = count(rolling.and_then(|r| r.max_surge.as_ref()), 0);
        let mut max_unavailable = count(rolling.and_then(|r| r.max_unavailable.as_ref()), 1);
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self { rolling: true, max_surge, max_unavailable }
    }

    /// The limits, if the strategy replaces pods at all.
    pub fn rolling(self) -> Option<Self> {
        self.rolling.then_some(self)
    }
}

/// The living pods of a node: the new one and the old one.
type NewAndOld = (Option<Arc<Pod>>, Option<Arc<Pod>>);

/// `None` when there are several of one sort.
fn new_and_old(input: &Input<'_>, spot: &Spot<'_>) -> Option<NewAndOld> {
    let alive = spot.pods.iter().filter(|pod| !pods::is_deleting(pod));
    let (new, old): (Vec<_>, Vec<_>) =
        alive.cloned().partition(|pod| place::is_updated(input.set, pod, input.hash));
    (new.len() <= 1 && old.len() <= 1).then(|| (new.into_iter().next(), old.into_iter().next()))
}

/// Adds the next step of the update to the plan.
pub fn update(input: &Input<'_>, spots: &[Spot<'_>], limits: Limits, plan: &mut Plan) {
    if limits.max_surge > 0 {
        surge(input, spots, limits.max_surge, plan);
    } else {
        replace(input, spots, limits.max_unavailable, plan);
    }
}

/// Deletes old pods; the next reconcile creates new ones in their place.
fn replace(input: &Input<'_>, spots: &[Spot<'_>], max_unavailable: usize, plan: &mut Plan) {
    let (mut unavailable, mut broken, mut candidates) = (0, Vec::new(), Vec::new());
    for spot in spots.iter().filter(|spot| spot.fit == Fit::Run || !spot.pods.is_empty()) {
        match new_and_old(input, spot) {
            Some((Some(new), None)) if input.is_available(&new) => {}
            Some((None, Some(old))) if input.is_available(&old) => candidates.push(old),
            // It serves nobody, so replacing it costs nothing.
            Some((None, Some(old))) => {
                unavailable += 1;
                broken.push(old);
            }
            _ => unavailable += 1,
        }
    }
    candidates.truncate(max_unavailable.saturating_sub(unavailable));
    plan.delete.extend(broken.into_iter().chain(candidates));
}

/// Starts new pods beside old ones, and removes old ones whose successor is available.
fn surge(input: &Input<'_>, spots: &[Spot<'_>], max_surge: usize, plan: &mut Plan) {
    let (mut surging, mut broken, mut candidates) = (0, Vec::new(), Vec::new());
    for spot in spots {
        match new_and_old(input, spot) {
            None => surging += 1,
            Some((_, None)) => {}
            Some((None, Some(_))) if spot.fit != Fit::Run => {}
            Some((None, Some(old))) if input.is_available(&old) => candidates.push(spot.node.to_owned()),
            Some((None, Some(_))) => broken.push(spot.node.to_owned()),
            Some((Some(new), Some(old))) if input.is_available(&new) => plan.delete.push(old),
            Some((Some(_), Some(_))) => surging += 1,
        }
    }
    candidates.truncate(max_surge.saturating_sub(surging));
    plan.create.extend(broken.into_iter().chain(candidates));
}
