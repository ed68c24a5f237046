//! Server-side apply.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::{Map, Value};

use super::declared::undeclared;
use super::entries::{Entries, Entry, Operation};
use super::extract::{ListError, fields};
use super::merge::merge;
use super::remove::remove;
use super::set::Set;
use super::update::compare_without_entries;
use super::{Options, conflict, put_entries, strip, take_entries};
use crate::api::error::ApiError;
use crate::api::meta;

/// Owns what an object had before anybody applied to it, if it was not tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager of `kubectl apply --server-side`, for which what client-side apply left behind is kept up to date.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Applies the configuration `applied` to `live` (nothing, for a create) and returns the object to store.
///
/// Fails with a 409 that names managers and fields when others own what would change, unless `options.force` is set.
pub fn apply(live: Option<&Value>, applied: &Value, options: &Options<'_>) -> Result<Value, ApiError> {
    if meta::get(applied, "managedFields").is_some_and(|list| !list.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let undeclared = undeclared(applied, options.schema);
    if !undeclared.is_empty() {
        return Err(untyped(applied, &undeclared));
    }
    let applied = &normalized(applied, options);
    let mut base = live.cloned().unwrap_or_else(|| Value::Object(Map::new()));
    let stored = take_entries(&mut base);
    let mut entries =
        stored.as_ref().and_then(Value::as_array).and_then(|list| Entries::parse(list)).unwrap_or_default();
    if live.is_some() && entries.0.is_empty() {
        entries.0.extend(before_first_apply(&base, options));
    }
    let mut set = fields(applied, Some(options.schema)).map_err(|error| malformed(&error))?;
    strip(&mut set, options);
    let entry = Entry::new(options, Operation::Apply, set);
    let last = entries.find(&entry).map(|i| entries.0.remove(i));
    let mut merged = merge(&base, applied, Some(options.schema)).map_err(|error| malformed(&error))?;
    if let Some(last) = &last {
        prune(&mut merged, last, &entry, &entries, options);
    }
    let comparison = compare_without_entries(&base, &merged, options);
    let unchanged = comparison.is_same() && last.as_ref().is_some_and(|last| last.fields == entry.fields);
    if let (true, Some(stored)) = (unchanged, &stored) {
        put_entries(&mut base, stored.clone());
        return Ok(base);
    }
    let removed = comparison.removed.clone();
    resolve_conflicts(&mut entries, &comparison.written(), &base, options)?;
    for other in &mut entries.0 {
        other.fields.subtract(&removed);
    }
    entries.0.push(entry);
    update_last_applied(&mut merged, &base, applied, options);
    put_entries(&mut merged, entries.into_json());
    Ok(merged)
}

/// The configuration without nulls, which mean "not given".
fn normalized(applied: &Value, options: &Options<'_>) -> Value {
    let mut applied = applied.clone();
    options.schema.normalize(&mut applied);
    applied
}

/// A configuration with fields that its kind does not have; upstream's error has no reason.
fn untyped(applied: &Value, undeclared: &[String]) -> ApiError {
    let what = match undeclared {
        [one] => one.clone(),
        all => format!("errors:\n{}", all.iter().map(|one| format!("  {one}\n")).collect::<String>()),
    };
    let (namespace, name) = (meta::namespace(applied), meta::name(applied));
    let (version, kind) = (meta::api_version(applied), meta::kind(applied));
    let message =
        format!("failed to create typed patch object ({namespace}/{name}; {version}, Kind={kind}): {what}");
    ApiError::from(Status {
        code: Some(500),
        message: Some(message),
        status: Some("Failure".to_owned()),
        ..Status::default()
    })
}

fn malformed(error: &ListError) -> ApiError {
    ApiError::bad_request(format!("failed to create typed patch object: {error}"))
}

/// The entry for everything that an untracked object has.
fn before_first_apply(live: &Value, options: &Options<'_>) -> Option<Entry> {
    let mut set = compare_without_entries(options.initial, live, options).written();
    strip(&mut set, options);
    let owner = Options { manager: BEFORE_FIRST_APPLY, subresource: "", ..*options };
    (!set.is_empty()).then(|| Entry::new(&owner, Operation::Update, set))
}

/// Removes what the manager applied the last time, applies no more, and nobody else owns.
fn prune(merged: &mut Value, last: &Entry, now: &Entry, others: &Entries, options: &Options<'_>) {
    let schema = Some(options.schema);
    let mut kept = now.fields.clone();
    others.0.iter().for_each(|entry| kept.union(entry.fields.clone()));
    let mut gone: Set = last.fields.clone().with_named_fields(schema);
    gone.subtract(&kept.with_named_fields(schema));
    remove(merged, &gone, schema);
}

/// Takes changed fields from their owners, or fails where that needs force.
fn resolve_conflicts(
    entries: &mut Entries,
    written: &Set,
    live: &Value,
    options: &Options<'_>,
) -> Result<(), ApiError> {
    let conflicts: Vec<(&Entry, Set)> = entries
        .0
        .iter()
        .map(|entry| (entry, entry.fields.intersection(written)))
        .filter(|(_, fields)| !fields.is_empty())
        .collect();
    if !options.force && !conflicts.is_empty() {
        let allowed = left_by_client_side_apply(live, options);
        let unsettled = conflicts.iter().any(|(_, fields)| {
            let mut rest = fields.clone();
            rest.subtract(&allowed);
            !rest.is_empty()
        });
        if unsettled {
            return Err(conflict::error(&conflicts));
        }
    }
    for entry in &mut entries.0 {
        entry.fields.subtract(written);
    }
    Ok(())
}

/// The fields that `kubectl apply` without `--server-side` set the last time, which its server-side form may take.
fn left_by_client_side_apply(live: &Value, options: &Options<'_>) -> Set {
    if options.manager != KUBECTL {
        return Set::default();
    }
    let applied: Option<Value> =
        meta::annotation(live, LAST_APPLIED).and_then(|text| serde_json::from_str(text).ok());
    applied.and_then(|applied| fields(&applied, Some(options.schema)).ok()).unwrap_or_default()
}

/// Keeps the annotation of client-side apply in step, so that one can go back to it.
fn update_last_applied(merged: &mut Value, live: &Value, applied: &Value, options: &Options<'_>) {
    let present = meta::annotation(live, LAST_APPLIED).is_some_and(|text| !text.is_empty());
    if options.manager == KUBECTL && present && meta::annotation(merged, LAST_APPLIED).is_some() {
        meta::set_annotation(merged, LAST_APPLIED, &format!("{applied}\n"));
    }
}
