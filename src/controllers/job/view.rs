//! A Job and its pods, read once: what the decisions ask for.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::indexes::Indexes;
use super::policy::{self, Verdict};
use crate::controllers::workload::pods;

/// The finalizer of pods that are not counted yet.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label of a pod with its completion index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation with the number of earlier failures of a pod's index.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation with the number of earlier failures of a pod's index that the failure policy ignored.
pub const INDEX_IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What the plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The Job.
    pub job: &'a Job,
    /// The pods it controls.
    pub pods: &'a [Arc<Pod>],
    /// The cache shows all earlier creates and deletes.
    pub settled: bool,
    /// The current time.
    pub now: Timestamp,
}

/// The condition of a type, if it is `True`.
pub fn condition<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == "True")
}

/// The Job has ended for good.
pub fn is_finished(job: &Job) -> bool {
    let ended = |status: &JobStatus| condition(status, "Complete").or(condition(status, "Failed")).is_some();
    job.status.as_ref().is_some_and(ended)
}

/// The pod is not counted yet.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// A number in an annotation of the pod; 0 if it has none.
pub fn annotated(pod: &Pod, key: &str) -> i32 {
    pod.metadata.annotations.as_ref().and_then(|a| a.get(key)?.parse().ok()).unwrap_or(0)
}

/// The Job with what follows from spec, status and pods.
#[derive(Debug)]
pub struct View<'a> {
    /// The Job.
    pub job: &'a Job,
    /// Its spec.
    pub spec: &'a JobSpec,
    /// All its pods.
    pub pods: &'a [Arc<Pod>],
    /// `spec.completionMode` is `Indexed`.
    pub indexed: bool,
    /// `spec.suspend`.
    pub suspended: bool,
    /// Uids of pods that are written down and not counted yet.
    uncounted: HashSet<&'a str>,
    /// Indexes done, with those of pods that are not written down yet.
    pub succeeded_indexes: Indexes,
    /// Indexes given up, with those of pods that are not written down yet.
    pub failed_indexes: Indexes,
    /// Pods or indexes that succeeded.
    pub succeeded: i32,
    /// Pods that failed and count.
    pub failed: i32,
    /// The current time.
    pub now: Timestamp,
}

impl<'a> View<'a> {
    /// Reads everything. `None` if the Job has no spec.
    pub fn of(input: &Input<'a>, status: &'a JobStatus) -> Option<Self> {
        let spec = input.job.spec.as_ref()?;
        let known = status.uncounted_terminated_pods.as_ref();
        let uids = |list: Option<&'a Vec<String>>| list.into_iter().flatten().map(String::as_str);
        let uncounted = uids(known.and_then(|u| u.succeeded.as_ref()))
            .chain(uids(known.and_then(|u| u.failed.as_ref())))
            .collect();
        let mut view = Self {
            job: input.job,
            spec,
            pods: input.pods,
            indexed: spec.completion_mode.as_deref() == Some("Indexed"),
            suspended: spec.suspend == Some(true),
            uncounted,
            succeeded_indexes: Indexes::default(),
            failed_indexes: Indexes::default(),
            succeeded: 0,
            failed: 0,
            now: input.now,
        };
        view.count(status);
        Some(view)
    }

    fn count(&mut self, status: &JobStatus) {
        let limit = self.spec.completions.unwrap_or(0);
        let parse = |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or_default(), limit);
        let known = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let waiting = |list: &Option<Vec<String>>| count(list.as_ref().map_or(0, Vec::len));
        let new = || self.pods.iter().filter(|pod| is_tracked(pod) && !self.is_written_down(pod));
        let failures = count(new().filter(|pod| self.is_failed(pod) && self.counts(pod)).count());
        let successes = count(new().filter(|pod| pods::phase(pod) == "Succeeded").count());
        self.failed = status.failed.unwrap_or(0) + waiting(&known.failed) + failures;
        if !self.indexed {
            self.succeeded = status.succeeded.unwrap_or(0) + waiting(&known.succeeded) + successes;
            return;
        }
        let mut done = parse(&status.completed_indexes);
        let successes = self.pods.iter().filter(|pod| pods::phase(pod) == "Succeeded" && is_tracked(pod));
        done.0.extend(successes.filter_map(|pod| self.index(pod)));
        let mut given_up = parse(&status.failed_indexes);
        if let Some(limit) = self.spec.backoff_limit_per_index {
            let failures = self.pods.iter().filter(|pod| is_tracked(pod) && self.is_failed(pod));
            let hopeless = failures.filter(|pod| {
                self.verdict(pod) == Verdict::FailIndex
                    || (self.counts(pod) && annotated(pod, INDEX_FAILURES) >= limit)
            });
            given_up.0.extend(hopeless.filter_map(|pod| self.index(pod)).filter(|index| !done.has(*index)));
        }
        self.succeeded = done.total();
        (self.succeeded_indexes, self.failed_indexes) = (done, given_up);
    }

    /// The pod's uid is in `uncountedTerminatedPods`.
    pub fn is_written_down(&self, pod: &Pod) -> bool {
        self.uncounted.contains(pod.metadata.uid.as_deref().unwrap_or_default())
    }

    /// The pod's index, if it is one of the Job's.
    pub fn index(&self, pod: &Pod) -> Option<i32> {
        let index = pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()?;
        (0..self.spec.completions.unwrap_or(0)).contains(&index).then_some(index)
    }

    /// Pods that are being deleted are replaced only once they have ended.
    pub fn replaces_only_failed(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    /// The pod counts as failed.
    pub fn is_failed(&self, pod: &Pod) -> bool {
        match pods::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => pods::is_deleting(pod) && !self.replaces_only_failed(),
        }
    }

    /// What the pod failure policy says about a failed pod.
    pub fn verdict(&self, pod: &Pod) -> Verdict {
        let rules = self.spec.pod_failure_policy.as_ref().map(|policy| policy.rules.as_slice());
        policy::judge(rules.unwrap_or_default(), pod)
    }

    /// A failed pod counts towards the backoff limit.
    pub fn counts(&self, pod: &Pod) -> bool {
        (!self.indexed || self.index(pod).is_some()) && self.verdict(pod) != Verdict::Ignore
    }

    /// Pods that neither ended nor are being deleted.
    pub fn active(&self) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        self.pods.iter().filter(|pod| pods::is_active(pod))
    }

    /// Pods that are being deleted and have not ended.
    pub fn terminating(&self) -> i32 {
        count(self.pods.iter().filter(|pod| pods::is_terminating(pod)).count())
    }
}

/// A number of things as statuses carry it.
pub fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
