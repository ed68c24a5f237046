//! Checks of what a Job does about indexes, failures and early success.

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicyRule,
};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, non_negative};

const MOST_PARALLEL: i32 = 100_000;
const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;
const MODES: [&str; 2] = ["Indexed", "NonIndexed"];
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const REPLACEMENTS: [&str; 2] = ["Failed", "TerminatingOrFailed"];

/// Checks the policies of a Job's spec.
pub(super) fn validate(spec: &JobSpec, at: &Path, errors: &mut FieldErrors) {
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    if let Some(mode) = spec.completion_mode.as_deref().filter(|mode| !MODES.contains(mode)) {
        errors.push(FieldError::not_supported(&at.child("completionMode"), mode, &MODES));
    }
    indexes(spec, indexed, at, errors);
    failures(spec, at, errors);
    if let Some(policy) = spec.pod_replacement_policy.as_deref() {
        let supported =
            if spec.pod_failure_policy.is_some() { &REPLACEMENTS[..1] } else { &REPLACEMENTS[..] };
        if !supported.contains(&policy) {
            errors.push(FieldError::not_supported(&at.child("podReplacementPolicy"), policy, supported));
        }
    }
    if let Some(policy) = &spec.success_policy {
        let at = at.child("successPolicy");
        if !indexed {
            errors.push(FieldError::invalid(&at, policy, "requires indexed completion mode"));
        }
        let at = at.child("rules");
        if policy.rules.is_empty() {
            let message = "at least one rules must be specified when the successPolicy is specified";
            errors.push(FieldError::required(&at, message));
        } else if policy.rules.len() > MOST_RULES {
            errors.push(FieldError::too_many(&at, policy.rules.len(), MOST_RULES));
        }
        for (i, rule) in policy.rules.iter().enumerate() {
            success(rule, spec.completions, &at.index(i), errors);
        }
    }
    if let Some(manager) = spec.managed_by.as_deref() {
        let at = at.child("managedBy");
        if !manager.contains('/') {
            let message = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(&at, manager, message));
        } else {
            each(names::is_qualified_name(manager), manager, &at, errors);
        }
    }
}

fn indexes(spec: &JobSpec, indexed: bool, at: &Path, errors: &mut FieldErrors) {
    let numbers = [
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ];
    for (field, number) in numbers {
        non_negative(number.map(i64::from), &at.child(field), errors);
    }
    if indexed {
        if spec.completions.is_none() {
            let message = "when completion mode is Indexed";
            errors.push(FieldError::required(&at.child("completions"), message));
        }
        if let Some(parallel) = spec.parallelism.filter(|parallel| *parallel > MOST_PARALLEL) {
            let message =
                format!("must be less than or equal to {MOST_PARALLEL} when completion mode is Indexed");
            errors.push(FieldError::invalid(&at.child("parallelism"), parallel, message));
        }
        if let (Some(failed), Some(all)) = (spec.max_failed_indexes, spec.completions)
            && failed > all
        {
            let message = "must be less than or equal to completions";
            errors.push(FieldError::invalid(&at.child("maxFailedIndexes"), failed, message));
        }
    } else {
        for (field, number) in numbers.into_iter().filter(|(_, number)| number.is_some()) {
            errors.push(FieldError::invalid(&at.child(field), number, "requires indexed completion mode"));
        }
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        let message = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(&at.child("backoffLimitPerIndex"), message));
    }
}

fn failures(spec: &JobSpec, at: &Path, errors: &mut FieldErrors) {
    let Some(policy) = &spec.pod_failure_policy else { return };
    let template = spec.template.spec.as_ref();
    let restarts = template.and_then(|spec| spec.restart_policy.as_deref()).unwrap_or_default();
    if restarts != "Never" {
        let at = at.child("template").child("spec").child("restartPolicy");
        let message = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(FieldError::invalid(&at, restarts, message));
    }
    let at = at.child("podFailurePolicy").child("rules");
    if policy.rules.len() > MOST_RULES {
        errors.push(FieldError::too_many(&at, policy.rules.len(), MOST_RULES));
    }
    let containers: Vec<&str> = template
        .into_iter()
        .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
        .map(|container| container.name.as_str())
        .collect();
    for (i, rule) in policy.rules.iter().enumerate() {
        failure(rule, spec.backoff_limit_per_index.is_some(), &containers, &at.index(i), errors);
    }
}

fn failure(
    rule: &PodFailurePolicyRule,
    per_index: bool,
    containers: &[&str],
    at: &Path,
    errors: &mut FieldErrors,
) {
    match rule.action.as_str() {
        "" => errors.push(FieldError::required(
            &at.child("action"),
            "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
        )),
        "FailIndex" if !per_index => {
            let message = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(&at.child("action"), &rule.action, message));
        }
        action if ACTIONS.contains(&action) => {}
        action => errors.push(FieldError::not_supported(&at.child("action"), action, &ACTIONS)),
    }
    let conditions = rule.on_pod_conditions.as_deref().unwrap_or_default();
    for (i, pattern) in conditions.iter().enumerate() {
        let at = at.child("onPodConditions").index(i);
        each(names::is_qualified_name(&pattern.type_), &pattern.type_, &at.child("type"), errors);
        let status = pattern.status.as_deref().unwrap_or_default();
        if !matches!(status, "True" | "False" | "Unknown") {
            let supported = ["False", "True", "Unknown"];
            errors.push(FieldError::not_supported(&at.child("status"), status, &supported));
        }
    }
    match (&rule.on_exit_codes, conditions.is_empty()) {
        (Some(_), false) => {
            let message = "specifying both OnExitCodes and OnPodConditions is not supported";
            errors.push(FieldError::invalid(at, "", message));
        }
        (None, true) => {
            let message = "specifying one of OnExitCodes and OnPodConditions is required";
            errors.push(FieldError::invalid(at, "", message));
        }
        _ => {}
    }
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(codes, containers, &at.child("onExitCodes"), errors);
    }
}

fn exit_codes(
    codes: &PodFailurePolicyOnExitCodesRequirement,
    containers: &[&str],
    at: &Path,
    errors: &mut FieldErrors,
) {
    if !OPERATORS.contains(&codes.operator.as_str()) {
        errors.push(FieldError::not_supported(&at.child("operator"), &codes.operator, &OPERATORS));
    }
    if let Some(name) = codes.container_name.as_deref().filter(|name| !containers.contains(name)) {
        let message = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(&at.child("containerName"), name, message));
    }
    let at = at.child("values");
    if codes.values.is_empty() {
        errors.push(FieldError::invalid(&at, &codes.values, "at least one value is required"));
    } else if codes.values.len() > MOST_CODES {
        errors.push(FieldError::too_many(&at, codes.values.len(), MOST_CODES));
    }
    for (i, code) in codes.values.iter().enumerate() {
        if codes.operator == "In" && *code == 0 {
            errors.push(FieldError::invalid(&at.index(i), code, "must not be 0 for the In operator"));
        }
        if codes.values[..i].contains(code) {
            errors.push(FieldError::duplicate(&at.index(i), code));
        }
    }
    if codes.values.windows(2).any(|pair| pair[0] > pair[1]) {
        errors.push(FieldError::invalid(&at, &codes.values, "must be ordered"));
    }
}

fn success(rule: &SuccessPolicyRule, completions: Option<i32>, at: &Path, errors: &mut FieldErrors) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        let message = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(at, message));
    }
    let Some(count) = rule.succeeded_count else { return };
    non_negative(Some(count.into()), &at.child("succeededCount"), errors);
    if completions.is_some_and(|completions| count > completions) {
        let message = format!(
            "must be less than or equal to {} (the number of specified completions)",
            completions.unwrap_or(0)
        );
        errors.push(FieldError::invalid(&at.child("succeededCount"), count, message));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems(mut spec: Value) -> Vec<String> {
        spec["template"] =
            json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
        let spec: JobSpec = serde_json::from_value(spec).unwrap();
        let mut errors = FieldErrors::new();
        validate(&spec, &Path::new("spec"), &mut errors);
        errors.iter().map(|error| error.field.clone()).collect()
    }

    #[test]
    fn policies_fit_the_mode_of_the_job() {
        let rule = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
        let at = "spec.podFailurePolicy.rules[0]";
        for (spec, expected) in [
            (json!({"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 1}), vec![]),
            (json!({"completionMode": "Indexed"}), vec!["spec.completions".to_owned()]),
            (json!({"backoffLimitPerIndex": 1}), vec!["spec.backoffLimitPerIndex".into()]),
            (
                json!({"successPolicy": {"rules": []}}),
                vec!["spec.successPolicy".into(), "spec.successPolicy.rules".into()],
            ),
            (
                rule(
                    json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}),
                ),
                vec![],
            ),
            (rule(json!({"action": "FailIndex"})), vec![format!("{at}.action"), at.into()]),
            (
                rule(json!({"action": "FailJob", "onExitCodes":
                    {"operator": "In", "values": [2, 1, 0], "containerName": "x"}})),
                vec![
                    format!("{at}.onExitCodes.containerName"),
                    format!("{at}.onExitCodes.values[2]"),
                    format!("{at}.onExitCodes.values"),
                ],
            ),
        ] {
            assert_eq!(problems(spec.clone()), expected, "{spec}");
        }
    }
}
