//! What a Job's status may say, and how it may go on.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::groups::batch::indexes;
use crate::registry::validation::{IMMUTABLE, non_negative};

/// A status, and which of its conditions hold.
struct Seen<'a> {
    status: &'a JobStatus,
    complete: bool,
    failed: bool,
    failing: bool,
    succeeding: bool,
}

impl<'a> Seen<'a> {
    fn of(status: &'a JobStatus) -> Self {
        let holds = |kind: &str| {
            let mut conditions = status.conditions.iter().flatten();
            conditions.any(|condition| condition.type_ == kind && condition.status == "True")
        };
        Self {
            status,
            complete: holds("Complete"),
            failed: holds("Failed"),
            failing: holds("FailureTarget"),
            succeeding: holds("SuccessCriteriaMet"),
        }
    }

    fn finished(&self) -> bool {
        self.complete || self.failed
    }
}

/// Checks a change of a Job's status. Most rules look only at what changes, so that old Jobs can be written still.
pub(super) fn validate(job: &Job, old: &Job, errors: &mut FieldErrors) {
    let none = (JobStatus::default(), JobStatus::default(), JobSpec::default());
    let new = Seen::of(job.status.as_ref().unwrap_or(&none.0));
    let was = Seen::of(old.status.as_ref().unwrap_or(&none.1));
    let spec = job.spec.as_ref().unwrap_or(&none.2);
    let at = Path::new("status");
    counts(new.status, &at, errors);
    uncounted(new.status, &at, errors);
    endings(&new, &was, spec, &at.child("conditions"), errors);
    times(&new, &was, spec, &at, errors);
    finished(&new, &was, &at, errors);
    lists(&new, &was, spec, &at, errors);
    onward(&new, &was, spec, &at, errors);
}

fn counts(status: &JobStatus, at: &Path, errors: &mut FieldErrors) {
    let counts = [
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ];
    for (field, count) in counts {
        non_negative(count.map(i64::from), &at.child(field), errors);
    }
}

fn uncounted(status: &JobStatus, at: &Path, errors: &mut FieldErrors) {
    let Some(pods) = &status.uncounted_terminated_pods else { return };
    let at = at.child("uncountedTerminatedPods");
    let mut seen = BTreeSet::new();
    for (field, uids) in [("succeeded", &pods.succeeded), ("failed", &pods.failed)] {
        for (i, uid) in uids.iter().flatten().enumerate() {
            let at = at.child(field).index(i);
            if uid.is_empty() {
                errors.push(FieldError::invalid(&at, uid, "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(FieldError::duplicate(&at, uid));
            }
        }
    }
}

fn endings(new: &Seen<'_>, was: &Seen<'_>, spec: &JobSpec, at: &Path, errors: &mut FieldErrors) {
    let complete = new.complete != was.complete;
    let rules = [
        (
            (complete || new.failed != was.failed) && new.complete && new.failed,
            "cannot set Complete=True and Failed=true conditions",
        ),
        (
            (complete || new.failing != was.failing) && new.complete && new.failing,
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            (new.failed != was.failed || new.failing != was.failing) && new.failed && !new.failing,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            (complete || new.succeeding != was.succeeding) && new.complete && !new.succeeding,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (new.succeeding && new.failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (
            new.succeeding && new.failing,
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
        (
            spec.success_policy.is_some() && !new.succeeding && new.complete,
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
        (was.failed && !new.failed, "cannot disable the terminal Failed=True condition"),
        (was.complete && !new.complete, "cannot disable the terminal Complete=True condition"),
        (was.failing && !new.failing, "cannot disable the terminal FailureTarget=True condition"),
        (was.succeeding && !new.succeeding, "cannot disable the SuccessCriteriaMet=True condition"),
        (
            was.complete && !was.succeeding && new.succeeding,
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
        ),
    ];
    for (_, message) in rules.into_iter().filter(|(broken, _)| *broken) {
        errors.push(FieldError::invalid_unshown(at, message));
    }
}

fn times(new: &Seen<'_>, was: &Seen<'_>, spec: &JobSpec, at: &Path, errors: &mut FieldErrors) {
    let (started, ended) = (&new.status.start_time, &new.status.completion_time);
    let (at_start, at_end) = (at.child("startTime"), at.child("completionTime"));
    let start_moved = *started != was.status.start_time;
    let end_moved = *ended != was.status.completion_time;
    if new.complete != was.complete || end_moved {
        if ended.is_some() && !new.complete {
            let message = "cannot set completionTime when there is no Complete=True condition";
            errors.push(FieldError::invalid(&at_end, ended, message));
        }
        if ended.is_none() && new.complete {
            errors.push(FieldError::required(&at_end, "completionTime is required for Complete jobs"));
        }
    }
    if (start_moved || end_moved)
        && let (Some(started), Some(ended)) = (started, ended)
        && ended.0 < started.0
    {
        errors.push(FieldError::invalid(&at_end, ended, "must be equal to or after `startTime`"));
    }
    if (new.finished() != was.finished() || start_moved) && new.finished() && started.is_none() {
        errors.push(FieldError::required(&at_start, "startTime is required for finished job"));
    }
    if end_moved && ended.is_some() && was.status.completion_time.is_some() {
        errors.push(FieldError::invalid(&at_end, ended, IMMUTABLE));
    }
    if start_moved && was.status.start_time.is_some() && spec.suspend != Some(true) {
        let message = "field is immutable for unsuspended job once set";
        errors.push(FieldError::invalid(&at_start, started, message));
    }
}

/// A Job that has ended has no pods any more.
fn finished(new: &Seen<'_>, was: &Seen<'_>, at: &Path, errors: &mut FieldErrors) {
    let (status, before) = (new.status, was.status);
    let ended = new.finished() != was.finished();
    let (active, terminating) = (status.active.unwrap_or(0), status.terminating.unwrap_or(0));
    let active_moved = active != before.active.unwrap_or(0);
    if (ended || active_moved) && new.finished() && active > 0 {
        let message = "active>0 is invalid for finished job";
        errors.push(FieldError::invalid(&at.child("active"), active, message));
    }
    let pods = &status.uncounted_terminated_pods;
    let any = pods.as_ref().is_some_and(|pods| {
        pods.failed.iter().flatten().next().is_some() || pods.succeeded.iter().flatten().next().is_some()
    });
    if (ended || *pods != before.uncounted_terminated_pods) && new.finished() && any {
        let at = at.child("uncountedTerminatedPods");
        errors.push(FieldError::invalid(&at, pods, "must be empty for finished job"));
    }
    if (ended || status.terminating != before.terminating) && new.finished() && terminating > 0 {
        let message = "terminating>0 is invalid for finished job";
        errors.push(FieldError::invalid(&at.child("terminating"), terminating, message));
    }
    if (active_moved || status.ready != before.ready)
        && let Some(ready) = status.ready.filter(|ready| *ready > active)
    {
        let message = "cannot set more ready pods than active";
        errors.push(FieldError::invalid(&at.child("ready"), ready, message));
    }
}

fn lists(new: &Seen<'_>, was: &Seen<'_>, spec: &JobSpec, at: &Path, errors: &mut FieldErrors) {
    let (at_done, at_failed) = (at.child("completedIndexes"), at.child("failedIndexes"));
    let done = new.status.completed_indexes.as_deref().unwrap_or_default();
    let failed = new.status.failed_indexes.as_deref();
    let done_moved = done != was.status.completed_indexes.as_deref().unwrap_or_default();
    let failed_moved = failed != was.status.failed_indexes.as_deref();
    if let Some(completions) = spec.completions {
        if done_moved && let Err(message) = indexes::count(done, completions) {
            let message = format!("error parsing completedIndexes: {message}");
            errors.push(FieldError::invalid(&at_done, done, message));
        }
        if failed_moved
            && spec.backoff_limit_per_index.is_some()
            && let Some(failed) = failed
            && let Err(message) = indexes::count(failed, completions)
        {
            let message = format!("error parsing failedIndexes: {message}");
            errors.push(FieldError::invalid(&at_failed, failed, message));
        }
        if (done_moved || failed_moved)
            && let Some(failed) = failed
            && let Some(index) = indexes::overlap(done, failed, completions)
        {
            let message = format!("failedIndexes and completedIndexes overlap at index: {index}");
            errors.push(FieldError::invalid(&at_failed, failed, message));
        }
    }
    if done_moved && !done.is_empty() && spec.completion_mode.as_deref() != Some("Indexed") {
        let message = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.push(FieldError::invalid(&at_done, done, message));
    }
    if failed_moved && spec.backoff_limit_per_index.is_none() && failed.is_some() {
        let message = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(FieldError::invalid(&at_failed, failed, message));
    }
}

/// What is counted stays counted, but an indexed Job may shrink.
fn onward(new: &Seen<'_>, was: &Seen<'_>, spec: &JobSpec, at: &Path, errors: &mut FieldErrors) {
    let (failed, succeeded) = (new.status.failed.unwrap_or(0), new.status.succeeded.unwrap_or(0));
    if failed < was.status.failed.unwrap_or(0) {
        let message = "cannot decrease the failed counter";
        errors.push(FieldError::invalid(&at.child("failed"), failed, message));
    }
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    if !indexed && succeeded < was.status.succeeded.unwrap_or(0) {
        let message = "cannot decrease the succeeded counter";
        errors.push(FieldError::invalid(&at.child("succeeded"), succeeded, message));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems(spec: Value, old: Value, new: Value) -> Vec<String> {
        let of = |status: Value| -> Job {
            let mut spec = spec.clone();
            spec["template"] = json!({});
            serde_json::from_value(json!({"spec": spec, "status": status})).unwrap()
        };
        let mut errors = FieldErrors::new();
        validate(&of(new), &of(old), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    fn conditions(kinds: &[&str]) -> Value {
        kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect()
    }

    #[test]
    fn a_job_ends_in_order_and_stays_ended() {
        let done = json!({"conditions": conditions(&["SuccessCriteriaMet", "Complete"]), "active": 0,
            "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:01Z", "succeeded": 1});
        let changed = |key: &str, value: Value| {
            let mut status = done.clone();
            status[key] = value;
            status
        };
        let (none, plain) = (json!({}), json!({}));
        let at = "status.conditions: Invalid value: ";
        let cases: Vec<(Value, Value, Value, Option<String>)> = vec![
            (plain.clone(), none.clone(), done.clone(), None),
            (
                plain.clone(),
                none.clone(),
                changed("conditions", conditions(&["Complete"])),
                Some(format!("{at}cannot set Complete=True condition without the SuccessCriteriaMet=true condition")),
            ),
            (
                plain.clone(),
                none.clone(),
                json!({"conditions": conditions(&["Failed"]), "startTime": "2026-01-01T00:00:00Z"}),
                Some(format!("{at}cannot set Failed=True condition without the FailureTarget=true condition")),
            ),
            (
                plain.clone(),
                none.clone(),
                changed("active", json!(1)),
                Some("status.active: Invalid value: 1: active>0 is invalid for finished job".into()),
            ),
            (
                plain.clone(),
                none.clone(),
                changed("completionTime", json!("2025-01-01T00:00:00Z")),
                Some("status.completionTime: Invalid value: \"2025-01-01T00:00:00Z\": must be equal to or after `startTime`".into()),
            ),
            (
                plain.clone(),
                none.clone(),
                json!({"ready": 2, "active": 1}),
                Some("status.ready: Invalid value: 2: cannot set more ready pods than active".into()),
            ),
            (
                plain.clone(),
                done.clone(),
                changed("succeeded", json!(0)),
                Some("status.succeeded: Invalid value: 0: cannot decrease the succeeded counter".into()),
            ),
            (
                plain.clone(),
                done.clone(),
                changed("completionTime", json!("2026-01-01T00:00:02Z")),
                Some("status.completionTime: Invalid value: \"2026-01-01T00:00:02Z\": field is immutable".into()),
            ),
            (
                plain.clone(),
                json!({"startTime": "2026-01-01T00:00:00Z"}),
                json!({"startTime": "2026-01-01T00:00:01Z"}),
                Some("status.startTime: Invalid value: \"2026-01-01T00:00:01Z\": field is immutable for unsuspended job once set".into()),
            ),
            (
                json!({"suspend": true}),
                json!({"startTime": "2026-01-01T00:00:00Z"}),
                json!({}),
                None,
            ),
            (
                plain.clone(),
                none.clone(),
                json!({"completedIndexes": "1"}),
                Some("status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed completion mode".into()),
            ),
            (
                json!({"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 1}),
                none.clone(),
                json!({"completedIndexes": "0-1", "failedIndexes": "1"}),
                Some("status.failedIndexes: Invalid value: \"1\": failedIndexes and completedIndexes overlap at index: 1".into()),
            ),
            (
                plain,
                none,
                json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a"]}}),
                Some("status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"".into()),
            ),
        ];
        for (spec, old, new, expected) in cases {
            assert_eq!(problems(spec, old, new.clone()), Vec::from_iter(expected), "{new}");
        }
        let undone =
            problems(json!({}), done.clone(), changed("conditions", conditions(&["SuccessCriteriaMet"])));
        assert!(
            undone.contains(&format!("{at}cannot disable the terminal Complete=True condition")),
            "{undone:?}"
        );
    }
}
