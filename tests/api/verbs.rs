//! Every verb and every kind of patch, with the kube client in the server's process.

use futures::{StreamExt as _, TryStreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::server::TestServer;

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "test"}},
        "data": {"key": value},
    }))
    .unwrap()
}

fn value_of(map: &ConfigMap, key: &str) -> Option<String> {
    map.data.as_ref()?.get(key).cloned()
}

#[tokio::test]
async fn objects_are_created_read_replaced_and_deleted() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.admin());
    let created = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    assert!(created.metadata.uid.is_some() && created.metadata.resource_version.is_some());
    let error = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err();
    assert!(error.to_string().contains(r#"configmaps "a" already exists"#), "{error}");

    let mut changed = maps.get("a").await.unwrap();
    assert_eq!(changed, created);
    changed.data.as_mut().unwrap().insert("key".into(), "2".into());
    let replaced = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(value_of(&replaced, "key").as_deref(), Some("2"));
    let stale = maps.replace("a", &PostParams::default(), &changed).await.unwrap_err();
    let kube::Error::Api(status) = stale else { panic!("{stale}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));

    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let kube::Error::Api(status) = maps.get("a").await.unwrap_err() else { panic!("not an API error") };
    assert_eq!((status.code, status.message.as_str()), (404, r#"configmaps "a" not found"#));
}

#[tokio::test]
async fn every_kind_of_patch_is_applied() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.admin());
    maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let plain = PatchParams::default();
    let merge = Patch::Merge(json!({"data": {"merge": "m"}}));
    let patched = maps.patch("a", &plain, &merge).await.unwrap();
    assert_eq!(
        (value_of(&patched, "merge").as_deref(), value_of(&patched, "key").as_deref()),
        (Some("m"), Some("1"))
    );
    let strategic = Patch::Strategic(json!({"data": {"merge": null, "strategic": "s"}}));
    let patched = maps.patch("a", &plain, &strategic).await.unwrap();
    assert_eq!((value_of(&patched, "merge"), value_of(&patched, "strategic").as_deref()), (None, Some("s")));
    let (code, body) =
        json_patch(&server, json!([{"op": "replace", "path": "/data/key", "value": "j"}])).await;
    assert_eq!((code, &body["data"]["key"]), (200, &json!("j")), "{body}");
    let (code, _) = json_patch(&server, json!([{"op": "test", "path": "/data/key", "value": "other"}])).await;
    assert_eq!(code, 422);

    let apply =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"x": "1"}});
    let applied = maps.patch("b", &PatchParams::apply("one"), &Patch::Apply(&apply)).await.unwrap();
    assert_eq!(value_of(&applied, "x").as_deref(), Some("1"));
    let mut other = apply.clone();
    other["data"]["x"] = "2".into();
    let conflict = maps.patch("b", &PatchParams::apply("two"), &Patch::Apply(&other)).await.unwrap_err();
    assert!(conflict.to_string().contains("conflict"), "{conflict}");
    let forced = maps.patch("b", &PatchParams::apply("two").force(), &Patch::Apply(&other)).await.unwrap();
    assert_eq!(value_of(&forced, "x").as_deref(), Some("2"));
}

async fn json_patch(server: &TestServer, patch: serde_json::Value) -> (u16, serde_json::Value) {
    use http_body_util::BodyExt as _;
    let request = http::Request::builder()
        .method("PATCH")
        .uri("/api/v1/namespaces/default/configmaps/a")
        .header("content-type", "application/json-patch+json")
        .body(axum::body::Body::from(patch.to_string()))
        .unwrap();
    let response = server.raw(request).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn dry_run_answers_and_changes_nothing() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.admin());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let created = maps.create(&dry, &config_map("a", "1")).await.unwrap();
    assert_eq!(value_of(&created, "key").as_deref(), Some("1"));
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn lists_are_selected_and_paged() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.admin());
    for name in ["a", "b", "c", "d", "e"] {
        let mut map = config_map(name, name);
        if name == "c" {
            map.metadata.labels = None;
        }
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let names = |list: &kube::core::ObjectList<ConfigMap>| {
        list.items.iter().filter_map(|m| m.metadata.name.clone()).filter(|n| n.len() == 1).collect::<String>()
    };
    assert_eq!(names(&maps.list(&ListParams::default().labels("app=test")).await.unwrap()), "abde");
    assert_eq!(names(&maps.list(&ListParams::default().fields("metadata.name=c")).await.unwrap()), "c");
    let mut page = ListParams::default().labels("app=test").limit(3);
    let first = maps.list(&page).await.unwrap();
    assert_eq!(names(&first), "abd");
    page.continue_token = first.metadata.continue_;
    assert_eq!(names(&maps.list(&page).await.unwrap()), "e");
    let everywhere: Api<ConfigMap> = Api::all(server.admin());
    assert_eq!(names(&everywhere.list(&ListParams::default()).await.unwrap()), "abcde");
}

#[tokio::test]
async fn collection_is_deleted_by_selector() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.admin());
    for name in ["a", "b"] {
        maps.create(&PostParams::default(), &config_map(name, "1")).await.unwrap();
    }
    let only_a = ListParams::default().fields("metadata.name=a");
    maps.delete_collection(&DeleteParams::default(), &only_a).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none() && maps.get_opt("b").await.unwrap().is_some());
}

#[tokio::test]
async fn watch_tells_every_change_in_order_and_resumes() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.admin());
    let from = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default().labels("app=test").timeout(20);
    let events = maps.watch(&params, &from).await.unwrap();
    maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let merge = Patch::Merge(json!({"data": {"key": "2"}}));
    maps.patch("a", &PatchParams::default(), &merge).await.unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    pin_mut!(events);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(map) => seen.push(format!("added {}", value_of(&map, "key").unwrap())),
            WatchEvent::Modified(map) => seen.push(format!("modified {}", value_of(&map, "key").unwrap())),
            WatchEvent::Deleted(map) => seen.push(format!("deleted {}", value_of(&map, "key").unwrap())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["added 1", "modified 2", "deleted 2"]);
    let again = maps.watch(&params, &from).await.unwrap();
    pin_mut!(again);
    assert!(matches!(again.next().await.unwrap().unwrap(), WatchEvent::Added(_)), "events are replayed");
}

#[tokio::test]
async fn watch_ends_when_its_time_is_over_and_when_the_server_stops() {
    let server = TestServer::start().await;
    let namespaces: Api<Namespace> = Api::all(server.admin());
    let version = namespaces.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let short = namespaces.watch(&WatchParams::default().timeout(1), &version).await.unwrap();
    pin_mut!(short);
    while short.next().await.is_some() {}
    let long = namespaces.watch(&WatchParams::default().timeout(200), &version).await.unwrap();
    pin_mut!(long);
    server.stop.cancel();
    while long.next().await.is_some() {}
}
