//! Checks of what a Job does about indexes, failures and early success.

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicyRule,
};

use super::indexes;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{domain_prefixed_path, each, known, non_negative};

const MOST: i32 = 100_000;
/// For Jobs with more than [`MOST`] completions that give every index chances of its own.
const MOST_OF_MANY: i32 = 10_000;
const MOST_PATTERNS: usize = 20;
const MOST_MANAGER: usize = 63;
/// Bytes of the text of indexes.
const MOST_INDEXES: usize = 64 * 1024;
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;
const MODES: [&str; 2] = ["NonIndexed", "Indexed"];
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const REPLACEMENTS: [&str; 2] = ["Failed", "TerminatingOrFailed"];

/// Checks the policies of a Job's spec.
pub(super) fn validate(spec: &JobSpec, at: &Path, errors: &mut FieldErrors) {
    let per_index = spec.backoff_limit_per_index;
    non_negative(per_index.map(i64::from), &at.child("backoffLimitPerIndex"), errors);
    non_negative(spec.max_failed_indexes.map(i64::from), &at.child("maxFailedIndexes"), errors);
    if spec.max_failed_indexes.is_some() && per_index.is_none() {
        let message = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(&at.child("backoffLimitPerIndex"), message));
    }
    if let Some(manager) = spec.managed_by.as_deref() {
        let at = at.child("managedBy");
        domain_prefixed_path(manager, &at, errors);
        if manager.len() > MOST_MANAGER {
            errors.push(FieldError::too_long(&at, MOST_MANAGER));
        }
    }
    mode(spec, at, errors);
    failures(spec, at, errors);
    if let Some(policy) = &spec.success_policy {
        let at = at.child("successPolicy");
        match spec.completion_mode.as_deref() {
            Some("Indexed") => successes(&policy.rules, spec.completions, &at.child("rules"), errors),
            _ => errors.push(FieldError::invalid(&at, policy, "requires indexed completion mode")),
        }
    }
    let supported = if spec.pod_failure_policy.is_some() { &REPLACEMENTS[..1] } else { &REPLACEMENTS[..] };
    known(spec.pod_replacement_policy.as_deref(), supported, &at.child("podReplacementPolicy"), errors);
}

fn mode(spec: &JobSpec, at: &Path, errors: &mut FieldErrors) {
    let numbers = [
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ];
    match spec.completion_mode.as_deref() {
        Some("Indexed") => indexed(spec, at, errors),
        None | Some("NonIndexed") => {
            for (field, number) in numbers.into_iter().filter(|(_, number)| number.is_some()) {
                errors.push(FieldError::invalid(
                    &at.child(field),
                    number,
                    "requires indexed completion mode",
                ));
            }
        }
        Some(other) => errors.push(FieldError::not_supported(&at.child("completionMode"), other, &MODES)),
    }
}

fn indexed(spec: &JobSpec, at: &Path, errors: &mut FieldErrors) {
    let at_failed = at.child("maxFailedIndexes");
    if spec.completions.is_none() {
        errors.push(FieldError::required(&at.child("completions"), "when completion mode is Indexed"));
    }
    if let Some(parallel) = spec.parallelism.filter(|parallel| *parallel > MOST) {
        let message = format!("must be less than or equal to {MOST} when completion mode is Indexed");
        errors.push(FieldError::invalid(&at.child("parallelism"), parallel, message));
    }
    if let (Some(failed), Some(all)) = (spec.max_failed_indexes, spec.completions)
        && failed > all
    {
        errors.push(FieldError::invalid(&at_failed, failed, "must be less than or equal to completions"));
    }
    if let Some(failed) = spec.max_failed_indexes.filter(|failed| *failed > MOST) {
        errors.push(FieldError::invalid(&at_failed, failed, format!("must be less than or equal to {MOST}")));
    }
    if spec.backoff_limit_per_index.is_none() || spec.completions.is_none_or(|all| all <= MOST) {
        return;
    }
    if spec.max_failed_indexes.is_none() {
        let message = format!("must be specified when completions is above {MOST}");
        errors.push(FieldError::required(&at_failed, message));
    }
    for (field, number) in [("parallelism", spec.parallelism), ("maxFailedIndexes", spec.max_failed_indexes)]
    {
        if let Some(number) = number.filter(|number| *number > MOST_OF_MANY) {
            let message = format!(
                "must be less than or equal to {MOST_OF_MANY} when completions are above {MOST} and used with backoff limit per index"
            );
            errors.push(FieldError::invalid(&at.child(field), number, message));
        }
    }
}

fn failures(spec: &JobSpec, at: &Path, errors: &mut FieldErrors) {
    let Some(policy) = &spec.pod_failure_policy else { return };
    let at = at.child("podFailurePolicy").child("rules");
    if policy.rules.len() > MOST_RULES {
        errors.push(FieldError::too_many(&at, policy.rules.len(), MOST_RULES));
    }
    let template = spec.template.spec.as_ref();
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
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(codes, containers, &at.child("onExitCodes"), errors);
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    conditions(patterns, &at.child("onPodConditions"), errors);
    match (&rule.on_exit_codes, patterns.is_empty()) {
        (Some(_), false) => {
            let message = "specifying both OnExitCodes and OnPodConditions is not supported";
            errors.push(FieldError::invalid_unshown(at, message));
        }
        (None, true) => {
            let message = "specifying one of OnExitCodes and OnPodConditions is required";
            errors.push(FieldError::invalid_unshown(at, message));
        }
        _ => {}
    }
}

fn conditions(patterns: &[PodFailurePolicyOnPodConditionsPattern], at: &Path, errors: &mut FieldErrors) {
    if patterns.len() > MOST_PATTERNS {
        errors.push(FieldError::too_many(at, patterns.len(), MOST_PATTERNS));
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let at = at.index(i);
        each(names::is_qualified_name(&pattern.type_), &pattern.type_, &at.child("type"), errors);
        let at = at.child("status");
        match pattern.status.as_deref().unwrap_or_default() {
            "" => {
                errors.push(FieldError::required(&at, "valid values: [\"False\" \"True\" \"Unknown\"]"));
            }
            status => known(Some(status), &STATUSES, &at, errors),
        }
    }
}

fn exit_codes(
    codes: &PodFailurePolicyOnExitCodesRequirement,
    containers: &[&str],
    at: &Path,
    errors: &mut FieldErrors,
) {
    let at_operator = at.child("operator");
    match codes.operator.as_str() {
        "" => errors.push(FieldError::required(&at_operator, "valid values: [\"In\" \"NotIn\"]")),
        operator => known(Some(operator), &OPERATORS, &at_operator, errors),
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

fn successes(rules: &[SuccessPolicyRule], completions: Option<i32>, at: &Path, errors: &mut FieldErrors) {
    if rules.is_empty() {
        let message = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(at, message));
    }
    if rules.len() > MOST_RULES {
        errors.push(FieldError::too_many(at, rules.len(), MOST_RULES));
    }
    // Without completions the Job is refused anyway.
    let Some(completions) = completions else { return };
    for (i, rule) in rules.iter().enumerate() {
        success(rule, completions, &at.index(i), errors);
    }
}

fn success(rule: &SuccessPolicyRule, completions: i32, at: &Path, errors: &mut FieldErrors) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        let message = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(at, message));
    }
    let mut total = None;
    if let Some(text) = rule.succeeded_indexes.as_deref() {
        let at = at.child("succeededIndexes");
        if text.len() > MOST_INDEXES {
            errors.push(FieldError::too_long(&at, MOST_INDEXES));
        }
        let counted = indexes::count(text, completions);
        total = Some(counted.as_ref().copied().unwrap_or(0));
        if let Err(message) = counted {
            let message = format!("error parsing succeededIndexes: {message}");
            errors.push(FieldError::invalid(&at, text, message));
        }
    }
    let Some(count) = rule.succeeded_count else { return };
    let at = at.child("succeededCount");
    non_negative(Some(count.into()), &at, errors);
    if count > completions {
        let message =
            format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(FieldError::invalid(&at, count, message));
    }
    if let Some(total) = total.filter(|total| count > *total) {
        let message = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.push(FieldError::invalid(&at, count, message));
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
            (json!({"successPolicy": {"rules": []}}), vec!["spec.successPolicy".into()]),
            (
                json!({"completionMode": "Indexed", "completions": 3, "successPolicy": {"rules": [
                    {"succeededIndexes": "0-1", "succeededCount": 3}, {"succeededIndexes": "3"}, {}]}}),
                vec![
                    "spec.successPolicy.rules[0].succeededCount".into(),
                    "spec.successPolicy.rules[1].succeededIndexes".into(),
                    "spec.successPolicy.rules[2]".into(),
                ],
            ),
            (
                json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001, "backoffLimitPerIndex": 1}),
                vec!["spec.maxFailedIndexes".into(), "spec.parallelism".into()],
            ),
            (json!({"managedBy": "me"}), vec!["spec.managedBy".into()]),
            (json!({"managedBy": "example.com/me"}), vec![]),
            (
                json!({"podFailurePolicy": {"rules": []}, "podReplacementPolicy": "TerminatingOrFailed"}),
                vec!["spec.podReplacementPolicy".into()],
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
