//! Checks of environment variables, and of the fields of a pod and the amounts of a container that they may show.

use std::cmp::Ordering;

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, FileKeySelector, ObjectFieldSelector, PodSpec, ResourceFieldSelector,
};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::registry::groups::core::volume_sources::no_backsteps;
use crate::registry::validation::{each, required};

/// Fields that an environment variable may show.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of which the downward API knows at all.
const KNOWN: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

const AMOUNTS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const DIVISORS: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";

pub(super) fn validate(
    vars: Option<&[EnvVar]>,
    sources: Option<&[EnvFromSource]>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    for (i, var) in vars.iter().copied().flatten().enumerate() {
        let at = at.child("env").index(i);
        match var.name.as_str() {
            "" => errors.push(FieldError::required(&at.child("name"), "")),
            name => each(names::is_env_var_name(name), name, &at.child("name"), errors),
        }
        if let Some(from) = &var.value_from {
            value_from(var, from, &at.child("valueFrom"), errors);
        }
    }
    let list = at.child("envFrom");
    for (i, source) in sources.iter().copied().flatten().enumerate() {
        env_from(source, &list, &list.index(i), errors);
    }
}

/// Upstream names the whole list as the place of a wrong number of sources.
fn env_from(source: &EnvFromSource, list: &Path, at: &Path, errors: &mut FieldErrors) {
    if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        each(names::is_env_var_name(prefix), prefix, &at.child("prefix"), errors);
    }
    let named = [
        ("configMapRef", source.config_map_ref.as_ref().map(|own| own.name.as_str())),
        ("secretRef", source.secret_ref.as_ref().map(|own| own.name.as_str())),
    ];
    for (field, name) in named {
        let at = at.child(field).child("name");
        match name {
            None => {}
            Some("") => errors.push(FieldError::required(&at, "")),
            Some(name) => {
                each(names::is_dns1123_subdomain(&names::mask_trailing_dash(name)), name, &at, errors);
            }
        }
    }
    match named.iter().filter(|(_, name)| name.is_some()).count() {
        0 => errors.push(FieldError::invalid(list, "", "must specify one of: `configMapRef` or `secretRef`")),
        1 => {}
        _ => {
            errors.push(FieldError::invalid(list, "", "may not have more than one field specified at a time"))
        }
    }
}

fn value_from(var: &EnvVar, from: &EnvVarSource, at: &Path, errors: &mut FieldErrors) {
    if let Some(own) = &from.field_ref {
        field(own, &FIELDS, &at.child("fieldRef"), errors);
    }
    if let Some(own) = &from.resource_field_ref {
        amount(own, false, &at.child("resourceFieldRef"), errors);
    }
    if let Some(own) = &from.config_map_key_ref {
        key(&own.name, &own.key, &at.child("configMapKeyRef"), errors);
    }
    if let Some(own) = &from.secret_key_ref {
        key(&own.name, &own.key, &at.child("secretKeyRef"), errors);
    }
    if let Some(own) = &from.file_key_ref {
        file_key(own, &at.child("fileKeyRef"), errors);
    }
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
}

fn key(name: &str, key: &str, at: &Path, errors: &mut FieldErrors) {
    each(names::is_dns1123_subdomain(name), name, &at.child("name"), errors);
    match key {
        "" => errors.push(FieldError::required(&at.child("key"), "")),
        key => each(names::is_config_map_key(key), key, &at.child("key"), errors),
    }
}

fn file_key(own: &FileKeySelector, at: &Path, errors: &mut FieldErrors) {
    match own.key.as_str() {
        "" => errors.push(FieldError::required(&at.child("key"), "")),
        key => each(names::is_env_var_name(key), key, &at.child("key"), errors),
    }
    match own.volume_name.as_str() {
        "" => errors.push(FieldError::required(&at.child("volumeName"), "")),
        name => each(names::is_dns1123_label(name), name, &at.child("volumeName"), errors),
    }
    required(&own.path, &at.child("path"), errors);
    no_backsteps(&own.path, &at.child("path"), errors);
}

/// A field of the pod; `fields` says which may be shown here.
pub(super) fn field(own: &ObjectFieldSelector, fields: &[&str], at: &Path, errors: &mut FieldErrors) {
    let version = own.api_version.as_deref().unwrap_or_default();
    if version.is_empty() {
        errors.push(FieldError::required(&at.child("apiVersion"), ""));
        return;
    }
    let at_path = at.child("fieldPath");
    let path = own.field_path.as_str();
    if path.is_empty() {
        errors.push(FieldError::required(&at_path, ""));
        return;
    }
    let refused = |message: String, errors: &mut FieldErrors| {
        errors.push(FieldError::invalid(&at_path, path, format!("error converting fieldPath: {message}")));
    };
    if version != "v1" {
        refused(format!("unsupported pod version: {version}"), errors);
        return;
    }
    let subscripted = path.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    if let Some((prefix, subscript)) = subscripted.filter(|(prefix, _)| !prefix.is_empty()) {
        match prefix {
            "metadata.annotations" => {
                let lower = subscript.to_lowercase();
                each(names::is_qualified_name(&lower), &lower, at, errors);
            }
            "metadata.labels" => each(names::is_qualified_name(subscript), subscript, at, errors),
            _ => refused(format!("field label does not support subscript: {path}"), errors),
        }
        return;
    }
    // The name that very old clients know it by.
    let internal = if path == "spec.host" { "spec.nodeName" } else { path };
    if !KNOWN.contains(&internal) {
        refused(format!("field label not supported: {path}"), errors);
    } else if !fields.contains(&internal) {
        errors.push(FieldError::not_supported(&at_path, internal, fields));
    }
}

/// An amount that a container has or asks for; in a volume it says of which container.
pub(super) fn amount(own: &ResourceFieldSelector, volume: bool, at: &Path, errors: &mut FieldErrors) {
    let huge =
        own.resource.starts_with("limits.hugepages-") || own.resource.starts_with("requests.hugepages-");
    if volume && own.container_name.as_deref().is_none_or(str::is_empty) {
        errors.push(FieldError::required(&at.child("containerName"), ""));
    } else if own.resource.is_empty() {
        errors.push(FieldError::required(&at.child("resource"), ""));
    } else if !AMOUNTS.contains(&own.resource.as_str()) && !huge {
        errors.push(FieldError::not_supported(&at.child("resource"), &own.resource, &AMOUNTS));
    }
    let divisor = own.divisor.as_ref().and_then(|raw| Quantity::parse(&raw.0).ok());
    let Some(divisor) = divisor.filter(|divisor| divisor.sign() != Ordering::Equal) else { return };
    let divisor = divisor.to_string();
    let kind = match own.resource.split_once('.').map(|(_, kind)| kind) {
        Some("cpu") if !matches!(divisor.as_str(), "1m" | "1") => {
            let message = "only divisor's values 1m and 1 are supported with the cpu resource";
            errors.push(FieldError::invalid(&at.child("divisor"), &own.resource, message));
            return;
        }
        Some("memory") => "memory",
        Some("ephemeral-storage") => "local ephemeral storage",
        _ if huge => "hugepages",
        _ => return,
    };
    if !DIVISORS.split(", ").any(|allowed| allowed == divisor) {
        let message = format!("only divisor's values {DIVISORS} are supported with the {kind} resource");
        errors.push(FieldError::invalid(&at.child("divisor"), &own.resource, message));
    }
}

/// Variables from files are from files of empty volumes.
pub(super) fn files(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(i, own)| (at.child("initContainers").index(i), &own.env));
    let plain = spec.containers.iter().enumerate();
    let plain = plain.map(|(i, own)| (at.child("containers").index(i), &own.env));
    let ephemeral = spec.ephemeral_containers.iter().flatten().enumerate();
    let ephemeral = ephemeral.map(|(i, own)| (at.child("ephemeralContainers").index(i), &own.env));
    for (at, vars) in init.chain(plain).chain(ephemeral) {
        for (i, var) in vars.iter().flatten().enumerate() {
            let Some(own) = var.value_from.as_ref().and_then(|from| from.file_key_ref.as_ref()) else {
                continue;
            };
            let at = at.child("env").index(i).child("valueFrom").child("fileKeyRef").child("volumeName");
            match spec.volumes.iter().flatten().find(|volume| volume.name == own.volume_name) {
                None => errors.push(FieldError::not_found(&at, &own.volume_name)),
                Some(volume) if volume.empty_dir.is_none() => {
                    let message = "referenced volume must be of type emptyDir";
                    errors.push(FieldError::invalid(&at, &own.volume_name, message));
                }
                Some(_) => {}
            }
        }
    }
}
