//! Whether a schema is structural and says nothing that is not supported, in the words of upstream.

use serde_json::Value;

use super::{Checked, Structural, validate};
use crate::api::field::{FieldError, FieldErrors, Path};

/// Where a schema is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Checks `openAPIV3Schema`, found at `at`: what is supported, and the rules of structural schemas.
pub fn schema(schema: &Value, at: &Path, errors: &mut FieldErrors) {
    supported(schema, at, true, errors);
    let mut structural = Vec::new();
    invariants(schema, Level::Root, at, &mut structural);
    complete(schema, &mut structural, at);
    structural.sort_by_key(ToString::to_string);
    structural.dedup();
    let sound = structural.is_empty() && errors.is_empty();
    errors.extend(structural);
    if sound {
        defaults(&Structural::parse(schema), at, errors);
    }
}

/// Whether the schema is structural: what the condition `NonStructuralSchema` tells.
pub fn violations(schema: &Value, at: &Path) -> Vec<FieldError> {
    let mut found = Vec::new();
    invariants(schema, Level::Root, at, &mut found);
    complete(schema, &mut found, at);
    found.sort_by_key(ToString::to_string);
    found
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn map<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(key).and_then(Value::as_object).into_iter().flatten()
}

fn list<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    schema.get(key).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn present(schema: &Value, key: &str) -> bool {
    match schema.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

const UNSUPPORTED: [&str; 6] =
    ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];
const NESTED: [&str; 4] = ["allOf", "anyOf", "oneOf", "not"];

/// Keywords that are not supported, lists' extensions, and values of the extensions.
fn supported(schema: &Value, at: &Path, root: bool, errors: &mut FieldErrors) {
    for key in UNSUPPORTED {
        if present(schema, key) {
            errors.push(FieldError::forbidden(&at.child(key), format!("{key} is not supported")));
        }
    }
    if flag(schema, "uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(&at.child("uniqueItems"), why));
    }
    match text(schema, "type") {
        "" | "object" | "array" | "string" | "integer" | "number" | "boolean" => {}
        "null" => errors.push(FieldError::forbidden(
            &at.child("type"),
            "type cannot be set to null, use nullable as an alternative",
        )),
        other => errors.push(FieldError::not_supported(
            &at.child("type"),
            other,
            &["array", "boolean", "integer", "number", "object", "string"],
        )),
    }
    let items = schema.get("items");
    if items.is_some_and(Value::is_array) {
        let why = "items must be a schema object and not an array";
        errors.push(FieldError::forbidden(&at.child("items"), why));
    }
    let additional = schema.get("additionalProperties").filter(|value| !value.is_null());
    if let Some(additional) = additional {
        if present(schema, "properties") && additional != &Value::Bool(true) {
            let why = "additionalProperties and properties are mutual exclusive";
            errors.push(FieldError::forbidden(&at.child("additionalProperties"), why));
        }
        if additional == &Value::Bool(false) {
            let why = "additionalProperties cannot be set to false";
            errors.push(FieldError::forbidden(&at.child("additionalProperties"), why));
        }
    }
    extensions(schema, at, errors);
    for (name, below) in map(schema, "properties") {
        supported(below, &at.child("properties").key(name.clone()), false, errors);
    }
    if let Some(below) = additional.filter(|value| value.is_object()) {
        supported(below, &at.child("additionalProperties"), false, errors);
    }
    if let Some(below) = items.filter(|items| items.is_object()) {
        supported(below, &at.child("items"), false, errors);
        let list_type = text(schema, "x-kubernetes-list-type");
        item_nullable(list_type, below, at, errors);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, below) in list(schema, key) {
            supported(below, &at.child(key).index(i), false, errors);
        }
    }
    if let Some(below) = schema.get("not") {
        supported(below, &at.child("not"), false, errors);
    }
    if root && flag(schema, "nullable") {
        errors.push(FieldError::forbidden(&at.child("nullable"), "nullable cannot be true at the root"));
    }
}

fn item_nullable(list_type: &str, items: &Value, at: &Path, errors: &mut FieldErrors) {
    let nullable = flag(items, "nullable");
    let at = at.child("items").child("nullable");
    match list_type {
        "set" if nullable => {
            errors.push(FieldError::forbidden(&at, "cannot be nullable when x-kubernetes-list-type is set"));
        }
        "map" if nullable => {
            errors.push(FieldError::forbidden(&at, "cannot be nullable when x-kubernetes-list-type is map"));
        }
        _ => {}
    }
}

fn extensions(schema: &Value, at: &Path, errors: &mut FieldErrors) {
    let kind = text(schema, "type");
    let preserve = "x-kubernetes-preserve-unknown-fields";
    if schema.get(preserve) == Some(&Value::Bool(false)) {
        errors.push(FieldError::invalid(&at.child(preserve), false, "must be true or undefined"));
    }
    let map_type = text(schema, "x-kubernetes-map-type");
    if !map_type.is_empty() {
        let at = at.child("x-kubernetes-map-type");
        if kind != "object" {
            let parent = at_type(&at, schema);
            errors.push(parent("must be object if x-kubernetes-map-type is specified"));
        }
        if !matches!(map_type, "atomic" | "granular") {
            errors.push(FieldError::not_supported(&at, map_type, &["atomic", "granular"]));
        }
    }
    list_extensions(schema, kind, at, errors);
    for (i, rule) in list(schema, "x-kubernetes-validations") {
        rule_shape(rule, &at.child("x-kubernetes-validations").index(i), errors);
    }
}

fn at_type<'a>(at: &'a Path, schema: &'a Value) -> impl Fn(&str) -> FieldError + 'a {
    move |why| FieldError::invalid(at, text(schema, "type"), why)
}

fn list_extensions(schema: &Value, kind: &str, at: &Path, errors: &mut FieldErrors) {
    let list_type = text(schema, "x-kubernetes-list-type");
    let keys: Vec<&str> =
        list(schema, "x-kubernetes-list-map-keys").filter_map(|(_, key)| key.as_str()).collect();
    let keys_at = at.child("x-kubernetes-list-map-keys");
    if !list_type.is_empty() && kind != "array" {
        let why = "must be array if x-kubernetes-list-type is specified";
        if kind.is_empty() {
            errors.push(FieldError::required(&at.child("type"), why));
        } else {
            errors.push(FieldError::invalid(&at.child("type"), kind, why));
        }
    }
    if !matches!(list_type, "" | "atomic" | "set" | "map") {
        let at = at.child("x-kubernetes-list-type");
        errors.push(FieldError::not_supported(&at, list_type, &["atomic", "map", "set"]));
    }
    if !keys.is_empty() && list_type != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        let at = at.child("x-kubernetes-list-type");
        if list_type.is_empty() {
            errors.push(FieldError::required(&at, why));
        } else {
            errors.push(FieldError::invalid(&at, list_type, why));
        }
    }
    if list_type != "map" {
        return;
    }
    if keys.is_empty() {
        errors.push(FieldError::required(&keys_at, "must not be empty if x-kubernetes-list-type is map"));
    }
    let Some(items) = schema.get("items").filter(|items| items.is_object()) else {
        let why = "must have a schema if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&at.child("items"), why));
        return;
    };
    if text(items, "type") != "object" {
        let at = at.child("items").child("type");
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(&at, text(items, "type"), why));
    }
    let required: Vec<&str> = list(items, "required").filter_map(|(_, name)| name.as_str()).collect();
    for (i, key) in keys.iter().enumerate() {
        if keys[..i].contains(key) {
            errors.push(FieldError::duplicate(&keys_at.index(i), key));
        }
        match items.get("properties").and_then(|properties| properties.get(*key)) {
            None => {
                let why = "entries must all be names of item properties";
                errors.push(FieldError::invalid(&keys_at.index(i), key, why));
            }
            Some(property) => {
                if matches!(text(property, "type"), "array" | "object") {
                    let at = at.child("items").child("properties").key((*key).to_owned()).child("type");
                    let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    errors.push(FieldError::invalid(&at, text(property, "type"), why));
                }
                if !required.contains(key) && property.get("default").is_none() {
                    let at = at.child("items").child("properties").key((*key).to_owned()).child("default");
                    let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                    errors.push(FieldError::required(&at, why));
                }
            }
        }
    }
}

fn rule_shape(rule: &Value, at: &Path, errors: &mut FieldErrors) {
    if text(rule, "rule").trim().is_empty() {
        errors.push(FieldError::required(&at.child("rule"), "rule is not specified"));
    }
    let message = text(rule, "message");
    if rule.get("message").is_some() && !message.is_empty() && message.trim().is_empty() {
        let why = "message must be non-empty if specified";
        errors.push(FieldError::invalid(&at.child("message"), message, why));
    } else if message.contains('\n') {
        let why = "message must not contain line breaks";
        errors.push(FieldError::invalid(&at.child("message"), message, why));
    } else if message.is_empty()
        && text(rule, "rule").contains('\n')
        && text(rule, "messageExpression").is_empty()
    {
        let why = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(&at.child("message"), why));
    }
    const REASONS: [&str; 4] =
        ["FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired", "FieldValueDuplicate"];
    let reason = text(rule, "reason");
    if !reason.is_empty() && !REASONS.contains(&reason) {
        errors.push(FieldError::not_supported(&at.child("reason"), reason, &REASONS));
    }
}

fn is_int_or_string(list: Option<&Value>) -> bool {
    list == Some(&serde_json::json!([{"type": "integer"}, {"type": "string"}]))
}

fn invariants(schema: &Value, level: Level, at: &Path, errors: &mut Vec<FieldError>) {
    let kind = text(schema, "type");
    let (embedded, int_or_string, preserve) = (
        flag(schema, "x-kubernetes-embedded-resource"),
        flag(schema, "x-kubernetes-int-or-string"),
        flag(schema, "x-kubernetes-preserve-unknown-fields"),
    );
    match schema.get("items").filter(|items| items.is_object()) {
        None if kind == "array" => {
            errors.push(FieldError::required(&at.child("items"), "must be specified"));
        }
        Some(items) => invariants(items, Level::Item, &at.child("items"), errors),
        None => {}
    }
    for (name, below) in map(schema, "properties") {
        invariants(below, Level::Field, &at.child("properties").key(name.clone()), errors);
    }
    let additional = schema.get("additionalProperties").filter(|value| !value.is_null());
    if let Some(additional) = additional {
        let at = at.child("additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(&at, "must not be used at the root"));
        }
        if embedded {
            let why = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(FieldError::forbidden(&at, why));
        }
        if additional.is_object() {
            invariants(additional, Level::Field, &at, errors);
        }
    }
    for (other, name) in
        [(preserve, "x-kubernetes-preserve-unknown-fields"), (embedded, "x-kubernetes-embedded-resource")]
    {
        if int_or_string && other {
            let why = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(&at.child(name), true, why));
        }
    }
    let skip_any = is_int_or_string(schema.get("anyOf"));
    let skip_first = is_int_or_string(schema.pointer("/allOf/0/anyOf"));
    restrictions(schema, skip_any, skip_first, at, errors);
    types(schema, level, (embedded, int_or_string, preserve), at, errors);
    metadata(schema, level, embedded, at, errors);
    if embedded && !preserve && !present(schema, "properties") {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(&at.child("properties"), why));
    }
}

fn types(
    schema: &Value,
    level: Level,
    (embedded, int_or_string, preserve): (bool, bool, bool),
    at: &Path,
    errors: &mut Vec<FieldError>,
) {
    let (kind, at) = (text(schema, "type"), at.child("type"));
    if embedded && kind != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() {
            FieldError::required(&at, why)
        } else {
            FieldError::invalid(&at, kind, why)
        });
    } else if kind.is_empty() && !int_or_string && !preserve {
        errors.push(FieldError::required(
            &at,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        ));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(&at, kind, "must be object at the root"));
    }
}

fn metadata(schema: &Value, level: Level, embedded: bool, at: &Path, errors: &mut Vec<FieldError>) {
    let properties = at.child("properties");
    let get = |name: &str| schema.get("properties").and_then(|p| p.get(name));
    let checked = level == Level::Root || embedded;
    for name in ["kind", "apiVersion"] {
        if let Some(below) = get(name).filter(|below| checked && text(below, "type") != "string") {
            let at = properties.key(name).child("type");
            errors.push(FieldError::invalid(&at, text(below, "type"), "must be string"));
        }
    }
    let Some(metadata) = get("metadata") else { return };
    let at = properties.key("metadata");
    if checked && text(metadata, "type") != "object" {
        errors.push(FieldError::invalid(&at.child("type"), text(metadata, "type"), "must be object"));
    }
    if level == Level::Root {
        let known = |key: &str| matches!(key, "type" | "default" | "description" | "properties");
        let named =
            map(metadata, "properties").all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
        let plain = metadata.as_object().is_some_and(|map| map.keys().all(|key| known(key)));
        if !(named && plain) {
            let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(FieldError::forbidden(&at, why));
        }
    }
}

/// `allOf`, `anyOf`, `oneOf`, `not` and `pattern`.
fn restrictions(schema: &Value, skip_any: bool, skip_first: bool, at: &Path, errors: &mut Vec<FieldError>) {
    for key in ["anyOf", "allOf", "oneOf"] {
        if key == "anyOf" && skip_any {
            continue;
        }
        for (i, below) in list(schema, key) {
            nested(below, key == "allOf" && skip_first && i == 0, &at.child(key).index(i), errors);
        }
    }
    if let Some(below) = schema.get("not").filter(|not| not.is_object()) {
        nested(below, false, &at.child("not"), errors);
    }
    let pattern = text(schema, "pattern");
    if !pattern.is_empty()
        && let Err(error) = regex::Regex::new(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(FieldError::invalid(&at.child("pattern"), pattern, why));
    }
}

/// What may stand in a nested schema: restrictions, and nothing that gives a value its shape.
fn nested(schema: &Value, skip_any: bool, at: &Path, errors: &mut Vec<FieldError>) {
    restrictions(schema, skip_any, false, at, errors);
    if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
        nested(items, false, &at.child("items"), errors);
    }
    for (name, below) in map(schema, "properties") {
        nested(below, false, &at.child("properties").key(name.clone()), errors);
    }
    const FORBIDDEN: [(&str, &str); 13] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("externalDocs", "must be undefined to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
    ];
    for (key, why) in FORBIDDEN {
        if present(schema, key) && schema.get(key) != Some(&Value::Bool(false)) {
            errors.push(FieldError::forbidden(&at.child(key), why));
        }
    }
    if present(schema, "x-kubernetes-validations") {
        let why = "must be empty to be structural";
        errors.push(FieldError::forbidden(&at.child("x-kubernetes-validations"), why));
    }
    if schema.get("properties").and_then(|properties| properties.get("metadata")).is_some() {
        let why = "must not be specified in a nested context";
        errors.push(FieldError::forbidden(&at.child("properties").key("metadata"), why));
    }
}

/// Every field that is restricted in a nested schema must be specified outside of it.
fn complete(schema: &Value, errors: &mut Vec<FieldError>, at: &Path) {
    for key in NESTED {
        let nested: Vec<&Value> = match schema.get(key) {
            Some(Value::Array(list)) => list.iter().collect(),
            Some(not @ Value::Object(_)) => vec![not],
            _ => Vec::new(),
        };
        for below in nested {
            specified(below, Some(schema), at, errors);
        }
    }
    for (name, below) in map(schema, "properties") {
        complete(below, errors, &at.child("properties").key(name.clone()));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = schema.get(key).filter(|below| below.is_object()) {
            complete(below, errors, &at.child(key));
        }
    }
}

fn specified(nested: &Value, outside: Option<&Value>, at: &Path, errors: &mut Vec<FieldError>) {
    let Some(outside) = outside else {
        errors.push(FieldError::required(at, "because it is defined in a nested schema"));
        return;
    };
    for (name, below) in map(nested, "properties") {
        let at = at.child("properties").key(name.clone());
        let found = outside.get("properties").and_then(|properties| properties.get(name));
        specified(below, found, &at, errors);
    }
    if let Some(items) = nested.get("items").filter(|items| items.is_object()) {
        specified(items, outside.get("items"), &at.child("items"), errors);
    }
    for key in NESTED {
        for (_, below) in list(nested, key) {
            specified(below, Some(outside), at, errors);
        }
    }
}

/// Defaults must be valid, and must not be pruned.
fn defaults(schema: &Structural, at: &Path, errors: &mut FieldErrors) {
    if let Some(default) = &schema.default {
        let at = at.child("default");
        let mut pruned = serde_json::json!({ "default": default });
        let holder = Structural {
            properties: [("default".to_owned(), schema.clone())].into(),
            ..Structural::default()
        };
        let removed = holder.prune(&mut pruned);
        if !removed.is_empty() {
            errors.push(FieldError::invalid(&at, default, "must not have unknown fields"));
        }
        let mut found = FieldErrors::new();
        validate(Checked { schema, value: default, old: None }, &at.to_string(), &mut found);
        errors.extend(found);
    }
    for (name, below) in &schema.properties {
        defaults(below, &at.child("properties").key(name.clone()), errors);
    }
    if let Some(super::Additional::Schema(below)) = &schema.additional {
        defaults(below, &at.child("additionalProperties"), errors);
    }
    if let Some(items) = schema.items.as_deref() {
        defaults(items, &at.child("items"), errors);
    }
}
