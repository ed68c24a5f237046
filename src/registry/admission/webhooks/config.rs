//! Webhook configurations, read once.

use std::time::Duration;

use serde_json::Value;

use super::conditions::Conditions;
use crate::api::json;
use crate::api::selector::LabelSelector;
use crate::registry::hooks::WebhookTarget;

/// How long a webhook may take unless it says otherwise.
const TIMEOUT: u64 = 10;

/// What a rule of a webhook, or of a policy, is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Operations, or `*`.
    pub operations: Vec<String>,
    /// API groups, or `*`.
    pub groups: Vec<String>,
    /// Versions, or `*`.
    pub versions: Vec<String>,
    /// Resources: `pods`, `pods/status`, `pods/*`, `*/scale`, `*`, `*/*`.
    pub resources: Vec<String>,
    /// `Cluster`, `Namespaced` or `*`.
    pub scope: String,
    /// Names; empty is every one.
    pub names: Vec<String>,
}

impl Rule {
    /// Reads one rule.
    pub fn of(rule: &Value) -> Self {
        let texts = |key: &str| {
            let items = rule.get(key).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            scope: rule.get("scope").and_then(Value::as_str).unwrap_or("*").to_owned(),
            names: texts("resourceNames"),
        }
    }

    /// Reads a list of rules.
    pub fn list(value: Option<&Value>) -> Vec<Self> {
        value.and_then(Value::as_array).into_iter().flatten().map(Self::of).collect()
    }

    /// Whether the rule is about a request on a resource in one version.
    pub fn covers(
        &self,
        operation: &str,
        (group, version, plural): (&str, &str, &str),
        subresource: &str,
        namespaced: bool,
        name: &str,
    ) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|own| own == "*" || own == wanted);
        let resource = |own: &String| match own.split_once('/') {
            None => subresource.is_empty() && (own == "*" || own == plural),
            Some((left, right)) => {
                let both = own == "*/*" || (right == "*" && left == plural);
                both || ((left == "*" || left == plural) && right == subresource && !subresource.is_empty())
            }
        };
        let scope = match self.scope.as_str() {
            "Cluster" => !namespaced,
            "Namespaced" => namespaced,
            _ => true,
        };
        any(&self.operations, operation)
            && any(&self.groups, group)
            && any(&self.versions, version)
            && self.resources.iter().any(resource)
            && scope
            && (self.names.is_empty() || self.names.iter().any(|own| own == name))
    }
}

/// One webhook of a configuration.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its name.
    pub name: String,
    /// The name of its configuration.
    pub configuration: String,
    /// Where it is.
    pub target: WebhookTarget,
    /// What it wants to be asked about.
    pub rules: Vec<Rule>,
    /// In which namespaces.
    pub namespaces: LabelSelector,
    /// About which objects.
    pub objects: LabelSelector,
    /// Whether it is asked when a rule names another version of the resource.
    pub equivalent: bool,
    /// Whether a failed call fails the request.
    pub must_answer: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether it may be asked in dry runs.
    pub dry_run: bool,
    /// Whether it is asked again when others change the object after it.
    pub reinvoke: bool,
    /// The versions of `AdmissionReview` that it speaks.
    pub reviews: Vec<String>,
    /// Further conditions.
    pub conditions: Conditions,
}

/// Reads the webhooks of configurations, in the order of their names.
pub fn read<'a>(configurations: impl Iterator<Item = &'a [u8]>) -> Vec<Webhook> {
    let mut parsed: Vec<Value> =
        configurations.filter_map(|json| serde_json::from_slice(json).ok()).collect();
    parsed.sort_by_key(|value| crate::api::meta::name(value).to_owned());
    let mut webhooks = Vec::new();
    for configuration in &parsed {
        let name = crate::api::meta::name(configuration);
        let list = configuration.get("webhooks").and_then(Value::as_array).into_iter().flatten();
        webhooks.extend(list.map(|webhook| one(name, webhook)));
    }
    webhooks
}

/// A label selector; one that cannot be read selects nothing that is known.
pub fn selector(value: Option<&Value>) -> LabelSelector {
    let parsed = value.and_then(|value| json::typed_value(value).ok());
    LabelSelector::from_meta(parsed.as_ref().or(Some(&Default::default()))).unwrap_or_default()
}

fn one(configuration: &str, webhook: &Value) -> Webhook {
    let text = |key: &str| webhook.get(key).and_then(Value::as_str).unwrap_or_default();
    let reviews = webhook.get("admissionReviewVersions").and_then(Value::as_array).into_iter().flatten();
    Webhook {
        name: text("name").to_owned(),
        configuration: configuration.to_owned(),
        target: WebhookTarget::of(webhook.get("clientConfig").unwrap_or(&Value::Null)),
        rules: Rule::list(webhook.get("rules")),
        namespaces: selector(webhook.get("namespaceSelector")),
        objects: selector(webhook.get("objectSelector")),
        equivalent: text("matchPolicy") != "Exact",
        must_answer: text("failurePolicy") != "Ignore",
        timeout: Duration::from_secs(
            webhook.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(TIMEOUT),
        ),
        dry_run: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
        reinvoke: text("reinvocationPolicy") == "IfNeeded",
        reviews: reviews.filter_map(Value::as_str).map(str::to_owned).collect(),
        conditions: Conditions::of(webhook.get("matchConditions")),
    }
}
