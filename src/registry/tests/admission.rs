//! What admission changes and refuses, through the whole pipeline.

use super::*;

fn sized(name: &str, cpu: &str) -> Value {
    let mut object = pod(name);
    object["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
    object
}

/// A quota that the controller has counted: nothing is used.
async fn counted_quota(world: &World, spec: Value) {
    let mut quota = world
        .create("v1/resourcequotas", "default", json!({"metadata": {"name": "q"}, "spec": spec}))
        .await
        .unwrap();
    let hard = quota["spec"]["hard"].clone();
    let used: serde_json::Map<String, Value> =
        hard.as_object().unwrap().keys().map(|name| (name.clone(), "0".into())).collect();
    quota["status"] = json!({"hard": hard, "used": used});
    world.update("v1/resourcequotas", Some("status"), quota).await.unwrap();
}

async fn used(world: &World) -> Value {
    world.get("v1/resourcequotas", "default", "q").await.unwrap()["status"]["used"].clone()
}

#[tokio::test]
async fn a_quota_is_charged_until_it_is_exceeded() {
    let world = World::new().await;
    counted_quota(&world, json!({"hard": {"pods": "2", "requests.cpu": "1", "count/configmaps": "1"}})).await;
    world.create("v1/pods", "default", sized("a", "600m")).await.unwrap();
    assert_eq!(used(&world).await, json!({"count/configmaps": "0", "pods": "1", "requests.cpu": "600m"}));
    let error = world.create("v1/pods", "default", sized("b", "600m")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (
            403,
            "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, \
             limited: requests.cpu=1"
        )
    );
    let error = world.create("v1/pods", "default", pod("c")).await.unwrap_err();
    assert_eq!(error.message(), "pods \"c\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    let mut cx = world.cx();
    cx.dry_run = true;
    world.create_with(&cx, "v1/pods", "default", sized("d", "100m")).await.unwrap();
    assert_eq!(used(&world).await["pods"], "1", "a dry run is not charged");
    world.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    assert_eq!(world.create("v1/configmaps", "default", config_map("b")).await.unwrap_err().code(), 403);
}

#[tokio::test]
async fn creates_at_the_same_time_do_not_exceed_a_quota_together() {
    let world = World::new().await;
    counted_quota(&world, json!({"hard": {"count/configmaps": "3"}})).await;
    let names: Vec<String> = (0..10).map(|i| format!("c{i}")).collect();
    let creates = names.iter().map(|name| world.create("v1/configmaps", "default", config_map(name)));
    let made = futures::future::join_all(creates).await.into_iter().filter(Result::is_ok).count();
    assert_eq!((made, used(&world).await["count/configmaps"].as_str()), (3, Some("3")));
}

#[tokio::test]
async fn services_are_charged_for_node_ports_when_they_change() {
    let world = World::new().await;
    counted_quota(&world, json!({"hard": {"services.nodeports": "1", "services": "5"}})).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "a", "port": 80}]}});
    let mut made = world.create("v1/services", "default", service).await.unwrap();
    assert_eq!(used(&world).await, json!({"services": "1", "services.nodeports": "0"}));
    made["spec"]["type"] = "NodePort".into();
    made = world.update("v1/services", None, made).await.unwrap();
    assert_eq!(used(&world).await["services.nodeports"], "1");
    made["spec"]["ports"] = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    assert_eq!(world.update("v1/services", None, made).await.unwrap_err().code(), 403);
}

#[tokio::test]
async fn limit_ranges_give_defaults_and_bounds() {
    let world = World::new().await;
    let limits = json!([{"type": "Container", "max": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}}]);
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": limits}});
    world.create("v1/limitranges", "default", range).await.unwrap();
    let made = world.create("v1/pods", "default", pod("a")).await.unwrap();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}})
    );
    let error = world.create("v1/pods", "default", sized("b", "2")).await.unwrap_err();
    assert_eq!(
        error.message(),
        "pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
}

#[tokio::test]
async fn namespaces_say_how_careful_their_pods_must_be() {
    let world = World::new().await;
    let label = |level: &str| {
        json!({"metadata": {"name": "default",
        "labels": {"pod-security.kubernetes.io/enforce": level}}})
    };
    assert_eq!(
        world
            .patch("v1/namespaces", None, ("", "default"), PatchKind::Merge, label("strict"))
            .await
            .unwrap_err()
            .code(),
        422
    );
    let mut loose = pod("loose");
    loose["spec"]["hostNetwork"] = true.into();
    world.create("v1/pods", "default", loose.clone()).await.unwrap();
    let cx = world.cx();
    let body = Body::json(label("baseline").to_string());
    let row = world.row("v1/namespaces");
    world.registry.patch(&cx, &row, None, "", "default", PatchKind::Merge, body).await.unwrap();
    assert_eq!(
        cx.take_warnings(),
        [
            "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "loose: host namespaces"
        ]
    );
    loose["metadata"]["name"] = "other".into();
    let error = world.create("v1/pods", "default", loose.clone()).await.unwrap_err();
    assert_eq!(
        error.message(),
        "pods \"other\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    world.create("v1/pods", "default", pod("plain")).await.unwrap();
    let cx = world.cx();
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": loose["spec"]}}});
    world.create_with(&cx, "apps/v1/deployments", "default", deployment).await.unwrap();
    assert_eq!(
        cx.take_warnings(),
        ["would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"]
    );
}

#[tokio::test]
async fn claims_and_ingresses_get_the_default_class() {
    let world = World::new().await;
    let class = json!({"metadata": {"name": "fast", "annotations":
        {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "example.com/a"});
    world.create("storage.k8s.io/v1/storageclasses", "", class).await.unwrap();
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let claim = world.create("v1/persistentvolumeclaims", "default", claim).await.unwrap();
    assert_eq!(claim["spec"]["storageClassName"], "fast");
    let class = json!({"metadata": {"name": "edge", "annotations":
        {"ingressclass.kubernetes.io/is-default-class": "true"}}, "spec": {"controller": "example.com/a"}});
    world.create("networking.k8s.io/v1/ingressclasses", "", class).await.unwrap();
    let ingress = json!({"metadata": {"name": "i"},
        "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let ingress = world.create("networking.k8s.io/v1/ingresses", "default", ingress).await.unwrap();
    assert_eq!(ingress["spec"]["ingressClassName"], "edge");
}

#[tokio::test]
async fn one_priority_class_is_the_default() {
    let world = World::new().await;
    let class = |name: &str| json!({"metadata": {"name": name}, "value": 5, "globalDefault": true});
    let path = "scheduling.k8s.io/v1/priorityclasses";
    let before = world.create("v1/pods", "default", pod("before")).await.unwrap();
    assert_eq!(
        (&before["spec"]["priority"], &before["spec"]["priorityClassName"]),
        (&json!(0), &Value::Null)
    );
    world.create(path, "", class("a")).await.unwrap();
    let error = world.create(path, "", class("b")).await.unwrap_err();
    assert!(error.message().contains("PriorityClass a is already marked as default"), "{error}");
    let made = world.create("v1/pods", "default", pod("p")).await.unwrap();
    assert_eq!((&made["spec"]["priority"], &made["spec"]["priorityClassName"]), (&json!(5), &json!("a")));
    world.delete(path, "", "a", DeleteOptions::default()).await.unwrap();
    let after = world.create("v1/pods", "default", pod("after")).await.unwrap();
    assert_eq!((&after["spec"]["priority"], &after["spec"]["priorityClassName"]), (&json!(0), &Value::Null));
}
