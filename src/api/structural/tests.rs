//! Tables of schemas, of values, and of what is said about them.

use serde_json::{Value, json};

use super::*;
use crate::api::field::{FieldErrors, Path};

fn problems(schema: Value, value: Value) -> Vec<String> {
    let mut errors = FieldErrors::new();
    let schema = Structural::parse(&schema);
    validate(Checked { schema: &schema, value: &value, old: None }, "", &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}})
}

#[test]
fn values_are_checked_in_upstreams_words() {
    let cases = [
        (json!({"type": "integer"}), json!("x"), "must be of type integer: \"string\"", "\"string\""),
        (json!({"type": "string"}), json!(null), "must be of type string: \"null\"", "\"null\""),
        (json!({"type": "string", "pattern": "^a$"}), json!("b"), "should match '^a$'", "\"b\""),
        (json!({"type": "integer", "maximum": 10}), json!(11), "should be less than or equal to 10", "11"),
        (
            json!({"type": "integer", "minimum": 1_000_000, "exclusiveMinimum": true}),
            json!(1),
            "should be greater than 1e+06",
            "1",
        ),
        (json!({"type": "number", "multipleOf": 2}), json!(3), "should be a multiple of 2", "3"),
        (json!({"type": "string", "minLength": 2}), json!("a"), "should be at least 2 chars long", "\"a\""),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("soon"),
            "must be of type date-time: \"soon\"",
            "\"soon\"",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!([]),
            "should have at least 1 items",
            "0",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "must be of type integer,string: \"boolean\"",
            "\"boolean\"",
        ),
    ];
    for (schema, value, message, shown) in cases {
        let expected = format!("spec.x: Invalid value: {shown}: spec.x in body {message}");
        assert_eq!(problems(object(json!({"x": schema})), json!({"spec": {"x": value}})), [expected]);
    }
    assert_eq!(
        problems(object(json!({"x": {"type": "string", "enum": ["a", "b"]}})), json!({"spec": {"x": "c"}})),
        ["spec.x: Unsupported value: \"c\": supported values: \"a\", \"b\""]
    );
    assert_eq!(
        problems(json!({"type": "object", "required": ["spec"]}), json!({})),
        ["spec: Required value"]
    );
    assert_eq!(
        problems(
            object(json!({"x": {"type": "array", "maxItems": 1, "items": {"type": "integer"}}})),
            json!({"spec": {"x": [1, "b"]}})
        ),
        [
            "spec.x: Too many: 2: must have at most 1 item",
            "spec.x[1]: Invalid value: \"string\": spec.x[1] in body must be of type integer: \"string\""
        ]
    );
}

#[test]
fn combinations_are_told() {
    let any = object(json!({"x": {"type": "string", "anyOf": [{"pattern": "^a"}, {"pattern": "^b"}]}}));
    assert_eq!(
        problems(any, json!({"spec": {"x": "c"}}))[0],
        "spec.x: Invalid value: \"\": \"spec.x\" must validate at least one schema (anyOf)"
    );
    let one = object(json!({"x": {"type": "string", "oneOf": [{"pattern": "^a"}, {"pattern": "b$"}]}}));
    assert!(
        problems(one.clone(), json!({"spec": {"x": "ab"}}))[0]
            .contains("(oneOf). Found 2 valid alternatives")
    );
    assert!(problems(one, json!({"spec": {"x": "a"}})).is_empty());
    let not = object(json!({"x": {"type": "string", "not": {"pattern": "^a"}}}));
    assert!(problems(not, json!({"spec": {"x": "ab"}}))[0].ends_with("must not validate the schema (not)"));
}

#[test]
fn unchanged_values_are_ratcheted() {
    let schema =
        Structural::parse(&object(json!({"x": {"type": "integer", "maximum": 1}, "y": {"type": "integer"}})));
    let (old, new) = (json!({"spec": {"x": 5}}), json!({"spec": {"x": 5, "y": 1}}));
    let mut errors = FieldErrors::new();
    validate(Checked { schema: &schema, value: &new, old: Some(&old) }, "", &mut errors);
    assert!(errors.is_empty(), "{errors}");
    validate(
        Checked { schema: &schema, value: &json!({"spec": {"x": 6}}), old: Some(&old) },
        "",
        &mut errors,
    );
    assert_eq!(errors.len(), 1);
}

#[test]
fn lists_of_type_set_and_map_have_no_duplicates() {
    let set =
        object(json!({"x": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}));
    assert_eq!(problems(set, json!({"spec": {"x": ["a", "b", "a"]}})), ["spec.x[2]: Duplicate value: \"a\""]);
    let map = object(json!({"x": {"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}));
    assert_eq!(
        problems(map, json!({"spec": {"x": [{"k": "a"}, {"k": "a"}]}})),
        ["spec.x[1]: Duplicate value: {\"k\":\"a\"}"]
    );
}

#[test]
fn unknown_fields_are_pruned_unless_preserved() {
    let schema = Structural::parse(&json!({"type": "object", "properties": {
    "spec": {"type": "object", "properties": {
        "a": {"type": "string"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "half": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"known": {"type": "object", "properties": {"k": {"type": "string"}}}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"i": {"type": "string"}}}},
        "raw": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {}}},
    }}}}));
    let mut value = json!({"apiVersion": "v", "kind": "K", "metadata": {"name": "n"}, "top": 1, "spec": {
        "a": "x", "b": 1, "free": {"any": {"thing": 1}}, "half": {"known": {"k": "v", "x": 1}, "other": {"y": 1}},
        "list": [{"i": "a", "j": "b"}], "raw": {"kind": "R", "metadata": {"x": 1}, "spec": 1}, "map": {"m": {"z": 1}}}});
    let mut removed = schema.prune(&mut value);
    removed.sort();
    assert_eq!(
        removed,
        ["spec.b", "spec.half.known.x", "spec.list[0].j", "spec.map.m.z", "spec.raw.spec", "top"]
    );
    assert_eq!(
        value["spec"],
        json!({"a": "x", "free": {"any": {"thing": 1}}, "half": {"known": {"k": "v"}, "other": {"y": 1}},
            "list": [{"i": "a"}], "raw": {"kind": "R", "metadata": {"x": 1}}, "map": {"m": {}}})
    );
}

#[test]
fn defaults_fill_what_is_absent_and_null() {
    let schema = Structural::parse(&json!({"type": "object", "properties": {"spec": {"type": "object",
        "default": {"a": "outer"}, "properties": {
            "a": {"type": "string", "default": "A"}, "n": {"type": "string", "nullable": true, "default": "N"},
            "l": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "integer", "default": 80}}}}}}}}));
    let filled = |mut value: Value| {
        schema.fill_defaults(&mut value);
        value
    };
    assert_eq!(filled(json!({})), json!({"spec": {"a": "outer", "n": "N"}}));
    assert_eq!(
        filled(json!({"spec": {"a": null, "n": null, "l": [{}]}})),
        json!({"spec": {"a": "A", "n": null, "l": [{"p": 80}]}})
    );
}

#[test]
fn schemas_that_are_not_structural_are_refused() {
    let told = |schema: Value| -> Vec<String> {
        let mut errors = FieldErrors::new();
        check::schema(&schema, &Path::new("s"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    };
    assert!(told(object(json!({"x": {"type": "string", "default": "d"}}))).is_empty());
    let cases = [
        (json!({"properties": {}}), "s.type: Required value: must not be empty at the root"),
        (
            object(json!({"x": {}})),
            "s.properties[spec].properties[x].type: Required value: must not be empty for specified object fields",
        ),
        (
            object(json!({"x": {"type": "array"}})),
            "s.properties[spec].properties[x].items: Required value: must be specified",
        ),
        (
            json!({"type": "object", "allOf": [{"properties": {"x": {"type": "string"}}}]}),
            "s.allOf[0].properties[x].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "anyOf": [{"properties": {"x": {"pattern": "a"}}}]}),
            "s.properties[x]: Required value: because it is defined in a nested schema",
        ),
        (
            object(json!({"x": {"type": "string", "pattern": "("}})),
            "s.properties[spec].properties[x].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: ",
        ),
        (
            object(json!({"x": {"type": "integer", "default": "a"}})),
            "s.properties[spec].properties[x].default: Invalid value: \"string\": \
             s.properties[spec].properties[x].default in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but \
             metadata is implicitly specified",
        ),
        (
            object(
                json!({"x": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}}),
            ),
            "s.properties[spec].properties[x].x-kubernetes-list-map-keys: Required value: must not be empty if \
             x-kubernetes-list-type is map",
        ),
    ];
    for (schema, expected) in cases {
        let found = told(schema.clone());
        assert!(
            found.iter().any(|message| message.starts_with(expected)),
            "{schema}\n{found:#?}\n{expected}"
        );
    }
}

#[test]
fn floats_are_shown_as_go_shows_them() {
    for (number, text) in
        [(10.0, "10"), (0.5, "0.5"), (1e6, "1e+06"), (123_456.0, "123456"), (1e-5, "1e-05"), (-3.0, "-3")]
    {
        assert_eq!(go_float(number), text);
    }
}
