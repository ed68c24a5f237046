//! Workloads through their API: statuses, scales, collections and lifecycles, as the conformance tests go through them,
//! while their controllers run.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Resource;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::discovery::ApiResource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cluster::Cluster;

/// A kind of these tests.
trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// The objects of a kind in `default`, whatever their fields are.
fn raw<K: Kind>(cluster: &Cluster) -> Api<DynamicObject> {
    Api::namespaced_with(cluster.admin(), "default", &ApiResource::erase::<K>(&()))
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "x"}},
           "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "v1"}]}})
}

/// A workload `x` of one pod, labelled `e2e=testing`.
fn workload(patch: Value) -> Value {
    let mut body = json!({
        "metadata": {"name": "x", "labels": {"e2e": "testing"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "x"}}, "template": template()},
    });
    json_patch::merge(&mut body["spec"], &patch);
    body
}

async fn create<K: Kind>(cluster: &Cluster, body: Value) -> K {
    let object: K = serde_json::from_value(body).unwrap();
    cluster.api::<K>().create(&PostParams::default(), &object).await.unwrap()
}

/// Waits until a field of the object `x` has a value; `path` is a JSON pointer.
async fn has<K: Kind>(cluster: &Cluster, path: &str, wanted: &Value) {
    let what = format!("{path} {wanted} of the {}", K::kind(&()));
    cluster
        .eventually::<K>(&what, |all| {
            let object = all.iter().find(|object| object.meta().name.as_deref() == Some("x"));
            let found = object.map(|object| serde_json::to_value(object.as_ref()).unwrap());
            found.is_some_and(|found| found.pointer(path) == Some(wanted))
        })
        .await;
}

/// The types of the conditions of the object `x`.
fn conditions<K: Kind>(all: &[Arc<K>]) -> Vec<String> {
    let Some(object) = all.iter().find(|object| object.meta().name.as_deref() == Some("x")) else {
        return vec![];
    };
    let object = serde_json::to_value(object.as_ref()).unwrap();
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().map(|condition| condition["type"].as_str().unwrap().to_owned()).collect()
}

/// Reads, updates and patches the status of `x`; each is seen by those who watch, and the controller keeps it.
async fn status_endpoints<K: Kind>(cluster: &Cluster) {
    let api = raw::<K>(cluster);
    let read = api.get_status("x").await.unwrap();
    assert!(read.data["status"].is_object() && read.data["spec"].is_object());
    loop {
        let mut wanted = api.get("x").await.unwrap();
        let status = wanted.data["status"].as_object_mut().unwrap();
        let list = status.entry("conditions").or_insert_with(|| json!([])).as_array_mut().unwrap();
        list.push(json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}));
        let sent = api.replace_status("x", &PostParams::default(), &wanted).await;
        match sent {
            Ok(updated) => {
                let last = updated.data["status"]["conditions"].as_array().unwrap().last().unwrap().clone();
                assert_eq!(last["message"], "Set from e2e test");
                break;
            }
            Err(failure) => assert!(crate::client::error::is_conflict(&failure), "{failure}"),
        }
    }
    let has_type =
        |wanted: &'static str| move |all: &[Arc<K>]| conditions(all).iter().any(|type_| type_ == wanted);
    cluster.eventually::<K>("the updated condition", has_type("StatusUpdate")).await;
    let patch =
        Patch::Merge(json!({"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}}));
    let patched = api.patch_status("x", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data["status"]["conditions"][0]["type"], "StatusPatched");
    cluster.eventually::<K>("the patched condition", has_type("StatusPatched")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_endpoints_of_workloads_read_update_and_patch() {
    let cluster = Cluster::start(1).await;
    create::<Deployment>(&cluster, workload(json!({}))).await;
    has::<Deployment>(&cluster, "/status/availableReplicas", &json!(1)).await;
    status_endpoints::<Deployment>(&cluster).await;
    create::<StatefulSet>(&cluster, workload(json!({"serviceName": "x"}))).await;
    has::<StatefulSet>(&cluster, "/status/availableReplicas", &json!(1)).await;
    status_endpoints::<StatefulSet>(&cluster).await;
    // Its revisions must not have the names of the StatefulSet's.
    let other =
        json!({"replicas": null, "template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}});
    create::<DaemonSet>(&cluster, workload(other)).await;
    has::<DaemonSet>(&cluster, "/status/numberAvailable", &json!(1)).await;
    status_endpoints::<DaemonSet>(&cluster).await;
    create::<ReplicaSet>(&cluster, workload(json!({}))).await;
    has::<ReplicaSet>(&cluster, "/status/availableReplicas", &json!(1)).await;
    status_endpoints::<ReplicaSet>(&cluster).await;
}

/// Reads, updates and patches the scale of `x`; the update carries no version, and the patch is a whole `Scale`.
async fn scale<K: Kind>(cluster: &Cluster) {
    has::<K>(cluster, "/status/replicas", &json!(1)).await;
    let api = raw::<K>(cluster);
    let mut scale = api.get_scale("x").await.unwrap();
    assert_eq!(scale.spec.clone().unwrap().replicas, Some(1));
    assert_eq!(scale.status.clone().unwrap().replicas, 1);
    scale.metadata.resource_version = None;
    scale.spec.as_mut().unwrap().replicas = Some(2);
    let updated = api.replace_scale("x", &PostParams::default(), &scale).await.unwrap();
    assert_eq!(updated.spec.unwrap().replicas, Some(2));
    assert_eq!(api.get("x").await.unwrap().data["spec"]["replicas"], 2);
    let whole =
        json!({"metadata": {"creationTimestamp": null}, "spec": {"replicas": 4}, "status": {"replicas": 0}});
    api.patch_scale("x", &PatchParams::default(), &Patch::Strategic(whole)).await.unwrap();
    assert_eq!(api.get("x").await.unwrap().data["spec"]["replicas"], 4);
    has::<K>(cluster, "/status/replicas", &json!(4)).await;
    api.delete("x", &DeleteParams::background()).await.unwrap();
    cluster.eventually::<Pod>("no pods", <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workloads_have_a_working_scale_subresource() {
    let cluster = Cluster::start(1).await;
    create::<Deployment>(&cluster, workload(json!({}))).await;
    scale::<Deployment>(&cluster).await;
    create::<ReplicaSet>(&cluster, workload(json!({}))).await;
    scale::<ReplicaSet>(&cluster).await;
    create::<StatefulSet>(&cluster, workload(json!({"serviceName": "x"}))).await;
    scale::<StatefulSet>(&cluster).await;
    create::<ReplicationController>(
        &cluster,
        workload(json!({"selector": {"matchLabels": null, "app": "x"}})),
    )
    .await;
    scale::<ReplicationController>(&cluster).await;
}

/// Lists by label in all namespaces, and deletes what was listed as a collection.
async fn collection<K: Kind>(cluster: &Cluster, selector: &str, count: usize) {
    let (everywhere, parameters) = (Api::<K>::all(cluster.admin()), ListParams::default().labels(selector));
    assert_eq!(everywhere.list(&parameters).await.unwrap().items.len(), count, "{}", K::kind(&()));
    let grace = DeleteParams::default().grace_period(1);
    cluster.api::<K>().delete_collection(&grace, &parameters).await.unwrap();
    // Those whose pods become orphans stay until that is done.
    let labels: Vec<(&str, &str)> = selector.split(',').filter_map(|pair| pair.split_once('=')).collect();
    let is_of_collection = |object: &K| {
        labels
            .iter()
            .all(|(key, value)| object.meta().labels.iter().flatten().any(|(k, v)| k == key && v == value))
    };
    cluster
        .eventually_anywhere::<K>("an empty collection", |all| {
            !all.iter().any(|object| is_of_collection(object))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collections_of_workloads_are_listed_and_deleted() {
    let cluster = Cluster::start(1).await;
    for name in ["x", "y", "z"] {
        let named = |mut body: Value| {
            body["metadata"]["name"] = name.into();
            for path in ["/spec/selector/matchLabels/app", "/spec/template/metadata/labels/app"] {
                *body.pointer_mut(path).unwrap() = name.into();
            }
            body
        };
        create::<ReplicaSet>(&cluster, named(workload(json!({})))).await;
        if name == "x" {
            create::<DaemonSet>(&cluster, workload(json!({"replicas": null}))).await;
        }
        let budget = json!({"metadata": {"name": name, "labels": {"e2e": "testing"}},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": name}}}});
        create::<PodDisruptionBudget>(&cluster, budget).await;
    }
    has::<ReplicaSet>(&cluster, "/status/availableReplicas", &json!(1)).await;
    has::<DaemonSet>(&cluster, "/status/numberAvailable", &json!(1)).await;
    has::<PodDisruptionBudget>(&cluster, "/status/observedGeneration", &json!(1)).await;
    collection::<ReplicaSet>(&cluster, "e2e=testing", 3).await;
    collection::<DaemonSet>(&cluster, "e2e=testing", 1).await;
    collection::<PodDisruptionBudget>(&cluster, "e2e=testing", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_is_patched_with_another_container_and_deleted_as_a_collection() {
    let cluster = Cluster::start(1).await;
    create::<StatefulSet>(&cluster, workload(json!({"serviceName": "x"}))).await;
    has::<StatefulSet>(&cluster, "/status/availableReplicas", &json!(1)).await;
    // A misspelt field is let pass, and a container that is new comes first.
    let spec = json!({"TerminationGracePeriodSeconds": 1, "containers": [{"name": "new", "image": "v2"}]});
    let patch = json!({"metadata": {"labels": {"test-ss": "patched"}}, "spec": {"replicas": 2, "template": {"spec": spec}}});
    let api = cluster.api::<StatefulSet>();
    let patched = api.patch("x", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    let spec = patched.spec.unwrap();
    assert_eq!(spec.replicas, Some(2));
    let containers = spec.template.spec.unwrap().containers;
    let names: Vec<_> = containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!((names, containers[0].image.as_deref()), (vec!["new", "c"], Some("v2")));
    has::<StatefulSet>(&cluster, "/status/readyReplicas", &json!(2)).await;
    has::<StatefulSet>(&cluster, "/status/updatedReplicas", &json!(2)).await;
    collection::<StatefulSet>(&cluster, "test-ss=patched", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_lives_through_patches_updates_and_statuses_of_others() {
    let cluster = Cluster::start(1).await;
    let labels = |label: &str| json!({"test-deployment-static": "true", "test-deployment": label});
    let mut body = workload(json!({"replicas": 2}));
    body["metadata"]["labels"] = json!({"test-deployment-static": "true"});
    create::<Deployment>(&cluster, body.clone()).await;
    has::<Deployment>(&cluster, "/status/readyReplicas", &json!(2)).await;
    let spec = json!({"terminationGracePeriodSeconds": 2, "containers": [{"name": "c", "image": "v2"}]});
    let patch = json!({"metadata": {"labels": {"test-deployment": "patched"}},
                       "spec": {"replicas": 1, "template": {"spec": spec}}});
    let api = raw::<Deployment>(&cluster);
    api.patch("x", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    let is_at = |replicas: i32, image: &'static str| {
        move |all: &[Arc<Deployment>]| {
            let Some(deployment) = all.first() else { return false };
            let status = deployment.status.clone().unwrap_or_default();
            let pod = deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
            [status.ready_replicas, status.updated_replicas] == [Some(replicas); 2]
                && status.unavailable_replicas.unwrap_or(0) == 0
                && pod.containers[0].image.as_deref() == Some(image)
        }
    };
    cluster.eventually::<Deployment>("one patched pod", is_at(1, "v2")).await;
    // An update without a version replaces whatever is there.
    body["metadata"]["labels"] = labels("updated");
    body["spec"]["template"]["spec"]["containers"][0]["image"] = "v3".into();
    let update: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": body["metadata"], "spec": body["spec"]}))
    .unwrap();
    api.replace("x", &PostParams::default(), &update).await.unwrap();
    cluster.eventually::<Deployment>("two updated pods", is_at(2, "v3")).await;
    // Labels are none of a status's business, and wrong counts do not last.
    let patch = json!({"metadata": {"labels": {"test-deployment": "patched-status"}},
                       "status": {"readyReplicas": 0, "availableReplicas": 0}});
    api.patch_status("x", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    let read = api.get_status("x").await.unwrap();
    assert_eq!(json!(read.metadata.labels), labels("updated"));
    cluster.eventually::<Deployment>("the right counts", is_at(2, "v3")).await;
    collection::<Deployment>(&cluster, "test-deployment-static=true", 1).await;
    cluster.eventually::<Deployment>("no deployments", <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_lives_through_patches_and_wrong_statuses() {
    let cluster = Cluster::start(1).await;
    let mut body = workload(json!({"selector": {"matchLabels": null, "app": "x"}}));
    body["metadata"]["labels"] = json!({"test-rc-static": "true"});
    create::<ReplicationController>(&cluster, body).await;
    has::<ReplicationController>(&cluster, "/status/readyReplicas", &json!(1)).await;
    let api = raw::<ReplicationController>(&cluster);
    // A whole object as a client's types spell it, of which only the label says something.
    let whole = json!({"metadata": {"creationTimestamp": null, "labels": {"test-rc": "patched"}}, "spec": {}, "status": {"replicas": 0}});
    let patched = api.patch("x", &PatchParams::default(), &Patch::Strategic(whole)).await.unwrap();
    assert_eq!(patched.metadata.labels.unwrap()["test-rc"], "patched");
    assert_eq!(patched.data["status"]["replicas"], 1);
    let wrong = Patch::Strategic(json!({"status": {"readyReplicas": 0, "availableReplicas": 0}}));
    let status = api.patch_status("x", &PatchParams::default(), &wrong).await.unwrap();
    assert_eq!(status.data["status"]["readyReplicas"].as_i64().unwrap_or(0), 0);
    has::<ReplicationController>(&cluster, "/status/readyReplicas", &json!(1)).await;
    let two =
        json!({"metadata": {"creationTimestamp": null}, "spec": {"replicas": 2}, "status": {"replicas": 0}});
    api.patch_scale("x", &PatchParams::default(), &Patch::Strategic(two)).await.unwrap();
    has::<ReplicationController>(&cluster, "/status/readyReplicas", &json!(2)).await;
    let mut update = api.get("x").await.unwrap();
    update.data["status"]["readyReplicas"] = 1.into();
    update.data["status"]["availableReplicas"] = 1.into();
    api.replace_status("x", &PostParams::default(), &update).await.unwrap();
    has::<ReplicationController>(&cluster, "/status/readyReplicas", &json!(2)).await;
    collection::<ReplicationController>(&cluster, "test-rc-static=true,test-rc=patched", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_set_is_scaled_patched_and_replaced() {
    let cluster = Cluster::start(1).await;
    create::<ReplicaSet>(&cluster, workload(json!({}))).await;
    has::<ReplicaSet>(&cluster, "/status/readyReplicas", &json!(1)).await;
    let api = raw::<ReplicaSet>(&cluster);
    let mut scale = api.get_scale("x").await.unwrap();
    scale.metadata.resource_version = None;
    scale.spec.as_mut().unwrap().replicas = Some(2);
    api.replace_scale("x", &PostParams::default(), &scale).await.unwrap();
    has::<ReplicaSet>(&cluster, "/status/readyReplicas", &json!(2)).await;
    let spec = json!({"TerminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "v2"}]});
    let patch = json!({"metadata": {"labels": {"test-rs": "patched"}}, "spec": {"replicas": 3, "template": {"spec": spec}}});
    api.patch("x", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    has::<ReplicaSet>(&cluster, "/status/readyReplicas", &json!(3)).await;
    has::<ReplicaSet>(&cluster, "/metadata/labels/test-rs", &json!("patched")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disruption_budget_is_created_updated_patched_and_deleted() {
    let cluster = Cluster::start(1).await;
    let spec = json!({"minAvailable": "1%", "selector": {"matchLabels": {"foo": "bar"}}});
    create::<PodDisruptionBudget>(&cluster, json!({"metadata": {"name": "x"}, "spec": spec})).await;
    has::<PodDisruptionBudget>(&cluster, "/status/observedGeneration", &json!(1)).await;
    let api = raw::<PodDisruptionBudget>(&cluster);
    loop {
        let mut update = api.get("x").await.unwrap();
        update.data["spec"]["minAvailable"] = "2%".into();
        match api.replace("x", &PostParams::default(), &update).await {
            Ok(_) => break,
            Err(failure) => assert!(crate::client::error::is_conflict(&failure), "{failure}"),
        }
    }
    has::<PodDisruptionBudget>(&cluster, "/status/observedGeneration", &json!(2)).await;
    let patch = Patch::Strategic(json!({"spec": {"minAvailable": "3%"}}));
    let patched = api.patch("x", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data["spec"]["minAvailable"], "3%");
    has::<PodDisruptionBudget>(&cluster, "/status/observedGeneration", &json!(3)).await;
    api.delete("x", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("x").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_job_is_patched_resumed_completed_and_deleted_as_a_collection() {
    let cluster = Cluster::start(1).await;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "succeeds"}]});
    let spec = json!({"suspend": true, "parallelism": 2, "completions": 4, "template": {"spec": pod}});
    create::<Job>(&cluster, json!({"metadata": {"name": "x", "labels": {"e2e-job": "x"}}, "spec": spec}))
        .await;
    let api = raw::<Job>(&cluster);
    let label = Patch::Strategic(json!({"metadata": {"labels": {"x": "patched"}}}));
    let patched = api.patch("x", &PatchParams::default(), &label).await.unwrap();
    assert_eq!(patched.metadata.labels.unwrap()["x"], "patched");
    assert!(cluster.list::<Pod>().is_empty(), "it is suspended");
    loop {
        let mut update = api.get("x").await.unwrap();
        update.data["spec"]["suspend"] = false.into();
        update.metadata.annotations.get_or_insert_default().insert("updated".into(), "true".into());
        match api.replace("x", &PostParams::default(), &update).await {
            Ok(updated) => break assert_eq!(updated.metadata.annotations.unwrap()["updated"], "true"),
            Err(failure) => assert!(crate::client::error::is_conflict(&failure), "{failure}"),
        }
    }
    has::<Job>(&cluster, "/status/succeeded", &json!(4)).await;
    cluster
        .eventually::<Job>("a complete Job", |all| conditions(all).iter().any(|type_| type_ == "Complete"))
        .await;
    let background = DeleteParams::background();
    let parameters = ListParams::default().labels("e2e-job=x");
    cluster.api::<Job>().delete_collection(&background, &parameters).await.unwrap();
    cluster.eventually::<Job>("no Jobs", <[_]>::is_empty).await;
    cluster.eventually::<Pod>("no pods", <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_a_job_takes_annotations_and_conditions_of_others() {
    let cluster = Cluster::start(1).await;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "runs"}]});
    let spec = json!({"suspend": false, "parallelism": 2, "completions": 4, "template": {"spec": pod}});
    create::<Job>(&cluster, json!({"metadata": {"name": "x"}, "spec": spec})).await;
    has::<Job>(&cluster, "/status/ready", &json!(2)).await;
    let api = raw::<Job>(&cluster);
    let condition = |status: &str| json!({"type": "CustomConditionType", "status": status});
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"conditions": [condition("True")]}});
    let patched = api.patch_status("x", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(patched.data["status"]["conditions"][0]["status"], "True");
    assert_eq!(patched.metadata.annotations.unwrap()["patchedstatus"], "true");
    loop {
        let mut update = api.get("x").await.unwrap();
        update.data["status"]["conditions"] = json!([condition("False")]);
        match api.replace_status("x", &PostParams::default(), &update).await {
            Ok(updated) => break assert_eq!(updated.data["status"]["conditions"][0]["status"], "False"),
            Err(failure) => assert!(crate::client::error::is_conflict(&failure), "{failure}"),
        }
    }
    let read = api.get_status("x").await.unwrap();
    assert_eq!(read.metadata.uid, cluster.list::<Job>()[0].metadata.uid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_job_takes_its_pods_along() {
    let cluster = Cluster::start(1).await;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "runs"}]});
    let spec = json!({"parallelism": 2, "completions": 4, "template": {"spec": pod}});
    create::<Job>(&cluster, json!({"metadata": {"name": "x"}, "spec": spec})).await;
    has::<Job>(&cluster, "/status/ready", &json!(2)).await;
    cluster.api::<Job>().delete("x", &DeleteParams::background()).await.unwrap();
    assert!(cluster.api::<Job>().get_opt("x").await.unwrap().is_none());
    cluster.eventually::<Pod>("no pods", <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cron_jobs_support_api_operations() {
    let cluster = Cluster::start(1).await;
    let pod = json!({"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "succeeds"}]});
    let body = json!({
        "metadata": {"name": "x", "labels": {"special-label": "l"}},
        "spec": {"schedule": "* */1 * * ?", "concurrencyPolicy": "Allow", "suspend": true,
                 "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0,
                 "jobTemplate": {"spec": {"parallelism": 1, "completions": 1, "template": {"spec": pod}}}},
    });
    let made = create::<CronJob>(&cluster, body).await;
    let api = raw::<CronJob>(&cluster);
    assert_eq!(api.get("x").await.unwrap().metadata.uid, made.metadata.uid);
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"patched": "true"}}}));
    let patched = api.patch("x", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.metadata.annotations.unwrap()["patched"], "true");
    loop {
        let mut update = api.get("x").await.unwrap();
        update.metadata.annotations.get_or_insert_default().insert("updated".into(), "true".into());
        match api.replace("x", &PostParams::default(), &update).await {
            Ok(updated) => break assert_eq!(updated.metadata.annotations.unwrap()["updated"], "true"),
            Err(failure) => assert!(crate::client::error::is_conflict(&failure), "{failure}"),
        }
    }
    let now = k8s_openapi::jiff::Timestamp::now().as_second();
    let at = |second: i64| k8s_openapi::jiff::Timestamp::from_second(second).unwrap().to_string();
    let status = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"lastScheduleTime": at(now)}});
    let patched = api.patch_status("x", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    assert_eq!(patched.data["status"]["lastScheduleTime"], at(now));
    assert_eq!(patched.metadata.annotations.unwrap()["patchedstatus"], "true");
    let mut update = api.get("x").await.unwrap();
    update.data["status"]["lastScheduleTime"] = at(now + 1).into();
    let updated = api.replace_status("x", &PostParams::default(), &update).await.unwrap();
    assert_eq!(updated.data["status"]["lastScheduleTime"], at(now + 1));
    assert_eq!(api.get_status("x").await.unwrap().metadata.uid, made.metadata.uid);
    collection::<CronJob>(&cluster, "special-label=l", 1).await;
}
