//! Who owns which field: `metadata.managedFields`, kept for every writer, and server-side apply, which reads it.
//!
//! The rules are those of upstream's `managedfields` and structured-merge-diff. What only they would find by
//! converting between versions of one group is not converted: a path means the same in every version.

mod apply;
mod compare;
mod conflict;
mod declared;
mod entries;
mod extract;
mod merge;
mod remove;
mod set;
mod update;

use serde_json::Value;

use super::schema::Schema;
pub use apply::apply;
pub use set::Set;
pub use update::track_update;

/// What the owner of fields is told by, and how the object is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The name of who writes.
    pub manager: &'a str,
    /// The `apiVersion` in which the request is written.
    pub api_version: &'a str,
    /// The subresource that is written; empty for the object itself.
    pub subresource: &'a str,
    /// The time of the request, as `metav1.Time` writes it.
    pub now: &'a str,
    /// The schema of the kind.
    pub schema: Schema<'a>,
    /// What an object of the kind has though nobody says anything: a create is compared with it.
    pub initial: &'a Value,
    /// Paths that this endpoint does not write, such as `["status"]`; they are owned by nobody through it.
    pub ignored: &'a [&'a [&'a str]],
    /// Whether an apply takes over fields that others own.
    pub force: bool,
}

/// The live object with everything that an applied configuration says, whoever owns it.
///
/// # Errors
/// The items of a list cannot be told apart.
pub fn merged(live: &Value, applied: &Value, schema: Option<Schema<'_>>) -> Result<Value, String> {
    merge::merge(live, applied, schema).map_err(|error| error.to_string())
}

/// Fields of which nobody needs to know the owner: the server sets them, or they tell which object is meant.
const UNOWNED: [&[&str]; 12] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// Takes out of `set` what has no owner.
fn strip(set: &mut Set, options: &Options<'_>) {
    for path in UNOWNED {
        set.remove_member(path);
    }
    for path in options.ignored {
        set.remove_below(path);
    }
}

/// Takes `metadata.managedFields` out of an object.
fn take_entries(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Puts `metadata.managedFields` back; an empty list is left out.
fn put_entries(object: &mut Value, entries: Value) {
    if entries.as_array().is_some_and(|list| !list.is_empty()) {
        super::meta::set(object, "managedFields", Some(entries));
    }
}

#[cfg(test)]
mod tests;
