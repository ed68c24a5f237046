//! `[sig-api-machinery] CustomResourcePublishOpenAPI`, `Discovery`, `Servers with support for Table transformation`,
//! `server version`.

use serde_json::{Value, json};

use super::{DEFINITIONS, define, send_as, until};
use crate::server::TestServer;

const JSON: (&str, &str) = ("application/json", "application/json");

fn foo() -> Value {
    let bars = |what: &str| {
        json!({"description": format!("List of Bars and their {what}."), "type": "array", "items": {"type": "object",
            "required": ["name"], "properties": {
                "name": {"description": "Name of Bar.", "type": "string"},
                "age": {"description": "Age of Bar.", "type": "string"},
                "feeling": {"description": "Whether Bar is feeling great.", "type": "string", "enum": ["Great", "Down"]},
                "bazs": {"description": "List of Bazs.", "items": {"type": "string"}, "type": "array"}}}})
    };
    json!({"description": "Foo CRD for Testing", "type": "object", "properties": {
        "spec": {"type": "object", "description": "Specification of Foo", "properties": {"bars": bars("specs")}},
        "status": {"description": "Status of Foo", "type": "object", "properties": {"bars": bars("statuses")}}}})
}

/// The definition as v2 publishes it, without what every kind has.
async fn published(server: &TestServer, name: &str) -> Option<Value> {
    let (_, document) = server.send("GET", "/openapi/v2", None).await;
    let mut definition = document["definitions"].get(name)?.clone();
    let map = definition.as_object_mut().unwrap();
    map.remove("x-kubernetes-group-version-kind");
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for own in ["metadata", "apiVersion", "kind"] {
            properties.remove(own);
        }
        if properties.is_empty() {
            map.remove("properties");
        }
    }
    Some(definition)
}

#[tokio::test]
async fn a_definition_is_published_as_its_schema_says_and_goes_with_its_version() {
    let server = TestServer::start().await;
    define(&server, "foo.example.com", &["v2", "v3"], foo()).await;
    for version in ["v2", "v3"] {
        let name = format!("com.example.foo.{version}.Noxu");
        assert_eq!(published(&server, &name).await, Some(foo()), "works for CRD with validation schema");
    }
    let one = format!("{DEFINITIONS}/noxus.foo.example.com");
    let rename = json!([{"op": "test", "path": "/spec/versions/1/name", "value": "v3"},
        {"op": "replace", "path": "/spec/versions/1/name", "value": "v4"}]);
    let types = ("application/json-patch+json", "application/json");
    let (code, _, body) = send_as(&server, ("PATCH", &one), types, rename.to_string()).await;
    assert_eq!(code, 200, "{body}");
    let renamed = until(async || published(&server, "com.example.foo.v4.Noxu").await).await;
    assert_eq!(renamed, foo(), "updates the published spec when one version gets renamed");
    assert_eq!(published(&server, "com.example.foo.v3.Noxu").await, None);
    let unserve = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    let (code, _, body) = send_as(&server, ("PATCH", &one), types, unserve.to_string()).await;
    assert_eq!(code, 200, "{body}");
    until(async || published(&server, "com.example.foo.v4.Noxu").await.is_none().then_some(())).await;
    assert_eq!(published(&server, "com.example.foo.v2.Noxu").await, Some(foo()));
}

#[tokio::test]
async fn open_schemas_are_published_so_that_kubectl_takes_any_field() {
    let server = TestServer::start().await;
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    define(&server, "empty.example.com", &["v1"], open.clone()).await;
    let name = |group: &str| format!("com.example.{group}.v1.Noxu");
    assert_eq!(
        published(&server, &name("empty")).await,
        Some(json!({"type": "object"})),
        "works for CRD without validation schema"
    );
    let nested = json!({"type": "object", "description": "preserve-unknown-properties in nested field for Testing",
        "required": ["maybe"], "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}},
            "maybe": {"type": "object", "nullable": true, "properties": {"b": {"type": "string"}}}}});
    define(&server, "nested.example.com", &["v1"], nested).await;
    let expected = json!({"type": "object", "description": "preserve-unknown-properties in nested field for Testing",
        "properties": {"spec": {"x-kubernetes-preserve-unknown-fields": true}, "maybe": {}}});
    assert_eq!(published(&server, &name("nested")).await, Some(expected));
    let (_, document) = server.send("GET", "/openapi/v3/apis/nested.example.com/v1", None).await;
    let own = &document["components"]["schemas"][&name("nested")];
    assert_eq!(own["properties"]["spec"]["properties"]["a"]["type"], "string");
    let described = |field: &str| own["properties"][field]["description"].as_str().unwrap().to_owned();
    assert!(
        described("apiVersion").starts_with("APIVersion defines"),
        "as kubectl explain is expected to show it"
    );
    assert!(described("metadata").starts_with("Standard object's metadata"));
}

#[tokio::test]
async fn a_custom_resource_changes_the_hash_of_its_own_group_alone() {
    let server = TestServer::start().await;
    let urls = async || server.send("GET", "/openapi/v3", None).await.1["paths"].clone();
    let before = urls().await;
    define(&server, "hash.example.com", &["v1"], foo()).await;
    let after = urls().await;
    for (path, url) in before.as_object().unwrap() {
        assert_eq!(after[path], *url, "{path}");
    }
    assert!(after["apis/hash.example.com/v1"].is_object());
}

#[tokio::test]
async fn a_backend_that_has_no_metadata_answers_406_for_a_table() {
    let server = TestServer::start().await;
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let types = ("application/json", table);
    let (code, _, status) = send_as(&server, ("POST", path), types, review.to_string()).await;
    assert_eq!((code, &status["reason"]), (406, &json!("NotAcceptable")), "{status}");
    let (code, _, done) = send_as(&server, ("POST", path), JSON, review.to_string()).await;
    assert_eq!((code, &done["status"]["allowed"]), (201, &json!(true)));
}

#[tokio::test]
async fn every_group_has_a_preferred_version_that_it_lists_and_serves() {
    let server = TestServer::start().await;
    define(&server, "found.example.com", &["v1beta1", "v1"], foo()).await;
    let (_, list) = server.send("GET", "/apis", None).await;
    let mut seen = 0;
    for group in list["groups"].as_array().unwrap() {
        let name = group["name"].as_str().unwrap();
        let (code, own) = server.send("GET", &format!("/apis/{name}"), None).await;
        assert_eq!((code, &own["name"]), (200, &group["name"]));
        let preferred = &own["preferredVersion"]["groupVersion"];
        assert!(own["versions"].as_array().unwrap().iter().any(|v| v["groupVersion"] == *preferred), "{own}");
        let (code, resources) =
            server.send("GET", &format!("/apis/{}", preferred.as_str().unwrap()), None).await;
        assert_eq!((code, &resources["groupVersion"]), (200, preferred));
        assert!(!resources["resources"].as_array().unwrap().is_empty(), "{name}");
        if name == "found.example.com" {
            assert_eq!(preferred, "found.example.com/v1");
        }
        seen += 1;
    }
    assert!(seen > 15);
    let (_, version) = server.send("GET", "/version", None).await;
    assert_eq!((version["major"].as_str(), version["minor"].as_str()), (Some("1"), Some("36")));
}

#[tokio::test]
async fn custom_groups_are_registered_and_forgotten_with_their_definitions() {
    let server = TestServer::start().await;
    define(&server, "auto.example.com", &["v1"], foo()).await;
    let path = "/apis/apiregistration.k8s.io/v1/apiservices/v1.auto.example.com";
    let service = until(async || {
        let (code, service) = server.send("GET", path, None).await;
        (code == 200).then_some(service)
    })
    .await;
    assert_eq!(service["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    assert_eq!(
        (&service["spec"]["groupPriorityMinimum"], &service["spec"]["versionPriority"]),
        (&json!(1000), &json!(100))
    );
    assert_eq!(service["status"]["conditions"][0]["reason"], "Local");
    server.send("DELETE", &format!("{DEFINITIONS}/noxus.auto.example.com"), None).await;
    until(async || (server.send("GET", path, None).await.0 == 404).then_some(())).await;
}
