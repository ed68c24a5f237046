//! Jobs against a real API server: the behaviours of the conformance tests.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::cluster::Cluster;

fn job(spec: Value, image: &str) -> Job {
    let mut job = json!({
        "metadata": {"name": "j", "namespace": "default"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}}},
    });
    json_patch::merge(&mut job["spec"], &spec);
    serde_json::from_value(job).unwrap()
}

async fn create(cluster: &Cluster, spec: Value, image: &str) {
    cluster.api::<Job>().create(&PostParams::default(), &job(spec, image)).await.unwrap();
}

/// Waits until the Job's condition is `True`, and returns its reason.
async fn ends(cluster: &Cluster, type_: &str) -> Job {
    let has = |job: &Job| {
        job.status.as_ref().is_some_and(|s| crate::controllers::job::view::condition(s, type_).is_some())
    };
    cluster.eventually::<Job>(type_, |jobs| jobs.first().is_some_and(|job| has(job))).await;
    cluster.list::<Job>()[0].as_ref().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_run_a_job_to_completion_and_let_go_of_its_pods() {
    let cluster = Cluster::start(1).await;
    create(&cluster, json!({"completions": 4, "parallelism": 2}), "succeeds").await;
    let done = ends(&cluster, "Complete").await;
    assert_eq!(done.status.unwrap().succeeded, Some(4));
    let pods = cluster.list::<Pod>();
    assert_eq!(pods.len(), 4);
    assert!(pods.iter().all(|pod| pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_create_pods_for_an_indexed_job_with_completion_indexes() {
    let cluster = Cluster::start(1).await;
    create(&cluster, json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"}), "succeeds")
        .await;
    let done = ends(&cluster, "Complete").await;
    assert_eq!(done.status.unwrap().completed_indexes.as_deref(), Some("0-2"));
    let mut indexes = Vec::new();
    for pod in cluster.list::<Pod>() {
        let index =
            pod.metadata.annotations.as_ref().unwrap()["batch.kubernetes.io/job-completion-index"].clone();
        let hostname = pod.spec.as_ref().unwrap().hostname.clone();
        assert_eq!(hostname, Some(format!("j-{index}")));
        indexes.push(index);
    }
    indexes.sort();
    assert_eq!(indexes, ["0", "1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_run_a_job_to_completion_when_tasks_sometimes_fail_and_are_locally_restarted() {
    let cluster = Cluster::start(1).await;
    let on_failure =
        json!({"completions": 4, "parallelism": 2, "template": {"spec": {"restartPolicy": "OnFailure"}}});
    create(&cluster, on_failure, "restarts").await;
    let done = ends(&cluster, "Complete").await.status.unwrap();
    assert_eq!((done.succeeded, done.failed), (Some(4), None));
    assert_eq!(cluster.list::<Pod>().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_allow_to_use_a_pod_failure_policy_to_ignore_failure_matching_on_disruption_target_condition()
{
    let cluster = Cluster::start(1).await;
    let rule =
        json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
    let spec =
        json!({"completions": 2, "parallelism": 2, "backoffLimit": 0, "podFailurePolicy": {"rules": [rule]}});
    create(&cluster, spec, "runs").await;
    let running = |pods: &[std::sync::Arc<Pod>]| -> Vec<String> {
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        let running = pods.iter().filter(|pod| phase(pod).as_deref() == Some("Running"));
        running.map(|pod| pod.metadata.name.clone().unwrap()).collect()
    };
    cluster.eventually::<Pod>("two running pods", |pods| running(pods).len() == 2).await;
    let disrupted = running(&cluster.list::<Pod>()).remove(0);
    let failed = json!({"status": {"phase": "Failed", "conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]}});
    let api = cluster.api::<Pod>();
    api.patch_status(&disrupted, &PatchParams::default(), &Patch::Strategic(failed)).await.unwrap();
    cluster
        .eventually::<Pod>("a pod in its place", |pods| {
            running(pods).len() == 2 && !running(pods).contains(&disrupted)
        })
        .await;
    for name in running(&cluster.list::<Pod>()) {
        let succeeded = Patch::Strategic(json!({"status": {"phase": "Succeeded"}}));
        api.patch_status(&name, &PatchParams::default(), &succeeded).await.unwrap();
    }
    let done = ends(&cluster, "Complete").await.status.unwrap();
    assert_eq!((done.succeeded, done.failed.unwrap_or(0)), (Some(2), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_success_policy_succeeded_count_rule_should_succeed_though_other_indexes_run() {
    let cluster = Cluster::start(1).await;
    let policy = json!({"rules": [{"succeededCount": 1}]});
    let spec =
        json!({"completions": 5, "parallelism": 2, "completionMode": "Indexed", "successPolicy": policy});
    create(&cluster, spec, "succeeds@0").await;
    let done = ends(&cluster, "Complete").await;
    assert_eq!(reasons(&done, ["SuccessCriteriaMet", "Complete"]), both("SuccessPolicy"));
    let status = done.status.unwrap();
    assert_eq!((status.completed_indexes.as_deref(), status.succeeded), (Some("0"), Some(1)));
    assert_eq!((status.active.unwrap_or(0), status.terminating.unwrap_or(0)), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_mark_indexes_as_failed_when_the_backoff_limit_per_index_is_exceeded() {
    let cluster = Cluster::start(1).await;
    let spec =
        json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0});
    create(&cluster, spec, "fails:1@1,3").await;
    let done = ends(&cluster, "Failed").await.status.unwrap();
    assert_eq!(
        (done.completed_indexes.as_deref(), done.failed_indexes.as_deref()),
        (Some("0,2"), Some("1,3"))
    );
    assert_eq!((done.succeeded, done.failed), (Some(2), Some(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_allow_to_use_the_pod_failure_policy_on_exit_code_to_fail_the_job_early() {
    let cluster = Cluster::start(1).await;
    let policy = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]});
    create(&cluster, json!({"podFailurePolicy": policy}), "fails:42").await;
    let done = ends(&cluster, "Failed").await.status.unwrap();
    let reasons: Vec<_> = done.conditions.iter().flatten().filter_map(|c| c.reason.as_deref()).collect();
    assert_eq!(reasons, ["PodFailurePolicy", "PodFailurePolicy"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_delete_pods_when_suspended_and_resume() {
    let cluster = Cluster::start(1).await;
    create(&cluster, json!({"completions": 2, "parallelism": 2}), "runs").await;
    cluster.eventually::<Pod>("two pods", |pods| pods.len() == 2).await;
    let suspend = |value: bool| Patch::Merge(json!({"spec": {"suspend": value}}));
    cluster.api::<Job>().patch("j", &PatchParams::default(), &suspend(true)).await.unwrap();
    cluster.eventually::<Pod>("no pods", <[_]>::is_empty).await;
    ends(&cluster, "Suspended").await;
    cluster.api::<Job>().patch("j", &PatchParams::default(), &suspend(false)).await.unwrap();
    cluster
        .eventually::<Job>("two active pods", |jobs| jobs[0].status.as_ref().unwrap().active == Some(2))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_adopt_matching_orphans_and_release_non_matching_pods() {
    let cluster = Cluster::start(1).await;
    create(&cluster, json!({"completions": 2, "parallelism": 2}), "runs").await;
    cluster.eventually::<Pod>("two pods", |pods| pods.len() == 2).await;
    let name = cluster.list::<Pod>()[0].metadata.name.clone().unwrap();
    let change = |patch: Value| {
        let (api, name) = (cluster.api::<Pod>(), name.clone());
        async move { api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap() }
    };
    change(json!({"metadata": {"ownerReferences": null}})).await;
    let pod = |pods: &[std::sync::Arc<Pod>]| {
        pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(&name)).unwrap().clone()
    };
    cluster
        .eventually::<Pod>("an adopted pod", |pods| {
            let meta = &pod(pods).metadata;
            meta.owner_references.is_some() && meta.finalizers.as_ref().is_some_and(|f| f.len() == 1)
        })
        .await;
    let labels = json!({"batch.kubernetes.io/controller-uid": null});
    change(json!({"metadata": {"labels": labels}})).await;
    cluster
        .eventually::<Pod>("a released pod", |pods| {
            let meta = &pod(pods).metadata;
            meta.owner_references.as_ref().is_none_or(Vec::is_empty)
                && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
        })
        .await;
}

fn reasons(job: &Job, types: [&str; 2]) -> Vec<Option<String>> {
    let status = job.status.as_ref().unwrap();
    let found = types.map(|type_| crate::controllers::job::view::condition(status, type_));
    found.into_iter().map(|condition| condition.and_then(|c| c.reason.clone())).collect()
}

fn both(reason: &str) -> Vec<Option<String>> {
    vec![Some(reason.to_owned()), Some(reason.to_owned())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_success_policy_succeeded_indexes_rule_should_succeed_though_other_indexes_run() {
    let cluster = Cluster::start(1).await;
    let policy = json!({"rules": [{"succeededIndexes": "0"}]});
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "successPolicy": policy,
                      "backoffLimitPerIndex": 0});
    create(&cluster, spec, "fails:1@1,2").await;
    let done = ends(&cluster, "Complete").await;
    assert_eq!(reasons(&done, ["SuccessCriteriaMet", "Complete"]), both("SuccessPolicy"));
    assert_eq!(done.status.unwrap().completed_indexes.as_deref(), Some("0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_success_policy_should_succeed_when_all_indexes_succeeded() {
    let cluster = Cluster::start(1).await;
    let policy = json!({"rules": [{"succeededCount": 5}]});
    let spec =
        json!({"completions": 5, "parallelism": 2, "completionMode": "Indexed", "successPolicy": policy});
    create(&cluster, spec, "succeeds").await;
    let done = ends(&cluster, "Complete").await;
    let reason = reasons(&done, ["SuccessCriteriaMet", "Complete"]);
    assert!(reason == both("SuccessPolicy") || reason == both("CompletionsReached"), "{reason:?}");
    let conditions = done.status.unwrap();
    assert_eq!(conditions.succeeded, Some(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_terminate_job_execution_when_the_number_of_failed_indexes_exceeds_max_failed_indexes() {
    let cluster = Cluster::start(1).await;
    let spec = json!({"completions": 10, "parallelism": 10, "completionMode": "Indexed",
                      "backoffLimitPerIndex": 0, "maxFailedIndexes": 4});
    create(&cluster, spec, "fails:1").await;
    let done = ends(&cluster, "Failed").await;
    assert_eq!(reasons(&done, ["FailureTarget", "Failed"]), both("MaxFailedIndexesExceeded"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_mark_indexes_as_failed_when_the_fail_index_action_is_matched() {
    let cluster = Cluster::start(1).await;
    let rule = json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}});
    let spec = json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
                      "podFailurePolicy": {"rules": [rule]}});
    create(&cluster, spec, "fails:42@0").await;
    let done = ends(&cluster, "Failed").await;
    assert_eq!(reasons(&done, ["FailureTarget", "Failed"]), both("FailedIndexes"));
    let status = done.status.unwrap();
    let indexes = (status.failed_indexes.as_deref(), status.completed_indexes.as_deref());
    assert_eq!((indexes, status.failed, status.succeeded), ((Some("0"), Some("1")), Some(1), Some(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_keep_changes_to_a_job_status_that_are_not_its_own() {
    let cluster = Cluster::start(1).await;
    create(&cluster, json!({"completions": 1, "parallelism": 1}), "runs").await;
    cluster.eventually::<Pod>("a pod", |pods| pods.len() == 1).await;
    let custom = json!({"metadata": {"annotations": {"patchedstatus": "true"}},
                        "status": {"conditions": [{"type": "CustomConditionType", "status": "True"}]}});
    let api = cluster.api::<Job>();
    let patched = api.patch_status("j", &PatchParams::default(), &Patch::Merge(custom)).await.unwrap();
    assert_eq!(patched.metadata.annotations.unwrap()["patchedstatus"], "true");
    cluster
        .eventually::<Job>("one active pod beside the custom condition", |jobs| {
            let status = jobs.first().and_then(|job| job.status.clone()).unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            status.active == Some(1) && conditions.iter().any(|c| c.type_ == "CustomConditionType")
        })
        .await;
}
