//! ControllerRevisions: past states of workloads.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{immutable, non_negative};

/// The columns of ControllerRevisions.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Controller", "string", "The workload."),
    column("Revision", "string", "The number of the state."),
    AGE,
];

/// The strategy of ControllerRevisions.
pub struct RevisionStrategy;

impl Strategy for RevisionStrategy {
    type Object = ControllerRevision;

    fn validate(&self, revision: &ControllerRevision, errors: &mut FieldErrors) {
        non_negative(Some(revision.revision), &Path::new("revision"), errors);
    }

    fn validate_create(&self, revision: &ControllerRevision, errors: &mut FieldErrors) {
        let at = Path::new("data");
        match revision.data.as_ref().map(|data| &data.0) {
            None | Some(Value::Null) => errors.push(FieldError::required(&at, "data is mandatory")),
            Some(Value::Object(_)) => {}
            Some(other) => {
                errors.push(FieldError::invalid(&at, other, "data must be a valid JSON object"));
            }
        }
    }

    fn validate_update(&self, new: &ControllerRevision, old: &ControllerRevision, errors: &mut FieldErrors) {
        immutable(&new.data, &old.data, &Path::new("data"), errors);
    }

    fn cells(&self, revision: &ControllerRevision, now: Timestamp) -> Vec<Value> {
        let mut owners = revision.metadata.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true)).map(|owner| {
            let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
            let dot = if group.is_empty() { "" } else { "." };
            format!("{}{dot}{group}/{}", owner.kind.to_lowercase(), owner.name)
        });
        vec![
            name_cell(&revision.metadata),
            controller.unwrap_or_else(|| "<none>".into()).into(),
            revision.revision.to_string().into(),
            age_cell(&revision.metadata, now),
        ]
    }
}
