//! `batch`.

use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::registry::resource::{Resource, STATUS, SelectableField};

const JOB_FIELDS: &[SelectableField] =
    &[SelectableField { label: "status.successful", path: &["status", "succeeded"], absent: "0" }];

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![
        Resource::plain::<CronJob>().short(&["cj"]).categories(&["all"]).sub(STATUS).generation(),
        Resource::plain::<Job>().categories(&["all"]).sub(STATUS).generation().selectable(JOB_FIELDS),
    ]
}
