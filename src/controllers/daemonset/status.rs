//! The status of a DaemonSet: counted over nodes, not over pods.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSetStatus;

use super::place::{self, Fit};
use super::plan::{Input, spots};
use crate::controllers::workload::pods;

/// The status that follows from nodes and pods.
pub fn status(input: &Input<'_>) -> DaemonSetStatus {
    let before = input.set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: input.set.metadata.generation,
        collision_count: before.collision_count,
        conditions: before.conditions,
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for spot in spots(input).0 {
        let first = spot.pods.first();
        if spot.fit != Fit::Run {
            status.number_misscheduled += i32::from(first.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = first else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pods::is_ready(pod));
        available += i32::from(input.is_available(pod));
        updated += i32::from(place::is_updated(input.set, pod, input.hash));
    }
    status.updated_number_scheduled = Some(updated);
    status.number_available = Some(available);
    status.number_unavailable = Some(status.desired_number_scheduled - available);
    status
}

/// Whether both say the same; absent counters are zero.
pub fn same(a: &DaemonSetStatus, b: &DaemonSetStatus) -> bool {
    let full = |status: &DaemonSetStatus| {
        let mut status = status.clone();
        for counter in [
            &mut status.number_available,
            &mut status.number_unavailable,
            &mut status.updated_number_scheduled,
            &mut status.collision_count,
        ] {
            counter.get_or_insert(0);
        }
        status.observed_generation.get_or_insert(0);
        status
    };
    full(a) == full(b)
}

/// When one more pod becomes available without any event.
pub fn recheck(input: &Input<'_>) -> Option<Duration> {
    let all = input.pods.iter().map(AsRef::as_ref).filter(|pod| pods::is_active(pod));
    pods::next_available(all, input.min_ready(), input.now)
}
