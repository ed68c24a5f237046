//! `[sig-api-machinery] Garbage collector`, with all controllers and no node: pods stay pending, and go when deleted.

use serde_json::{Value, json};

use super::{controlled, count, post, send_as, until};
use crate::server::TestServer;

const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";

/// Makes a replication controller and waits until it has made its pods.
async fn controller(server: &TestServer, name: &str, replicas: usize) -> Value {
    let labels = json!({"gctest": name});
    let object = json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": labels, "template": {
        "metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "nginx", "image": "nginx"}]}}}});
    let made = post(server, CONTROLLERS, object).await;
    let mine = format!("{PODS}?labelSelector=gctest%3D{name}");
    until(async || (count(server, &mine).await == replicas).then_some(())).await;
    made
}

/// Deletes under the precondition that it is this very object; the answer.
async fn delete(server: &TestServer, path: &str, object: &Value, policy: &str) -> Value {
    let meta = &object["metadata"];
    let path = format!("{path}/{}", meta["name"].as_str().unwrap());
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy,
        "preconditions": {"uid": meta["uid"]}});
    let (code, body) = server.send("DELETE", &path, Some(options)).await;
    assert_eq!(code, 200, "{body}");
    body
}

async fn gone(server: &TestServer, path: &str, object: &Value) {
    let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
    until(async || (server.send("GET", &path, None).await.0 == 404).then_some(())).await;
}

async fn pods(server: &TestServer) -> Vec<Value> {
    server.send("GET", PODS, None).await.1["items"].as_array().unwrap().clone()
}

async fn strategic(server: &TestServer, path: &str, change: &Value) {
    let types = ("application/strategic-merge-patch+json", "application/json");
    let (code, _, body) = send_as(server, ("PATCH", path), types, change.to_string()).await;
    assert_eq!(code, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_replication_controller_go_with_it_or_stay_as_orphans() {
    let server = controlled().await;
    let background = controller(&server, "background", 2).await;
    delete(&server, CONTROLLERS, &background, "Background").await;
    until(async || (count(&server, PODS).await + count(&server, CONTROLLERS).await == 0).then_some(())).await;

    let orphaning = controller(&server, "orphaning", 10).await;
    let told = delete(&server, CONTROLLERS, &orphaning, "Orphan").await;
    assert_eq!(told["metadata"]["finalizers"], json!(["orphan"]), "{told}");
    gone(&server, CONTROLLERS, &orphaning).await;
    let left = pods(&server).await;
    assert_eq!(left.len(), 10);
    assert!(left.iter().all(|pod| pod["metadata"].get("ownerReferences").is_none()), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_set_of_a_deployment_goes_with_it_or_stays_as_an_orphan() {
    let server = controlled().await;
    let labels = json!({"app": "gc"});
    let deployment = json!({"metadata": {"name": "simpletest.deployment"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "nginx", "image": "nginx"}]}}}});
    for (policy, left) in [("Background", 0), ("Orphan", 1)] {
        let made = post(&server, DEPLOYMENTS, deployment.clone()).await;
        until(async || (count(&server, SETS).await == 1).then_some(())).await;
        delete(&server, DEPLOYMENTS, &made, policy).await;
        gone(&server, DEPLOYMENTS, &made).await;
        if left == 0 {
            until(async || (count(&server, SETS).await + count(&server, PODS).await == 0).then_some(()))
                .await;
            continue;
        }
        let (_, sets) = server.send("GET", SETS, None).await;
        assert_eq!(sets["items"].as_array().unwrap().len(), left);
        let owners = &sets["items"][0]["metadata"]["ownerReferences"];
        assert!(owners.is_null(), "{owners}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_stays_until_all_its_pods_are_deleted_when_asked_to() {
    let server = controlled().await;
    let made = controller(&server, "foreground", 10).await;
    let held: Vec<String> =
        pods(&server).await.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    // A pod that cannot go yet keeps its owner.
    let holding = format!("{PODS}/{}", held[0]);
    strategic(&server, &holding, &json!({"metadata": {"finalizers": ["e2e.example.com/hold"]}})).await;
    let told = delete(&server, CONTROLLERS, &made, "Foreground").await;
    assert_eq!(told["metadata"]["finalizers"], json!(["foregroundDeletion"]), "{told}");
    until(async || (count(&server, PODS).await == 1).then_some(())).await;
    let (code, owner) = server.send("GET", &format!("{CONTROLLERS}/foreground"), None).await;
    assert_eq!((code, owner["metadata"]["deletionTimestamp"].is_string()), (200, true), "{owner}");
    strategic(&server, &holding, &json!({"metadata": {"finalizers": null}})).await;
    gone(&server, CONTROLLERS, &made).await;
    assert_eq!(count(&server, PODS).await, 0, "when the controller is gone, so are all its pods");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependents_with_another_valid_owner_are_kept() {
    let server = controlled().await;
    let first = controller(&server, "simpletest-rc-to-be-deleted", 6).await;
    let labels = json!({"another": "key"});
    let second = json!({"metadata": {"name": "simpletest-rc-to-stay"}, "spec": {"replicas": 0, "selector": labels,
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "nginx", "image": "nginx"}]}}}});
    let second = post(&server, CONTROLLERS, second).await;
    let owner = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ReplicationController",
        "name": "simpletest-rc-to-stay", "uid": second["metadata"]["uid"]}]}});
    for pod in &pods(&server).await[..3] {
        strategic(&server, &format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap()), &owner).await;
    }
    delete(&server, CONTROLLERS, &first, "Foreground").await;
    gone(&server, CONTROLLERS, &first).await;
    let left = pods(&server).await;
    assert_eq!(left.len(), 3);
    for pod in left {
        let meta = &pod["metadata"];
        assert!(meta.get("deletionTimestamp").is_none(), "{meta}");
        let owners = meta["ownerReferences"].as_array().unwrap();
        assert_eq!((owners.len(), &owners[0]["name"]), (1, &json!("simpletest-rc-to-stay")), "{meta}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_pods_does_not_block() {
    let server = controlled().await;
    until(async || {
        let path = "/api/v1/namespaces/default/serviceaccounts/default";
        (server.send("GET", path, None).await.0 == 200).then_some(())
    })
    .await;
    let mut made = Vec::new();
    for name in ["pod1", "pod2", "pod3"] {
        let pod = json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "nginx", "image": "nginx"}]}});
        made.push(post(&server, PODS, pod).await);
    }
    for (of, by) in [(0, 2), (1, 0), (2, 1)] {
        let owner = &made[by]["metadata"];
        let change = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": owner["name"],
            "uid": owner["uid"], "controller": true, "blockOwnerDeletion": true}]}});
        strategic(&server, &format!("{PODS}/{}", made[of]["metadata"]["name"].as_str().unwrap()), &change)
            .await;
    }
    delete(&server, PODS, &made[0], "Foreground").await;
    until(async || (count(&server, PODS).await == 0).then_some(())).await;
}
