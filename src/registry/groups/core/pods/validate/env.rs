//! Checks of environment variables.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, EnvVarSource};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::each;

const FIELDS: [&str; 10] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "metadata.labels/metadata.annotations with a key",
];

pub(super) fn validate(
    vars: Option<&[EnvVar]>,
    sources: Option<&[EnvFromSource]>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    for (i, var) in vars.iter().copied().flatten().enumerate() {
        let at = at.child("env").index(i);
        if var.name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else if !var.name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
            let message = "a valid environment variable name must consist only of printable ASCII characters other \
                           than '='";
            errors.push(FieldError::invalid(&at.child("name"), &var.name, message));
        }
        if let Some(from) = &var.value_from {
            value_from(var, from, &at.child("valueFrom"), errors);
        }
    }
    for (i, source) in sources.iter().copied().flatten().enumerate() {
        env_from(source, &at.child("envFrom").index(i), errors);
    }
}

fn env_from(source: &EnvFromSource, at: &Path, errors: &mut FieldErrors) {
    let named = [
        ("configMapRef", source.config_map_ref.as_ref().map(|r| &r.name)),
        ("secretRef", source.secret_ref.as_ref().map(|r| &r.name)),
    ];
    match named.iter().filter(|(_, name)| name.is_some()).count() {
        0 => errors.push(FieldError::invalid(at, "", "must specify one of: `configMapRef` or `secretRef`")),
        1 => {}
        _ => errors.push(FieldError::invalid(at, "", "may not have more than one field specified at a time")),
    }
    for (field, name) in named {
        if name.is_some_and(String::is_empty) {
            errors.push(FieldError::required(&at.child(field).child("name"), ""));
        }
    }
}

fn value_from(var: &EnvVar, from: &EnvVarSource, at: &Path, errors: &mut FieldErrors) {
    let sources = [
        from.field_ref.is_some(),
        from.resource_field_ref.is_some(),
        from.config_map_key_ref.is_some(),
        from.secret_key_ref.is_some(),
        from.file_key_ref.is_some(),
    ];
    let count = sources.into_iter().filter(|set| *set).count();
    if count == 0 {
        let message = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
                       `fileKeyRef`";
        errors.push(FieldError::invalid(at, "", message));
    } else if var.value.as_deref().is_some_and(|value| !value.is_empty()) {
        errors.push(FieldError::invalid(at, "", "may not be specified when `value` is not empty"));
    } else if count > 1 {
        errors.push(FieldError::invalid(at, "", "may not have more than one field specified at a time"));
    }
    if let Some(field) = &from.field_ref {
        field_path(&field.field_path, &at.child("fieldRef").child("fieldPath"), errors);
    }
    if let Some(key) = &from.config_map_key_ref {
        key_ref(&key.name, &key.key, &at.child("configMapKeyRef"), errors);
    }
    if let Some(key) = &from.secret_key_ref {
        key_ref(&key.name, &key.key, &at.child("secretKeyRef"), errors);
    }
}

fn key_ref(name: &str, key: &str, at: &Path, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.push(FieldError::required(&at.child("name"), ""));
    }
    if key.is_empty() {
        errors.push(FieldError::required(&at.child("key"), ""));
    } else {
        each(names::is_config_map_key(key), key, &at.child("key"), errors);
    }
}

fn field_path(path: &str, at: &Path, errors: &mut FieldErrors) {
    if path.is_empty() {
        errors.push(FieldError::required(at, ""));
        return;
    }
    let with_key = |prefix: &str| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("['") && rest.ends_with("']"))
    };
    if !FIELDS[..9].contains(&path) && !with_key("metadata.labels") && !with_key("metadata.annotations") {
        errors.push(FieldError::not_supported(at, path, &FIELDS[..9]));
    }
}
