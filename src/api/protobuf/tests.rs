//! Golden bytes, what is read back, bad input, and the table against the schemas.

mod generated;

use serde_json::{Value, json};

use super::*;

fn back(bytes: &[u8]) -> Value {
    let json = decode(bytes, ("v1", "Pod")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn encoded(value: &Value) -> Vec<u8> {
    encode(value.to_string().as_bytes()).unwrap()
}

/// The message within an envelope.
fn inner(value: &Value) -> Vec<u8> {
    let bytes = encoded(value);
    let mut reader = wire::Reader::new("", &bytes[4..]);
    while let Some(part) = reader.part().unwrap() {
        if part.number == 2 {
            return part.bytes.to_vec();
        }
    }
    Vec::new()
}

/// `ObjectMeta` with this name and nothing else.
fn metadata(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    wire::field(&mut out, 1, name.as_bytes());
    out.extend_from_slice(b"\x12\0\x1a\0\x22\0\x2a\0\x32\0\x38\0\x42\0");
    out
}

fn golden(fields: &[(u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, content) in fields {
        wire::field(&mut out, *number, content);
    }
    out
}

#[test]
fn an_object_is_written_as_upstream_writes_it() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let mut expected = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x1b".to_vec();
    expected.extend(golden(&[(1, &metadata("a")), (2, b"\x0a\x01k\x12\x01v")]));
    expected.extend(b"\x1a\0\x22\0");
    assert_eq!(encoded(&map), expected);
    let (mut late, json) =
        (json!({"metadata": {"name": "a"}, "data": {"k": "v"}}).to_string(), map.to_string());
    late.insert_str(late.len() - 1, r#","kind":"ConfigMap","apiVersion":"v1""#);
    assert_eq!(encode(late.as_bytes()).unwrap(), encode(json.as_bytes()).unwrap(), "the type may come last");
}

#[test]
fn values_that_are_not_pointers_are_always_written() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "ports": [{"containerPort": 80}]}], "priority": 0}});
    let port = b"\x0a\0\x10\0\x18\x50\x22\0\x2a\0";
    let container = [
        golden(&[(1, b"c"), (2, b""), (5, b""), (6, port), (8, b""), (13, b""), (14, b"")]),
        b"\x80\x01\0\x88\x01\0\x90\x01\0\xa2\x01\0".to_vec(),
    ]
    .concat();
    let spec = [
        golden(&[(2, &container), (3, b""), (6, b""), (8, b""), (9, b""), (10, b"")]),
        b"\x58\0\x60\0\x68\0\x82\x01\0\x8a\x01\0\x9a\x01\0\xc2\x01\0\xc8\x01\0".to_vec(),
    ]
    .concat();
    let status = [
        golden(&[(1, b""), (3, b""), (4, b""), (5, b""), (6, b""), (9, b""), (11, b""), (14, b"")]),
        b"\x88\x01\0".to_vec(),
    ]
    .concat();
    assert_eq!(inner(&pod), golden(&[(1, &metadata("p")), (2, &spec), (3, &status)]));
    let read = back(&encoded(&pod));
    assert_eq!(
        read["spec"],
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 80}], "resources": {}}], "priority": 0})
    );
    assert_eq!(read["status"], json!({}));
}

#[test]
fn scalars_that_are_messages_keep_their_value() {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {
        "name": "l", "creationTimestamp": "2024-01-02T03:04:05Z"},
        "spec": {"renewTime": "1969-12-31T23:59:59.250000Z", "leaseTransitions": 0}});
    let read = back(&encoded(&lease));
    assert_eq!(read, lease);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [
        {"port": 1, "targetPort": "http"}, {"port": 2, "targetPort": 8080}]}});
    assert_eq!(back(&encoded(&service))["spec"], service["spec"]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": [
        {"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]}});
    assert_eq!(back(&encoded(&pod))["spec"], pod["spec"]);
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {"a": "AAEC/w==", "b": ""}});
    assert_eq!(back(&encoded(&secret)), secret);
}

#[test]
fn unions_and_free_json_of_schemas_keep_their_form() {
    let schema = json!({"type": "object", "default": {"a": [1, null, "x"]}, "enum": [1, "a", {"b": 2}], "maximum": 10,
        "items": [{"type": "string"}, {"type": "integer"}], "additionalItems": false,
        "properties": {"p": {"items": {"type": "string"}, "additionalProperties": true},
            "q": {"additionalProperties": {"x-kubernetes-preserve-unknown-fields": false}}},
        "dependencies": {"d": ["a", "b"], "e": {"required": ["p"]}}, "$ref": "#/x"});
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {},
        "spec": {"group": "g", "names": {"kind": "K", "plural": "ks"}, "scope": "Cluster", "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}]}});
    let read = back(&encoded(&crd));
    assert_eq!(read["spec"], crd["spec"]);
}

#[test]
fn fields_of_inlined_messages_are_the_objects_own() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {
        "containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": 1}, "periodSeconds": 3},
            "env": [{"name": "e", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k", "optional": false}}}],
            "resources": {}}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "m"}}]}});
    assert_eq!(back(&encoded(&pod))["spec"], pod["spec"]);
    let hook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {},
        "spec": {"policyName": "p", "matchResources": {"resourceRules": [{"resourceNames": ["n"], "operations": ["CREATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["pods"], "scope": "*"}]}}});
    assert_eq!(back(&encoded(&hook)), hook);
}

#[test]
fn options_are_known_in_every_group() {
    let options = json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u"}, "propagationPolicy": "Orphan", "dryRun": ["All"]});
    assert_eq!(back(&encoded(&options)), options);
    let partial = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "1"},
        "items": [{"metadata": {"name": "a"}}]});
    assert_eq!(back(&encoded(&partial)), partial);
    assert!(!is_known("example.com/v1", "Widget") && !is_known("apps/v1", "Pod") && is_known("v1", "Status"));
    let widget = encode(br#"{"apiVersion":"example.com/v1","kind":"Widget","spec":{}}"#).unwrap_err();
    assert!(matches!(widget, EncodeError::Unknown { kind, .. } if kind == "Widget"));
}

#[test]
fn a_watch_frame_has_its_length_before_it() {
    let frame = watch_frame("ADDED", b"k8s\0x");
    assert_eq!(frame, b"\0\0\0\x10\x0a\x05ADDED\x12\x07\x0a\x05k8s\0x");
}

#[test]
fn an_envelope_without_a_type_is_taken_as_what_is_expected() {
    let read = decode(b"k8s\0\x12\x05\x0a\x03\x0a\x01a", ("v1", "ConfigMap")).unwrap();
    assert_eq!(read, br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#);
}

#[test]
fn unknown_fields_are_skipped_and_pieces_are_merged() {
    // Field 99 in each wire type (a group among them), metadata in two pieces, and packed numbers.
    let mut body =
        b"\x98\x06\x01\x99\x06\0\0\0\0\0\0\0\0\x9d\x06\0\0\0\0\x9a\x06\x01x\x9b\x06\x08\x01\x9c\x06".to_vec();
    body.extend(golden(&[(1, b"\x0a\x01a"), (1, b"\x1a\x01n")]));
    let mut bytes = b"k8s\0".to_vec();
    wire::field(&mut bytes, 2, &body);
    let read = decode(&bytes, ("v1", "Pod")).unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&read).unwrap()["metadata"],
        json!({"name": "a", "namespace": "n"})
    );
    let groups = golden(&[(2, &golden(&[(14, &golden(&[(4, b"\x01\xac\x02")]))]))]);
    let mut bytes = b"k8s\0".to_vec();
    wire::field(&mut bytes, 2, &groups);
    let read: Value = serde_json::from_slice(&decode(&bytes, ("v1", "Pod")).unwrap()).unwrap();
    assert_eq!(read["spec"]["securityContext"]["supplementalGroups"], json!([1, 300]));
}

#[test]
fn bad_input_is_explained() {
    let body = |body: &[u8]| {
        let mut bytes = b"k8s\0".to_vec();
        wire::field(&mut bytes, 2, body);
        bytes
    };
    let mut deep = b"\x0a\0".to_vec();
    for _ in 0..200 {
        // A schema that is the negation of another.
        deep = golden(&[(28, &deep)]);
    }
    let crd = golden(&[(2, &golden(&[(7, &golden(&[(4, &golden(&[(1, &deep)]))]))]))]);
    let cases: [(Vec<u8>, &str); 13] = [
        (vec![], "empty data"),
        (
            b"{}".to_vec(),
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ),
        (b"k8s\0".to_vec(), "empty body"),
        (b"k8s\0\x12\x05".to_vec(), "unexpected EOF"),
        (
            b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec(),
            "proto: negative length found during unmarshaling",
        ),
        (b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec(), "proto: integer overflow"),
        (body(b"\x0c"), "proto: CustomResourceDefinition: wiretype end group for non-group"),
        (body(b"\x02\0"), "proto: CustomResourceDefinition: illegal tag 0 (wire type 2)"),
        (body(b"\x08\x01"), "proto: wrong wireType = 0 for field Metadata"),
        (body(b"\x0a\x02\x08\x01"), "proto: wrong wireType = 0 for field Name"),
        (body(b"\x0a\x03\x0a\x01\xff"), "proto: field Name contains invalid UTF-8"),
        (body(&crd), "proto: exceeded max depth"),
        (
            b"k8s\0\x0a\x0b\x0a\x02v1\x12\x05Thing\x12\0".to_vec(),
            "no kind \"Thing\" is registered for version \"v1\"",
        ),
    ];
    for (bytes, expected) in cases {
        let error = decode(&bytes, ("apiextensions.k8s.io/v1", "CustomResourceDefinition")).unwrap_err();
        assert_eq!(error.to_string(), expected, "{bytes:x?}");
    }
}
