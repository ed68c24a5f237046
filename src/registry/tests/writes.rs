//! Creates, updates and patches.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_create_fills_in_metadata_and_the_read_shows_the_same() {
    let world = World::new().await;
    let made = world.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    assert_eq!((made["apiVersion"].as_str(), made["kind"].as_str()), (Some("v1"), Some("ConfigMap")));
    let meta = &made["metadata"];
    assert_eq!(meta["namespace"], "default");
    assert!(meta["uid"].as_str().unwrap().len() == 36 && meta["creationTimestamp"].is_string());
    assert!(meta["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(world.get("v1/configmaps", "default", "a").await.unwrap(), made);
    let error = world.create("v1/configmaps", "default", config_map("a")).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (409, "configmaps \"a\" already exists"));
}

#[tokio::test]
async fn bad_bodies_are_refused_with_upstreams_words() {
    let world = World::new().await;
    let cases = [
        (
            json!({"apiVersion": "v2"}),
            400,
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (json!({"kind": "Pod"}), 400, "cannot be handled as a ConfigMap"),
        (
            json!({"metadata": {"name": "a", "namespace": "x"}}),
            400,
            "the namespace of the provided object does not match",
        ),
        (
            json!({"metadata": {"name": "a", "resourceVersion": "1"}}),
            400,
            "resourceVersion should not be set",
        ),
        (
            json!({"metadata": {"name": "a"}, "daat": {}}),
            400,
            "strict decoding error: unknown field \"daat\"",
        ),
        (
            json!({"metadata": {"name": "a"}, "data": {"a": 1}}),
            400,
            "json: cannot unmarshal number into Go struct field",
        ),
        (
            json!({"metadata": {"name": "A"}}),
            422,
            "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\"",
        ),
        (json!([]), 400, "the object provided is unrecognized (must be of type ConfigMap)"),
    ];
    for (object, code, text) in cases {
        let error = world.create("v1/configmaps", "default", object.clone()).await.unwrap_err();
        assert!(
            error.code() == code && error.message().contains(text),
            "{object}: {} {}",
            error.code(),
            error.message()
        );
    }
}

#[tokio::test]
async fn unknown_fields_are_warnings_unless_strict() {
    let world = World::new().await;
    let mut cx = world.cx();
    cx.field_validation = FieldValidation::Warn;
    let object = json!({"metadata": {"name": "a"}, "foo": 1});
    let made = world.create_with(&cx, "v1/configmaps", "default", object).await.unwrap();
    assert_eq!(cx.take_warnings(), ["unknown field \"foo\""]);
    assert!(made.get("foo").is_none());
}

#[tokio::test]
async fn generated_names_differ() {
    let world = World::new().await;
    let object = json!({"metadata": {"generateName": "web-"}});
    let first = world.create("v1/configmaps", "default", object.clone()).await.unwrap();
    let second = world.create("v1/configmaps", "default", object).await.unwrap();
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
    assert!(first["metadata"]["name"].as_str().unwrap().starts_with("web-"));
}

#[tokio::test]
async fn updates_are_guarded_by_the_resource_version() {
    let world = World::new().await;
    let made = world.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let mut new = made.clone();
    new["data"]["a"] = "2".into();
    let updated = world.update("v1/configmaps", None, new.clone()).await.unwrap();
    assert_eq!(updated["data"]["a"], "2");
    assert_eq!(updated["metadata"]["uid"], made["metadata"]["uid"]);
    new["data"]["a"] = "3".into();
    let error = world.update("v1/configmaps", None, new.clone()).await.unwrap_err();
    assert_eq!(error.code(), 409);
    assert_eq!(
        error.message(),
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    new["metadata"]["resourceVersion"] = "".into();
    assert_eq!(world.update("v1/configmaps", None, new).await.unwrap()["data"]["a"], "3");
    let error = world.update("v1/configmaps", None, config_map("b")).await.unwrap_err();
    assert_eq!(error.code(), 404);
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let world = World::new().await;
    let made = world.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let same = world.update("v1/configmaps", None, made.clone()).await.unwrap();
    assert_eq!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn leases_are_created_by_put_and_need_a_version_afterwards() {
    let world = World::new().await;
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}});
    world.update("coordination.k8s.io/v1/leases", None, lease.clone()).await.unwrap_err();
    let mut versioned = lease.clone();
    versioned["metadata"]["resourceVersion"] = "1".into();
    world.create("coordination.k8s.io/v1/leases", "default", lease.clone()).await.unwrap();
    let error = world.update("coordination.k8s.io/v1/leases", None, lease).await.unwrap_err();
    assert!(
        error.message().contains("metadata.resourceVersion: Invalid value: 0: must be specified"),
        "{error}"
    );
    assert_eq!(world.update("coordination.k8s.io/v1/leases", None, versioned).await.unwrap_err().code(), 409);
}

#[tokio::test]
async fn a_dry_run_answers_and_leaves_no_trace() {
    let world = World::new().await;
    let mut cx = world.cx();
    cx.dry_run = true;
    world.create_with(&cx, "v1/configmaps", "default", config_map("a")).await.unwrap();
    assert_eq!(world.get("v1/configmaps", "default", "a").await.unwrap_err().code(), 404);
    world.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let error = world.create_with(&cx, "v1/configmaps", "default", config_map("a")).await.unwrap_err();
    assert_eq!(error.code(), 409);
    let mut new = config_map("a");
    new["data"]["a"] = "2".into();
    assert_eq!(world.update_with(&cx, "v1/configmaps", None, new).await.unwrap()["data"]["a"], "2");
    assert_eq!(world.get("v1/configmaps", "default", "a").await.unwrap()["data"]["a"], "1");
}

#[tokio::test]
async fn every_kind_of_patch_changes_the_object() {
    let world = World::new().await;
    world.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let at = ("default", "a");
    let path = "v1/configmaps";
    let merged = world.patch(path, None, at, PatchKind::Merge, json!({"data": {"b": "2"}})).await.unwrap();
    assert_eq!(merged["data"], json!({"a": "1", "b": "2"}));
    let patch = json!([{"op": "remove", "path": "/data/a"}]);
    assert_eq!(world.patch(path, None, at, PatchKind::Json, patch).await.unwrap()["data"], json!({"b": "2"}));
    let strategic =
        world.patch(path, None, at, PatchKind::Strategic, json!({"data": {"b": null}})).await.unwrap();
    assert!(strategic.get("data").is_none_or(|data| data == &json!({})), "{strategic}");
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"c": "1"}});
    assert_eq!(world.patch(path, None, at, PatchKind::Merge, stale).await.unwrap_err().code(), 409);
    let unknown = world.patch(path, None, at, PatchKind::Merge, json!({"foo": 1})).await.unwrap_err();
    assert!(unknown.code() == 422 && unknown.message().contains("unknown field \"foo\""), "{unknown}");
    let nobody = world.patch(path, None, ("default", "b"), PatchKind::Merge, json!({})).await.unwrap_err();
    assert_eq!(nobody.code(), 404);
    let applied =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"x": "y"}});
    let made = world.patch(path, None, ("default", "c"), PatchKind::Apply, applied).await.unwrap();
    assert_eq!(made["data"], json!({"x": "y"}));
}

#[tokio::test]
async fn spec_and_status_have_separate_writers_and_generation_counts_the_spec() {
    let world = World::new().await;
    let path = "apps/v1/deployments";
    let object = json!({"metadata": {"name": "d"}, "status": {"replicas": 9}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    let made = world.create(path, "default", object).await.unwrap();
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made["status"].get("replicas").is_none(), "{}", made["status"]);
    let status = json!({"spec": {"replicas": 7}, "status": {"replicas": 3}});
    let at = ("default", "d");
    let after = world.patch(path, Some("status"), at, PatchKind::Merge, status).await.unwrap();
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(1), &json!(3)));
    assert_eq!(after["metadata"]["generation"], 1);
    let spec = json!({"spec": {"replicas": 7}, "status": {"replicas": 4}});
    let after = world.patch(path, None, at, PatchKind::Merge, spec).await.unwrap();
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(7), &json!(3)));
    assert_eq!(after["metadata"]["generation"], 2);
    let scale = world
        .patch(path, Some("scale"), at, PatchKind::Merge, json!({"spec": {"replicas": 2}}))
        .await
        .unwrap();
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(world.get(path, "default", "d").await.unwrap()["spec"]["replicas"], 2);
}

#[tokio::test]
async fn racing_patches_all_take_effect() {
    let world = World::new().await;
    world.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let patches = (0..20).map(|i| {
        world.patch(
            "v1/configmaps",
            None,
            ("default", "a"),
            PatchKind::Merge,
            json!({"data": {format!("k{i}"): "x"}}),
        )
    });
    for result in futures::future::join_all(patches).await {
        result.unwrap();
    }
    let data = world.get("v1/configmaps", "default", "a").await.unwrap()["data"].take();
    assert_eq!(data.as_object().unwrap().len(), 21);
}

#[tokio::test]
async fn an_applied_scale_owns_the_replica_count() {
    let world = World::new().await;
    let path = "apps/v1/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    world.create(path, "default", deployment).await.unwrap();
    let scale = |replicas: i32| {
        let body = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"},
            "spec": {"replicas": replicas}});
        Body::yaml(body.to_string())
    };
    let row = world.row(path);
    let mut cx = world.cx();
    cx.field_manager = "scaler".into();
    let apply = |cx: RequestContext, replicas| {
        let (row, world) = (row.clone(), &world);
        async move {
            world
                .registry
                .patch(&cx, &row, Some("scale"), "default", "d", PatchKind::Apply, scale(replicas))
                .await
                .map(value)
        }
    };
    let conflict = apply(cx, 3).await.unwrap_err();
    assert!(conflict.code() == 409 && conflict.message().contains("spec.replicas"), "{conflict}");
    let mut cx = world.cx();
    cx.field_manager = "scaler".into();
    cx.force = true;
    assert_eq!(apply(cx, 3).await.unwrap()["spec"]["replicas"], 3);
    let now = world.get(path, "default", "d").await.unwrap();
    assert_eq!(now["spec"]["replicas"], 3);
    let entries = now["metadata"]["managedFields"].as_array().unwrap().clone();
    let own = entries.iter().find(|entry| entry["manager"] == "scaler").unwrap();
    assert_eq!((own["subresource"].as_str(), own["operation"].as_str()), (Some("scale"), Some("Apply")));
    assert_eq!(own["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
}

#[tokio::test]
async fn what_the_server_chooses_belongs_to_nobody() {
    let world = World::new().await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let made = world.create("v1/services", "default", service).await.unwrap();
    assert!(made["spec"]["clusterIP"].is_string());
    let fields = made["metadata"]["managedFields"][0]["fieldsV1"].to_string();
    assert!(fields.contains("f:ports") && !fields.contains("clusterIP"), "{fields}");
    let made = world.create("v1/pods", "default", pod("p")).await.unwrap();
    assert!(made["spec"]["tolerations"].is_array());
    let fields = made["metadata"]["managedFields"][0]["fieldsV1"].to_string();
    assert!(fields.contains("f:containers") && !fields.contains("tolerations"), "{fields}");
}
