//! Checks of the names that a pod goes by and that it looks things up with.

use k8s_openapi::api::core::v1::PodSpec;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::each;

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
const MAX_HOSTNAME: usize = 64;

type Rule = fn(&str) -> Vec<String>;

fn named(fields: &[(&'static str, &Option<String>, Rule)], at: &Path, errors: &mut FieldErrors) {
    for (field, value, rule) in fields {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            each(rule(value), value, &at.child(*field), errors);
        }
    }
}

/// Its account, node and host name, and how long it may run.
pub(super) fn names(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    named(
        &[
            ("serviceAccountName", &spec.service_account_name, names::is_dns1123_subdomain),
            ("nodeName", &spec.node_name, names::is_dns1123_subdomain),
        ],
        at,
        errors,
    );
    let longest = i64::from(i32::MAX);
    if let Some(seconds) = spec.active_deadline_seconds.filter(|seconds| !(1..=longest).contains(seconds)) {
        let message = names::inclusive_range_error(1, longest);
        errors.push(FieldError::invalid(&at.child("activeDeadlineSeconds"), seconds, message));
    }
    named(
        &[
            ("hostname", &spec.hostname, names::is_dns1123_label),
            ("subdomain", &spec.subdomain, names::is_dns1123_label),
        ],
        at,
        errors,
    );
}

/// Its classes.
pub(super) fn classes(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    named(&[("priorityClassName", &spec.priority_class_name, names::is_dns1123_subdomain)], at, errors);
    if let Some(class) = &spec.runtime_class_name {
        each(names::is_dns1123_subdomain(class), class, &at.child("runtimeClassName"), errors);
    }
}

/// A host name that overrides what follows from the others.
pub(super) fn hostname_override(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let Some(name) = &spec.hostname_override else { return };
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.push(FieldError::forbidden(at, "may not be specified when setHostnameAsFQDN is true"));
    }
    if spec.host_network == Some(true) {
        errors.push(FieldError::forbidden(at, "may not be specified when hostNetwork is true"));
    }
    if name.len() > MAX_HOSTNAME {
        errors.push(FieldError::too_long(at, MAX_HOSTNAME));
    }
    each(names::is_dns1123_subdomain(name), name, at, errors);
}

/// Lines of `/etc/hosts`.
pub(super) fn host_aliases(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let at = at.index(i);
        each(names::is_ip(&alias.ip), &alias.ip, &at.child("ip"), errors);
        for (j, hostname) in alias.hostnames.iter().flatten().enumerate() {
            each(names::is_dns1123_subdomain(hostname), hostname, &at.child("hostnames").index(j), errors);
        }
    }
}

/// Lines of `/etc/resolv.conf`.
pub(super) fn dns(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let none = spec.dns_policy.as_deref() == Some("None");
    let Some(config) = &spec.dns_config else {
        if none {
            let message = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(FieldError::required(at, message));
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let searches = config.searches.as_deref().unwrap_or_default();
    let (at_servers, at_searches) = (at.child("nameservers"), at.child("searches"));
    if none && servers.is_empty() {
        let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(&at_servers, message));
        return;
    }
    if servers.len() > MAX_SERVERS {
        let message = format!("must not have more than {MAX_SERVERS} nameservers");
        errors.push(FieldError::invalid(&at_servers, servers, message));
    }
    for (i, server) in servers.iter().enumerate() {
        each(names::is_ip(server), server, &at_servers.index(i), errors);
    }
    if searches.len() > MAX_SEARCHES {
        let message = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(FieldError::invalid(&at_searches, searches, message));
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        let message = format!(
            "must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        );
        errors.push(FieldError::invalid(&at_searches, searches, message));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        each(names::is_dns1123_subdomain_with_underscore(search), search, &at_searches.index(i), errors);
    }
    for (i, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().is_none_or(str::is_empty) {
            errors.push(FieldError::required(&at.child("options").index(i), "must not be empty"));
        }
    }
}
