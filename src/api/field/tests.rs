//! Field paths and errors print as upstream's.

use serde_json::json;

use super::*;

#[test]
fn paths_join_fields_indexes_and_keys() {
    let path = Path::new("spec").child("containers").index(0).child("resources").child("limits").key("cpu");
    assert_eq!(path.to_string(), "spec.containers[0].resources.limits[cpu]");
    assert_eq!(Path::new("spec").to_string(), "spec");
}

#[test]
fn every_kind_has_its_wording() {
    let path = Path::new("spec").child("x");
    let cases = [
        (FieldError::required(&path, ""), "spec.x: Required value", "FieldValueRequired"),
        (
            FieldError::required(&path, "must name a volume"),
            "spec.x: Required value: must name a volume",
            "FieldValueRequired",
        ),
        (
            FieldError::invalid(&path, -1, "must be greater than or equal to 0"),
            "spec.x: Invalid value: -1: must be greater than or equal to 0",
            "FieldValueInvalid",
        ),
        (
            FieldError::invalid(&path, "a\"b", "bad"),
            r#"spec.x: Invalid value: "a\"b": bad"#,
            "FieldValueInvalid",
        ),
        (
            FieldError::invalid(&path, json!({"a": [1]}), "bad"),
            r#"spec.x: Invalid value: {"a":[1]}: bad"#,
            "FieldValueInvalid",
        ),
        (
            FieldError::not_supported(&path, "Sometimes", &["Always", "Never"]),
            r#"spec.x: Unsupported value: "Sometimes": supported values: "Always", "Never""#,
            "FieldValueNotSupported",
        ),
        (FieldError::duplicate(&path, "a"), r#"spec.x: Duplicate value: "a""#, "FieldValueDuplicate"),
        (
            FieldError::forbidden(&path, "may not change"),
            "spec.x: Forbidden: may not change",
            "FieldValueForbidden",
        ),
        (FieldError::not_found(&path, "vol"), r#"spec.x: Not found: "vol""#, "FieldValueNotFound"),
        (
            FieldError::too_long(&path, 63),
            "spec.x: Too long: may not be more than 63 bytes",
            "FieldValueTooLong",
        ),
        (
            FieldError::too_many(&path, 5, 3),
            "spec.x: Too many: 5: must have at most 3 items",
            "FieldValueTooMany",
        ),
        (
            FieldError::too_many(&path, 2, 1),
            "spec.x: Too many: 2: must have at most 1 item",
            "FieldValueTooMany",
        ),
        (FieldError::internal(&path, "broken"), "spec.x: Internal error: broken", "InternalError"),
        (
            FieldError::type_invalid(&path, true, "must be a string"),
            "spec.x: Invalid value: true: must be a string",
            "FieldValueTypeInvalid",
        ),
    ];
    for (error, text, reason) in cases {
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind.reason(), reason);
    }
}

#[test]
fn several_errors_are_listed_once_each() {
    let path = Path::new("a");
    let mut errors = FieldErrors::from(FieldError::required(&path, ""));
    assert_eq!(errors.to_string(), "a: Required value");
    errors.push(FieldError::required(&path, ""));
    assert_eq!(errors.to_string(), "a: Required value");
    errors.push(FieldError::forbidden(&path, "no"));
    assert_eq!(errors.to_string(), "[a: Required value, a: Forbidden: no]");
}

#[test]
fn quoting_escapes_what_go_escapes() {
    assert_eq!(go_quote("a\tb\n\u{1}\u{85}é"), r#""a\tb\n\x01\u0085é""#);
}
