//! What upstream's `validation_test.go` and `webhook/validation_test.go` list, as far as it is told.

use serde_json::{Value, json};

use super::*;

fn told(check: impl FnOnce(&Path, &mut FieldErrors)) -> Vec<String> {
    let mut errors = FieldErrors::new();
    check(&Path::new("x"), &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn names_have_three_segments() {
    for (name, wanted) in [
        ("a.b.c", None),
        ("", Some("x: Required value")),
        (
            "a.b",
            Some(
                "x: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ),
        ),
        ("A.b.c", Some("x: Invalid value: \"A.b.c\": a lowercase RFC 1123 subdomain must consist of")),
    ] {
        let found = told(|at, errors| qualified_name(name, at, errors));
        assert_eq!(found.len(), usize::from(wanted.is_some()), "{name}: {found:?}");
        assert!(found.iter().all(|found| found.starts_with(wanted.unwrap())), "{name}: {found:?}");
    }
}

#[test]
fn urls_are_of_a_host_alone_and_say_what_is_wrong() {
    const FORM: &str = "; desired format: https://host[/path]";
    for (found, wanted) in [
        ("https://host", vec![]),
        ("https://127.0.0.1:8443/path/below", vec![]),
        ("https://[::1]:8443/", vec![]),
        (
            "http://host",
            vec![format!("x: Invalid value: \"http\": 'https' is the only allowed URL scheme{FORM}")],
        ),
        (
            "host",
            vec![
                format!("x: Invalid value: \"\": 'https' is the only allowed URL scheme{FORM}"),
                format!("x: Invalid value: \"\": host must be specified{FORM}"),
            ],
        ),
        ("https://", vec![format!("x: Invalid value: \"\": host must be specified{FORM}")]),
        (
            "https://me:secret@host",
            vec!["x: Invalid value: \"me:secret\": user information is not permitted in the URL".to_owned()],
        ),
        (
            "https://host/#there",
            vec!["x: Invalid value: \"there\": fragments are not permitted in the URL".to_owned()],
        ),
        (
            "https://host/?a=b",
            vec!["x: Invalid value: \"a=b\": query parameters are not permitted in the URL".to_owned()],
        ),
    ] {
        assert_eq!(told(|at, errors| url(found, at, errors)), wanted, "{found}");
    }
    assert_eq!(told(|at, errors| url("https://ho\u{7}st", at, errors)).len(), 1);
}

#[test]
fn services_have_names_ports_and_paths_of_plain_segments() {
    for (name, namespace, path, port, wanted) in [
        ("n", "s", None, 443, vec![]),
        ("n", "s", Some("/"), 443, vec![]),
        ("n", "s", Some("/foo/bar/"), 443, vec![]),
        (
            "",
            "",
            None,
            443,
            vec![
                "x.name: Required value: service name is required",
                "x.namespace: Required value: service namespace is required",
            ],
        ),
        (
            "n",
            "s",
            None,
            0,
            vec!["x.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive"],
        ),
        (
            "n",
            "s",
            None,
            65536,
            vec!["x.port: Invalid value: 65536: port is not valid: must be between 1 and 65535, inclusive"],
        ),
        ("n", "s", Some("//"), 443, vec!["x.path: Invalid value: \"//\": segment[0] may not be empty"]),
        (
            "n",
            "s",
            Some("/foo//bar"),
            443,
            vec!["x.path: Invalid value: \"/foo//bar\": segment[1] may not be empty"],
        ),
        (
            "n",
            "s",
            Some("/foo/bar//"),
            443,
            vec!["x.path: Invalid value: \"/foo/bar//\": segment[2] may not be empty"],
        ),
        ("n", "s", Some("foo/"), 443, vec!["x.path: Invalid value: \"foo/\": must start with a '/'"]),
    ] {
        let found = told(|at, errors| service((name, namespace, path, port), at, errors));
        assert_eq!(found, wanted, "{path:?} {port}");
    }
    let found = told(|at, errors| service(("n", "s", Some("/apis/foo.bar/v1alpha1/--bad"), 443), at, errors));
    assert!(found[0].starts_with(
        "x.path: Invalid value: \"/apis/foo.bar/v1alpha1/--bad\": segment[3]: a lowercase RFC 1123 subdomain"
    ));
}

#[test]
fn rules_do_not_contradict_themselves() {
    let base =
        json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
    let check = |change: Value| {
        let mut value = base.clone();
        value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let found: RuleWithOperations = serde_json::from_value(value).unwrap();
        told(|at, errors| rule(&(&found).into(), at, errors))
    };
    for (change, wanted) in [
        (json!({}), vec![]),
        (json!({"operations": []}), vec!["x.operations: Required value"]),
        (
            json!({"operations": ["*", "CREATE"]}),
            vec![
                "x.operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
            ],
        ),
        (
            json!({"operations": ["PATCH"]}),
            vec![
                "x.operations[0]: Unsupported value: \"PATCH\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
            ],
        ),
        (
            json!({"apiGroups": ["a", "*"]}),
            vec![
                "x.apiGroups: Invalid value: [\"a\",\"*\"]: if '*' is present, must not specify other API groups",
            ],
        ),
        (
            json!({"apiVersions": ["*", "v1"]}),
            vec![
                "x.apiVersions: Invalid value: [\"*\",\"v1\"]: if '*' is present, must not specify other API versions",
            ],
        ),
        (json!({"apiVersions": [""]}), vec!["x.apiVersions[0]: Required value"]),
        (json!({"resources": []}), vec!["x.resources: Required value"]),
        (json!({"resources": [""]}), vec!["x.resources[0]: Required value"]),
        (json!({"resources": ["*", "*/scale", "pods/log"]}), vec![]),
        (
            json!({"resources": ["*/*", "a"]}),
            vec![
                "x.resources: Invalid value: [\"*/*\",\"a\"]: if '*/*' is present, must not specify other resources",
            ],
        ),
        (
            json!({"resources": ["*", "a"]}),
            vec![
                "x.resources: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other resources without subresources",
            ],
        ),
        (
            json!({"resources": ["a/*", "a/x"]}),
            vec!["x.resources[1]: Invalid value: \"a/x\": if 'a/*' is present, must not specify a/x"],
        ),
        (
            json!({"resources": ["*/a", "x/a"]}),
            vec!["x.resources[1]: Invalid value: \"x/a\": if '*/a' is present, must not specify x/a"],
        ),
        (
            json!({"scope": "Other"}),
            vec![
                "x.scope: Unsupported value: \"Other\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
            ],
        ),
    ] {
        assert_eq!(check(change.clone()), wanted, "{change}");
    }
}

#[test]
fn review_versions_are_known_and_named_once() {
    let check = |versions: &[&str]| {
        let versions: Vec<String> = versions.iter().map(|version| (*version).to_owned()).collect();
        told(|at, errors| review_versions(&versions, at, errors))
    };
    assert_eq!(check(&["v1", "v1beta1", "v9"]), Vec::<String>::new());
    assert_eq!(check(&[]), ["x: Required value: must specify one of v1, v1beta1"]);
    assert_eq!(check(&["v1", "v1"]), ["x[1]: Invalid value: \"v1\": duplicate version"]);
    assert_eq!(check(&["v2"]), ["x: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1"]);
    assert!(check(&["v1", "1.0"])[0].starts_with("x[1]: Invalid value: \"1.0\": a DNS-1035 label"));
}
