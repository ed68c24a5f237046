//! How long a Job waits after failures. Everything follows from its pods, so that a restart changes nothing.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::view::{INDEX_FAILURES, INDEX_IGNORED, View, annotated};
use crate::client::{backoff::exponential, clock::age};
use crate::controllers::workload::pods;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// When the pod's containers ended, as far as anybody knows.
pub fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref();
    let containers = status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ends = containers.filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    let not_ready = || {
        let condition = pods::condition(pod, "Ready").filter(|condition| condition.status != "True")?;
        condition.last_transition_time.as_ref()
    };
    let deleted = || pod.metadata.deletion_timestamp.as_ref();
    let created = || pod.metadata.creation_timestamp.as_ref();
    ends.max().or_else(not_ready).or_else(deleted).or_else(created).map(|time| time.0)
}

/// What is left of the pause after `failures` failures, the last of them at `last`.
fn left(failures: usize, last: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let (count, last) = (u32::try_from(failures).unwrap_or(u32::MAX).checked_sub(1)?, last?);
    exponential(FIRST, LONGEST, count).checked_sub(age(now, last)).filter(|left| !left.is_zero())
}

/// What is left of the pause since the last failure, counted from the last success.
pub fn of_job(view: &View<'_>) -> Option<Duration> {
    let succeeded = view.pods.iter().filter(|pod| pods::phase(pod) == "Succeeded");
    let last_success = succeeded.filter_map(|pod| ended_at(pod)).max();
    let failed = view.pods.iter().filter(|pod| view.is_failed(pod));
    let mut ends: Vec<_> =
        failed.filter_map(|pod| ended_at(pod)).filter(|end| Some(*end) > last_success).collect();
    ends.sort_unstable();
    left(ends.len(), ends.last().copied(), view.now)
}

/// What is left of the pause of the index whose last pod failed.
pub fn of_index(view: &View<'_>, last: &Pod) -> Option<Duration> {
    let failures = annotated(last, INDEX_FAILURES) + annotated(last, INDEX_IGNORED) + 1;
    left(usize::try_from(failures).unwrap_or(0), ended_at(last), view.now)
}
