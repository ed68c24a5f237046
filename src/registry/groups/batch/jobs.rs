//! Jobs.

mod status;
mod update;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::policies;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::context::RequestContext;
use crate::registry::groups::apps::rolling;
use crate::registry::groups::apps::rolling::containers_and_images;
use crate::registry::groups::core::pods;
use crate::registry::strategy::Strategy;
use crate::registry::table::duration::human;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, label_selector_text, name_cell, wide};
use crate::registry::validation::{known, non_negative, selector};

const UID: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
const OLD_UID: &str = "controller-uid";
const OLD_NAME: &str = "job-name";
const MISMATCH: &str = "`selector` does not match template `labels`";

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
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
    ];
    for (field, value) in counts {
        non_negative(value, &at.child(field), errors);
    }
    policies::validate(spec, at, errors);
    let at = at.child("template");
    pods::validate::template(&spec.template, &at, errors);
    let policy = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or_default();
    let at = at.child("spec").child("restartPolicy");
    match policy {
        "" | "Always" => errors.push(FieldError::required(&at, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let message = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(&at, policy, message));
        }
        other => known(Some(other), &["OnFailure", "Never"], &at, errors),
    }
}

/// Checks that a Job selects its own pods.
fn selects(spec: &JobSpec, errors: &mut FieldErrors) {
    let at = Path::new("spec");
    let at_labels = at.child("template").child("metadata").child("labels");
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let Some(own) = &spec.selector else {
        errors.push(FieldError::required(&at.child("selector"), ""));
        errors.push(FieldError::invalid(&at_labels, &labels, MISMATCH));
        return;
    };
    selector(Some(own), &at.child("selector"), errors);
    if parsed(own).is_some_and(|parsed| !parsed.matches_map(&labels)) {
        errors.push(FieldError::invalid(&at_labels, &labels, MISMATCH));
    }
}

/// Checks that the labels and the selector of a Job that was not told to do otherwise are its own.
fn generated(job: &Job, spec: &JobSpec, errors: &mut FieldErrors) {
    let Some(own) = spec.selector.as_ref().filter(|_| spec.manual_selector != Some(true)) else { return };
    let at = Path::new("spec");
    let at_labels = at.child("template").child("metadata").child("labels");
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let name = job.metadata.name.clone().unwrap_or_default();
    if uid.is_empty() {
        errors.push(FieldError::required(&Path::new("metadata").child("uid"), ""));
    }
    let expected = [(OLD_UID, &uid), (OLD_NAME, &name), (UID, &uid), (NAME_LABEL, &name)];
    for (key, value) in expected {
        let at = at_labels.key(key);
        match labels.get(key) {
            None => errors.push(FieldError::required(&at, format!("must be '{value}'"))),
            Some(other) if other != value => {
                errors.push(FieldError::invalid(&at, &labels, format!("must be '{value}'")));
            }
            Some(_) => {}
        }
    }
    let expected = expected.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
    if parsed(own).is_some_and(|parsed| !parsed.matches_map(&expected)) {
        errors.push(FieldError::invalid(&at.child("selector"), own, "`selector` not auto-generated"));
    }
}

fn parsed(own: &LabelSelector) -> Option<crate::api::selector::LabelSelector> {
    crate::api::selector::LabelSelector::from_meta(Some(own)).ok()
}

/// Warnings about a spec, also within a CronJob.
pub fn spec_warnings(spec: &JobSpec, at: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let many = spec.completions.unwrap_or(0) > 100_000 && spec.parallelism.unwrap_or(0) > 10_000;
    if spec.completion_mode.as_deref() == Some("Indexed") && many {
        warnings.push(format!(
            "{at}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    warnings.extend(pods::warnings::template(&spec.template, &at.child("template")));
    warnings
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
        rolling::drop_disabled(&mut spec.template, None);
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

    fn prepare_for_update(&self, _: &RequestContext, job: &mut Job, old: &Job) {
        let template = &mut job.spec.get_or_insert_default().template;
        rolling::drop_disabled(template, old.spec.as_ref().map(|spec| &spec.template));
    }

    fn validate(&self, job: &Job, errors: &mut FieldErrors) {
        let Some(spec) = &job.spec else { return };
        validate_spec(spec, &Path::new("spec"), errors);
        selects(spec, errors);
    }

    fn validate_create(&self, job: &Job, errors: &mut FieldErrors) {
        let Some(spec) = &job.spec else { return };
        generated(job, spec, errors);
        let spec = Some(spec).filter(|spec| spec.completion_mode.as_deref() == Some("Indexed"));
        let Some(last) = spec.and_then(|spec| spec.completions).filter(|all| *all > 0) else { return };
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let hostname = format!("{name}-{}", last - 1);
        if !names::is_dns1123_label(&hostname).is_empty() {
            let message = format!("will not able to create pod with invalid DNS label: {hostname}");
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, message));
        }
    }

    fn validate_update(&self, job: &Job, old: &Job, errors: &mut FieldErrors) {
        let (Some(new), Some(was)) = (&job.spec, &old.spec) else { return };
        update::validate(new, was, old, errors);
    }

    fn validate_status_update(&self, job: &Job, old: &Job, errors: &mut FieldErrors) {
        status::validate(job, old, errors);
    }

    fn warnings(&self, job: &Job, old: Option<&Job>) -> Vec<String> {
        let Some(spec) = &job.spec else { return Vec::new() };
        let mut warnings =
            Vec::from_iter(old.is_none().then(|| rolling::name_warning(&job.metadata)).flatten());
        if old.is_none_or(|old| old.spec.as_ref() != Some(spec)) {
            warnings.extend(spec_warnings(spec, &Path::new("spec")));
        }
        warnings
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
    fn job(spec: serde_json::Value) -> Job {
        let mut object = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec":
            {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        let mut job = serde_json::from_value(object).unwrap();
        JobStrategy.default(&mut job);
        JobStrategy.prepare_for_create(&RequestContext::default(), &mut job);
        job
    }

    fn problems(job: &Job) -> Vec<String> {
        let mut errors = FieldErrors::new();
        JobStrategy.validate(job, &mut errors);
        JobStrategy.validate_create(job, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn labels_and_selectors_that_are_not_the_jobs_own_are_refused() {
        let template = |labels: serde_json::Value, policy: &str| {
            json!({"template": {"metadata": {"labels": labels},
                "spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]}}})
        };
        let at = "spec.template.metadata.labels";
        let found = problems(&job(template(json!({"job-name": "x"}), "Never")));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("{at}[job-name]: Invalid value: {{")), "{found:?}");
        assert!(found[0].ends_with(": must be 'j'"), "{found:?}");
        let found = problems(&job(json!({"selector": {"matchLabels": {"a": "b"}}})));
        assert!(found[0].starts_with(&format!("{at}: Invalid value: ")), "{found:?}");
        assert!(found[1].ends_with(": `selector` not auto-generated"), "{found:?}");
        let manual = json!({"manualSelector": true, "selector": {"matchLabels": {"a": "b"}},
            "template": template(json!({"a": "b"}), "Never")["template"]});
        assert_eq!(problems(&job(manual)), Vec::<String>::new());
        for (policy, expected) in [
            ("Always", "Required value: valid values: \"OnFailure\", \"Never\""),
            ("", "Required value: valid values: \"OnFailure\", \"Never\""),
        ] {
            let found = problems(&job(template(json!({}), policy)));
            assert_eq!(found.last().unwrap(), &format!("spec.template.spec.restartPolicy: {expected}"));
        }
    }

    #[test]
    fn pods_of_an_indexed_job_must_have_names() {
        let mut job = job(json!({"completionMode": "Indexed", "completions": 11}));
        JobStrategy.default(&mut job);
        assert_eq!(problems(&job), Vec::<String>::new());
        let name = "n".repeat(61);
        let spec = job.spec.as_mut().unwrap();
        let labels = spec.template.metadata.as_mut().unwrap().labels.as_mut().unwrap();
        labels.insert(OLD_NAME.into(), name.clone());
        labels.insert(NAME_LABEL.into(), name.clone());
        job.metadata.name = Some(name.clone());
        assert_eq!(
            problems(&job),
            [format!(
                "metadata.name: Invalid value: \"{name}\": will not able to create pod with invalid DNS label: {name}-10"
            )]
        );
    }
}
