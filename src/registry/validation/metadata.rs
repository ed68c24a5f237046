//! Checks of `metadata`, on create and on update.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{IMMUTABLE, each, non_negative};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::resource::{NameRule, Resource};

const MAX_ANNOTATIONS: usize = 256 * 1024;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The messages about a name under a rule. A prefix (`generateName`) may end in a dash.
pub fn name_messages(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    let masked;
    let name = if prefix && rule != NameRule::PathSegment {
        masked = names::mask_trailing_dash(name);
        &masked
    } else {
        name
    };
    match rule {
        NameRule::Subdomain => names::is_dns1123_subdomain(name),
        NameRule::Label => names::is_dns1123_label(name),
        NameRule::Label1035 => names::is_dns1035_label(name),
        NameRule::PathSegment => names::is_path_segment_name(name),
        NameRule::Any => Vec::new(),
    }
}

/// Checks the metadata of a new object.
pub fn validate(resource: &Resource, meta: &ObjectMeta, errors: &mut FieldErrors) {
    let at = Path::new("metadata");
    if let Some(prefix) = meta.generate_name.as_deref().filter(|p| !p.is_empty()) {
        each(name_messages(resource.name_rule, prefix, true), prefix, &at.child("generateName"), errors);
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(&at.child("name"), "name or generateName is required")),
        name => {
            let messages = name_messages(resource.name_rule, name, false);
            if !messages.is_empty() {
                each(messages, name, &at.child("name"), errors);
            }
        }
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    if resource.namespaced() {
        if namespace.is_empty() {
            errors.push(FieldError::required(&at.child("namespace"), ""));
        } else {
            each(names::is_dns1123_label(namespace), namespace, &at.child("namespace"), errors);
        }
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden(&at.child("namespace"), "not allowed on this type"));
    }
    validate_common(&at, resource, meta, errors);
}

fn validate_common(at: &Path, resource: &Resource, meta: &ObjectMeta, errors: &mut FieldErrors) {
    non_negative(meta.generation, &at.child("generation"), errors);
    if let Some(labels) = &meta.labels {
        validate_labels(labels, &at.child("labels"), errors);
    }
    if let Some(annotations) = &meta.annotations {
        validate_annotations(annotations, &at.child("annotations"), errors);
    }
    if let Some(owners) = &meta.owner_references {
        validate_owners(owners, &at.child("ownerReferences"), errors);
    }
    if let Some(finalizers) = &meta.finalizers {
        let of_core = resource.dynamic.is_none()
            && !matches!(resource.group.as_ref(), "apiextensions.k8s.io" | "apiregistration.k8s.io");
        validate_finalizers(finalizers, of_core, &at.child("finalizers"), errors);
    }
}

/// Checks labels.
pub fn validate_labels(labels: &BTreeMap<String, String>, at: &Path, errors: &mut FieldErrors) {
    for (key, value) in labels {
        each(names::is_qualified_name(key), key, at, errors);
        each(names::is_label_value(value), value, at, errors);
    }
}

/// Checks annotations: keys without regard to case, and the size of all of them.
pub fn validate_annotations(annotations: &BTreeMap<String, String>, at: &Path, errors: &mut FieldErrors) {
    let mut size = 0;
    for (key, value) in annotations {
        each(names::is_qualified_name(&key.to_lowercase()), key, at, errors);
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(at, MAX_ANNOTATIONS));
    }
}

fn validate_owners(owners: &[OwnerReference], at: &Path, errors: &mut FieldErrors) {
    let mut controller: Option<&OwnerReference> = None;
    for owner in owners {
        validate_owner(owner, at, errors);
        if owner.controller != Some(true) {
            continue;
        }
        match controller {
            None => controller = Some(owner),
            Some(first) => errors.push(FieldError::invalid(
                at,
                owners,
                format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                    first.name, owner.name
                ),
            )),
        }
    }
}

fn validate_owner(owner: &OwnerReference, at: &Path, errors: &mut FieldErrors) {
    let version = owner.api_version.rsplit('/').next().unwrap_or_default();
    if version.is_empty() {
        errors.push(FieldError::invalid(
            &at.child("apiVersion"),
            &owner.api_version,
            "version must not be empty",
        ));
    }
    for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
        if value.is_empty() {
            errors.push(FieldError::invalid(&at.child(field), value, "must not be empty"));
        }
    }
    if owner.kind == "Event" && matches!(owner.api_version.as_str(), "v1" | "events.k8s.io/v1") {
        errors.push(FieldError::invalid(at, &owner.kind, "is disallowed from being an owner"));
    }
}

/// Upstream's core kinds want finalizers that say whose they are; other servers' kinds do not.
fn validate_finalizers(finalizers: &[String], of_core: bool, at: &Path, errors: &mut FieldErrors) {
    for finalizer in finalizers {
        each(names::is_qualified_name(finalizer), finalizer, at, errors);
        let standard = matches!(finalizer.as_str(), "kubernetes" | ORPHAN | FOREGROUND);
        if of_core && !finalizer.contains('/') && !standard {
            let message = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(at, finalizer, message));
        }
    }
    if finalizers.iter().any(|f| f == ORPHAN) && finalizers.iter().any(|f| f == FOREGROUND) {
        let message = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(FieldError::invalid(at, finalizers, message));
    }
}

/// Checks the metadata of a changed object against the old one.
pub fn validate_update(resource: &Resource, new: &ObjectMeta, old: &ObjectMeta, errors: &mut FieldErrors) {
    let at = Path::new("metadata");
    if old.deletion_timestamp.is_some() {
        forbid_new_finalizers(&at, new, old, errors);
    }
    let same = |field: &'static str, changed: bool, value: serde_json::Value, errors: &mut FieldErrors| {
        if changed {
            errors.push(FieldError::invalid(&at.child(field), value, IMMUTABLE));
        }
    };
    same("name", new.name != old.name, new.name.clone().into(), errors);
    same("namespace", new.namespace != old.namespace, new.namespace.clone().into(), errors);
    same("uid", new.uid != old.uid, new.uid.clone().into(), errors);
    let time = |meta: &ObjectMeta| serde_json::to_value(&meta.deletion_timestamp).unwrap_or_default();
    same("deletionTimestamp", time(new) != time(old), time(new), errors);
    same(
        "deletionGracePeriodSeconds",
        new.deletion_grace_period_seconds != old.deletion_grace_period_seconds,
        new.deletion_grace_period_seconds.into(),
        errors,
    );
    validate_common(&at, resource, new, errors);
}

fn forbid_new_finalizers(at: &Path, new: &ObjectMeta, old: &ObjectMeta, errors: &mut FieldErrors) {
    let known = old.finalizers.as_deref().unwrap_or_default();
    let added: Vec<String> =
        new.finalizers.iter().flatten().filter(|f| !known.contains(f)).map(|f| format!("{f:?}")).collect();
    if !added.is_empty() {
        let message = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            added.join(", ")
        );
        errors.push(FieldError::forbidden(&at.child("finalizers"), message));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Node};

    use super::*;

    fn messages(resource: &Resource, meta: serde_json::Value) -> Vec<String> {
        let meta: ObjectMeta = serde_json::from_value(meta).unwrap();
        let mut errors = FieldErrors::new();
        validate(resource, &meta, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_and_namespaces_are_required_where_they_belong() {
        let config_map = Resource::plain::<ConfigMap>();
        let node = Resource::plain::<Node>();
        assert_eq!(
            messages(&config_map, serde_json::json!({})),
            [
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value"
            ]
        );
        assert_eq!(
            messages(&node, serde_json::json!({"name": "a", "namespace": "b"})),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
        assert!(messages(&config_map, serde_json::json!({"name": "a", "namespace": "b"})).is_empty());
        let bad = messages(&config_map, serde_json::json!({"name": "A", "namespace": "b"}));
        assert!(
            bad[0].starts_with("metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain"),
            "{bad:?}"
        );
    }

    #[test]
    fn parts_of_metadata_are_checked() {
        let row = Resource::plain::<ConfigMap>();
        let found = messages(
            &row,
            serde_json::json!({"name": "a", "namespace": "b", "labels": {"-": "v"}, "annotations": {"K": "v"},
                "finalizers": ["x", "orphan", "foregroundDeletion"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}]}),
        );
        let starts = [
            "metadata.labels: Invalid value: \"-\": name part must consist of",
            "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
            "metadata.finalizers: Invalid value: \"x\": name is neither a standard finalizer name",
            "metadata.finalizers: Invalid value: [\"x\",\"orphan\",\"foregroundDeletion\"]: finalizer orphan and",
        ];
        assert_eq!(found.len(), starts.len(), "{found:?}");
        for (message, start) in found.iter().zip(starts) {
            assert!(message.starts_with(start), "{message}");
        }
    }

    #[test]
    fn a_deleted_object_gets_no_new_finalizers() {
        let old: ObjectMeta = serde_json::from_value(
            serde_json::json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}),
        )
        .unwrap();
        let mut new = old.clone();
        new.finalizers = Some(vec!["a/b".into(), "c/d".into()]);
        new.uid = Some("other".into());
        let mut errors = FieldErrors::new();
        validate_update(&Resource::plain::<ConfigMap>(), &new, &old, &mut errors);
        let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found \
                 new finalizers []string{\"c/d\"}",
                "metadata.uid: Invalid value: \"other\": field is immutable"
            ]
        );
    }
}
