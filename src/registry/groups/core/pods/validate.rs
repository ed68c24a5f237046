//! Checks of pods and of the pod specs of every kind that has a template.

mod containers;
mod env;
mod probes;
mod resize;
mod resources;
mod scheduling;
mod security;
mod update;
mod volumes;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, metadata, non_negative};

pub use resize::{ephemeral_update, resize};
pub use update::{status_update, update};

const DNS_POLICIES: [&str; 4] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];

/// Reports a value that is missing or not one of `supported`.
fn one_of(value: Option<&String>, supported: &[&str], at: &Path, errors: &mut FieldErrors) {
    match value.map(String::as_str).unwrap_or_default() {
        "" => errors.push(FieldError::required(at, "")),
        value if supported.contains(&value) => {}
        value => errors.push(FieldError::not_supported(at, value, supported)),
    }
}

/// Checks a pod template: labels, annotations and the pod spec.
pub fn template(template: &PodTemplateSpec, at: &Path, errors: &mut FieldErrors) {
    if let Some(meta) = &template.metadata {
        if let Some(labels) = &meta.labels {
            metadata::validate_labels(labels, &at.child("labels"), errors);
        }
        if let Some(annotations) = &meta.annotations {
            metadata::validate_annotations(annotations, &at.child("annotations"), errors);
        }
    }
    match &template.spec {
        Some(spec) => pod_spec(spec, &at.child("spec"), errors),
        None => errors.push(FieldError::required(&at.child("spec").child("containers"), "")),
    }
}

/// Checks a pod spec.
pub fn pod_spec(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let volumes =
        volumes::validate(spec.volumes.as_deref().unwrap_or_default(), &at.child("volumes"), errors);
    containers::validate(spec, &volumes, at, errors);
    one_of(spec.restart_policy.as_ref(), &RESTART_POLICIES, &at.child("restartPolicy"), errors);
    one_of(spec.dns_policy.as_ref(), &DNS_POLICIES, &at.child("dnsPolicy"), errors);
    dns_config(spec, at, errors);
    identity(spec, at, errors);
    times(spec, at, errors);
    scheduling::validate(spec, at, errors);
    security::validate(spec, at, errors);
}

fn dns_config(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("dnsConfig");
    let servers = spec.dns_config.as_ref().and_then(|c| c.nameservers.as_deref()).unwrap_or_default();
    if spec.dns_policy.as_deref() == Some("None") && servers.is_empty() {
        let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(&at.child("nameservers"), message));
    }
    if servers.len() > 3 {
        let message = "must not have more than 3 nameservers";
        errors.push(FieldError::invalid(&at.child("nameservers"), servers, message));
    }
    for (i, server) in servers.iter().enumerate() {
        each(names::is_ip(server), server, &at.child("nameservers").index(i), errors);
    }
}

fn identity(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    type Rule = fn(&str) -> Vec<String>;
    let fields: [(&'static str, &Option<String>, Rule); 6] = [
        ("serviceAccountName", &spec.service_account_name, names::is_dns1123_subdomain),
        ("nodeName", &spec.node_name, names::is_dns1123_subdomain),
        ("hostname", &spec.hostname, names::is_dns1123_label),
        ("subdomain", &spec.subdomain, names::is_dns1123_label),
        ("priorityClassName", &spec.priority_class_name, names::is_dns1123_subdomain),
        ("runtimeClassName", &spec.runtime_class_name, names::is_dns1123_subdomain),
    ];
    for (field, value, rule) in fields {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            each(rule(value), value, &at.child(field), errors);
        }
    }
    let mut aliases = BTreeSet::new();
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let at = at.child("hostAliases").index(i);
        each(names::is_ip(&alias.ip), &alias.ip, &at.child("ip"), errors);
        for hostname in alias.hostnames.iter().flatten() {
            each(names::is_dns1123_subdomain(hostname), hostname, &at.child("hostnames"), errors);
        }
        aliases.insert(&alias.ip);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let message = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&at.child("shareProcessNamespace"), true, message));
    }
}

fn times(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let message = names::inclusive_range_error(1, i64::from(i32::MAX));
        errors.push(FieldError::invalid(&at.child("activeDeadlineSeconds"), seconds, message));
    }
    non_negative(spec.termination_grace_period_seconds, &at.child("terminationGracePeriodSeconds"), errors);
}

#[cfg(test)]
mod tests;
