//! The decisions of the Job controller, played through against a small world of one Job and its pods.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::plan::{self, Plan};
use super::pod;
use super::view::{Input, condition, is_tracked};
use crate::controllers::workload::pods::tests::at;

struct World {
    job: Job,
    pods: Vec<Arc<Pod>>,
    made: usize,
    seconds: i64,
}

impl World {
    fn new(spec: Value) -> Self {
        let mut job = json!({
            "metadata": {"name": "j", "namespace": "default", "uid": "u", "generation": 1},
            "spec": {"parallelism": 1, "completions": 1, "completionMode": "NonIndexed", "backoffLimit": 6,
                     "podReplacementPolicy": "TerminatingOrFailed",
                     "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        });
        json_patch::merge(&mut job["spec"], &spec);
        Self { job: serde_json::from_value(job).unwrap(), pods: Vec::new(), made: 0, seconds: 0 }
    }

    fn plan(&self) -> Plan {
        plan::plan(&Input { job: &self.job, pods: &self.pods, settled: true, now: at(self.seconds) })
    }

    /// One reconcile, with the writes that it makes.
    fn step(&mut self) -> Plan {
        let plan = self.plan();
        for pod in &plan.delete {
            self.edit(&pod.metadata.name.clone().unwrap(), |pod| {
                pod.metadata.deletion_timestamp = Some(Time(at(0)));
            });
        }
        for order in &plan.create {
            let mut pod = pod::build(&self.job, order);
            pod.metadata.name = Some(format!("p{}", self.made));
            pod.metadata.uid = Some(format!("uid{}", self.made));
            pod.metadata.creation_timestamp = Some(Time(at(self.seconds)));
            self.made += 1;
            self.pods.push(Arc::new(pod));
        }
        self.job.status = Some(plan.status.clone());
        for pod in &plan.release {
            self.edit(&pod.metadata.name.clone().unwrap(), |pod| pod.metadata.finalizers = None);
        }
        // The kubelet is quick.
        self.pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() || is_tracked(pod));
        plan
    }

    /// Reconciles until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..20 {
            let before = (self.job.status.clone(), self.pods.clone());
            self.step();
            if before == (self.job.status.clone(), self.pods.clone()) {
                return;
            }
        }
        panic!("does not settle: {:#?}", self.job.status);
    }

    fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Pod)) {
        let pod = self.pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap();
        edit(Arc::make_mut(pod));
    }

    fn end(&mut self, name: &str, phase: &str, code: i32) {
        let ended = json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "",
            "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "finishedAt": Time(at(self.seconds))}}}]});
        self.edit(name, |pod| pod.status = serde_json::from_value(ended).unwrap());
    }

    fn status(&self) -> &JobStatus {
        self.job.status.as_ref().unwrap()
    }

    /// Active, succeeded and failed pods.
    fn counts(&self) -> (i32, i32, i32) {
        let status = self.status();
        (status.active.unwrap_or(0), status.succeeded.unwrap_or(0), status.failed.unwrap_or(0))
    }

    fn reason(&self, type_: &str) -> Option<&str> {
        condition(self.status(), type_)?.reason.as_deref()
    }

    fn active(&self) -> Vec<String> {
        let active = self.pods.iter().filter(|pod| crate::controllers::workload::pods::is_active(pod));
        active.map(|pod| pod.metadata.name.clone().unwrap()).collect()
    }
}

#[test]
fn a_job_runs_to_completion_and_counts_each_pod_once() {
    let mut world = World::new(json!({"completions": 3, "parallelism": 2}));
    world.settle();
    assert_eq!((world.active().len(), world.counts()), (2, (2, 0, 0)));
    for name in ["p0", "p1", "p2"] {
        world.end(name, "Succeeded", 0);
        world.settle();
    }
    assert_eq!((world.made, world.counts()), (3, (0, 3, 0)));
    assert_eq!(world.reason("Complete"), Some("CompletionsReached"));
    assert_eq!(world.reason("SuccessCriteriaMet"), Some("CompletionsReached"));
    assert!(world.status().completion_time.is_some() && world.pods.iter().all(|pod| !is_tracked(pod)));
}

#[test]
fn a_crash_between_status_and_finalizer_counts_nothing_twice() {
    let mut world = World::new(json!({"completions": 2}));
    world.settle();
    world.end("p0", "Succeeded", 0);
    // The status is written, the finalizer stays: as after a crash.
    world.job.status = Some(world.plan().status);
    let waiting = world.status().uncounted_terminated_pods.clone().unwrap();
    assert_eq!(waiting.succeeded, Some(vec!["uid0".to_owned()]));
    world.settle();
    assert_eq!(world.counts(), (1, 1, 0));
}

#[test]
fn failed_pods_are_replaced_after_a_growing_pause_until_the_limit() {
    let mut world = World::new(json!({"backoffLimit": 1}));
    world.settle();
    world.end("p0", "Failed", 1);
    world.step();
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(10)));
    assert!(world.active().is_empty());
    world.seconds = 10;
    world.settle();
    assert_eq!(world.active(), ["p1"]);
    world.end("p1", "Failed", 1);
    world.settle();
    assert_eq!((world.reason("Failed"), world.counts()), (Some("BackoffLimitExceeded"), (0, 0, 2)));
    assert_eq!(world.reason("FailureTarget"), Some("BackoffLimitExceeded"));
}

#[test]
fn a_deadline_ends_active_pods() {
    let mut world = World::new(json!({"activeDeadlineSeconds": 30}));
    world.settle();
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(30)));
    world.seconds = 30;
    world.settle();
    assert_eq!((world.reason("Failed"), world.active().len()), (Some("DeadlineExceeded"), 0));
}

#[test]
fn a_suspended_job_has_no_pods_and_restarts_its_clock() {
    let mut world = World::new(json!({"suspend": true, "parallelism": 2, "completions": 4}));
    world.settle();
    assert_eq!((world.made, world.status().start_time.is_none()), (0, true));
    assert_eq!(world.reason("Suspended"), Some("JobSuspended"));
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.seconds = 50;
    let plan = world.step();
    assert_eq!(plan.events[0].1, "Resumed");
    assert_eq!((world.active().len(), world.status().start_time.as_ref().unwrap().0), (2, at(50)));
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.settle();
    assert_eq!((world.active().len(), world.reason("Suspended")), (0, Some("JobSuspended")));
    assert_eq!(world.status().start_time, None);
}

#[test]
fn indexes_are_each_completed_once_and_told_to_pods() {
    let mut world = World::new(json!({"completionMode": "Indexed", "completions": 3, "parallelism": 2}));
    world.settle();
    let pod = &world.pods[1];
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("j-1-"));
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("j-1"));
    assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
    world.end("p1", "Succeeded", 0);
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("1"));
    for name in ["p0", "p2"] {
        world.end(name, "Succeeded", 0);
    }
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0-2"));
    assert_eq!((world.counts(), world.reason("Complete")), ((0, 3, 0), Some("CompletionsReached")));
}

#[test]
fn an_index_fails_alone_with_a_limit_per_index() {
    let mut world = World::new(json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2,
        "backoffLimitPerIndex": 1, "backoffLimit": 2_147_483_647}));
    world.settle();
    world.end("p0", "Failed", 1);
    world.settle();
    assert!(is_tracked(&world.pods[0]), "the last failure remembers the count");
    world.seconds = 10;
    world.settle();
    assert_eq!(world.pods[2].metadata.annotations.as_ref().unwrap()[super::view::INDEX_FAILURES], "1");
    world.end("p2", "Failed", 1);
    world.settle();
    assert_eq!(world.status().failed_indexes.as_deref(), Some("0"));
    world.end("p1", "Succeeded", 0);
    world.settle();
    assert_eq!((world.reason("Failed"), world.counts()), (Some("FailedIndexes"), (0, 1, 2)));
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let mut world = World::new(json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4,
        "backoffLimitPerIndex": 0, "maxFailedIndexes": 1, "backoffLimit": 2_147_483_647}));
    world.settle();
    world.end("p0", "Failed", 1);
    world.end("p2", "Failed", 1);
    world.settle();
    assert_eq!(world.reason("Failed"), Some("MaxFailedIndexesExceeded"));
    assert_eq!((world.active().len(), world.status().failed_indexes.as_deref()), (0, Some("0,2")));
}

#[test]
fn the_failure_policy_fails_the_job_or_ignores_the_pod() {
    let policy = |action: &str| {
        json!({"podReplacementPolicy": "Failed", "podFailurePolicy": {"rules": [
            {"action": action, "onExitCodes": {"operator": "In", "values": [42]}}]}})
    };
    let mut world = World::new(policy("FailJob"));
    world.settle();
    world.end("p0", "Failed", 42);
    world.settle();
    assert_eq!(world.reason("Failed"), Some("PodFailurePolicy"));
    let mut world = World::new(policy("Ignore"));
    world.settle();
    world.end("p0", "Failed", 42);
    world.seconds = 10;
    world.settle();
    assert_eq!((world.counts(), world.active()), ((1, 0, 0), vec!["p1".to_owned()]));
}

#[test]
fn the_success_policy_ends_the_job_early() {
    let mut world = World::new(json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]}}));
    world.settle();
    world.end("p0", "Succeeded", 0);
    world.settle();
    assert_eq!(
        (world.reason("Complete"), world.reason("SuccessCriteriaMet")),
        (Some("SuccessPolicy"), Some("SuccessPolicy"))
    );
    assert_eq!((world.active().len(), world.counts()), (0, (0, 1, 0)));
}

#[test]
fn deleted_pods_are_replaced_at_once_or_when_they_have_ended() {
    for (policy, replaced, failed) in [("TerminatingOrFailed", true, 1), ("Failed", false, 0)] {
        let mut world = World::new(json!({"podReplacementPolicy": policy}));
        world.settle();
        world.edit("p0", |pod| pod.metadata.deletion_timestamp = Some(Time(at(0))));
        world.seconds = 700;
        let plan = world.step();
        assert_eq!(plan.create.len(), usize::from(replaced), "{policy}");
        assert_eq!(plan.status.terminating, Some(1));
        assert_eq!(
            plan.status.uncounted_terminated_pods.unwrap().failed.map_or(0, |f| f.len()),
            failed,
            "{policy}"
        );
    }
}

#[test]
fn fewer_wanted_pods_and_doubled_indexes_are_removed() {
    let mut world = World::new(json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3}));
    world.settle();
    let mut twin = world.pods[1].as_ref().clone();
    twin.metadata.name = Some("twin".into());
    world.pods.push(Arc::new(twin));
    assert_eq!(world.plan().delete.len(), 1);
    world.pods.pop();
    world.job.spec.as_mut().unwrap().parallelism = Some(1);
    assert_eq!(world.plan().delete.len(), 2);
}

#[test]
fn a_work_queue_is_done_when_all_pods_are() {
    let mut world = World::new(json!({"completions": null, "parallelism": 2}));
    world.settle();
    world.end("p0", "Succeeded", 0);
    world.settle();
    assert_eq!((world.made, world.reason("Complete")), (2, None));
    world.end("p1", "Succeeded", 0);
    world.settle();
    assert_eq!(world.reason("Complete"), Some("CompletionsReached"));
}
