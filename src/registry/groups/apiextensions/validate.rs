//! Checks of definitions, with upstream's paths and words.

use serde_json::Value;

use super::{names, versions};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::meta;
use crate::api::names::{is_dns1035_label, is_dns1123_subdomain};
use crate::registry::custom::names::{APPROVED, is_protected, is_true};
use crate::registry::validation::immutable;

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn versions_of(definition: &Value) -> &[Value] {
    definition.pointer("/spec/versions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Checks a new definition.
pub(super) fn new(definition: &Value, errors: &mut FieldErrors) {
    name(definition, errors);
    approval(definition, errors);
    spec(definition, None, errors);
    status(definition, errors);
}

/// Checks a definition that replaces another one.
pub(super) fn changed(definition: &Value, old: &Value, errors: &mut FieldErrors) {
    spec(definition, Some(old), errors);
    let at = Path::new("spec");
    let field = |value: &Value, path: &str| value.pointer(path).cloned().unwrap_or_default();
    let mut fixed =
        vec![("/spec/group", at.child("group")), ("/spec/names/plural", at.child("names").child("plural"))];
    if is_true(old, "Established") {
        fixed.push(("/spec/scope", at.child("scope")));
        fixed.push(("/spec/names/kind", at.child("names").child("kind")));
    }
    for (path, at) in fixed {
        immutable(&field(definition, path), &field(old, path), &at, errors);
    }
    status(definition, errors);
    stored_versions(definition, errors);
}

/// Checks the status.
pub(super) fn status(definition: &Value, errors: &mut FieldErrors) {
    if let Some(accepted) = definition.pointer("/status/acceptedNames") {
        names::check(accepted, &Path::new("status").child("acceptedNames"), errors);
    }
    let stored = definition.pointer("/status/storedVersions").and_then(Value::as_array);
    if stored.is_none_or(Vec::is_empty) {
        let at = Path::new("status").child("storedVersions");
        errors.push(FieldError::invalid(
            &at,
            Value::Array(Vec::new()),
            "must have at least one stored version",
        ));
    }
}

fn stored_versions(definition: &Value, errors: &mut FieldErrors) {
    let known: Vec<&str> = versions_of(definition).iter().map(|version| text(version, "/name")).collect();
    let stored = definition.pointer("/status/storedVersions").and_then(Value::as_array);
    for (i, name) in stored.into_iter().flatten().filter_map(Value::as_str).enumerate() {
        if !known.contains(&name) {
            let at = Path::new("status").child("storedVersions").index(i);
            errors.push(FieldError::invalid(&at, name, "missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions".replace("v1", name)));
        }
    }
}

fn name(definition: &Value, errors: &mut FieldErrors) {
    let name = meta::name(definition);
    let wanted = format!("{}.{}", text(definition, "/spec/names/plural"), text(definition, "/spec/group"));
    if name != wanted {
        let at = Path::new("metadata").child("name");
        errors.push(FieldError::invalid(&at, name, "must be spec.names.plural+\".\"+spec.group"));
    }
}

fn approval(definition: &Value, errors: &mut FieldErrors) {
    if !is_protected(text(definition, "/spec/group")) {
        return;
    }
    let at = Path::new("metadata").child("annotations").key(APPROVED);
    let annotation = meta::annotation(definition, APPROVED).unwrap_or_default();
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    if annotation.is_empty() {
        let why = format!("protected groups must have approval annotation {APPROVED:?}, {see}");
        errors.push(FieldError::required(&at, why));
    } else if !annotation.contains("://") && !annotation.starts_with("unapproved") {
        let why = format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {see}"
        );
        errors.push(FieldError::invalid(&at, annotation, why));
    }
}

fn spec(definition: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    let at = Path::new("spec");
    let group = text(definition, "/spec/group");
    if group.is_empty() {
        errors.push(FieldError::required(&at.child("group"), ""));
    } else {
        let messages = is_dns1123_subdomain(group);
        if !messages.is_empty() {
            errors.push(FieldError::invalid(&at.child("group"), group, messages.join(",")));
        } else if !group.contains('.') {
            let why = "should be a domain with at least one dot";
            errors.push(FieldError::invalid(&at.child("group"), group, why));
        }
    }
    match text(definition, "/spec/scope") {
        "" => errors.push(FieldError::required(&at.child("scope"), "")),
        "Cluster" | "Namespaced" => {}
        other => {
            errors.push(FieldError::not_supported(&at.child("scope"), other, &["Cluster", "Namespaced"]))
        }
    }
    let nothing = Value::Null;
    let given = definition.pointer("/spec/names").unwrap_or(&nothing);
    version_names(definition, &at, errors);
    names::required(given, &at.child("names"), errors);
    names::check(given, &at.child("names"), errors);
    if definition.pointer("/spec/preserveUnknownFields") == Some(&Value::Bool(true)) {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid(&at.child("preserveUnknownFields"), true, why));
    }
    for (i, version) in versions_of(definition).iter().enumerate() {
        let before = old.and_then(|old| {
            versions_of(old).iter().find(|known| text(known, "/name") == text(version, "/name"))
        });
        versions::check(version, before, &at.child("versions").index(i), errors);
    }
    versions::conversion(definition.pointer("/spec/conversion"), &at.child("conversion"), errors);
}

fn version_names(definition: &Value, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("versions");
    let all = versions_of(definition);
    let mut seen = Vec::new();
    let mut unique = true;
    for (i, version) in all.iter().enumerate() {
        let name = text(version, "/name");
        unique &= !seen.contains(&name);
        seen.push(name);
        let messages = is_dns1035_label(name);
        if !messages.is_empty() {
            errors.push(FieldError::invalid(&at.index(i).child("name"), name, messages.join(",")));
        }
    }
    if !unique {
        errors.push(FieldError::invalid(&at, all, "must contain unique version names"));
    }
    let stored = all.iter().filter(|version| version.get("storage") == Some(&Value::Bool(true))).count();
    if stored != 1 {
        errors.push(FieldError::invalid(&at, all, "must have exactly one version marked as storage version"));
    }
}
