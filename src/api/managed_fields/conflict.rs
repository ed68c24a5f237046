//! Conflicts of an apply with other owners, in upstream's words.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;

use super::entries::{Entry, Operation};
use super::set::Set;
use crate::api::error::ApiError;
use crate::api::field::go_quote;

/// The error about fields that these owners have.
pub(super) fn error(conflicts: &[(&Entry, Set)]) -> ApiError {
    let mut owners: Vec<(String, Vec<String>)> =
        conflicts.iter().map(|(entry, fields)| (describe(entry), fields.paths())).collect();
    owners.sort();
    let causes = owners.iter().flat_map(|(owner, paths)| {
        paths.iter().map(move |path| StatusCause {
            field: Some(path.clone()),
            message: Some(format!("conflict with {owner}")),
            reason: Some("FieldManagerConflict".to_owned()),
        })
    });
    let causes: Vec<_> = causes.collect();
    let message = match (owners.as_slice(), causes.len()) {
        ([(owner, paths)], 1) => {
            format!("Apply failed with 1 conflict: conflict with {owner}: {}", paths.join(""))
        }
        (owners, count) => {
            let lists: Vec<_> = owners
                .iter()
                .map(|(owner, paths)| format!("conflicts with {owner}:\n- {}", paths.join("\n- ")))
                .collect();
            format!("Apply failed with {count} conflicts: {}", lists.join("\n"))
        }
    };
    ApiError::apply_conflict(message, causes)
}

fn describe(entry: &Entry) -> String {
    let mut text = go_quote(&entry.manager);
    if !entry.subresource.is_empty() {
        text.push_str(&format!(" with subresource {}", go_quote(&entry.subresource)));
    }
    if entry.operation == Operation::Update {
        text.push_str(&format!(" using {}", entry.api_version));
    }
    text
}
