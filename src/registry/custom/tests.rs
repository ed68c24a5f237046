//! Custom resources over a real store and cache.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::error::ApiError;
use crate::registry::tests::World;
use crate::registry::{
    Body, DeleteOptions, Hooks, PatchKind, RequestContext, WebhookClient, WebhookError, WebhookTarget,
};

/// A definition of `widgets.demo.io` with one version.
fn definition(schema: Value) -> Value {
    json!({
        "metadata": {"name": "widgets.demo.io"},
        "spec": {
            "group": "demo.io", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}}],
        },
    })
}

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1},
            "color": {"type": "string", "default": "red"},
            "replicas": {"type": "integer"},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "n": {"type": "integer"}}}},
        }},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }})
}

const DEFINITIONS: &str = "apiextensions.k8s.io/v1/customresourcedefinitions";

/// A world whose definitions are kept.
async fn world() -> (World, tokio_util::sync::DropGuard) {
    let world = World::new().await;
    let stop = CancellationToken::new();
    tokio::spawn(world.registry.clone().keep_custom_resources(stop.clone()));
    (world, stop.drop_guard())
}

/// Waits until the condition holds; the rows change with every round of the keeper.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "{what}");
}

async fn served(world: &World, version: &str) {
    eventually("served", async || world.registry.find_row("demo.io", version, "widgets").is_some()).await;
    // Rows come before the status that announces them.
    eventually("established", async || {
        let read = world.get(DEFINITIONS, "", "widgets.demo.io").await.unwrap();
        crate::registry::custom::names::is_true(&read, "Established")
    })
    .await;
}

fn widget(spec: Value) -> Value {
    json!({"metadata": {"name": "a"}, "spec": spec})
}

#[tokio::test]
async fn a_custom_resource_is_defaulted_pruned_validated_and_counted() {
    let (world, _stop) = world().await;
    world.create(DEFINITIONS, "", definition(schema())).await.unwrap();
    served(&world, "v1").await;
    let extra = widget(json!({"size": 1, "other": 1}));
    let strict = world.create("demo.io/v1/widgets", "default", extra.clone()).await.unwrap_err();
    assert!(strict.message().ends_with("strict decoding error: unknown field \"spec.other\""), "{strict}");
    let cx = RequestContext::default();
    let made = world.create_with(&cx, "demo.io/v1/widgets", "default", extra).await.unwrap();
    assert_eq!(cx.take_warnings(), ["unknown field \"spec.other\""]);
    assert_eq!(made["spec"], json!({"size": 1, "color": "red"}));
    assert_eq!((&made["apiVersion"], &made["kind"]), (&json!("demo.io/v1"), &json!("Widget")));
    assert_eq!(made["metadata"]["generation"], 1);
    let mut wrong = widget(json!({"size": 0}));
    wrong["metadata"]["name"] = "b".into();
    let error = world.create("demo.io/v1/widgets", "default", wrong).await.unwrap_err();
    assert_eq!(
        error.message(),
        "Widget.demo.io \"b\" is invalid: spec.size: Invalid value: 0: spec.size in body should be greater than or \
         equal to 1"
    );
    let error = world.create("demo.io/v1/widgets", "default", widget(json!({}))).await.unwrap_err();
    assert!(error.message().ends_with("spec.size: Required value"), "{error}");
}

#[tokio::test]
async fn status_and_scale_are_written_apart() {
    let (world, _stop) = world().await;
    world.create(DEFINITIONS, "", definition(schema())).await.unwrap();
    served(&world, "v1").await;
    let mut new = widget(json!({"size": 1, "replicas": 2}));
    new["status"] = json!({"replicas": 9});
    let made = world.create("demo.io/v1/widgets", "default", new).await.unwrap();
    assert_eq!(made.get("status"), None);
    let mut next = made.clone();
    next["status"] = json!({"replicas": 2});
    next["spec"]["size"] = 5.into();
    let written = world.update("demo.io/v1/widgets", Some("status"), next).await.unwrap();
    assert_eq!((&written["status"]["replicas"], &written["spec"]["size"]), (&json!(2), &json!(1)));
    assert_eq!(written["metadata"]["generation"], 1);
    let count = json!({"spec": {"replicas": 3}});
    let scale = world
        .patch("demo.io/v1/widgets", Some("scale"), ("default", "a"), PatchKind::Merge, count)
        .await
        .unwrap();
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(3), &json!(2)));
    let read = world.get("demo.io/v1/widgets", "default", "a").await.unwrap();
    assert_eq!((&read["spec"]["replicas"], &read["metadata"]["generation"]), (&json!(3), &json!(2)));
}

#[tokio::test]
async fn a_definition_that_goes_takes_its_objects_along() {
    let (world, _stop) = world().await;
    world.create(DEFINITIONS, "", definition(schema())).await.unwrap();
    served(&world, "v1").await;
    world.create("demo.io/v1/widgets", "default", widget(json!({"size": 1}))).await.unwrap();
    let going = world.delete(DEFINITIONS, "", "widgets.demo.io", DeleteOptions::default()).await.unwrap();
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    eventually("definition gone", async || world.get(DEFINITIONS, "", "widgets.demo.io").await.is_err())
        .await;
    eventually("row gone", async || world.registry.find_row("demo.io", "v1", "widgets").is_none()).await;
    let left = world.registry.store().list("/registry/demo.io/", &Default::default()).await.unwrap();
    assert!(left.entries.is_empty());
    // The same name with another schema is another kind.
    world.create(DEFINITIONS, "", definition(json!({"type": "object"}))).await.unwrap();
    served(&world, "v1").await;
    let cx = RequestContext::default();
    let body = widget(json!({"size": 1}));
    let made = world.create_with(&cx, "demo.io/v1/widgets", "default", body).await.unwrap();
    assert_eq!(made.get("spec"), None);
}

#[tokio::test]
async fn versions_share_their_objects_and_defaults_apply_on_reading() {
    let (world, _stop) = world().await;
    let mut two = definition(schema());
    let mut v2 = two["spec"]["versions"][0].clone();
    v2["name"] = "v2".into();
    v2["storage"] = false.into();
    two["spec"]["versions"].as_array_mut().unwrap().push(v2);
    let made = world.create(DEFINITIONS, "", two).await.unwrap();
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    served(&world, "v2").await;
    world.create("demo.io/v2/widgets", "default", widget(json!({"size": 1}))).await.unwrap();
    let read = world.get("demo.io/v1/widgets", "default", "a").await.unwrap();
    assert_eq!((&read["apiVersion"], &read["spec"]["color"]), (&json!("demo.io/v1"), &json!("red")));
    let mut next = world.get(DEFINITIONS, "", "widgets.demo.io").await.unwrap();
    next["spec"]["versions"][1]["served"] = false.into();
    let shape =
        &mut next["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    shape["mood"] = json!({"type": "string", "default": "good"});
    world.update(DEFINITIONS, None, next).await.unwrap();
    eventually("v2 is dropped", async || world.registry.find_row("demo.io", "v2", "widgets").is_none()).await;
    let read = world.get("demo.io/v1/widgets", "default", "a").await.unwrap();
    assert_eq!(read["spec"], json!({"size": 1, "color": "red", "mood": "good"}));
}

#[tokio::test]
async fn appliers_own_the_items_of_lists_by_their_keys() {
    let (world, _stop) = world().await;
    world.create(DEFINITIONS, "", definition(schema())).await.unwrap();
    served(&world, "v1").await;
    let apply = |part: &str, n: i64| {
        json!({"apiVersion": "demo.io/v1", "kind": "Widget", "metadata": {"name": "a"},
            "spec": {"size": 1, "parts": [{"name": part, "n": n}]}})
    };
    let by = async |manager: &str, object: Value| {
        let mut cx = world.cx();
        cx.field_manager = manager.into();
        let row = world.row("demo.io/v1/widgets");
        let body = Body::yaml(object.to_string());
        let reply = world.registry.patch(&cx, &row, None, "default", "a", PatchKind::Apply, body).await?;
        Ok::<Value, ApiError>(serde_json::from_slice(&reply.body).unwrap())
    };
    by("one", apply("x", 1)).await.unwrap();
    let both = by("two", apply("y", 2)).await.unwrap();
    assert_eq!(both["spec"]["parts"], json!([{"name": "x", "n": 1}, {"name": "y", "n": 2}]));
    assert_eq!(by("two", apply("x", 2)).await.unwrap_err().code(), 409);
}

/// Converts `hostPort` of v1 to `host` and `port` of v2, and back, as upstream's test webhook does.
struct HostPort;

#[async_trait::async_trait]
impl WebhookClient for HostPort {
    async fn call(&self, _: &WebhookTarget, _: Duration, review: &Value) -> Result<Value, WebhookError> {
        let request = &review["request"];
        let convert = |object: &Value| {
            let mut new = object.clone();
            new["apiVersion"] = request["desiredAPIVersion"].clone();
            let map = new.as_object_mut().unwrap();
            let text =
                |value: Option<Value>| value.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            if request["desiredAPIVersion"] == "demo.io/v2" {
                let both = text(map.remove("hostPort"));
                let (host, port) = both.split_once(':').unwrap_or((&both, ""));
                map.insert("host".into(), host.into());
                map.insert("port".into(), port.into());
            } else {
                let (host, port) = (text(map.remove("host")), text(map.remove("port")));
                map.insert("hostPort".into(), format!("{host}:{port}").into());
            }
            new
        };
        let converted: Vec<Value> = request["objects"].as_array().unwrap().iter().map(convert).collect();
        Ok(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": {
            "uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted}}))
    }
}

#[tokio::test]
async fn fields_are_selected_after_a_conversion() {
    let (world, _stop) = world().await;
    world.registry.set_hooks(Hooks { webhooks: Some(Arc::new(HostPort)), ..Hooks::default() });
    let version = |name: &str, fields: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
        let selectable: Vec<Value> =
            fields.iter().map(|field| json!({"jsonPath": format!(".{field}")})).collect();
        json!({"name": name, "served": true, "storage": name == "v1", "selectableFields": selectable,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    let mut both = definition(schema());
    both["spec"]["versions"] = json!([version("v1", &["hostPort"]), version("v2", &["host", "port"])]);
    both["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "default", "name": "convert"}}}});
    world.create(DEFINITIONS, "", both).await.unwrap();
    served(&world, "v2").await;
    let (v1, v2) = ("demo.io/v1/widgets", "demo.io/v2/widgets");
    let start = world.list(v2, "default", &[]).await.unwrap()["metadata"]["resourceVersion"].clone();
    for (name, host, port) in [("a", "host1", "80"), ("b", "host1", "8080"), ("c", "host2", "")] {
        let object = json!({"metadata": {"name": name}, "host": host, "port": port});
        world.create(v2, "default", object).await.unwrap();
    }
    let names = async |path: &str, selector: &str, limit: &str| {
        let list =
            world.list(path, "default", &[("fieldSelector", selector), ("limit", limit)]).await.unwrap();
        let names: Vec<String> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        (names.join(","), list["metadata"]["continue"].is_string())
    };
    assert_eq!(names(v2, "host=host1", "").await, ("a,b".into(), false));
    assert_eq!(names(v2, "host=host1", "1").await, ("a".into(), true));
    assert_eq!(names(v2, "host=host1,port=80", "").await, ("a".into(), false));
    assert_eq!(names(v1, "hostPort=host1:8080", "").await, ("b".into(), false));

    let mut b = world.get(v2, "default", "b").await.unwrap();
    b["host"] = "host2".into();
    world.update(v2, None, b).await.unwrap();
    world.delete(v2, "default", "a", DeleteOptions::default()).await.unwrap();
    let cx = world.cx();
    let from = start.as_str().unwrap();
    let events = world.watch(&cx, v2, &[("fieldSelector", "host=host1"), ("resourceVersion", from)], 4).await;
    let seen: Vec<String> = events
        .iter()
        .map(|e| {
            format!("{} {}", e["type"].as_str().unwrap(), e["object"]["metadata"]["name"].as_str().unwrap())
        })
        .collect();
    assert_eq!(seen, ["ADDED a", "ADDED b", "DELETED b", "DELETED a"]);
    assert_eq!(
        (&events[2]["object"]["host"], &events[2]["object"]["apiVersion"]),
        (&json!("host1"), &json!("demo.io/v2"))
    );
}
