//! Checks of containers and init containers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule};

use super::{Scope, env, handlers, mounts, ports, resources, security};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, known, one_of, required};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: [&str; 2] = ["File", "FallbackToLogsOnError"];
const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const RULE_ACTIONS: [&str; 2] = ["Restart", "RestartAllContainers"];
const RULE_OPERATORS: [&str; 2] = ["In", "NotIn"];
const RESIZE_POLICIES: [&str; 2] = ["NotRequired", "RestartContainer"];
const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// Checks containers, then init containers.
pub(super) fn validate(scope: &Scope<'_>, at: &Path, errors: &mut FieldErrors) {
    let list = at.child("containers");
    if scope.spec.containers.is_empty() {
        errors.push(FieldError::required(&list, ""));
    }
    let mut names = BTreeSet::new();
    for (i, container) in scope.spec.containers.iter().enumerate() {
        let at = list.index(i);
        common(container, scope, &at, errors);
        if !names.insert(container.name.as_str()) {
            errors.push(FieldError::duplicate(&at.child("name"), &container.name));
        }
        handlers::validate(container, scope.spec, &at, errors);
        restart(container, &at, errors);
    }
    ports::conflicts(&scope.spec.containers, &list, errors);
    let list = at.child("initContainers");
    for (i, container) in scope.spec.init_containers.iter().flatten().enumerate() {
        let at = list.index(i);
        common(container, scope, &at, errors);
        restart(container, &at, errors);
        if names.contains(container.name.as_str()) {
            errors.push(FieldError::duplicate(&at.child("name"), &container.name));
        } else if !container.name.is_empty() {
            names.insert(&container.name);
        }
        ports::conflicts(std::slice::from_ref(container), &list, errors);
        init(container, scope, &at, errors);
    }
}

/// What all sorts of containers must say.
pub(super) fn common(container: &Container, scope: &Scope<'_>, at: &Path, errors: &mut FieldErrors) {
    match container.name.as_str() {
        "" => errors.push(FieldError::required(&at.child("name"), "")),
        name => each(names::is_dns1123_label(name), name, &at.child("name"), errors),
    }
    required(container.image.as_deref().unwrap_or_default(), &at.child("image"), errors);
    let policy = container.termination_message_policy.as_deref();
    one_of(policy, &MESSAGE_POLICIES, &at.child("terminationMessagePolicy"), errors);
    ports::validate(container.ports.as_deref().unwrap_or_default(), &at.child("ports"), errors);
    env::validate(container.env.as_deref(), container.env_from.as_deref(), at, errors);
    mounts::validate(container, scope, at, errors);
    pull_policy(container.image_pull_policy.as_deref(), &at.child("imagePullPolicy"), errors);
    if let Some(own) = &container.resources {
        resources::container(own, &scope.claims, &at.child("resources"), errors);
    }
    resize_policies(container, scope, &at.child("resizePolicy"), errors);
    if let Some(context) = &container.security_context {
        security::container(context, scope.own_users(), &at.child("securityContext"), errors);
    }
}

/// When an image is pulled.
pub(super) fn pull_policy(policy: Option<&str>, at: &Path, errors: &mut FieldErrors) {
    one_of(policy, &PULL_POLICIES, at, errors);
}

/// The image of a pod's container has no space around it; templates may.
pub(super) fn trimmed(image: Option<&str>, at: &Path, errors: &mut FieldErrors) {
    if let Some(image) = image.filter(|image| image.trim() != *image) {
        let message = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&at.child("image"), image, message));
    }
}

fn resize_policies(container: &Container, scope: &Scope<'_>, at: &Path, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    let never = scope.spec.restart_policy.as_deref() == Some("Never");
    for (i, policy) in container.resize_policy.iter().flatten().enumerate() {
        if !seen.insert(policy.resource_name.as_str()) {
            errors.push(FieldError::duplicate(&at.index(i), &policy.resource_name));
        }
        one_of(Some(&policy.resource_name), &["cpu", "memory"], at, errors);
        one_of(Some(&policy.restart_policy), &RESIZE_POLICIES, at, errors);
        if never && policy.restart_policy != "NotRequired" {
            let message = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(at, &policy.restart_policy, message));
        }
    }
}

/// A container's own restart policy, and the rules that go before it.
fn restart(container: &Container, at: &Path, errors: &mut FieldErrors) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    let at_policy = at.child("restartPolicy");
    match container.restart_policy.as_deref() {
        None if rules.is_empty() => return,
        None => {
            let message = "must specify restartPolicy when restart rules are used";
            errors.push(FieldError::required(&at_policy, message));
        }
        policy => known(policy, &RESTART_POLICIES, &at_policy, errors),
    }
    let at = at.child("restartPolicyRules");
    if rules.len() > MAX_RULES {
        errors.push(FieldError::too_many(&at, rules.len(), MAX_RULES));
    }
    for (i, own) in rules.iter().enumerate() {
        rule(own, &at.index(i), errors);
    }
}

fn rule(rule: &ContainerRestartRule, at: &Path, errors: &mut FieldErrors) {
    known(Some(&rule.action), &RULE_ACTIONS, &at.child("action"), errors);
    let at = at.child("exitCodes");
    let Some(codes) = &rule.exit_codes else {
        errors.push(FieldError::required(&at, "must be specified"));
        return;
    };
    known(Some(&codes.operator), &RULE_OPERATORS, &at.child("operator"), errors);
    let values = codes.values.as_ref().map_or(0, Vec::len);
    if values > MAX_EXIT_CODES {
        errors.push(FieldError::too_many(&at.child("values"), values, MAX_EXIT_CODES));
    }
}

/// Init containers that end have neither probes nor hooks; sidecars have.
fn init(container: &Container, scope: &Scope<'_>, at: &Path, errors: &mut FieldErrors) {
    if container.restart_policy.as_deref() == Some("Always") {
        handlers::validate(container, scope.spec, at, errors);
        return;
    }
    let message = "may not be set for init containers without restartPolicy=Always";
    let refused = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    for (field, _) in refused.into_iter().filter(|(_, set)| *set) {
        errors.push(FieldError::forbidden(&at.child(field), message));
    }
    for (i, policy) in container.resize_policy.iter().flatten().enumerate() {
        if policy.restart_policy == "RestartContainer" {
            let at = at.child("resizePolicy").index(i).child("restartPolicy");
            let message = "must not be set to 'RestartContainer' for non-sidecar initContainers";
            errors.push(FieldError::invalid(&at, &policy.restart_policy, message));
        }
    }
}
