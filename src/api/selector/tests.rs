//! What parses to what, which errors the rest gives, and what matches.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta_v1;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::field::Path;

#[test]
fn label_selectors_parse_to_their_canonical_text() {
    let cases = [
        ("", ""),
        ("a", "a"),
        ("!a", "!a"),
        ("a=b", "a=b"),
        ("a==b", "a==b"),
        (" a  !=  b ", "a!=b"),
        ("b=1,a=2", "a=2,b=1"),
        ("a=", "a="),
        ("a=,b", "a=,b"),
        ("a>5", "a>5"),
        ("a<5", "a<5"),
        ("x in (b,a,b)", "x in (a,b)"),
        ("x notin (a)", "x notin (a)"),
        ("x in ()", "x in ()"),
        ("x in (,)", "x in ()"),
        ("x in (a,)", "x in (,a)"),
        ("x in (a,,b)", "x in (,a,b)"),
        ("in in (in,notin)", "in in (in,notin)"),
        ("example.com/x notin (a, b)", "example.com/x notin (a,b)"),
    ];
    for (text, canonical) in cases {
        assert_eq!(LabelSelector::parse(text).unwrap().to_string(), canonical, "{text:?}");
    }
}

#[test]
fn bad_label_selectors_are_refused_in_upstreams_words() {
    let cases = [
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("a=(b)", "unable to parse requirement: found '(', expected: identifier"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        (
            "a>b",
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must \
             be an integer",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), message, "{text:?}");
    }
    let key = LabelSelector::parse("-a=b").unwrap_err().to_string();
    assert!(
        key.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must"),
        "{key}"
    );
    let value = LabelSelector::parse("a=b/c").unwrap_err().to_string();
    assert!(
        value.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"b/c\": a valid label"),
        "{value}"
    );
    assert_eq!(ApiError::from(LabelSelector::parse(",").unwrap_err()).code(), 400);
}

#[test]
fn labels_match() {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("n".to_owned(), "5".to_owned())]);
    let cases = [
        ("", true),
        ("app", true),
        ("!app", false),
        ("none", false),
        ("!none", true),
        ("app=web", true),
        ("app==db", false),
        ("app!=db", true),
        ("app!=web", false),
        ("none!=x", true),
        ("app in (web,db)", true),
        ("app notin (web,db)", false),
        ("none in (a)", false),
        ("none notin (a)", true),
        ("n>4", true),
        ("n>5", false),
        ("n<6", true),
        ("app>1", false),
        ("none<1", false),
        ("app=web,n=6", false),
    ];
    for (text, expected) in cases {
        let selector = LabelSelector::parse(text).unwrap();
        assert_eq!(selector.matches_map(&labels), expected, "{text:?}");
        let object = json!({"metadata": {"labels": {"app": "web", "n": "5"}}});
        assert_eq!(selector.matches_object(&object), expected, "{text:?}");
    }
    assert!(!LabelSelector::nothing().matches_map(&labels));
    assert!(LabelSelector::everything().matches_labels(None));
    assert_eq!(LabelSelector::parse("a in (b),c").unwrap().required_value("a"), Some("b"));
    assert_eq!(LabelSelector::parse("a in (b,d)").unwrap().required_value("a"), None);
}

fn meta_selector(value: serde_json::Value) -> meta_v1::LabelSelector {
    serde_json::from_value(value).unwrap()
}

#[test]
fn selectors_of_specs_convert() {
    let selector = meta_selector(json!({"matchLabels": {"b": "1"}, "matchExpressions": [
        {"key": "a", "operator": "In", "values": ["y", "x"]},
        {"key": "c", "operator": "DoesNotExist"},
        {"key": "d", "operator": "Exists"},
        {"key": "e", "operator": "NotIn", "values": ["z"]}]}));
    let converted = LabelSelector::from_meta(Some(&selector)).unwrap();
    assert_eq!(converted.to_string(), "a in (x,y),b=1,!c,d,e notin (z)");
    assert!(LabelSelector::from_meta(None).unwrap().is_nothing());
    assert!(LabelSelector::from_meta(Some(&Default::default())).unwrap().is_everything());
    let bad = meta_selector(json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}));
    assert_eq!(
        LabelSelector::from_meta(Some(&bad)).unwrap_err().to_string(),
        "\"Gt\" is not a valid label selector operator"
    );
    let service = LabelSelector::from_map(&BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    assert_eq!(service.to_string(), "a=b");
}

#[test]
fn selectors_of_specs_are_validated() {
    let selector = meta_selector(json!({"matchLabels": {"-a": "b/c"}, "matchExpressions": [
        {"key": "a", "operator": "In"},
        {"key": "a", "operator": "Exists", "values": ["x"]},
        {"key": "a", "operator": "Near"}]}));
    let errors = validate_label_selector(&selector, &Path::new("spec").child("selector"));
    let fields: Vec<_> = errors.iter().map(|e| (e.field.as_str(), e.kind.reason())).collect();
    assert_eq!(
        fields,
        [
            ("spec.selector.matchLabels", "FieldValueInvalid"),
            ("spec.selector.matchLabels", "FieldValueInvalid"),
            ("spec.selector.matchExpressions[0].values", "FieldValueRequired"),
            ("spec.selector.matchExpressions[1].values", "FieldValueForbidden"),
            ("spec.selector.matchExpressions[2].operator", "FieldValueInvalid"),
        ]
    );
}

#[test]
fn field_selectors_parse_and_match() {
    let get = |field: &str| match field {
        "metadata.name" => Some("web"),
        "status.phase" => Some("a,b=c"),
        _ => None,
    };
    let cases = [
        ("", "", true),
        ("metadata.name=web", "metadata.name=web", true),
        ("metadata.name==web", "metadata.name=web", true),
        ("metadata.name!=web", "metadata.name!=web", false),
        ("missing=", "missing=", true),
        ("missing!=x", "missing!=x", true),
        (r"status.phase=a\,b\=c", r"status.phase=a\,b\=c", true),
        ("b=1,,a=2", "a=2,b=1", false),
    ];
    for (text, canonical, expected) in cases {
        let selector = FieldSelector::parse(text).unwrap();
        assert_eq!((selector.to_string().as_str(), selector.matches(get)), (canonical, expected), "{text:?}");
    }
    assert_eq!(FieldSelector::parse("a=b,c!=d").unwrap().required_value("a"), Some("b"));
    assert_eq!(FieldSelector::parse("a=b,c!=d").unwrap().required_value("c"), None);
    assert_eq!(FieldSelector::equals("a", "b,c").to_string(), r"a=b\,c");
}

#[test]
fn bad_field_selectors_are_refused() {
    let cases = [
        ("abc", "invalid selector: 'abc'; can't understand 'abc'"),
        (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
        (r"a=x\", r"invalid field selector: invalid escape sequence: \"),
        ("a=b=c", "invalid field selector: unescaped character in value: \"=\""),
    ];
    for (text, message) in cases {
        assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), message, "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in "[a-c!=<>(), \\\\inot/é\n]{0,24}") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
        }
        if let Ok(selector) = FieldSelector::parse(&text) {
            let again = FieldSelector::parse(&selector.to_string()).unwrap();
            prop_assert_eq!(again.requirements().len(), selector.requirements().len());
        }
    }
}
