//! Pods and namespaces from their creation to their end.

use serde_json::json;

use super::*;
use crate::registry::Propagation;

async fn bind(world: &World, name: &str) {
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
    world.act("v1/pods", "binding", "default", name, binding).await.unwrap();
}

#[tokio::test]
async fn a_pod_is_admitted_bound_and_deleted_gracefully() {
    let world = World::new().await;
    let made = world.create("v1/pods", "default", pod("p")).await.unwrap();
    let spec = &made["spec"];
    assert_eq!(made["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!((&spec["serviceAccountName"], &spec["priority"]), (&json!("default"), &json!(0)));
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert!(spec["volumes"][0]["name"].as_str().unwrap().starts_with("kube-api-access-"));
    bind(&world, "p").await;
    let bound = world.get("v1/pods", "default", "p").await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let again = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "m"}});
    let error = world.act("v1/pods", "binding", "default", "p", again).await.unwrap_err();
    assert!(
        error.code() == 409 && error.message().contains("pod p is already assigned to node \"n\""),
        "{error}"
    );

    let marked = world.delete("v1/pods", "default", "p", DeleteOptions::default()).await.unwrap();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let now = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    world.delete("v1/pods", "default", "p", now).await.unwrap();
    assert_eq!(world.get("v1/pods", "default", "p").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn a_pod_gets_the_zone_of_its_node_and_no_longer_waits_for_one() {
    let world = World::new().await;
    let (zone, region) = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region");
    let node = json!({"metadata": {"name": "n", "labels": {zone: "z1", region: "r1", "other": "x"}}});
    world.create("v1/nodes", "", node).await.unwrap();
    let mut waiting = pod("p");
    waiting["metadata"]["labels"] = json!({"app": "web", zone: "wished"});
    world.create("v1/pods", "default", waiting).await.unwrap();
    let nominated = json!({"status": {"nominatedNodeName": "n"}});
    world.patch("v1/pods", Some("status"), ("default", "p"), PatchKind::Merge, nominated).await.unwrap();
    bind(&world, "p").await;
    let bound = world.get("v1/pods", "default", "p").await.unwrap();
    assert_eq!(bound["metadata"]["labels"], json!({"app": "web", zone: "z1", region: "r1"}));
    assert_eq!(bound["status"].get("nominatedNodeName"), None);

    let mut placed = pod("q");
    placed["metadata"]["labels"] = json!({zone: "wished"});
    placed["spec"]["nodeName"] = json!("n");
    let placed = world.create("v1/pods", "default", placed).await.unwrap();
    assert_eq!(placed["metadata"]["labels"], json!({zone: "wished", region: "r1"}));
}

#[tokio::test]
async fn an_unscheduled_pod_goes_at_once() {
    let world = World::new().await;
    world.create("v1/pods", "default", pod("p")).await.unwrap();
    world.delete("v1/pods", "default", "p", DeleteOptions::default()).await.unwrap();
    assert_eq!(world.get("v1/pods", "default", "p").await.unwrap_err().code(), 404);
    let error = world.delete("v1/pods", "default", "p", DeleteOptions::default()).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (404, "pods \"p\" not found"));
}

#[tokio::test]
async fn an_eviction_deletes_and_a_budget_stops_it() {
    let world = World::new().await;
    let mut object = pod("p");
    object["metadata"]["labels"] = json!({"app": "x"});
    world.create("v1/pods", "default", object).await.unwrap();
    bind(&world, "p").await;
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let running = json!({"status": {"phase": "Running", "conditions": ready}});
    world.patch("v1/pods", Some("status"), ("default", "p"), PatchKind::Merge, running).await.unwrap();
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    world.create("policy/v1/poddisruptionbudgets", "default", budget).await.unwrap();
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1,
        "desiredHealthy": 1, "expectedPods": 1}});
    let at = ("default", "b");
    world
        .patch("policy/v1/poddisruptionbudgets", Some("status"), at, PatchKind::Merge, status)
        .await
        .unwrap();
    let eviction = json!({"metadata": {"name": "p"}});
    let error = world.act("v1/pods", "eviction", "default", "p", eviction.clone()).await.unwrap_err();
    assert_eq!(error.code(), 429, "{error}");
    world.delete("policy/v1/poddisruptionbudgets", "default", "b", DeleteOptions::default()).await.unwrap();
    world.act("v1/pods", "eviction", "default", "p", eviction).await.unwrap();
    let pod = world.get("v1/pods", "default", "p").await.unwrap();
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test]
async fn finalizers_keep_an_object_until_the_last_is_gone() {
    let world = World::new().await;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.com/x"]);
    world.create("v1/configmaps", "default", object).await.unwrap();
    let foreground = DeleteOptions { propagation: Some(Propagation::Foreground), ..Default::default() };
    let marked = world.delete("v1/configmaps", "default", "a", foreground).await.unwrap();
    assert_eq!(marked["metadata"]["finalizers"], json!(["example.com/x", "foregroundDeletion"]));
    let at = ("default", "a");
    let one = json!({"metadata": {"finalizers": ["foregroundDeletion"]}});
    world.patch("v1/configmaps", None, at, PatchKind::Merge, one).await.unwrap();
    let none = json!({"metadata": {"finalizers": null}});
    world.patch("v1/configmaps", None, at, PatchKind::Merge, none).await.unwrap();
    assert_eq!(world.get("v1/configmaps", "default", "a").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn pods_of_replication_controllers_and_jobs_are_orphaned_unless_a_delete_says_otherwise() {
    let world = World::new().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let mut always = template.clone();
    always["spec"]["restartPolicy"] = json!("Always");
    let set = json!({"selector": {"matchLabels": {"a": "b"}}, "template": always});
    for (row, spec, by_default) in [
        ("v1/replicationcontrollers", json!({"template": always}), true),
        ("batch/v1/jobs", json!({"template": template}), true),
        ("apps/v1/replicasets", set.clone(), false),
        ("apps/v1/deployments", set, false),
    ] {
        for (propagation, finalizers, kept) in [
            (None, json!([]), by_default),
            (None, json!(["foregroundDeletion"]), true),
            (Some(Propagation::Background), json!([]), false),
            (Some(Propagation::Orphan), json!([]), true),
        ] {
            let object = json!({"metadata": {"name": "x", "finalizers": finalizers}, "spec": spec});
            world.create(row, "default", object).await.unwrap();
            let options = DeleteOptions { propagation, ..Default::default() };
            let told = world.delete(row, "default", "x", options).await.unwrap();
            assert_eq!(told["metadata"]["deletionTimestamp"].is_string(), kept, "{row} {propagation:?}");
            if kept {
                let wanted = if finalizers == json!([]) { json!(["orphan"]) } else { finalizers };
                assert_eq!(told["metadata"]["finalizers"], wanted, "{row} {propagation:?}");
                let none = json!({"metadata": {"finalizers": null}});
                world.patch(row, None, ("default", "x"), PatchKind::Merge, none).await.unwrap();
            }
            assert_eq!(world.get(row, "default", "x").await.unwrap_err().code(), 404);
        }
    }
}

#[tokio::test]
async fn preconditions_guard_a_delete() {
    let world = World::new().await;
    world.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let mut options = DeleteOptions::default();
    options.preconditions.uid = Some("other".into());
    let error = world.delete("v1/configmaps", "default", "a", options).await.unwrap_err();
    assert!(error.code() == 409 && error.message().contains("UID in precondition: other"), "{error}");
    let done = world.delete("v1/configmaps", "default", "a", DeleteOptions::default()).await.unwrap();
    assert_eq!((&done["kind"], &done["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(done["details"]["name"], "a");
}

#[tokio::test]
async fn a_namespace_that_ends_takes_nothing_new_and_goes_when_finalized() {
    let world = World::new().await;
    let missing = world.create("v1/configmaps", "nowhere", config_map("a")).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (404, "namespaces \"nowhere\" not found"));
    world.create("v1/namespaces", "", json!({"metadata": {"name": "x"}})).await.unwrap();
    let ending = world.delete("v1/namespaces", "", "x", DeleteOptions::default()).await.unwrap();
    assert_eq!(ending["status"]["phase"], "Terminating");
    let error = world.create("v1/configmaps", "x", config_map("a")).await.unwrap_err();
    assert_eq!(error.code(), 403);
    assert!(error.message().contains("because it is being terminated"), "{error}");
    let mut finalized = world.get("v1/namespaces", "", "x").await.unwrap();
    finalized["spec"]["finalizers"] = json!([]);
    world.update("v1/namespaces", Some("finalize"), finalized).await.unwrap();
    assert_eq!(world.get("v1/namespaces", "", "x").await.unwrap_err().code(), 404);
    let error = world.delete("v1/namespaces", "", "default", DeleteOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), 403);
}
