//! `[sig-storage]`: the kinds of storage as API objects, and objects that say that they are immutable.

use serde_json::{Value, json};

use super::crud::{Life, includes};
use super::{controlled, patch, post, put, until};
use crate::server::TestServer;

const GROUP: &str = "/apis/storage.k8s.io/v1";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";

/// A kind of `storage.k8s.io` in the life of its objects.
async fn lives(resource: &str, object: Value, change: Value, status: Value) {
    let server = TestServer::start().await;
    Life { group: GROUP, resource, object, change, status }.play(&server, "storage").await;
}

#[tokio::test]
async fn a_csi_driver_runs_through_its_lifecycle() {
    let spec = json!({"volumeLifecycleModes": ["Persistent", "Ephemeral"], "fsGroupPolicy": "ReadWriteOnceWithFSType"});
    let change = json!({"spec": {"requiresRepublish": true}});
    lives("csidrivers", json!({"spec": spec}), change, Value::Null).await;
}

#[tokio::test]
async fn a_csi_node_runs_through_its_lifecycle() {
    let driver = json!({"name": "driver-1.example.com", "nodeID": "id-1", "topologyKeys": null});
    lives("csinodes", json!({"spec": {"drivers": []}}), json!({"spec": {"drivers": [driver]}}), Value::Null)
        .await;
}

#[tokio::test]
async fn csi_storage_capacities_support_api_operations() {
    let object = json!({"storageClassName": "slow", "capacity": "1Gi"});
    let change = json!({"capacity": "2Gi"});
    lives("namespaces/default/csistoragecapacities", object, change, Value::Null).await;
}

#[tokio::test]
async fn a_storage_class_runs_through_its_lifecycle() {
    let object = json!({"provisioner": "e2e-fake-provisioner", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"});
    lives("storageclasses", object, json!({"allowVolumeExpansion": true}), Value::Null).await;
}

#[tokio::test]
async fn a_volume_attachment_runs_through_its_lifecycle_and_has_a_status() {
    let server = TestServer::start().await;
    let spec = json!({"attacher": "e2e-test.storage.k8s.io", "nodeName": "node-1", "source": {"persistentVolumeName": "pv-e2e"}});
    // The suite sends a uid of its own, which is not taken over.
    let object = json!({"metadata": {"uid": "va-e2e"}, "spec": spec, "status": {"attached": false}});
    let life = Life {
        group: GROUP,
        resource: "volumeattachments",
        object: object.clone(),
        change: Value::Null,
        status: json!({"attached": true}),
    };
    life.play(&server, "va").await;
    let path = format!("{GROUP}/volumeattachments");
    let mut object = object;
    object["metadata"]["name"] = "va-status".into();
    let made = post(&server, &path, object).await;
    assert_ne!(made["metadata"]["uid"], "va-e2e");
    let status = format!("{path}/va-status/status");
    let (_, read) = server.send("GET", &status, None).await;
    assert_eq!(read["status"]["attached"], false, "{read}");
    let mut attached = patch(&server, &status, json!({"status": {"attached": true}})).await;
    assert_eq!(attached["status"]["attached"], true);
    attached["status"]["attached"] = false.into();
    assert_eq!(put(&server, &status, attached).await["status"]["attached"], false);
}

#[tokio::test]
async fn a_volume_attributes_class_runs_through_its_lifecycle() {
    let object = json!({"driverName": "e2e-fake-csi-driver", "parameters": {"iops": "3000"}});
    lives("volumeattributesclasses", object, Value::Null, Value::Null).await;
}

#[tokio::test]
async fn pods_may_have_inline_csi_volumes() {
    let server = TestServer::start().await;
    let account = json!({"metadata": {"name": "default"}});
    server.send("POST", "/api/v1/namespaces/default/serviceaccounts", Some(account)).await;
    let volumes = json!([{"name": "csi-inline-vol1", "csi": {"driver": "e2e.example.com"}},
        {"name": "csi-inline-vol2", "csi": {"driver": "e2e.example.com", "fsType": "ext4", "readOnly": true}}]);
    let mounts = json!([{"name": "csi-inline-vol1", "mountPath": "/mnt/vol1"}, {"name": "csi-inline-vol2", "mountPath": "/mnt/vol2"}]);
    let container = json!({"name": "a", "image": "busybox", "volumeMounts": mounts});
    let life = Life {
        group: "/api/v1",
        resource: "namespaces/default/pods",
        object: json!({"spec": {"volumes": volumes, "containers": [container]}}),
        change: Value::Null,
        status: Value::Null,
    };
    life.play(&server, "inline").await;
}

fn volume() -> Value {
    json!({"metadata": {"generateName": "pv-", "labels": {"e2e-pv-pool": "pv"}}, "spec": {"capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "pv", "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": "e2e-driver", "volumeHandle": "e2e-conformance"}}})
}

fn claim() -> Value {
    json!({"metadata": {"generateName": "pvc-"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "pv",
        "resources": {"requests": {"storage": "2Gi"}}}})
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Nothing is there any more; what protects volumes and claims has let go.
async fn is_empty(server: &TestServer, path: &str) {
    until(async || {
        let (_, list) = server.send("GET", path, None).await;
        list["items"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_volume_and_a_claim_run_through_their_lifecycle() {
    let server = controlled().await;
    for collection in [false, true] {
        let (volume, claim) = (post(&server, VOLUMES, volume()).await, post(&server, CLAIMS, claim()).await);
        for (path, made) in [(VOLUMES, &volume), (CLAIMS, &claim)] {
            let (name, one) = (name(made), format!("{path}/{}", name(made)));
            let patched = patch(&server, &one, json!({"metadata": {"labels": {&name: "patched"}}})).await;
            assert_eq!(patched["metadata"]["labels"][&name], "patched");
            // The binder writes to both at the same time.
            let updated = until(async || {
                let mut object = server.send("GET", &one, None).await.1;
                assert_eq!(object["metadata"]["uid"], made["metadata"]["uid"]);
                object["metadata"]["labels"][&name] = "updated".into();
                let (code, updated) = server.send("PUT", &one, Some(object)).await;
                (code == 200).then_some(updated)
            })
            .await;
            assert_eq!(updated["metadata"]["labels"][&name], "updated");
        }
        for (path, made) in [(CLAIMS, &claim), (VOLUMES, &volume)] {
            let selected = format!("{path}?labelSelector={}%3Dupdated", name(made));
            let deleted = if collection { selected.clone() } else { format!("{path}/{}", name(made)) };
            assert_eq!(server.send("DELETE", &deleted, None).await.0, 200);
            is_empty(&server, &selected).await;
        }
    }
}

#[tokio::test]
async fn changes_are_applied_to_the_status_of_volumes_and_claims() {
    let server = TestServer::start().await;
    let (volume, claim) = (post(&server, VOLUMES, volume()).await, post(&server, CLAIMS, claim()).await);
    let (volume, claim) =
        (format!("{VOLUMES}/{}/status", name(&volume)), format!("{CLAIMS}/{}/status", name(&claim)));
    for status in [&volume, &claim] {
        assert_eq!(server.send("GET", status, None).await.1["status"]["phase"], "Pending", "{status}");
    }
    let condition = json!({"type": "StatusPatched", "status": "True", "reason": "E2E patchedStatus", "message": "Set from e2e test"});
    let mut patched = patch(&server, &claim, json!({"status": {"conditions": [condition]}})).await;
    assert!(includes(&patched["status"]["conditions"], &json!([condition])), "{patched}");
    let more = json!({"type": "StatusUpdated", "status": "True", "reason": "E2E updateStatus", "message": "Set from e2e test"});
    patched["status"]["conditions"].as_array_mut().unwrap().push(more.clone());
    let updated = put(&server, &claim, patched).await;
    assert!(includes(&updated["status"]["conditions"], &json!([condition, more])), "{updated}");
    let words = json!({"message": "StatusPatched", "reason": "E2E patchStatus"});
    let mut patched = patch(&server, &volume, json!({"status": words})).await;
    assert!(includes(&patched["status"], &words), "{patched}");
    patched["status"]["reason"] = "E2E updateStatus".into();
    patched["status"]["message"] = "StatusUpdated".into();
    let updated = put(&server, &volume, patched).await;
    assert!(includes(&updated["status"], &json!({"reason": "E2E updateStatus", "message": "StatusUpdated"})));
}

/// `[sig-storage] ConfigMap` and `Secrets should be immutable if immutable field is set`.
#[tokio::test]
async fn immutable_config_maps_and_secrets_change_in_nothing_but_their_metadata() {
    let server = TestServer::start().await;
    for (plural, first, second) in
        [("configmaps", "value-1", "value-2"), ("secrets", "dmFsdWUtMQ==", "dmFsdWUtMg==")]
    {
        let path = format!("/api/v1/namespaces/default/{plural}");
        let mut object =
            post(&server, &path, json!({"metadata": {"name": "fixed"}, "data": {"data-1": first}})).await;
        let one = format!("{path}/fixed");
        object["data"]["data-4"] = second.into();
        let object = put(&server, &one, object).await;
        let mut fixed = object.clone();
        fixed["immutable"] = true.into();
        let fixed = put(&server, &one, fixed).await;
        for (field, value) in [("immutable", json!(false)), ("data", json!({"data-1": second}))] {
            let mut changed = fixed.clone();
            changed[field] = value;
            let (code, status) = server.send("PUT", &one, Some(changed)).await;
            assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{plural} {field}: {status}");
        }
        let mut labelled = fixed.clone();
        labelled["metadata"]["labels"] = json!({"label1": "value1"});
        put(&server, &one, labelled).await;
        assert_eq!(server.send("DELETE", &one, None).await.0, 200);
    }
}
