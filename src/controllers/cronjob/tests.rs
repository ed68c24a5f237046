//! The decisions of the CronJob controller.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::plan::{self, Plan};

const CREATED: &str = "2026-01-01T00:00:30Z";

fn cron(spec: Value, status: Value) -> CronJob {
    let mut cron = json!({
        "metadata": {"name": "c", "namespace": "default", "uid": "u", "creationTimestamp": CREATED},
        "spec": {"schedule": "*/1 * * * *", "concurrencyPolicy": "Allow",
                 "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}},
        "status": status,
    });
    json_patch::merge(&mut cron["spec"], &spec);
    serde_json::from_value(cron).unwrap()
}

fn job(name: &str, outcome: Option<(&str, &str)>) -> Arc<Job> {
    let status = outcome.map(|(type_, at)| {
        json!({"startTime": at, "completionTime": at, "conditions": [{"type": type_, "status": "True"}]})
    });
    let job = json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "status": status});
    Arc::new(serde_json::from_value(job).unwrap())
}

fn active(names: &[&str]) -> Value {
    json!({"active": names.iter().map(|name| json!({"name": name, "uid": format!("uid-{name}")})).collect::<Vec<_>>()})
}

fn planned(cron: &CronJob, jobs: &[Arc<Job>], now: &str) -> Plan {
    plan::plan(cron, jobs, &[], now.parse().unwrap())
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.events.iter().map(|(_, reason, _)| *reason).collect()
}

#[test]
fn a_run_is_started_when_it_is_due_and_named_after_its_minute() {
    let early = planned(&cron(json!({}), json!({})), &[], "2026-01-01T00:00:59Z");
    assert!(early.start.is_none());
    assert_eq!(early.requeue.unwrap().as_millis(), 1100);
    let start = planned(&cron(json!({}), json!({})), &[], "2026-01-01T00:01:02Z").start.unwrap();
    let meta = &start.job.metadata;
    assert_eq!(meta.name.as_deref(), Some("c-29453761"));
    assert_eq!(
        meta.annotations.as_ref().unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2026-01-01T00:01:00Z"
    );
    assert_eq!(meta.labels.as_ref().unwrap()["a"], "b");
    let done = plan::started(Default::default(), &start.job, start.at);
    let again = cron(json!({}), serde_json::to_value(done).unwrap());
    assert!(planned(&again, &[], "2026-01-01T00:01:03Z").start.is_none(), "no run is started twice");
}

#[test]
fn the_concurrency_policy_decides_about_running_jobs() {
    let running = [job("old", None)];
    for (policy, starts, replaces) in [("Allow", true, 0), ("Forbid", false, 0), ("Replace", true, 1)] {
        let cron = cron(json!({"concurrencyPolicy": policy}), active(&["old"]));
        let plan = planned(&cron, &running, "2026-01-01T00:01:02Z");
        assert_eq!(plan.start.as_ref().map_or(0, |start| start.replaces.len()), replaces, "{policy}");
        assert_eq!(plan.start.is_some(), starts, "{policy}");
        assert_eq!(reasons(&plan) == ["JobAlreadyActive"], policy == "Forbid");
    }
}

#[test]
fn suspended_broken_and_late_schedules_start_nothing() {
    for (spec, now, expected) in [
        (json!({"suspend": true}), "2026-01-01T00:01:02Z", vec![]),
        (json!({"schedule": "nonsense"}), "2026-01-01T00:01:02Z", vec!["UnparseableSchedule"]),
        (json!({"timeZone": "Nowhere/Land"}), "2026-01-01T00:01:02Z", vec!["UnknownTimeZone"]),
        (json!({"schedule": "0 * * * *", "startingDeadlineSeconds": 20}), "2026-01-01T01:00:30Z", vec![]),
    ] {
        let plan = planned(&cron(spec.clone(), json!({})), &[], now);
        assert!(plan.start.is_none(), "{spec}");
        assert_eq!(reasons(&plan), expected, "{spec}");
    }
}

#[test]
fn of_missed_runs_only_the_last_is_made_up_for() {
    let plan = planned(&cron(json!({}), json!({})), &[], "2026-01-03T07:08:09Z");
    assert_eq!(plan.start.as_ref().unwrap().at.to_string(), "2026-01-03T07:08:00Z");
    assert_eq!(reasons(&plan), ["TooManyMissedTimes"]);
    let plan = planned(&cron(json!({"schedule": "0 9 * * 1-5"}), json!({})), &[], "2026-01-05T10:00:00Z");
    assert_eq!(plan.start.as_ref().unwrap().at.to_string(), "2026-01-05T09:00:00Z");
    assert!(reasons(&plan).is_empty());
}

#[test]
fn finished_jobs_leave_the_active_list_and_old_ones_are_deleted() {
    let jobs = [
        job("s1", Some(("Complete", "2026-01-01T00:00:01Z"))),
        job("s2", Some(("Complete", "2026-01-01T00:00:02Z"))),
        job("f1", Some(("Failed", "2026-01-01T00:00:01Z"))),
        job("f2", Some(("Failed", "2026-01-01T00:00:02Z"))),
        job("unknown", None),
    ];
    let cron = cron(
        json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0, "suspend": true}),
        active(&["s2", "gone"]),
    );
    let plan = plan::plan(&cron, &jobs, &["uid-gone".to_owned()], CREATED.parse().unwrap());
    let names: Vec<_> = plan.forget.iter().map(|job| job.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["s1", "f1", "f2"]);
    assert_eq!(reasons(&plan), ["SawCompletedJob", "UnexpectedJob", "MissingJob"]);
    assert_eq!(plan.status.active, None);
    assert_eq!(plan.status.last_successful_time, Some(Time("2026-01-01T00:00:02Z".parse().unwrap())));
}
