//! Lists, watches, and the shapes of answers.

use serde_json::json;

use super::*;
use crate::registry::{IncludeObject, Representation};

#[tokio::test]
async fn pages_show_one_version() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.create("v1/configmaps", "default", config_map(name)).await.unwrap();
    }
    let first = world.list("v1/configmaps", "default", &[("limit", "2")]).await.unwrap();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(
        (&first["kind"], &first["metadata"]["remainingItemCount"]),
        (&json!("ConfigMapList"), &json!(1))
    );
    world.create("v1/configmaps", "default", config_map("d")).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second =
        world.list("v1/configmaps", "default", &[("limit", "2"), ("continue", token)]).await.unwrap();
    assert_eq!(names(&second), ["c"], "what was created since is not shown");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn selectors_select() {
    let world = World::new().await;
    for (name, label) in [("a", "x"), ("b", "y")] {
        let mut object = pod(name);
        object["metadata"]["labels"] = json!({"l": label});
        object["spec"]["nodeName"] = format!("n{label}").into();
        world.create("v1/pods", "default", object).await.unwrap();
    }
    let cases = [
        ([("labelSelector", "l=x")], vec!["a"]),
        ([("labelSelector", "l in (x,y)")], vec!["a", "b"]),
        ([("fieldSelector", "spec.nodeName=ny")], vec!["b"]),
        ([("fieldSelector", "metadata.name!=a")], vec!["b"]),
        ([("fieldSelector", "status.phase=Running")], vec![]),
    ];
    for (query, expected) in cases {
        assert_eq!(names(&world.list("v1/pods", "", &query).await.unwrap()), expected, "{query:?}");
    }
    let error = world.list("v1/pods", "", &[("fieldSelector", "spec.foo=x")]).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (400, "field label not supported: spec.foo"));
    let error = world.list("v1/configmaps", "", &[("fieldSelector", "data.a=x")]).await.unwrap_err();
    assert!(error.message().contains("\"data.a\" is not a known field selector"), "{error}");
    let error = world.list("v1/pods", "", &[("resourceVersionMatch", "Exact")]).await.unwrap_err();
    assert!(
        error.message().contains("resourceVersionMatch is forbidden unless resourceVersion is provided"),
        "{error}"
    );
}

#[tokio::test]
async fn a_watch_follows_from_a_list() {
    let world = World::new().await;
    let list = world.list("v1/configmaps", "", &[]).await.unwrap();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    world.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let patch = json!({"data": {"a": "2"}});
    world.patch("v1/configmaps", None, ("default", "a"), PatchKind::Merge, patch).await.unwrap();
    world.delete("v1/configmaps", "default", "a", DeleteOptions::default()).await.unwrap();
    let events = world.watch(&world.cx(), "v1/configmaps", &[("resourceVersion", &version)], 3).await;
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED"]);
    assert_eq!(events[1]["object"]["data"]["a"], "2");
}

#[tokio::test]
async fn tables_and_metadata_are_made_for_every_read() {
    let world = World::new().await;
    world.create("v1/pods", "default", pod("p")).await.unwrap();
    let mut cx = world.cx();
    cx.representation = Representation::Table(IncludeObject::Metadata);
    let row = world.row("v1/pods");
    let reply = world.registry.list(&cx, &row, "default", &ListOptions::default()).await.unwrap();
    let table = value(reply);
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][1]["name"], "Ready");
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..4],
        [json!("p"), json!("0/1"), json!("Pending"), json!("0")]
    );
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let events = world.watch(&cx, "v1/pods", &[], 1).await;
    assert_eq!((&events[0]["type"], &events[0]["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    cx.representation = Representation::Metadata;
    let reply = world.registry.get(&cx, &row, None, "default", "p", &GetOptions::default()).await.unwrap();
    let partial = value(reply);
    assert!(partial.get("spec").is_none() && partial["metadata"]["name"] == "p");
}

#[tokio::test]
async fn events_are_one_thing_under_two_groups() {
    let world = World::new().await;
    let event = json!({"metadata": {"name": "e"}, "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
        "note": "hello", "reason": "r", "type": "Normal", "action": "a", "reportingController": "c",
        "reportingInstance": "i", "eventTime": "2026-01-01T00:00:00.000000Z"});
    let made = world.create("events.k8s.io/v1/events", "default", event).await.unwrap();
    assert_eq!((&made["apiVersion"], &made["note"]), (&json!("events.k8s.io/v1"), &json!("hello")));
    let core = world.get("v1/events", "default", "e").await.unwrap();
    assert_eq!((&core["apiVersion"], &core["message"]), (&json!("v1"), &json!("hello")));
    assert_eq!(core["involvedObject"]["name"], "p");
    let list = world.list("events.k8s.io/v1/events", "default", &[]).await.unwrap();
    assert_eq!((&list["kind"], &list["items"][0]["note"]), (&json!("EventList"), &json!("hello")));
    let watched = world.watch(&world.cx(), "events.k8s.io/v1/events", &[], 1).await;
    assert_eq!(watched[0]["object"]["note"], "hello");
}
