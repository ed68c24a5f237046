//! `[sig-api-machinery] FieldValidation`.

use serde_json::{Value, json};

use super::{define, send_as};
use crate::server::TestServer;

const APPLY: (&str, &str) = ("application/apply-patch+yaml", "application/json");

fn schema(extra: Value) -> Value {
    let mut spec = json!({"type": "object", "properties": {
        "foo": {"type": "string"},
        "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
        "ports": {"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
            "items": {"type": "object", "required": ["containerPort", "protocol"], "properties": {
                "containerPort": {"type": "integer", "format": "int32"}, "name": {"type": "string"},
                "protocol": {"type": "string"}}}},
    }});
    for (key, value) in extra.as_object().into_iter().flatten() {
        if let (Some(Value::Object(own)), Value::Object(more)) = (spec.get_mut(key), value) {
            own.extend(more.clone());
        } else {
            spec[key] = value.clone();
        }
    }
    json!({"type": "object", "properties": {"spec": spec}})
}

/// Applies a configuration in YAML, strictly.
async fn apply(server: &TestServer, path: &str, yaml: &str) -> (u16, String) {
    let path = format!("{path}/mytest?fieldManager=field_validation_mgr&fieldValidation=Strict");
    let (code, _, body) = send_as(server, ("PATCH", &path), APPLY, yaml.to_owned()).await;
    (code, body["message"].as_str().unwrap_or_default().to_owned())
}

const PORTS: &str =
    "\n  cronSpec: \"* * * * */5\"\n  ports:\n  - name: x\n    containerPort: 80\n    protocol: TCP";

fn head(version: &str, more: &str) -> String {
    format!(
        "\napiVersion: {version}\nkind: Noxu\nmetadata:\n  name: mytest\n{more}  finalizers:\n  - test-finalizer\n"
    )
}

#[tokio::test]
async fn custom_resources_are_checked_as_their_schema_says_when_they_are_applied() {
    let server = TestServer::start().await;
    let path = define(&server, "valid.example.com", &["v1"], schema(json!({}))).await;
    let version = "valid.example.com/v1";
    let valid = format!("{}spec:\n  foo: foo1{PORTS}", head(version, ""));
    let (code, message) = apply(&server, &path, &valid).await;
    assert_eq!(code, 201, "valid CR for CRD with validation schema: {message}");
    let extra = format!("{}unknownField: unknown\nspec:\n  foo: foo1{PORTS}", head(version, ""));
    let (_, message) = apply(&server, &path, &extra).await;
    assert!(
        message.contains(".unknownField: field not declared in schema"),
        "invalid CR with extra properties: {message}"
    );

    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let path = define(&server, "open.example.com", &["v1"], open).await;
    let any = format!("{}spec:\n  unknown: uk1{PORTS}", head("open.example.com/v1", ""));
    let (code, message) = apply(&server, &path, &any).await;
    assert_eq!(code, 201, "CR with unknown fields for CRD with no validation schema: {message}");

    let twice = json!({"x-kubernetes-preserve-unknown-fields": true});
    let path = define(&server, "twice.example.com", &["v1"], schema(twice)).await;
    let duplicate =
        format!("{}spec:\n  unknown: uk1\n  foo: foo1\n  foo: foo2{PORTS}", head("twice.example.com/v1", ""));
    let (code, message) = apply(&server, &path, &duplicate).await;
    assert!(
        message.contains("line 11: key \"foo\" already set in map"),
        "duplicates in a CR: {code} {message}"
    );
}

#[tokio::test]
async fn unknown_metadata_fields_are_found_in_the_root_and_embedded_object_of_a_cr() {
    let server = TestServer::start().await;
    let template = json!({"x-kubernetes-preserve-unknown-fields": true, "properties": {"template": {
        "type": "object", "x-kubernetes-embedded-resource": true, "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}}, "spec": {"type": "object"}}}}});
    let path = define(&server, "embedded.example.com", &["v1"], schema(template)).await;
    let version = "embedded.example.com/v1";
    let body = |root: &str, below: &str| {
        format!(
            "{}spec:\n  template:\n    apiVersion: foo/v1\n    kind: Sub\n    metadata:\n{below}      name: subobject\n  foo: foo1{PORTS}",
            head(version, root)
        )
    };
    let (_, message) = apply(&server, &path, &body("  unknownMeta: unknown\n", "")).await;
    assert!(message.contains(".metadata.unknownMeta: field not declared in schema"), "{message}");
    let (_, message) = apply(&server, &path, &body("", "      unknownSubMeta: unknown\n")).await;
    assert!(
        message.contains(".spec.template.metadata.unknownSubMeta: field not declared in schema"),
        "{message}"
    );
    let (code, message) = apply(&server, &path, &body("", "")).await;
    assert_eq!(code, 201, "{message}");
}

#[tokio::test]
async fn unknown_and_duplicate_fields_of_a_typed_object_are_detected() {
    let server = TestServer::start().await;
    let rest = r#""selector": {"matchLabels": {"app": "nginx"}}, "template": {"metadata": {"labels": {"app": "nginx"}},
        "spec": {"containers": [{"name": "nginx", "image": "nginx:latest"}]}}"#;
    let post = async |meta: &str, spec: &str, mode: &str| {
        let body = format!(
            r#"{{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {{"name": "my-dep"{meta}, "labels": {{"app": "nginx"}}}},
            "spec": {{{spec} {rest}}}}}"#
        );
        let path =
            format!("/apis/apps/v1/namespaces/default/deployments?fieldManager=m&fieldValidation={mode}");
        send_as(&server, ("POST", &path), ("application/json", "application/json"), body).await
    };
    let twice = r#""unknownField": "foo", "replicas": 2, "replicas": 3,"#;
    let (code, _, body) = post("", twice, "Strict").await;
    let wanted =
        r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#;
    assert!(code == 400 && body["message"].as_str().unwrap().contains(wanted), "{body}");
    let (_, _, body) = post(r#", "unknownMeta": "foo""#, "", "Strict").await;
    let wanted = r#"strict decoding error: unknown field "metadata.unknownMeta""#;
    assert!(body["message"].as_str().unwrap().contains(wanted), "{body}");
    let (code, warnings, _) = post("", twice, "Warn").await;
    let wanted =
        [r#"299 - "unknown field \"spec.unknownField\"""#, r#"299 - "duplicate field \"spec.replicas\"""#];
    assert_eq!((code, warnings), (201, wanted.map(str::to_owned).to_vec()));
}

#[tokio::test]
async fn unknown_metadata_of_embedded_objects_is_found_in_items_and_additional_properties() {
    let server = TestServer::start().await;
    let resource = json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "list": {"type": "array", "items": resource}, "map": {"type": "object", "additionalProperties": resource}}}}});
    let path = define(&server, "nested.example.com", &["v1"], schema).await;
    let inner = json!({"apiVersion": "v1", "kind": "Sub", "metadata": {"name": "sub", "unknownMeta": "x"}});
    let object = json!({"apiVersion": "nested.example.com/v1", "kind": "Noxu", "metadata": {"name": "a", "odd": 1},
        "spec": {"list": [inner], "map": {"key": inner}}});
    let types = ("application/json", "application/json");
    let strict = format!("{path}?fieldValidation=Strict");
    let (code, _, body) = send_as(&server, ("POST", &strict), types, object.to_string()).await;
    let message = body["message"].as_str().unwrap();
    for field in ["spec.list[0].metadata.unknownMeta", "spec.map.key.metadata.unknownMeta", "metadata.odd"] {
        assert!(code == 400 && message.contains(&format!("unknown field \"{field}\"")), "{body}");
    }
    let (code, warnings, body) = send_as(&server, ("POST", &path), types, object.to_string()).await;
    assert_eq!((code, warnings.len()), (201, 3), "{body}");
    assert_eq!(body["spec"]["list"][0]["metadata"], json!({"name": "sub"}));
}
