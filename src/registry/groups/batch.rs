//! `batch`.

mod cron_jobs;
mod indexes;
mod jobs;
mod policies;

use crate::registry::resource::{Resource, STATUS, SelectableField};

const JOB_FIELDS: &[SelectableField] =
    &[SelectableField { label: "status.successful", path: &["status", "succeeded"], absent: "0" }];

/// The rows.
pub fn rows() -> Vec<Resource> {
    let all = &["all"];
    vec![
        Resource::of(cron_jobs::CronJobStrategy)
            .short(&["cj"])
            .categories(all)
            .columns(cron_jobs::COLUMNS)
            .with(STATUS)
            .generation(),
        Resource::of(jobs::JobStrategy)
            .orphans()
            .categories(all)
            .columns(jobs::COLUMNS)
            .with(STATUS)
            .generation()
            .selectable(JOB_FIELDS),
    ]
}
