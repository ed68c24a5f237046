//! What webhook configurations and admission policies are checked for alike, as upstream's
//! `apis/admissionregistration/validation` and `apiserver/pkg/util/webhook` do.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, NamedRuleWithOperations, RuleWithOperations, WebhookClientConfig,
};

use crate::api::cel::{Env, Program, Type};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, known};

pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub(super) const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
pub(super) const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const MOST_CONDITIONS: usize = 64;

/// Reports names that are there twice; those that are missing are reported elsewhere.
pub(super) fn duplicates<'a>(all: impl Iterator<Item = &'a str>, at: &Path, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, name) in all.enumerate() {
        if !name.is_empty() && !seen.insert(name) {
            errors.push(FieldError::duplicate(&at.index(i).child("name"), name));
        }
    }
}

/// Checks a name of at least three segments.
pub(super) fn qualified_name(name: &str, at: &Path, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.push(FieldError::required(at, ""));
    }
    let wrong = names::is_dns1123_subdomain(name);
    if !wrong.is_empty() {
        return errors.push(FieldError::invalid(at, name, wrong.join(",")));
    }
    if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(at, name, why));
    }
}

/// Checks where a webhook is.
pub(super) fn client(client: &WebhookClientConfig, at: &Path, errors: &mut FieldErrors) {
    match (&client.url, &client.service) {
        (Some(_), Some(_)) | (None, None) => {
            errors.push(FieldError::required(at, "exactly one of url or service is required"));
        }
        (Some(found), None) => url(found, &at.child("url"), errors),
        (None, Some(found)) => {
            let port = found.port.unwrap_or(443);
            service(
                (&found.name, &found.namespace, found.path.as_deref(), port),
                &at.child("service"),
                errors,
            );
        }
    }
}

/// Checks the URL of a webhook.
pub(in crate::registry::groups) fn url(url: &str, at: &Path, errors: &mut FieldErrors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (scheme, after) = rest.split_once("://").unwrap_or(("", rest));
    let authority = if scheme.is_empty() { "" } else { after.split(['/', '?']).next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if url.contains(|c: char| c.is_ascii_control()) {
        let why = format!(
            "url must be a valid URL: parse {url:?}: net/url: invalid control character in URL{FORM}"
        );
        return errors.push(FieldError::required(at, why));
    }
    if scheme != "https" {
        let why = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(FieldError::invalid(at, scheme, why));
    }
    if host.is_empty() {
        errors.push(FieldError::invalid(at, host, format!("host must be specified{FORM}")));
    }
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    for (part, why) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            errors.push(FieldError::invalid(at, part, why));
        }
    }
}

/// Checks the Service of a webhook: its name, namespace, path and port.
pub(in crate::registry::groups) fn service(
    (name, namespace, path, port): (&str, &str, Option<&str>, i32),
    at: &Path,
    errors: &mut FieldErrors,
) {
    for (field, value) in [("name", name), ("namespace", namespace)] {
        if value.is_empty() {
            errors.push(FieldError::required(&at.child(field), format!("service {field} is required")));
        }
    }
    let wrong = names::is_port_number(port.into());
    if !wrong.is_empty() {
        let why = format!("port is not valid: {}", wrong.join(","));
        errors.push(FieldError::invalid(&at.child("port"), port, why));
    }
    let Some(path) = path.filter(|path| !matches!(*path, "" | "/")) else { return };
    let at = at.child("path");
    if path == "//" {
        return errors.push(FieldError::invalid(&at, path, "segment[0] may not be empty"));
    }
    if !path.starts_with('/') {
        errors.push(FieldError::invalid(&at, path, "must start with a '/'"));
    }
    // Upstream takes the first character for a slash even where it is none.
    let mut below = path.chars();
    below.next();
    let below = below.as_str();
    for (i, segment) in below.strip_suffix('/').unwrap_or(below).split('/').enumerate() {
        if segment.is_empty() {
            errors.push(FieldError::invalid(&at, path, format!("segment[{i}] may not be empty")));
            continue;
        }
        for why in names::is_dns1123_subdomain(segment) {
            errors.push(FieldError::invalid(&at, path, format!("segment[{i}]: {why}")));
        }
    }
}

/// Checks that a webhook has no effects that dry runs must not have.
pub(super) fn side_effects(value: &str, at: &Path, errors: &mut FieldErrors) {
    match value {
        "" => errors.push(FieldError::required(at, "must specify one of None, NoneOnDryRun")),
        value => known(Some(value), &SIDE_EFFECTS, at, errors),
    }
}

/// Checks the versions of reviews: one at least that the server knows.
pub(super) fn review_versions(versions: &[String], at: &Path, errors: &mut FieldErrors) {
    if versions.is_empty() {
        return errors.push(FieldError::required(at, "must specify one of v1, v1beta1"));
    }
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        if !seen.insert(version) {
            errors.push(FieldError::invalid(&at.index(i), version, "duplicate version"));
            continue;
        }
        each(names::is_dns1035_label(version), version, &at.index(i), errors);
    }
    if !versions.iter().any(|version| matches!(version.as_str(), "v1" | "v1beta1")) {
        errors.push(FieldError::invalid(at, versions, "must include at least one of v1, v1beta1"));
    }
}

/// Checks how long an answer may take.
pub(super) fn timeout(seconds: Option<i32>, at: &Path, errors: &mut FieldErrors) {
    if let Some(seconds) = seconds.filter(|seconds| !(1..=30).contains(seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(at, seconds, why));
    }
}

/// A rule of a webhook or a policy.
pub(super) struct Rule<'a> {
    operations: &'a [String],
    groups: &'a [String],
    versions: &'a [String],
    resources: &'a [String],
    scope: Option<&'a str>,
}

macro_rules! rule_from {
    ($kind:ty) => {
        impl<'a> From<&'a $kind> for Rule<'a> {
            fn from(rule: &'a $kind) -> Self {
                Self {
                    operations: rule.operations.as_deref().unwrap_or_default(),
                    groups: rule.api_groups.as_deref().unwrap_or_default(),
                    versions: rule.api_versions.as_deref().unwrap_or_default(),
                    resources: rule.resources.as_deref().unwrap_or_default(),
                    scope: rule.scope.as_deref(),
                }
            }
        }
    };
}

rule_from!(RuleWithOperations);
rule_from!(NamedRuleWithOperations);

/// Checks which requests a rule is about.
pub(super) fn rule(rule: &Rule<'_>, at: &Path, errors: &mut FieldErrors) {
    for (field, list, what) in [
        ("operations", rule.operations, "operations"),
        ("apiGroups", rule.groups, "API groups"),
        ("apiVersions", rule.versions, "API versions"),
    ] {
        let at = at.child(field);
        if list.is_empty() {
            errors.push(FieldError::required(&at, ""));
        }
        if list.len() > 1 && list.iter().any(|item| item == "*") {
            let why = format!("if '*' is present, must not specify other {what}");
            errors.push(FieldError::invalid(&at, list, why));
        }
        for (i, item) in list.iter().enumerate() {
            match field {
                "operations" => known(Some(item), &OPERATIONS, &at.index(i), errors),
                "apiVersions" if item.is_empty() => errors.push(FieldError::required(&at.index(i), "")),
                _ => {}
            }
        }
    }
    resources(rule.resources, &at.child("resources"), errors);
    known(rule.scope, &SCOPES, &at.child("scope"), errors);
}

fn resources(all: &[String], at: &Path, errors: &mut FieldErrors) {
    if all.is_empty() {
        errors.push(FieldError::required(at, ""));
    }
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for (i, item) in all.iter().enumerate() {
        let at = at.index(i);
        if item.is_empty() {
            errors.push(FieldError::required(&at, ""));
            continue;
        }
        let Some((resource, part)) = item.split_once('/') else {
            // As upstream: the last of them decides.
            plain = item != "*";
            continue;
        };
        if whole.contains(resource) {
            let why = format!("if '{resource}/*' is present, must not specify {item}");
            errors.push(FieldError::invalid(&at, item, why));
        }
        if everywhere.contains(part) {
            let why = format!("if '*/{part}' is present, must not specify {item}");
            errors.push(FieldError::invalid(&at, item, why));
        }
        if part == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            everywhere.insert(part);
        }
    }
    let has = |wanted: &str| all.iter().any(|item| item == wanted);
    if all.len() > 1 && has("*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(at, all, why));
    }
    if has("*") && plain {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(at, all, why));
    }
}

/// Checks match conditions: names that are unique, and expressions that compile to a boolean.
pub(super) fn conditions(conditions: &[MatchCondition], env: &Env, at: &Path, errors: &mut FieldErrors) {
    if conditions.len() > MOST_CONDITIONS {
        errors.push(FieldError::too_many(at, conditions.len(), MOST_CONDITIONS));
    }
    duplicates(conditions.iter().map(|condition| condition.name.as_str()), at, errors);
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        expression(&condition.expression, (&Type::Bool, ""), env, &at.child("expression"), errors);
        if condition.name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else {
            each(names::is_qualified_name(&condition.name), &condition.name, &at.child("name"), errors);
        }
    }
}

/// Checks one expression: that it is there (or `missing` is told), compiles, and is of a type.
pub(super) fn expression(
    source: &str,
    (wanted, missing): (&Type, &str),
    env: &Env,
    at: &Path,
    errors: &mut FieldErrors,
) {
    if source.trim().is_empty() {
        return errors.push(FieldError::required(at, missing));
    }
    match Program::compile(source, env) {
        Ok(program) if program.kind().fits(wanted) => {}
        Ok(_) => errors.push(FieldError::invalid(at, source, format!("must evaluate to {wanted}"))),
        Err(error) => errors.push(FieldError::invalid(at, source, format!("compilation failed: {error}"))),
    }
}

#[cfg(test)]
mod tests;
