//! Jobs.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::policies;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::context::RequestContext;
use crate::registry::groups::apps::rolling::containers_and_images;
use crate::registry::groups::core::pods;
use crate::registry::strategy::Strategy;
use crate::registry::table::duration::human;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, label_selector_text, name_cell, wide};
use crate::registry::validation::{immutable, non_negative};

const UID: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
const OLD_UID: &str = "controller-uid";
const OLD_NAME: &str = "job-name";

/// The columns of Jobs.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "How the Job stands."),
    column("Completions", "string", "Pods that succeeded, of those that must."),
    column("Duration", "string", "How long the Job has run."),
    AGE,
    wide("Containers", "string", "Names of the containers in the template."),
    wide("Images", "string", "Images of the containers in the template."),
    wide("Selector", "string", "Labels of the pods."),
];

/// The strategy of Jobs.
pub struct JobStrategy;

/// Defaults of a Job's spec, also within a CronJob.
pub fn defaults(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let limit = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 };
    spec.backoff_limit.get_or_insert(limit);
    spec.completion_mode.get_or_insert_with(|| "NonIndexed".into());
    spec.suspend.get_or_insert(false);
    let replacement = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    spec.pod_replacement_policy.get_or_insert_with(|| replacement.into());
    let rules = spec.pod_failure_policy.iter_mut().flat_map(|policy| policy.rules.iter_mut());
    for pattern in rules.flat_map(|rule| rule.on_pod_conditions.iter_mut().flatten()) {
        pattern.status.get_or_insert_with(|| "True".into());
    }
    pods::defaults::template(&mut spec.template);
}

/// Checks a Job's spec, also within a CronJob.
pub fn validate_spec(spec: &JobSpec, at: &Path, errors: &mut FieldErrors) {
    let counts = [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
    ];
    for (field, value) in counts {
        non_negative(value, &at.child(field), errors);
    }
    policies::validate(spec, at, errors);
    let at = at.child("template");
    pods::validate::template(&spec.template, &at, errors);
    let policy = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or_default();
    if !matches!(policy, "OnFailure" | "Never") {
        let at = at.child("spec").child("restartPolicy");
        errors.push(FieldError::required(&at, "valid values: \"OnFailure\", \"Never\""));
    }
}

impl Strategy for JobStrategy {
    type Object = Job;

    fn default(&self, job: &mut Job) {
        defaults(job.spec.get_or_insert_default());
    }

    /// A Job selects its pods by its own uid, unless told to do otherwise.
    fn prepare_for_create(&self, _: &RequestContext, job: &mut Job) {
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let name = job.metadata.name.clone().unwrap_or_default();
        let spec = job.spec.get_or_insert_default();
        if spec.manual_selector == Some(true) {
            return;
        }
        let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
        for (key, value) in [(UID, &uid), (OLD_UID, &uid), (NAME_LABEL, &name), (OLD_NAME, &name)] {
            labels.entry(key.into()).or_insert_with(|| value.clone());
        }
        let selector = spec.selector.get_or_insert_with(LabelSelector::default);
        selector.match_labels.get_or_insert_default().entry(UID.into()).or_insert(uid);
    }

    fn validate(&self, job: &Job, errors: &mut FieldErrors) {
        let Some(spec) = &job.spec else { return };
        validate_spec(spec, &Path::new("spec"), errors);
        if spec.selector.is_none() {
            errors.push(FieldError::required(&Path::new("spec").child("selector"), ""));
        }
    }

    fn validate_update(&self, job: &Job, old: &Job, errors: &mut FieldErrors) {
        let (Some(new), Some(was)) = (&job.spec, &old.spec) else { return };
        let at = Path::new("spec");
        immutable(&new.selector, &was.selector, &at.child("selector"), errors);
        immutable(&new.completion_mode, &was.completion_mode, &at.child("completionMode"), errors);
        if was.suspend != Some(true) {
            immutable(&new.template, &was.template, &at.child("template"), errors);
        }
        if new.completions != was.completions && new.completion_mode.as_deref() != Some("Indexed") {
            immutable(&new.completions, &was.completions, &at.child("completions"), errors);
        }
    }

    fn cells(&self, job: &Job, now: Timestamp) -> Vec<Value> {
        let status = job.status.clone().unwrap_or_default();
        let spec = job.spec.as_ref();
        let succeeded = status.succeeded.unwrap_or(0);
        let completions =
            match (spec.and_then(|s| s.completions), spec.and_then(|s| s.parallelism).unwrap_or(0)) {
                (Some(wanted), _) => format!("{succeeded}/{wanted}"),
                (None, workers) if workers > 1 => format!("{succeeded}/1 of {workers}"),
                (None, _) => format!("{succeeded}/1"),
            };
        let duration = status.start_time.as_ref().map(|start| {
            let end = status.completion_time.as_ref().map_or(now, |time| time.0);
            human(end.as_second() - start.0.as_second())
        });
        let (names, images) = containers_and_images(spec.and_then(|s| s.template.spec.as_ref()));
        vec![
            name_cell(&job.metadata),
            state(job).into(),
            completions.into(),
            duration.unwrap_or_default().into(),
            age_cell(&job.metadata, now),
            names.into(),
            images.into(),
            label_selector_text(spec.and_then(|s| s.selector.as_ref())).into(),
        ]
    }
}

fn state(job: &Job) -> &'static str {
    let holds = |kind: &str| {
        let mut conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.any(|c| c.type_ == kind && c.status == "True")
    };
    let words = [
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ];
    if let Some((_, word)) = words.iter().find(|(kind, _)| holds(kind)) {
        return word;
    }
    if job.metadata.deletion_timestamp.is_some() { "Terminating" } else { "Running" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_gets_a_selector_of_its_own() {
        let mut job: Job = serde_json::from_value(json!({"metadata": {"name": "j", "uid": "u"}, "spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}))
        .unwrap();
        JobStrategy.default(&mut job);
        JobStrategy.prepare_for_create(&RequestContext::default(), &mut job);
        let spec = job.spec.as_ref().unwrap();
        assert_eq!((spec.completions, spec.parallelism, spec.backoff_limit), (Some(1), Some(1), Some(6)));
        assert_eq!(spec.selector.as_ref().unwrap().match_labels.as_ref().unwrap()[UID], "u");
        assert_eq!(spec.template.metadata.as_ref().unwrap().labels.as_ref().unwrap()[OLD_NAME], "j");
        let mut errors = FieldErrors::new();
        JobStrategy.validate(&job, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
    }
}
