//! CronJobs.

use k8s_openapi::api::batch::v1::{CronJob, JobSpec};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::jobs;
use crate::api::cron::{self, Schedule};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::context::RequestContext;
use crate::registry::groups::apps::rolling;
use crate::registry::groups::apps::rolling::containers_and_images;
use crate::registry::strategy::Strategy;
use crate::registry::table::duration::age;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, label_selector_text, name_cell, wide};
use crate::registry::validation::{non_negative, one_of};

/// The columns of CronJobs.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Schedule", "string", "When Jobs are made."),
    column("Timezone", "string", "Time zone of the schedule."),
    column("Suspend", "boolean", "Whether no more Jobs are made."),
    column("Active", "integer", "Jobs that run."),
    column("Last Schedule", "string", "Time since a Job was made."),
    AGE,
    wide("Containers", "string", "Names of the containers in the template."),
    wide("Images", "string", "Images of the containers in the template."),
    wide("Selector", "string", "Labels of the pods."),
];

const POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];
/// The longest name that leaves room for what is appended to it.
const MAX_NAME: usize = 52;
/// The longest part of the name of a time zone.
const MAX_ZONE_PART: usize = 14;

/// The strategy of CronJobs.
pub struct CronJobStrategy;

impl Strategy for CronJobStrategy {
    type Object = CronJob;

    fn default(&self, cron: &mut CronJob) {
        let spec = &mut cron.spec;
        if spec.concurrency_policy.as_deref().is_none_or(str::is_empty) {
            spec.concurrency_policy = Some("Allow".into());
        }
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        jobs::defaults(spec.job_template.spec.get_or_insert_default());
    }

    fn prepare_for_create(&self, _: &RequestContext, cron: &mut CronJob) {
        rolling::drop_disabled(&mut cron.spec.job_template.spec.get_or_insert_default().template, None);
    }

    fn prepare_for_update(&self, _: &RequestContext, cron: &mut CronJob, old: &CronJob) {
        let was = old.spec.job_template.spec.as_ref().map(|spec| &spec.template);
        rolling::drop_disabled(&mut cron.spec.job_template.spec.get_or_insert_default().template, was);
    }

    fn validate(&self, cron: &CronJob, errors: &mut FieldErrors) {
        let spec = &cron.spec;
        let at = Path::new("spec");
        let at_schedule = at.child("schedule");
        if spec.schedule.is_empty() {
            errors.push(FieldError::required(&at_schedule, ""));
        } else if let Err(failure) = Schedule::parse(&spec.schedule) {
            errors.push(FieldError::invalid(&at_schedule, &spec.schedule, failure.to_string()));
        }
        non_negative(spec.starting_deadline_seconds, &at.child("startingDeadlineSeconds"), errors);
        one_of(spec.concurrency_policy.as_deref(), &POLICIES, &at.child("concurrencyPolicy"), errors);
        let none = JobSpec::default();
        let job = spec.job_template.spec.as_ref().unwrap_or(&none);
        let at_job = at.child("jobTemplate").child("spec");
        jobs::validate_spec(job, &at_job, errors);
        if let Some(selector) = &job.selector {
            let message = "`selector` will be auto-generated";
            errors.push(FieldError::invalid(&at_job.child("selector"), selector, message));
        }
        if job.manual_selector == Some(true) {
            let at = at_job.child("manualSelector");
            errors.push(FieldError::not_supported(&at, true, &["nil", "false"]));
        }
        let limits = [
            ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
            ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
        ];
        for (field, value) in limits {
            non_negative(value.map(i64::from), &at.child(field), errors);
        }
    }

    fn validate_create(&self, cron: &CronJob, errors: &mut FieldErrors) {
        if cron.spec.schedule.contains("TZ") {
            zone_in_schedule(&cron.spec.schedule, errors);
        }
        time_zone(cron.spec.time_zone.as_deref(), errors);
        if let Some(name) = cron.metadata.name.as_deref().filter(|name| name.len() > MAX_NAME) {
            let message = "must be no more than 52 characters";
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, message));
        }
    }

    fn validate_update(&self, cron: &CronJob, old: &CronJob, errors: &mut FieldErrors) {
        let (spec, was) = (&cron.spec, &old.spec);
        if spec.schedule.contains("TZ") {
            if !was.schedule.contains("TZ") {
                zone_in_schedule(&spec.schedule, errors);
            } else if spec.time_zone.is_some() {
                let at = Path::new("spec").child("schedule");
                let message = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
                errors.push(FieldError::invalid(&at, &spec.schedule, message));
            }
        }
        if spec.time_zone != was.time_zone {
            time_zone(spec.time_zone.as_deref(), errors);
        }
    }

    fn warnings(&self, cron: &CronJob, old: Option<&CronJob>) -> Vec<String> {
        let mut warnings =
            Vec::from_iter(old.is_none().then(|| rolling::name_warning(&cron.metadata)).flatten());
        if old.is_some_and(|old| old.spec == cron.spec) {
            return warnings;
        }
        let at = Path::new("spec");
        if let Some(job) = &cron.spec.job_template.spec {
            warnings.extend(jobs::spec_warnings(job, &at.child("jobTemplate").child("spec")));
        }
        if cron.spec.schedule.contains("TZ") {
            let at = at.child("schedule");
            warnings.push(format!(
                "CRON_TZ or TZ used in {at} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            ));
        }
        warnings
    }

    fn cells(&self, cron: &CronJob, now: Timestamp) -> Vec<Value> {
        let spec = cron.spec.clone();
        let status = cron.status.clone().unwrap_or_default();
        let job = spec.job_template.spec.clone().unwrap_or_default();
        let (names, images) = containers_and_images(job.template.spec.as_ref());
        let selector = job.selector;
        let last = status.last_schedule_time.map(|time| age(Some(time.0), now));
        vec![
            name_cell(&cron.metadata),
            spec.schedule.into(),
            spec.time_zone.unwrap_or_else(|| "<none>".into()).into(),
            // Printed as text, as upstream does.
            if spec.suspend == Some(true) { "True".into() } else { "False".into() },
            status.active.map_or(0, |active| active.len()).into(),
            last.unwrap_or_else(|| "<none>".into()).into(),
            age_cell(&cron.metadata, now),
            names.into(),
            images.into(),
            label_selector_text(selector.as_ref()).into(),
        ]
    }
}

fn zone_in_schedule(schedule: &str, errors: &mut FieldErrors) {
    let message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
    errors.push(FieldError::invalid(&Path::new("spec").child("schedule"), schedule, message));
}

fn time_zone(name: Option<&str>, errors: &mut FieldErrors) {
    let Some(name) = name else { return };
    let at = Path::new("spec").child("timeZone");
    if name.is_empty() {
        errors.push(FieldError::too_short(&at, 1));
        return;
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    let part = |part: &str| {
        !matches!(part, "" | "." | "..")
            && !part.starts_with('-')
            && part.len() <= MAX_ZONE_PART
            && part.bytes().all(plain)
    };
    if !name.split('/').all(part) {
        errors.push(FieldError::invalid(&at, name, format!("unknown time zone {name}")));
        return;
    }
    if name.eq_ignore_ascii_case("local") {
        let message = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(FieldError::invalid(&at, name, message));
    }
    if name != "Local"
        && let Err(failure) = cron::time_zone(name)
    {
        errors.push(FieldError::invalid(&at, name, failure.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cron(changes: &[(&str, Value)]) -> CronJob {
        let mut object = json!({"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec":
            {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}});
        for (pointer, value) in changes {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        let mut cron = serde_json::from_value(object).unwrap();
        CronJobStrategy.default(&mut cron);
        cron
    }

    #[test]
    fn problems_are_named_as_upstream_names_them() {
        let long = "n".repeat(53);
        let cases = [
            ("/spec/suspend", json!(true), None),
            ("/spec/timeZone", json!("Europe/Berlin"), None),
            ("/spec/schedule", json!("@every 1h"), None),
            ("/spec/schedule", json!(""), Some("spec.schedule: Required value".to_owned())),
            (
                "/spec/schedule",
                json!("* *"),
                Some("spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]".into()),
            ),
            (
                "/spec/schedule",
                json!("TZ=UTC * * * * *"),
                Some(
                    "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
                        .into(),
                ),
            ),
            ("/spec/timeZone", json!(""), Some("spec.timeZone: Too short: must be at least 1 character".into())),
            (
                "/spec/timeZone",
                json!("Nowhere/Land"),
                Some("spec.timeZone: Invalid value: \"Nowhere/Land\": unknown time zone Nowhere/Land".into()),
            ),
            (
                "/spec/timeZone",
                json!("../etc"),
                Some("spec.timeZone: Invalid value: \"../etc\": unknown time zone ../etc".into()),
            ),
            (
                "/spec/timeZone",
                json!("Local"),
                Some(
                    "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
                        .into(),
                ),
            ),
            (
                "/spec/concurrencyPolicy",
                json!("X"),
                Some(
                    "spec.concurrencyPolicy: Unsupported value: \"X\": supported values: \"Allow\", \"Forbid\", \"Replace\""
                        .into(),
                ),
            ),
            (
                "/spec/jobTemplate/spec/manualSelector",
                json!(true),
                Some(
                    "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\""
                        .into(),
                ),
            ),
            (
                "/spec/jobTemplate/spec/selector",
                json!({"matchLabels": {"a": "b"}}),
                Some(
                    "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated"
                        .into(),
                ),
            ),
            (
                "/metadata/name",
                json!(long),
                Some(format!("metadata.name: Invalid value: \"{long}\": must be no more than 52 characters")),
            ),
        ];
        for (pointer, value, expected) in cases {
            let cron = cron(&[(pointer, value)]);
            let mut errors = FieldErrors::new();
            CronJobStrategy.validate(&cron, &mut errors);
            CronJobStrategy.validate_create(&cron, &mut errors);
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(found, Vec::from_iter(expected), "{pointer}");
        }
    }

    #[test]
    fn a_zone_that_an_old_schedule_has_may_stay() {
        let check = |old: &CronJob, new: &CronJob| {
            let mut errors = FieldErrors::new();
            CronJobStrategy.validate_update(new, old, &mut errors);
            errors.len()
        };
        let plain = cron(&[]);
        let zoned = cron(&[("/spec/schedule", json!("TZ=UTC * * * * *"))]);
        let both = cron(&[("/spec/schedule", json!("TZ=UTC * * * * *")), ("/spec/timeZone", json!("UTC"))]);
        let unknown = cron(&[("/spec/timeZone", json!("Nowhere"))]);
        assert_eq!((check(&zoned, &zoned), check(&plain, &zoned), check(&zoned, &both)), (0, 1, 1));
        assert_eq!((check(&unknown, &unknown), check(&plain, &unknown)), (0, 1));
        assert!(
            CronJobStrategy.warnings(&zoned, None)[0]
                .starts_with("CRON_TZ or TZ used in spec.schedule is not")
        );
    }
}
