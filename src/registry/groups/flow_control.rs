//! `flowcontrol.apiserver.k8s.io`: how requests are told apart, and how much of the server each kind gets.

use k8s_openapi::api::flowcontrol::v1::{
    ExemptPriorityLevelConfiguration, FlowSchema, FlowSchemaStatus, LimitResponse,
    LimitedPriorityLevelConfiguration, PolicyRulesWithSubjects, PriorityLevelConfiguration,
    PriorityLevelConfigurationStatus,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::context::RequestContext;
use crate::registry::resource::{Resource, STATUS};
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{each, required};

const SCHEMA_COLUMNS: &[Column] = &[
    NAME,
    column("PriorityLevel", "string", "The level that the requests belong to."),
    column("MatchingPrecedence", "integer", "The lowest number that matches counts."),
    column("DistinguisherMethod", "string", "How flows are told apart."),
    AGE,
    column("MissingPL", "string", "Whether the level does not exist."),
];
const LEVEL_COLUMNS: &[Column] = &[
    NAME,
    column("Type", "string", "Whether the level is limited."),
    column("NominalConcurrencyShares", "string", "Its share of the server."),
    column("Queues", "string", "How many queues it has."),
    column("HandSize", "string", "How many queues a flow may use."),
    column("QueueLengthLimit", "string", "How many requests wait in a queue."),
    AGE,
];

const HIGHEST_PRECEDENCE: i32 = 10_000;
const DEFAULT_PRECEDENCE: i32 = 1000;
const METHODS: [&str; 2] = ["ByNamespace", "ByUser"];
const SUBJECTS: [&str; 3] = ["Group", "ServiceAccount", "User"];
const RESPONSES: [&str; 2] = ["Queue", "Reject"];
const TYPES: [&str; 2] = ["Exempt", "Limited"];
const MOST_QUEUES: i32 = 10_000_000;
/// Shuffle sharding draws a hand from one number of this many bits.
const ENTROPY_BITS: f64 = 60.0;

struct FlowSchemaStrategy;
struct LevelStrategy;

/// The rows.
pub fn rows() -> Vec<Resource> {
    vec![
        Resource::of(FlowSchemaStrategy).columns(SCHEMA_COLUMNS).with(STATUS).generation(),
        Resource::of(LevelStrategy).columns(LEVEL_COLUMNS).with(STATUS).generation(),
    ]
}

impl Strategy for FlowSchemaStrategy {
    type Object = FlowSchema;

    fn default(&self, schema: &mut FlowSchema) {
        let spec = schema.spec.get_or_insert_default();
        if spec.matching_precedence.unwrap_or(0) == 0 {
            spec.matching_precedence = Some(DEFAULT_PRECEDENCE);
        }
    }

    fn prepare_for_create(&self, _: &RequestContext, schema: &mut FlowSchema) {
        schema.status = Some(FlowSchemaStatus::default());
    }

    fn validate(&self, schema: &FlowSchema, errors: &mut FieldErrors) {
        let Some(spec) = &schema.spec else { return };
        let at = Path::new("spec");
        let precedence = spec.matching_precedence.unwrap_or(0);
        let at_precedence = at.child("matchingPrecedence");
        if precedence <= 0 {
            errors.push(FieldError::invalid(&at_precedence, precedence, "must be a positive value"));
        }
        if precedence > HIGHEST_PRECEDENCE {
            let message = format!("must not be greater than {HIGHEST_PRECEDENCE}");
            errors.push(FieldError::invalid(&at_precedence, precedence, message));
        }
        if precedence == 1 && schema.metadata.name.as_deref() != Some("exempt") {
            let message = "only the schema named 'exempt' may have matchingPrecedence 1";
            errors.push(FieldError::invalid(&at_precedence, precedence, message));
        }
        if let Some(method) = spec.distinguisher_method.as_ref().map(|method| method.type_.as_str())
            && !METHODS.contains(&method)
        {
            let at = at.child("distinguisherMethod").child("type");
            errors.push(FieldError::not_supported(&at, method, &METHODS));
        }
        let level = &spec.priority_level_configuration.name;
        let at_level = at.child("priorityLevelConfiguration").child("name");
        if level.is_empty() {
            errors.push(FieldError::required(&at_level, "must reference a priority level"));
        } else {
            each(names::is_dns1123_subdomain(level), level, &at_level, errors);
        }
        for (i, one) in spec.rules.iter().flatten().enumerate() {
            rule(one, &at.child("rules").index(i), errors);
        }
    }

    fn cells(&self, schema: &FlowSchema, now: Timestamp) -> Vec<Value> {
        let spec = schema.spec.clone().unwrap_or_default();
        let conditions = schema.status.as_ref().and_then(|status| status.conditions.as_deref());
        let dangling = conditions.unwrap_or_default().iter().find(|c| c.type_.as_deref() == Some("Dangling"));
        vec![
            name_cell(&schema.metadata),
            spec.priority_level_configuration.name.into(),
            spec.matching_precedence.unwrap_or(0).into(),
            spec.distinguisher_method.map_or_else(|| "<none>".to_owned(), |method| method.type_).into(),
            age_cell(&schema.metadata, now),
            dangling.and_then(|c| c.status.clone()).unwrap_or_else(|| "?".into()).into(),
        ]
    }
}

fn rule(rule: &PolicyRulesWithSubjects, at: &Path, errors: &mut FieldErrors) {
    if rule.subjects.is_empty() {
        errors.push(FieldError::required(&at.child("subjects"), "subjects must contain at least one value"));
    }
    for (i, subject) in rule.subjects.iter().enumerate() {
        let at = at.child("subjects").index(i);
        let is_there = match subject.kind.as_str() {
            "ServiceAccount" => subject.service_account.is_some(),
            "User" => subject.user.is_some(),
            "Group" => subject.group.is_some(),
            other => {
                errors.push(FieldError::not_supported(&at.child("kind"), other, &SUBJECTS));
                continue;
            }
        };
        if !is_there {
            let (field, message) = match subject.kind.as_str() {
                "ServiceAccount" => {
                    ("serviceAccount", "serviceAccount is required when subject kind is 'ServiceAccount'")
                }
                "User" => ("user", "user is required when subject kind is 'User'"),
                _ => ("group", "group is required when subject kind is 'Group'"),
            };
            errors.push(FieldError::required(&at.child(field), message));
        }
    }
    let (resources, others) = (
        rule.resource_rules.as_deref().unwrap_or_default(),
        rule.non_resource_rules.as_deref().unwrap_or_default(),
    );
    if resources.is_empty() && others.is_empty() {
        let message = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(at, message));
    }
    for (i, rule) in resources.iter().enumerate() {
        let at = at.child("resourceRules").index(i);
        let lists = [("verbs", &rule.verbs), ("apiGroups", &rule.api_groups), ("resources", &rule.resources)];
        for (field, list) in lists {
            lonely_star(list, field, &at, errors);
        }
        let namespaces = rule.namespaces.as_deref().unwrap_or_default();
        if namespaces.is_empty() && rule.cluster_scope != Some(true) {
            let message = "resource rules that are not cluster scoped must supply at least one namespace";
            errors.push(FieldError::required(&at.child("namespaces"), message));
        }
    }
    for (i, rule) in others.iter().enumerate() {
        let at = at.child("nonResourceRules").index(i);
        lonely_star(&rule.verbs, "verbs", &at, errors);
        lonely_star(&rule.non_resource_urls, "nonResourceURLs", &at, errors);
    }
}

fn lonely_star(list: &[String], field: &'static str, at: &Path, errors: &mut FieldErrors) {
    let at = at.child(field);
    if list.is_empty() {
        errors.push(FieldError::required(&at, format!("{field} must contain at least one value")));
    } else if list.len() > 1 && list.iter().any(|item| item == "*") {
        let message = "if '*' is present, must not specify other ".to_owned() + field;
        errors.push(FieldError::invalid(&at, list, message));
    }
}

impl Strategy for LevelStrategy {
    type Object = PriorityLevelConfiguration;

    fn default(&self, level: &mut PriorityLevelConfiguration) {
        let spec = level.spec.get_or_insert_default();
        if spec.type_ == "Exempt" {
            let exempt = spec.exempt.get_or_insert_with(ExemptPriorityLevelConfiguration::default);
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        if let Some(limited) = spec.limited.as_mut() {
            default_limited(limited);
        }
    }

    fn prepare_for_create(&self, _: &RequestContext, level: &mut PriorityLevelConfiguration) {
        level.status = Some(PriorityLevelConfigurationStatus::default());
    }

    fn validate(&self, level: &PriorityLevelConfiguration, errors: &mut FieldErrors) {
        let Some(spec) = &level.spec else { return };
        let at = Path::new("spec");
        let name = level.metadata.name.as_deref().unwrap_or_default();
        match spec.type_.as_str() {
            "Exempt" => {
                if spec.limited.is_some() {
                    let message = "must be nil if the type is not Limited";
                    errors.push(FieldError::forbidden(&at.child("limited"), message));
                }
                if name != "exempt" {
                    let message = "type must be 'Limited' except for the level named 'exempt'";
                    errors.push(FieldError::invalid(&at.child("type"), &spec.type_, message));
                }
            }
            "Limited" => {
                if spec.exempt.is_some() {
                    let message = "must be nil if the type is Limited";
                    errors.push(FieldError::forbidden(&at.child("exempt"), message));
                }
                match &spec.limited {
                    None => {
                        let message = "must not be empty when type is Limited";
                        errors.push(FieldError::required(&at.child("limited"), message));
                    }
                    Some(limited) => validate_limited(limited, &at.child("limited"), errors),
                }
            }
            "" => required("", &at.child("type"), errors),
            other => errors.push(FieldError::not_supported(&at.child("type"), other, &TYPES)),
        }
    }

    fn cells(&self, level: &PriorityLevelConfiguration, now: Timestamp) -> Vec<Value> {
        let spec = level.spec.clone().unwrap_or_default();
        let none = || "<none>".to_owned();
        let show = |number: Option<i32>| number.map_or_else(none, |number| number.to_string());
        let shares = match (&spec.limited, &spec.exempt) {
            (Some(limited), _) => limited.nominal_concurrency_shares,
            (None, Some(exempt)) => exempt.nominal_concurrency_shares,
            (None, None) => None,
        };
        let queuing = spec.limited.and_then(|limited| limited.limit_response?.queuing);
        vec![
            name_cell(&level.metadata),
            spec.type_.into(),
            show(shares).into(),
            show(queuing.as_ref().and_then(|q| q.queues)).into(),
            show(queuing.as_ref().and_then(|q| q.hand_size)).into(),
            show(queuing.as_ref().and_then(|q| q.queue_length_limit)).into(),
            age_cell(&level.metadata, now),
        ]
    }
}

fn default_limited(limited: &mut LimitedPriorityLevelConfiguration) {
    limited.nominal_concurrency_shares.get_or_insert(30);
    limited.lendable_percent.get_or_insert(0);
    let response = limited.limit_response.get_or_insert_with(LimitResponse::default);
    if response.type_ == "Queue" {
        let queuing = response.queuing.get_or_insert_default();
        queuing.queues.get_or_insert(64);
        queuing.hand_size.get_or_insert(8);
        queuing.queue_length_limit.get_or_insert(50);
    }
}

fn validate_limited(limited: &LimitedPriorityLevelConfiguration, at: &Path, errors: &mut FieldErrors) {
    if let Some(shares) = limited.nominal_concurrency_shares.filter(|shares| *shares < 0) {
        let message = "must be a non-negative integer";
        errors.push(FieldError::invalid(&at.child("nominalConcurrencyShares"), shares, message));
    }
    if let Some(percent) = limited.lendable_percent.filter(|percent| !(0..=100).contains(percent)) {
        let message = "must be between 0 and 100, inclusive";
        errors.push(FieldError::invalid(&at.child("lendablePercent"), percent, message));
    }
    if let Some(percent) = limited.borrowing_limit_percent.filter(|percent| *percent < 0) {
        let message = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid(&at.child("borrowingLimitPercent"), percent, message));
    }
    let response = limited.limit_response.clone().unwrap_or_default();
    let at = at.child("limitResponse");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", Some(_)) => {
            errors.push(FieldError::forbidden(
                &at.child("queuing"),
                "must be nil if limited.limitResponse.type is not Limited",
            ));
        }
        ("Reject", None) => {}
        ("Queue", None) => {
            let message = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(&at.child("queuing"), message));
        }
        ("Queue", Some(queuing)) => {
            let at = at.child("queuing");
            let (queues, hand) = (queuing.queues.unwrap_or(0), queuing.hand_size.unwrap_or(0));
            let length = queuing.queue_length_limit.unwrap_or(0);
            for (field, value) in [("queueLengthLimit", length), ("queues", queues), ("handSize", hand)] {
                if value <= 0 {
                    errors.push(FieldError::invalid(&at.child(field), value, "must be positive"));
                }
            }
            if queues > MOST_QUEUES {
                let message = format!("must not be greater than {MOST_QUEUES}");
                errors.push(FieldError::invalid(&at.child("queues"), queues, message));
            }
            if hand > queues {
                let message = format!("should not be greater than queues ({queues})");
                errors.push(FieldError::invalid(&at.child("handSize"), hand, message));
            } else if f64::from(hand) * f64::from(queues.max(1)).log2() > ENTROPY_BITS {
                let message = format!(
                    "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than 60"
                );
                errors.push(FieldError::invalid(&at.child("handSize"), hand, message));
            }
        }
        ("", _) => errors.push(FieldError::required(&at.child("type"), "")),
        (other, _) => errors.push(FieldError::not_supported(&at.child("type"), other, &RESPONSES)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn levels_are_defaulted_and_checked() {
        let mut level: PriorityLevelConfiguration = serde_json::from_value(json!({"metadata": {"name": "l"},
            "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue"}}}}))
        .unwrap();
        LevelStrategy.default(&mut level);
        let mut errors = FieldErrors::new();
        LevelStrategy.validate(&level, &mut errors);
        assert!(errors.is_empty(), "{errors}");
        let cells = LevelStrategy.cells(&level, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1..6], [json!("Limited"), json!("30"), json!("64"), json!("8"), json!("50")]);
        level.spec.as_mut().unwrap().limited.as_mut().unwrap().limit_response.as_mut().unwrap().queuing =
            Some(serde_json::from_value(json!({"queues": 4, "handSize": 8, "queueLengthLimit": 0})).unwrap());
        LevelStrategy.validate(&level, &mut errors);
        let found: Vec<_> = errors.iter().map(|error| error.field.rsplit('.').next().unwrap()).collect();
        assert_eq!(found, ["queueLengthLimit", "handSize"]);
    }

    #[test]
    fn schemas_name_a_level_and_whom_they_are_about() {
        let mut schema: FlowSchema = serde_json::from_value(json!({"metadata": {"name": "s"},
            "spec": {"priorityLevelConfiguration": {"name": ""}, "rules": [{"subjects": []}]}}))
        .unwrap();
        FlowSchemaStrategy.default(&mut schema);
        let mut errors = FieldErrors::new();
        FlowSchemaStrategy.validate(&schema, &mut errors);
        let found: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            found,
            ["spec.priorityLevelConfiguration.name", "spec.rules[0].subjects", "spec.rules[0]"]
        );
    }
}
