//! CronJobs against a real API server: the behaviours of the conformance tests. A run is due at once because the last one
//! is said to be minutes ago.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::cluster::Cluster;

const MINUTES: SignedDuration = SignedDuration::from_mins(3);

async fn create(cluster: &Cluster, policy: &str, suspend: bool) -> CronJob {
    let pod = json!({"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "runs"}]});
    let cron = json!({"metadata": {"name": "cron"}, "spec": {
        "schedule": "*/1 * * * ?", "concurrencyPolicy": policy, "suspend": suspend,
        "jobTemplate": {"metadata": {"labels": {"from": "template"}}, "spec": {"template": {"spec": pod}}}}});
    let cron: CronJob = serde_json::from_value(cron).unwrap();
    cluster.api::<CronJob>().create(&PostParams::default(), &cron).await.unwrap()
}

/// Writes when the last run was, and which Jobs run.
async fn ran(cluster: &Cluster, at: Timestamp, active: &[Job]) {
    let active: Vec<Value> = active
        .iter()
        .map(|job| {
            json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": "default",
                          "name": job.metadata.name, "uid": job.metadata.uid})
        })
        .collect();
    let at = Timestamp::from_second(at.as_second()).unwrap();
    let status = Patch::Merge(json!({"status": {"lastScheduleTime": at.to_string(), "active": active}}));
    cluster.api::<CronJob>().patch_status("cron", &PatchParams::default(), &status).await.unwrap();
}

/// A Job that the CronJob started some time ago and that goes on.
async fn earlier_job(cluster: &Cluster, cron: &CronJob) -> Job {
    let owner = json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": "cron", "uid": cron.metadata.uid,
                       "controller": true, "blockOwnerDeletion": true});
    let pod = json!({"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "runs"}]});
    let job = json!({"metadata": {"name": "earlier", "ownerReferences": [owner]}, "spec": {"template": {"spec": pod}}});
    let job: Job = serde_json::from_value(job).unwrap();
    cluster.api::<Job>().create(&PostParams::default(), &job).await.unwrap()
}

/// The names of the Jobs that run, as the CronJob says.
fn active(all: &[Arc<CronJob>]) -> Vec<String> {
    let status = all.first().and_then(|cron| cron.status.clone()).unwrap_or_default();
    status.active.into_iter().flatten().filter_map(|job| job.name).collect()
}

async fn told(cluster: &Cluster, reason: &str) {
    cluster
        .eventually::<Event>(reason, |events| {
            events.iter().any(|event| event.reason.as_deref() == Some(reason))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multiple_jobs_are_scheduled_concurrently() {
    let cluster = Cluster::start(1).await;
    let cron = create(&cluster, "Allow", true).await;
    let earlier = earlier_job(&cluster, &cron).await;
    ran(&cluster, Timestamp::now() - MINUTES, &[earlier]).await;
    let resume = Patch::Merge(json!({"spec": {"suspend": false}}));
    cluster.api::<CronJob>().patch("cron", &PatchParams::default(), &resume).await.unwrap();
    cluster.eventually::<CronJob>("two active Jobs", |all| active(all).len() == 2).await;
    cluster.eventually::<Job>("two Jobs", |jobs| jobs.len() == 2).await;
    let made = cluster.list::<Job>().into_iter().find(|job| job.metadata.name.as_deref() != Some("earlier"));
    let meta = made.unwrap().metadata.clone();
    assert_eq!(meta.labels.unwrap()["from"], "template");
    let scheduled = meta.annotations.unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"].clone();
    assert!(scheduled.parse::<Timestamp>().is_ok(), "{scheduled}");
    told(&cluster, "SuccessfulCreate").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_jobs_are_scheduled_when_suspended() {
    let cluster = Cluster::start(1).await;
    let cron = create(&cluster, "Allow", true).await;
    ran(&cluster, Timestamp::now() - MINUTES, &[]).await;
    // That it looked and did nothing shows in what it says about a Job that is none of its doing.
    earlier_job(&cluster, &cron).await;
    told(&cluster, "UnexpectedJob").await;
    assert!(active(&cluster.list::<CronJob>()).is_empty());
    assert_eq!(cluster.list::<Job>().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_new_jobs_are_scheduled_when_forbid_concurrent() {
    let cluster = Cluster::start(1).await;
    let cron = create(&cluster, "Forbid", true).await;
    let earlier = earlier_job(&cluster, &cron).await;
    ran(&cluster, Timestamp::now() - MINUTES, &[earlier]).await;
    let resume = Patch::Merge(json!({"spec": {"suspend": false}}));
    cluster.api::<CronJob>().patch("cron", &PatchParams::default(), &resume).await.unwrap();
    told(&cluster, "JobAlreadyActive").await;
    assert_eq!(active(&cluster.list::<CronJob>()), ["earlier"]);
    assert_eq!(cluster.list::<Job>().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_replaced_when_replace_concurrent() {
    let cluster = Cluster::start(1).await;
    let cron = create(&cluster, "Replace", true).await;
    let earlier = earlier_job(&cluster, &cron).await;
    ran(&cluster, Timestamp::now() - MINUTES, &[earlier]).await;
    let resume = Patch::Merge(json!({"spec": {"suspend": false}}));
    cluster.api::<CronJob>().patch("cron", &PatchParams::default(), &resume).await.unwrap();
    cluster
        .eventually::<Job>("only a new Job", |jobs| {
            jobs.len() == 1 && jobs[0].metadata.name.as_deref() != Some("earlier")
        })
        .await;
    let name = cluster.list::<Job>()[0].metadata.name.clone().unwrap();
    cluster.eventually::<CronJob>("the new Job active", |all| active(all) == [name.clone()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_job_is_missed_and_no_longer_active() {
    let cluster = Cluster::start(1).await;
    create(&cluster, "Forbid", false).await;
    ran(&cluster, Timestamp::now() - MINUTES, &[]).await;
    cluster.eventually::<CronJob>("an active Job", |all| active(all).len() == 1).await;
    let name = active(&cluster.list::<CronJob>()).remove(0);
    cluster.api::<Job>().delete(&name, &kube::api::DeleteParams::background()).await.unwrap();
    cluster.eventually::<CronJob>("it is not active", |all| !active(all).contains(&name)).await;
    told(&cluster, "MissingJob").await;
}
