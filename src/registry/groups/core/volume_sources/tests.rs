//! Tables of sources and what is wrong with them.

use serde_json::{Value, from_value, json};

use super::*;

type Check = fn(Value, &Path, &mut FieldErrors);

fn problems(check: Check, source: &Value) -> Vec<String> {
    let mut errors = FieldErrors::new();
    check(source.clone(), &Path::new("s"), &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn paths_stay_where_they_are() {
    let check: Check = |path, at, errors| own_path(path.as_str().unwrap(), at, errors);
    for (path, expected) in [
        ("a/b", vec![]),
        ("a/..b", vec![]),
        ("/a", vec!["s: Invalid value: \"/a\": must be a relative path"]),
        ("a/../b", vec!["s: Invalid value: \"a/../b\": must not contain '..'"]),
        ("..a", vec!["s: Invalid value: \"..a\": must not start with '..'"]),
        ("../a", vec!["s: Invalid value: \"../a\": must not contain '..'"]),
        ("..", vec!["s: Invalid value: \"..\": must not contain '..'"]),
    ] {
        assert_eq!(problems(check, &json!(path)), expected, "{path}");
    }
}

#[test]
fn names_of_targets_have_one_of_three_shapes() {
    let check: Check = |name, at, errors| {
        let source = Iscsi {
            portal: "10.0.0.1",
            iqn: name.as_str().unwrap(),
            lun: 0,
            login: false,
            secret: None,
            initiator: None,
            volume: "v",
            persistent: false,
        };
        iscsi(&source, at, errors);
    };
    for (name, expected) in [
        ("iqn.2001-04.com.example:storage.disk", vec![]),
        ("eui.0123456789abcdef", vec![]),
        ("naa.0123456789abcdef0123456789abcdef", vec![]),
        ("iqn.2001-4.com.example:x", vec!["must be valid format"]),
        ("iqn.2001-04.com.example", vec!["must be valid format"]),
        ("eui.012345", vec!["must be valid format"]),
        ("disk", vec!["must be valid format starting with iqn, eui, or naa"]),
    ] {
        let expected: Vec<_> =
            expected.iter().map(|message| format!("s.iqn: Invalid value: \"{name}\": {message}")).collect();
        assert_eq!(problems(check, &json!(name)), expected, "{name}");
    }
}

#[test]
fn an_initiator_needs_a_short_portal_and_a_login_a_secret() {
    let mut source = Iscsi {
        portal: "storage.example.com:3260",
        iqn: "iqn.2001-04.com.example:x",
        lun: 256,
        login: true,
        secret: None,
        initiator: Some("iqn.2001-04.com.example:me"),
        volume: "a-volume-with-a-name-that-is-quite-long-already",
        persistent: true,
    };
    let fields = |source: &Iscsi<'_>| {
        let mut errors = FieldErrors::new();
        iscsi(source, &Path::new("s"), &mut errors);
        errors.iter().map(|error| error.field.clone()).collect::<Vec<_>>()
    };
    assert_eq!(fields(&source), ["s.targetportal", "s.lun", "s.secretRef"]);
    source.persistent = false;
    source.secret = Some("");
    assert_eq!(fields(&source), ["s.lun"]);
    assert!(source.is_too_long());
}

#[test]
fn sources_say_what_they_lack() {
    let azure: Check = |value, at, errors| azure_disk(&from_value(value).unwrap(), at, errors);
    let fibre: Check = |value, at, errors| fibre_channel(&from_value(value).unwrap(), at, errors);
    let shares: Check = |value, at, errors| nfs(&from_value(value).unwrap(), at, errors);
    let registry: Check = |value, at, errors| quobyte(&from_value(value).unwrap(), at, errors);
    let sets: Check = |value, at, errors| flocker(&from_value(value).unwrap(), at, errors);
    let hosts: Check = |value, at, errors| host_path(&from_value(value).unwrap(), at, errors);
    let cases: [(Check, Value, &[&str]); 10] = [
        (azure, json!({"diskName": "d", "diskURI": "https://a/b.vhd", "kind": "Shared"}), &[]),
        (
            azure,
            json!({"diskName": "", "diskURI": "x", "kind": "Managed", "cachingMode": "Some"}),
            &["s.diskName", "s.cachingMode", "s.diskURI"],
        ),
        (fibre, json!({"wwids": ["a"]}), &[]),
        (fibre, json!({"targetWWNs": ["a"]}), &["s.lun"]),
        (fibre, json!({"targetWWNs": ["a"], "wwids": ["b"], "lun": 300}), &["s.targetWWNs", "s.lun"]),
        (shares, json!({"server": "", "path": "a"}), &["s.server", "s.path"]),
        (registry, json!({"registry": "a:1,[::1]:2", "volume": "v"}), &[]),
        (registry, json!({"registry": "a:1,b", "volume": ""}), &["s.registry", "s.volume"]),
        (sets, json!({"datasetName": "a/b", "datasetUUID": "u"}), &["s", "s.datasetName"]),
        (hosts, json!({"path": "/a/../b", "type": "Pipe"}), &["s.path", "s.type"]),
    ];
    for (check, source, expected) in cases {
        let mut errors = FieldErrors::new();
        check(source.clone(), &Path::new("s"), &mut errors);
        let found: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(found, expected, "{source}");
    }
}

#[test]
fn drivers_have_short_names_and_leave_kubernetes_its_options() {
    let driver: Check = |value, at, errors| csi_driver(value.as_str().unwrap(), at, errors);
    assert_eq!(problems(driver, &json!("CSI.example.com")), Vec::<String>::new());
    assert_eq!(problems(driver, &json!("x".repeat(64))), ["s: Too long: may not be more than 63 bytes"]);
    let options: Check = |value, at, errors| flex("", Some(&from_value(value).unwrap()), at, errors);
    assert_eq!(
        problems(options, &json!({"a/b": "", "x.K8S.io/a": ""})),
        [
            "s.driver: Required value",
            "s.options[x.K8S.io/a]: Invalid value: \"x.K8S.io/a\": kubernetes.io and k8s.io namespaces are reserved"
        ]
    );
}
