//! `[sig-api-machinery] CustomResourceDefinition resources`, `CustomResourceDefinition Watch`,
//! `CustomResourcePublishOpenAPI` as far as no kubectl is needed, `AggregatedDiscovery`.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::{DEFINITIONS, MERGE, Watch, count, define, patch, post, put, send_as, until};
use crate::server::TestServer;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const JSON_PATCH: (&str, &str) = ("application/json-patch+json", "application/json");

fn open() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

#[tokio::test]
async fn definitions_are_listed_by_label_and_deleted_as_a_collection() {
    let server = TestServer::start().await;
    for i in 0..10 {
        define(&server, &format!("listed{i}.example.com"), &["v1beta1"], open()).await;
        let label = json!({"metadata": {"labels": {"e2e-list-test-uuid": "one"}}});
        patch(&server, &format!("{DEFINITIONS}/noxus.listed{i}.example.com"), label).await;
    }
    define(&server, "other.example.com", &["v1beta1"], open()).await;
    let mine = format!("{DEFINITIONS}?labelSelector=e2e-list-test-uuid%3Done");
    let (_, list) = server.send("GET", &mine, None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 10);
    for item in list["items"].as_array().unwrap() {
        let path = format!("{DEFINITIONS}/{}", item["metadata"]["name"].as_str().unwrap());
        let (_, one) = server.send("GET", &path, None).await;
        assert_eq!(item["spec"], one["spec"]);
    }
    let (code, _) = server.send("DELETE", &mine, None).await;
    assert_eq!(code, 200);
    until(async || (count(&server, &mine).await == 0).then_some(())).await;
    let (code, _) = server.send("GET", &format!("{DEFINITIONS}/noxus.other.example.com"), None).await;
    assert_eq!(code, 200);
    let (code, _) = server.send("DELETE", &format!("{DEFINITIONS}/noxus.other.example.com"), None).await;
    assert_eq!(code, 200);
    until(async || (count(&server, DEFINITIONS).await == 0).then_some(())).await;
}

#[tokio::test]
async fn the_status_of_a_definition_is_read_updated_and_patched() {
    let server = TestServer::start().await;
    define(&server, "status.example.com", &["v1beta1"], open()).await;
    let one = format!("{DEFINITIONS}/noxus.status.example.com");
    let status = format!("{one}/status");
    let updated = until(async || {
        let (_, whole) = server.send("GET", &one, None).await;
        let (code, mut seen) = server.send("GET", &status, None).await;
        assert_eq!((code, &seen["spec"]), (200, &whole["spec"]));
        // Go writes the fields of a condition that has a message alone.
        let condition = json!({"type": "", "status": "", "lastTransitionTime": null, "message": "updated"});
        seen["status"]["conditions"].as_array_mut().unwrap().push(condition);
        let (code, body) = server.send("PUT", &status, Some(seen)).await;
        assert!(matches!(code, 200 | 409), "{body}");
        (code == 200).then_some(body)
    })
    .await;
    let says = |object: &Value, message: &str| {
        let empty = |value: &Value| value.as_str().is_none_or(str::is_empty);
        object["status"]["conditions"].as_array().unwrap().iter().any(|c| {
            c["message"] == message
                && empty(&c["type"])
                && empty(&c["status"])
                && c["lastTransitionTime"].is_null()
        })
    };
    assert!(says(&updated, "updated"), "{updated}");
    let change = json!([{"op": "add", "path": "/status/conditions", "value": [{"message": "patched"}]}]);
    let (code, _, patched) = send_as(&server, ("PATCH", &status), JSON_PATCH, change.to_string()).await;
    assert!(code == 200 && says(&patched, "patched"), "{code} {patched}");
}

#[tokio::test]
async fn defaults_are_filled_in_for_requests_and_from_storage() {
    let server = TestServer::start().await;
    let mut schema = open();
    schema["properties"] = json!({"a": {"type": "string"}, "b": {"type": "string"}});
    let path = define(&server, "defaults.example.com", &["v1beta1"], schema).await;
    let object = |name: &str| json!({"apiVersion": "defaults.example.com/v1beta1", "kind": "Noxu", "metadata": {"name": name}});
    post(&server, &path, object("cr-1")).await;
    let definition = format!("{DEFINITIONS}/noxus.defaults.example.com");
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties";
    let change = json!([{"op": "add", "path": format!("{at}/a/default"), "value": "A"}]);
    let (code, _, body) = send_as(&server, ("PATCH", &definition), JSON_PATCH, change.to_string()).await;
    assert_eq!(code, 200, "{body}");
    until(async || {
        let (code, object) = server.send("GET", &format!("{path}/cr-1"), None).await;
        assert_eq!(code, 200, "{object}");
        object.get("a").map(|a| assert_eq!(a, "A"))
    })
    .await;
    assert_eq!(post(&server, &path, object("cr-2")).await["a"], "A");
    let change = json!([{"op": "remove", "path": format!("{at}/a/default")},
        {"op": "add", "path": format!("{at}/b/default"), "value": "B"}]);
    let (code, _, body) = send_as(&server, ("PATCH", &definition), JSON_PATCH, change.to_string()).await;
    assert_eq!(code, 200, "{body}");
    let object = until(async || {
        let (code, object) = server.send("GET", &format!("{path}/cr-2"), None).await;
        assert_eq!(code, 200, "{object}");
        object.get("b").is_some().then_some(object)
    })
    .await;
    assert_eq!((&object["a"], &object["b"]), (&json!("A"), &json!("B")), "what was stored stays");
}

#[tokio::test]
async fn custom_resources_are_watched_by_name() {
    let server = TestServer::start().await;
    let path = define(&server, "mygroup.example.com", &["v1beta1"], open()).await;
    let one = |name: &str| format!("{path}?fieldSelector=metadata.name%3D{name}");
    let (mut a, mut b) =
        (Watch::open(&server, &one("name1")).await, Watch::open(&server, &one("name2")).await);
    let object = |name: &str| {
        json!({"apiVersion": "mygroup.example.com/v1beta1", "kind": "Noxu", "metadata": {"name": name},
            "content": {"key": "value"}, "num": {"num1": 9_223_372_036_854_775_807_i64, "num2": 1_000_000}})
    };
    for (name, watch) in [("name1", &mut a), ("name2", &mut b)] {
        post(&server, &path, object(name)).await;
        let (kind, seen) = watch.next().await;
        assert_eq!((kind.as_str(), &seen["num"]["num1"]), ("ADDED", &json!(i64::MAX)));
    }
    for (name, watch) in [("name1", &mut a), ("name2", &mut b)] {
        let change = json!([{"op": "add", "path": "/dummy", "value": "test"}]);
        let (code, _, body) =
            send_as(&server, ("PATCH", &format!("{path}/{name}")), JSON_PATCH, change.to_string()).await;
        assert_eq!((code, &body["dummy"]), (200, &json!("test")));
        assert_eq!(watch.named().await, format!("MODIFIED {name}"));
    }
    for (name, watch) in [("name1", &mut a), ("name2", &mut b)] {
        server.send("DELETE", &format!("{path}/{name}"), None).await;
        assert_eq!(watch.named().await, format!("DELETED {name}"));
    }
}

async fn groups(server: &TestServer, path: &str) -> Value {
    let request = Request::get(path).header("accept", AGGREGATED).body(Body::empty()).unwrap();
    let bytes = server.raw(request).await.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

fn has(list: &Value, group: &str, version: &str, resource: &str) -> bool {
    let find = |list: &Value, key: &str, wanted: &str| {
        list.as_array().into_iter().flatten().find(|item| item[key] == wanted).cloned()
    };
    let named = |item: &&Value| item["metadata"]["name"].as_str().unwrap_or_default() == group;
    let group = list["items"].as_array().unwrap().iter().find(named);
    let version = group.and_then(|group| find(&group["versions"], "version", version));
    version.is_some_and(|version| find(&version["resources"], "resource", resource).is_some())
}

#[tokio::test]
async fn aggregated_discovery_has_all_groups_and_custom_ones() {
    let server = TestServer::start().await;
    let list = groups(&server, "/apis").await;
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
    );
    for (group, version, resource) in [
        ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
        ("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations"),
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        ("apiregistration.k8s.io", "v1", "apiservices"),
        ("apps", "v1", "deployments"),
        ("authentication.k8s.io", "v1", "tokenreviews"),
        ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
        ("autoscaling", "v1", "horizontalpodautoscalers"),
        ("autoscaling", "v2", "horizontalpodautoscalers"),
        ("batch", "v1", "jobs"),
        ("certificates.k8s.io", "v1", "certificatesigningrequests"),
        ("coordination.k8s.io", "v1", "leases"),
        ("discovery.k8s.io", "v1", "endpointslices"),
        ("events.k8s.io", "v1", "events"),
        ("networking.k8s.io", "v1", "ingresses"),
        ("node.k8s.io", "v1", "runtimeclasses"),
        ("policy", "v1", "poddisruptionbudgets"),
        ("scheduling.k8s.io", "v1", "priorityclasses"),
        ("storage.k8s.io", "v1", "csinodes"),
    ] {
        assert!(has(&list, group, version, resource), "{group} {version} {resource}");
    }
    assert!(has(&groups(&server, "/api").await, "", "v1", "namespaces"));
    define(&server, "group7x9.example.com", &["v1"], open()).await;
    until(async || has(&groups(&server, "/apis").await, "group7x9.example.com", "v1", "noxus").then_some(()))
        .await;
}

/// The resources that a group's documents name, from the list of groups down.
async fn discovered(server: &TestServer, group: &str, version: &str) -> Vec<String> {
    let (_, list) = server.send("GET", "/apis", None).await;
    let (_, own) = server.send("GET", &format!("/apis/{group}"), None).await;
    assert_eq!((&own["kind"], &own["name"]), (&json!("APIGroup"), &json!(group)));
    let listed = list["groups"].as_array().unwrap().iter().find(|item| item["name"] == group).unwrap();
    for found in [listed, &own] {
        assert!(found["versions"].as_array().unwrap().iter().any(|v| v["version"] == version), "{found}");
    }
    let (_, resources) = server.send("GET", &format!("/apis/{group}/{version}"), None).await;
    assert_eq!(resources["groupVersion"], format!("{group}/{version}"));
    let name = |resource: &Value| resource["name"].as_str().unwrap().to_owned();
    resources["resources"].as_array().unwrap().iter().map(name).collect()
}

#[tokio::test]
async fn the_documents_of_groups_name_the_kinds_that_configure_the_api() {
    let server = TestServer::start().await;
    for (group, wanted) in [
        ("apiextensions.k8s.io", &["customresourcedefinitions", "customresourcedefinitions/status"][..]),
        (
            "admissionregistration.k8s.io",
            &[
                "mutatingwebhookconfigurations",
                "validatingwebhookconfigurations",
                "validatingadmissionpolicies",
                "validatingadmissionpolicies/status",
                "validatingadmissionpolicybindings",
                "mutatingadmissionpolicies",
                "mutatingadmissionpolicybindings",
            ],
        ),
        (
            "flowcontrol.apiserver.k8s.io",
            &[
                "flowschemas",
                "flowschemas/status",
                "prioritylevelconfigurations",
                "prioritylevelconfigurations/status",
            ],
        ),
        (
            "certificates.k8s.io",
            &[
                "certificatesigningrequests",
                "certificatesigningrequests/approval",
                "certificatesigningrequests/status",
            ],
        ),
    ] {
        let found = discovered(&server, group, "v1").await;
        for resource in wanted {
            assert!(found.iter().any(|name| name == resource), "{group}: {resource} not in {found:?}");
        }
    }
}

#[tokio::test]
async fn kinds_of_one_group_and_of_several_are_published_together() {
    let server = TestServer::start().await;
    let schema = |what: &str| {
        json!({"type": "object", "description": what, "properties": {"spec": {"type": "object",
        "description": format!("Specification of {what}"), "properties": {"dummy": {"type": "string"}}}}})
    };
    let both = [("foos", "Foo", "v6"), ("waldos", "Waldo", "v6"), ("fives", "Five", "v5")];
    for (plural, kind, version) in both {
        let definition = json!({"metadata": {"name": format!("{plural}.common.example.com")}, "spec": {
            "group": "common.example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": schema(kind)}}]}});
        post(&server, DEFINITIONS, definition).await;
    }
    define(&server, "waldo.example.com", &["v1beta1"], schema("Noxu")).await;
    for name in ["common.v6.Foo", "common.v6.Waldo", "common.v5.Five", "waldo.v1beta1.Noxu"] {
        let (group, kind) = name.split_once('.').unwrap();
        let (version, kind) = kind.split_once('.').unwrap();
        let published = until(async || {
            let (_, document) = server.send("GET", "/openapi/v2", None).await;
            document["definitions"].get(format!("com.example.{group}.{version}.{kind}")).cloned()
        })
        .await;
        assert_eq!(published["description"], kind);
        assert_eq!(published["properties"]["spec"]["properties"]["dummy"]["type"], "string");
        let (_, document) =
            server.send("GET", &format!("/openapi/v3/apis/{group}.example.com/{version}"), None).await;
        assert!(
            document["components"]["schemas"][format!("com.example.{group}.{version}.{kind}")].is_object()
        );
    }
}

#[tokio::test]
async fn webhook_configurations_are_listed_updated_and_patched() {
    let server = TestServer::start().await;
    for kind in ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}");
        let hook = |operation: &str| {
            json!([{"name": "deny.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"],
                "clientConfig": {"service": {"namespace": "default", "name": "e2e-test-webhook", "path": "/configmaps", "port": 8443}},
                "rules": [{"operations": [operation], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}])
        };
        for i in 0..10 {
            let meta =
                json!({"name": format!("listed-{i}"), "labels": {"e2e-list-test-webhook-uuid": "one"}});
            let made = post(&server, &path, json!({"metadata": meta, "webhooks": hook("CREATE")})).await;
            assert_eq!(made["webhooks"][0]["clientConfig"]["service"]["port"], 8443);
            assert_eq!(made["webhooks"][0]["timeoutSeconds"], 10);
        }
        let mine = format!("{path}?labelSelector=e2e-list-test-webhook-uuid%3Done");
        assert_eq!(count(&server, &mine).await, 10);
        let one = format!("{path}/listed-0");
        let (_, mut object) = server.send("GET", &one, None).await;
        object["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
        let updated = put(&server, &one, object).await;
        assert_eq!(updated["metadata"]["generation"], 2);
        let change =
            json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations/0", "value": "CREATE"}]);
        let (code, _, patched) = send_as(&server, ("PATCH", &one), JSON_PATCH, change.to_string()).await;
        assert_eq!((code, &patched["webhooks"][0]["rules"][0]["operations"]), (200, &json!(["CREATE"])));
        let types = ("application/strategic-merge-patch+json", MERGE.1);
        let change = json!({"webhooks": [{"name": "deny.example.com", "timeoutSeconds": 3}]});
        let (code, _, patched) = send_as(&server, ("PATCH", &one), types, change.to_string()).await;
        assert_eq!(code, 200, "{patched}");
        assert_eq!(
            (&patched["webhooks"][0]["timeoutSeconds"], patched["webhooks"].as_array().unwrap().len()),
            (&json!(3), 1)
        );
        let (code, _) = server.send("DELETE", &mine, None).await;
        assert_eq!((code, count(&server, &mine).await), (200, 0));
    }
}
