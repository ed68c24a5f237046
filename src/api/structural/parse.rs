//! From `openAPIV3Schema` to the model.

use serde_json::Value;

use super::{Additional, Limits, Rule, Structural, Type};
use crate::api::schema::ListType;

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn list(value: &Value, key: &str) -> Vec<Structural> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().map(schema).collect()
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    let items = value.get(key).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

pub(super) fn schema(value: &Value) -> Structural {
    let properties = value.get("properties").and_then(Value::as_object).into_iter().flatten();
    Structural {
        kind: value.get("type").and_then(Value::as_str).and_then(Type::parse),
        nullable: flag(value, "nullable"),
        int_or_string: flag(value, "x-kubernetes-int-or-string"),
        preserve_unknown: flag(value, "x-kubernetes-preserve-unknown-fields"),
        embedded: flag(value, "x-kubernetes-embedded-resource"),
        properties: properties.map(|(name, below)| (name.clone(), schema(below))).collect(),
        additional: match value.get("additionalProperties") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(allowed)) => Some(Additional::Allowed(*allowed)),
            Some(below) => Some(Additional::Schema(Box::new(schema(below)))),
        },
        items: value.get("items").filter(|items| items.is_object()).map(|items| Box::new(schema(items))),
        default: value.get("default").cloned(),
        list_type: match value.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => Some(ListType::Set),
            Some("map") => Some(ListType::Map),
            Some("atomic") => Some(ListType::Atomic),
            _ => None,
        },
        list_keys: texts(value, "x-kubernetes-list-map-keys"),
        atomic_map: text(value, "x-kubernetes-map-type") == "atomic",
        rules: rules(value),
        limits: limits(value),
        all_of: list(value, "allOf"),
        any_of: list(value, "anyOf"),
        one_of: list(value, "oneOf"),
        not: value.get("not").filter(|not| not.is_object()).map(|not| Box::new(schema(not))),
    }
}

fn rules(value: &Value) -> Vec<Rule> {
    let rules = value.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
    rules
        .map(|rule| Rule {
            rule: text(rule, "rule"),
            message: text(rule, "message"),
            message_expression: text(rule, "messageExpression"),
            reason: text(rule, "reason"),
            field_path: text(rule, "fieldPath"),
            optional_old_self: rule.get("optionalOldSelf").and_then(Value::as_bool),
        })
        .collect()
}

fn limits(value: &Value) -> Limits {
    let int = |key: &str| value.get(key).and_then(|n| n.as_i64().or_else(|| whole(n.as_f64()?)));
    let float = |key: &str| value.get(key).and_then(Value::as_f64);
    let pattern = text(value, "pattern");
    Limits {
        one_of_values: value.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        pattern: (!pattern.is_empty()).then(|| {
            let compiled = regex::Regex::new(&pattern).ok();
            (pattern, compiled)
        }),
        format: text(value, "format"),
        min_length: int("minLength"),
        max_length: int("maxLength"),
        min_items: int("minItems"),
        max_items: int("maxItems"),
        min_properties: int("minProperties"),
        max_properties: int("maxProperties"),
        minimum: float("minimum").map(|least| (least, flag(value, "exclusiveMinimum"))),
        maximum: float("maximum").map(|most| (most, flag(value, "exclusiveMaximum"))),
        multiple_of: float("multipleOf"),
        required: texts(value, "required"),
        unique_items: flag(value, "uniqueItems"),
    }
}

fn whole(number: f64) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation, reason = "checked to be a whole number of small size")]
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}
