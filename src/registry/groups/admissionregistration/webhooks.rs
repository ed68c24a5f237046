//! Webhook configurations: defaults and checks.

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhookConfiguration,
    WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::api::cel::{Env, Program, Type};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::admission::condition_environment;
use crate::registry::strategy::Strategy;

const TIMEOUT: i32 = 10;
const MOST_CONDITIONS: usize = 64;

/// The strategy of mutating webhooks.
pub struct Mutating;
/// The strategy of validating webhooks.
pub struct Validating;

fn default_client(client: &mut WebhookClientConfig) {
    if let Some(service) = &mut client.service {
        service.port.get_or_insert(443);
    }
}

fn default_rules(rules: &mut Option<Vec<RuleWithOperations>>) {
    for rule in rules.iter_mut().flatten() {
        rule.scope.get_or_insert_with(|| "*".to_owned());
    }
}

macro_rules! defaults {
    ($webhook:expr) => {
        default_client(&mut $webhook.client_config);
        default_rules(&mut $webhook.rules);
        $webhook.failure_policy.get_or_insert_with(|| "Fail".to_owned());
        $webhook.match_policy.get_or_insert_with(|| "Equivalent".to_owned());
        $webhook.namespace_selector.get_or_insert_with(LabelSelector::default);
        $webhook.object_selector.get_or_insert_with(LabelSelector::default);
        $webhook.timeout_seconds.get_or_insert(TIMEOUT);
    };
}

macro_rules! checks {
    ($webhook:expr, $at:expr, $errors:expr) => {
        check_name(&$webhook.name, $at, $errors);
        check_client(&$webhook.client_config, $at, $errors);
        check_words(
            &[
                ("failurePolicy", $webhook.failure_policy.as_deref(), &["Fail", "Ignore"]),
                ("matchPolicy", $webhook.match_policy.as_deref(), &["Equivalent", "Exact"]),
            ],
            $at,
            $errors,
        );
        check_side_effects(&$webhook.side_effects, $at, $errors);
        check_reviews(&$webhook.admission_review_versions, $at, $errors);
        check_timeout($webhook.timeout_seconds, $at, $errors);
        check_rules($webhook.rules.as_deref().unwrap_or_default(), &$at.child("rules"), $errors);
        conditions(
            $webhook.match_conditions.as_deref().unwrap_or_default(),
            &condition_environment(),
            &$at.child("matchConditions"),
            $errors,
        );
    };
}

impl Strategy for Mutating {
    type Object = MutatingWebhookConfiguration;

    fn default(&self, configuration: &mut MutatingWebhookConfiguration) {
        for webhook in configuration.webhooks.iter_mut().flatten() {
            defaults!(webhook);
            webhook.reinvocation_policy.get_or_insert_with(|| "Never".to_owned());
        }
    }

    fn validate(&self, configuration: &MutatingWebhookConfiguration, errors: &mut FieldErrors) {
        let at = Path::new("webhooks");
        let webhooks = configuration.webhooks.as_deref().unwrap_or_default();
        duplicates(webhooks.iter().map(|webhook| webhook.name.as_str()), &at, errors);
        for (i, webhook) in webhooks.iter().enumerate() {
            let at = at.index(i);
            checks!(webhook, &at, errors);
            let policy = webhook.reinvocation_policy.as_deref();
            check_words(&[("reinvocationPolicy", policy, &["IfNeeded", "Never"])], &at, errors);
        }
    }
}

impl Strategy for Validating {
    type Object = ValidatingWebhookConfiguration;

    fn default(&self, configuration: &mut ValidatingWebhookConfiguration) {
        for webhook in configuration.webhooks.iter_mut().flatten() {
            defaults!(webhook);
        }
    }

    fn validate(&self, configuration: &ValidatingWebhookConfiguration, errors: &mut FieldErrors) {
        let at = Path::new("webhooks");
        let webhooks = configuration.webhooks.as_deref().unwrap_or_default();
        duplicates(webhooks.iter().map(|webhook| webhook.name.as_str()), &at, errors);
        for (i, webhook) in webhooks.iter().enumerate() {
            let at = at.index(i);
            checks!(webhook, &at, errors);
        }
    }
}

fn duplicates<'a>(all: impl Iterator<Item = &'a str>, at: &Path, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (i, name) in all.enumerate() {
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(&at.index(i).child("name"), name));
        }
        seen.push(name);
    }
}

fn check_name(name: &str, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("name");
    if name.is_empty() {
        return errors.push(FieldError::required(&at, ""));
    }
    for message in names::is_dns1123_subdomain(name) {
        errors.push(FieldError::invalid(&at, name, message));
    }
    if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(&at, name, why));
    }
}

fn check_client(client: &WebhookClientConfig, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("clientConfig");
    match (&client.url, &client.service) {
        (Some(_), Some(_)) | (None, None) => {
            errors.push(FieldError::required(&at, "exactly one of url or service is required"));
        }
        (Some(url), None) => {
            if !url.starts_with("https://") {
                let why = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
                errors.push(FieldError::invalid(&at.child("url"), url, why));
            }
        }
        (None, Some(service)) => {
            for (field, value) in [("name", &service.name), ("namespace", &service.namespace)] {
                if value.is_empty() {
                    let why = format!("service {field} is required");
                    errors.push(FieldError::required(&at.child("service").child(field), why));
                }
            }
            if let Some(path) =
                service.path.as_deref().filter(|path| !path.is_empty() && !path.starts_with('/'))
            {
                let why = "must start with a '/'";
                errors.push(FieldError::invalid(&at.child("service").child("path"), path, why));
            }
        }
    }
}

type Word<'a> = (&'static str, Option<&'a str>, &'static [&'static str]);

fn check_words(words: &[Word<'_>], at: &Path, errors: &mut FieldErrors) {
    for (field, value, known) in words {
        if let Some(value) = value.filter(|value| !known.contains(value)) {
            errors.push(FieldError::not_supported(&at.child(*field), value, known));
        }
    }
}

fn check_side_effects(value: &str, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("sideEffects");
    match value {
        "None" | "NoneOnDryRun" => {}
        "" => errors.push(FieldError::required(&at, "must specify one of None, NoneOnDryRun")),
        other => errors.push(FieldError::not_supported(&at, other, &["None", "NoneOnDryRun"])),
    }
}

fn check_reviews(versions: &[String], at: &Path, errors: &mut FieldErrors) {
    let at = at.child("admissionReviewVersions");
    if versions.is_empty() {
        errors.push(FieldError::required(&at, "must specify one of v1, v1beta1"));
    } else if !versions.iter().any(|version| matches!(version.as_str(), "v1" | "v1beta1")) {
        errors.push(FieldError::invalid(&at, versions, "must include at least one of v1, v1beta1"));
    }
}

fn check_timeout(seconds: Option<i32>, at: &Path, errors: &mut FieldErrors) {
    if let Some(seconds) = seconds.filter(|seconds| !(1..=30).contains(seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(&at.child("timeoutSeconds"), seconds, why));
    }
}

fn check_rules(rules: &[RuleWithOperations], at: &Path, errors: &mut FieldErrors) {
    const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    for (i, rule) in rules.iter().enumerate() {
        let at = at.index(i);
        for (field, list) in [
            ("operations", &rule.operations),
            ("apiGroups", &rule.api_groups),
            ("apiVersions", &rule.api_versions),
            ("resources", &rule.resources),
        ] {
            let list = list.as_deref().unwrap_or_default();
            if list.is_empty() {
                errors.push(FieldError::required(&at.child(field), ""));
            }
            if field != "resources" && list.len() > 1 && list.iter().any(|item| item == "*") {
                let why = "if '*' is present, must not specify other values";
                errors.push(FieldError::invalid(&at.child(field), list, why));
            }
        }
        for (j, operation) in rule.operations.iter().flatten().enumerate() {
            if !OPERATIONS.contains(&operation.as_str()) {
                errors.push(FieldError::not_supported(
                    &at.child("operations").index(j),
                    operation,
                    &OPERATIONS,
                ));
            }
        }
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
        if condition.name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else {
            for message in names::is_qualified_name(&condition.name) {
                errors.push(FieldError::invalid(&at.child("name"), &condition.name, message));
            }
        }
        expression(&condition.expression, &Type::Bool, env, &at.child("expression"), errors);
    }
}

/// Checks one expression.
pub(super) fn expression(source: &str, wanted: &Type, env: &Env, at: &Path, errors: &mut FieldErrors) {
    if source.trim().is_empty() {
        return errors.push(FieldError::required(at, ""));
    }
    match Program::compile(source, env) {
        Ok(program) if program.kind().fits(wanted) => {}
        Ok(_) => errors.push(FieldError::invalid(at, source, format!("must evaluate to {wanted}"))),
        Err(error) => errors.push(FieldError::invalid(at, source, format!("compilation failed: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configurations_are_defaulted_and_checked() {
        let mut configuration: ValidatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "webhooks": [{"name": "a.b.c", "clientConfig": {"service": {"name": "s", "namespace": "n"}},
                "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]
        }))
        .unwrap();
        Strategy::default(&Validating, &mut configuration);
        let told = |configuration: &ValidatingWebhookConfiguration| {
            let mut errors = FieldErrors::new();
            Validating.validate(configuration, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(told(&configuration).is_empty());
        let webhook = &mut configuration.webhooks.as_mut().unwrap()[0];
        assert_eq!((webhook.timeout_seconds, webhook.failure_policy.as_deref()), (Some(10), Some("Fail")));
        assert_eq!(webhook.client_config.service.as_ref().unwrap().port, Some(443));
        webhook.name = "short".into();
        webhook.match_conditions =
            Some(vec![MatchCondition { name: "c".into(), expression: "object.x ==".into() }]);
        let found = told(&configuration);
        assert!(found[0].contains("should be a domain with at least three segments"), "{found:?}");
        assert!(found[1].contains("compilation failed: ERROR: <input>:1:12: Syntax error:"), "{found:?}");
    }
}
