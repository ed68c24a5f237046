//! Webhook configurations: defaults and checks.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::checks::{self, FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES};
use crate::api::field::{FieldErrors, Path};
use crate::registry::admission::condition_environment;
use crate::registry::strategy::Strategy;
use crate::registry::validation::{known, selector};

const TIMEOUT: i32 = 10;

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
        checks::qualified_name(&$webhook.name, &$at.child("name"), $errors);
        for (i, rule) in $webhook.rules.iter().flatten().enumerate() {
            checks::rule(&rule.into(), &$at.child("rules").index(i), $errors);
        }
        known($webhook.failure_policy.as_deref(), &FAILURE_POLICIES, &$at.child("failurePolicy"), $errors);
        known($webhook.match_policy.as_deref(), &MATCH_POLICIES, &$at.child("matchPolicy"), $errors);
        checks::side_effects(&$webhook.side_effects, &$at.child("sideEffects"), $errors);
        checks::timeout($webhook.timeout_seconds, &$at.child("timeoutSeconds"), $errors);
        selector($webhook.namespace_selector.as_ref(), &$at.child("namespaceSelector"), $errors);
        selector($webhook.object_selector.as_ref(), &$at.child("objectSelector"), $errors);
        checks::client(&$webhook.client_config, &$at.child("clientConfig"), $errors);
        let given = $webhook.match_conditions.as_deref().unwrap_or_default();
        checks::conditions(given, &condition_environment(), &$at.child("matchConditions"), $errors);
        let versions = &$webhook.admission_review_versions;
        checks::review_versions(versions, &$at.child("admissionReviewVersions"), $errors);
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
        checks::duplicates(webhooks.iter().map(|webhook| webhook.name.as_str()), &at, errors);
        for (i, webhook) in webhooks.iter().enumerate() {
            let at = at.index(i);
            checks!(webhook, &at, errors);
            let policy = webhook.reinvocation_policy.as_deref();
            known(policy, &REINVOCATION_POLICIES, &at.child("reinvocationPolicy"), errors);
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
        checks::duplicates(webhooks.iter().map(|webhook| webhook.name.as_str()), &at, errors);
        for (i, webhook) in webhooks.iter().enumerate() {
            let at = at.index(i);
            checks!(webhook, &at, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::admissionregistration::v1::MatchCondition;
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
