//! Whether a Job is to end, why, and when the end may be told.

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::policy::{self, Verdict};
use super::view::{View, condition};
use crate::client::clock::age;
use crate::controllers::workload::pods;
use std::time::Duration;

/// The decision that a Job ends: its pods go, and then it is complete or has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// It succeeded.
    pub success: bool,
    /// Why, in a word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

impl Ending {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self { success: false, reason: reason.to_owned(), message: message.into() }
    }

    fn success(reason: &str, message: impl Into<String>) -> Self {
        Self { success: true, ..Self::failure(reason, message) }
    }

    /// The condition while pods go, and the one when they are gone.
    pub fn types(&self) -> (&'static str, &'static str) {
        if self.success { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") }
    }
}

/// The ending that is decided already, or that the pods that failed or succeeded demand now.
pub fn decided(view: &View<'_>, status: &JobStatus) -> Option<Ending> {
    let told = |type_: &str, success: bool| {
        let found = condition(status, type_)?;
        let (reason, message) = (found.reason.clone(), found.message.clone());
        Some(Ending { success, reason: reason.unwrap_or_default(), message: message.unwrap_or_default() })
    };
    if let Some(ending) = told("FailureTarget", false).or_else(|| told("SuccessCriteriaMet", true)) {
        return Some(ending);
    }
    let failed = view.pods.iter().filter(|pod| view.is_failed(pod));
    let verdict = failed.map(|pod| view.verdict(pod)).find_map(|verdict| match verdict {
        Verdict::FailJob(message) => Some(message),
        _ => None,
    });
    if let Some(message) = verdict {
        return Some(Ending::failure("PodFailurePolicy", message));
    }
    let limit = view.spec.backoff_limit.unwrap_or(6);
    if view.failed > limit || too_many_restarts(view, limit) {
        return Some(Ending::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    if deadline_in(view, status).is_some_and(|left| left.is_zero()) {
        return Some(Ending::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
    }
    if let Some(most) = view.spec.max_failed_indexes
        && view.failed_indexes.total() > most
    {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(Ending::failure("MaxFailedIndexesExceeded", message));
    }
    let rules = view.spec.success_policy.as_ref().map(|policy| policy.rules.as_slice()).unwrap_or_default();
    let met = policy::met(rules, view.spec.completions.unwrap_or(0), &view.succeeded_indexes)?;
    Some(Ending::success("SuccessPolicy", format!("Matched rules at index {met}")))
}

/// The ending of a Job that has done all its work and has no active pod.
pub fn completed(view: &View<'_>, active: usize) -> Option<Ending> {
    if active > 0 {
        return None;
    }
    let reached = || Ending::success("CompletionsReached", "Reached expected number of succeeded pods");
    let Some(completions) = view.spec.completions else { return (view.succeeded > 0).then(reached) };
    let given_up = view.failed_indexes.total();
    if view.succeeded + given_up < completions {
        return None;
    }
    if given_up > 0 {
        return Some(Ending::failure("FailedIndexes", "Job has failed indexes"));
    }
    Some(reached())
}

/// Containers that are restarted in place count against the limit too.
fn too_many_restarts(view: &View<'_>, limit: i32) -> bool {
    let policy = view.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let living = view.pods.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
    let statuses = living.filter_map(|pod| pod.status.as_ref());
    let containers = statuses
        .flat_map(|status| status.container_statuses.iter().chain(&status.init_container_statuses).flatten());
    let restarts: i32 = containers.map(|container| container.restart_count).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// How much time the Job has left; zero when it is over, `None` when it has no deadline.
pub fn deadline_in(view: &View<'_>, status: &JobStatus) -> Option<Duration> {
    if view.suspended {
        return None;
    }
    let seconds = u64::try_from(view.spec.active_deadline_seconds?).unwrap_or(0);
    let started = status.start_time.as_ref()?.0;
    Some(Duration::from_secs(seconds).saturating_sub(age(view.now, started)))
}

/// Puts a condition into the status. One that is not there is not made `False`. Returns whether anything changed.
pub fn ensure(
    status: &mut JobStatus,
    type_: &str,
    value: &str,
    (reason, message): (&str, &str),
    now: Timestamp,
) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let new = JobCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|known| known.type_ == type_) {
        Some(known)
            if (&known.status, &known.reason, &known.message) == (&new.status, &new.reason, &new.message) =>
        {
            false
        }
        Some(known) => {
            *known = new;
            true
        }
        None if value == "False" => false,
        None => {
            conditions.push(new);
            true
        }
    }
}
