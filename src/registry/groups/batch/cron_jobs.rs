//! CronJobs.

use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::jobs;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::groups::apps::rolling::containers_and_images;
use crate::registry::strategy::Strategy;
use crate::registry::table::duration::age;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, label_selector_text, name_cell, wide};
use crate::registry::validation::non_negative;

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

    fn validate(&self, cron: &CronJob, errors: &mut FieldErrors) {
        let spec = &cron.spec;
        let at = Path::new("spec");
        if spec.schedule.is_empty() {
            errors.push(FieldError::required(&at.child("schedule"), ""));
        } else if !spec.schedule.starts_with('@') && spec.schedule.split_whitespace().count() != 5 {
            let found = spec.schedule.split_whitespace().count();
            let message = format!("expected exactly 5 fields, found {found}: [{}]", spec.schedule);
            errors.push(FieldError::invalid(&at.child("schedule"), &spec.schedule, message));
        }
        let policy = spec.concurrency_policy.as_deref().unwrap_or_default();
        if !POLICIES.contains(&policy) {
            errors.push(FieldError::not_supported(&at.child("concurrencyPolicy"), policy, &POLICIES));
        }
        non_negative(spec.starting_deadline_seconds, &at.child("startingDeadlineSeconds"), errors);
        let limits = [
            ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
            ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
        ];
        for (field, value) in limits {
            non_negative(value.map(i64::from), &at.child(field), errors);
        }
        if let Some(name) = cron.metadata.name.as_deref().filter(|name| name.len() > MAX_NAME) {
            let message = "must be no more than 52 characters";
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, message));
        }
        if let Some(job) = &spec.job_template.spec {
            jobs::validate_spec(job, &at.child("jobTemplate").child("spec"), errors);
        }
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
