//! What a Job needs next: pods to create, delete and count, and its status. Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::finish::{self, Ending, ensure};
use super::pod::Order;
use super::view::{INDEX_FAILURES, INDEX_IGNORED, Input, View, annotated, count, is_finished, is_tracked};
use super::{backoff, remove};
use crate::client::EventType;
use crate::controllers::workload::pods;

/// Most creates, deletes or countings in one reconcile.
const BURST: usize = 500;

/// Everything that one reconcile does, in this order.
#[derive(Debug, Default)]
pub struct Plan {
    /// Active pods that must go.
    pub delete: Vec<Arc<Pod>>,
    /// Pods to create.
    pub create: Vec<Order>,
    /// The status, which may be the one that the Job has.
    pub status: JobStatus,
    /// Pods that the status accounts for: they lose their finalizer after it is written.
    pub release: Vec<Arc<Pod>>,
    /// Events that go with the status: type, reason, message.
    pub events: Vec<(EventType, String, String)>,
    /// When to look again without any event.
    pub requeue: Option<Duration>,
}

/// Makes the plan.
pub fn plan(input: &Input<'_>) -> Plan {
    let before = input.job.status.clone().unwrap_or_default();
    if is_finished(input.job) {
        let release = input.pods.iter().filter(|pod| is_tracked(pod)).cloned().collect();
        return Plan { status: before, release, ..Plan::default() };
    }
    let mut status = settle(input.pods, before);
    let known = status.clone();
    let Some(view) = View::of(input, &known) else { return Plan { status, ..Plan::default() } };
    let mut plan = Plan::default();
    if status.start_time.is_none() && !view.suspended {
        status.start_time = Some(Time(view.now));
    }
    let deleting = input.job.metadata.deletion_timestamp.is_some();
    let mut ending = finish::decided(&view, &status);
    if ending.is_some() {
        plan.delete = view.active().cloned().collect();
    } else {
        if input.settled && !deleting {
            manage(&view, &mut plan);
        }
        let active = view.active().count() - plan.delete.len() + plan.create.len();
        ending = finish::completed(&view, active);
        if ending.is_none() {
            suspend_or_resume(&view, &mut status, &mut plan);
        }
    }
    status.active = Some(count(view.active().count() - plan.delete.len() + plan.create.len()));
    // Pods that are deleted now may be ready, but are active no more.
    status.ready = Some(count(view.active().filter(|pod| pods::is_ready(pod)).count())).min(status.active);
    status.terminating = Some(view.terminating() + count(plan.delete.len()));
    account(&view, ending.as_ref(), deleting, &mut status, &mut plan);
    if let Some(ending) = ending {
        end(&view, &ending, &mut status, &mut plan);
    } else {
        plan.requeue = [plan.requeue, finish::deadline_in(&view, &status)].into_iter().flatten().min();
    }
    plan.status = status;
    plan
}

/// Turns the uids of pods that have lost their finalizer into numbers.
fn settle(pods: &[Arc<Pod>], mut status: JobStatus) -> JobStatus {
    let tracked: HashSet<_> =
        pods.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.metadata.uid.as_deref()).collect();
    let waiting = status.uncounted_terminated_pods.get_or_insert_default();
    let settled = |list: &mut Option<Vec<String>>| {
        let Some(uids) = list else { return 0 };
        let before = uids.len();
        uids.retain(|uid| tracked.contains(uid.as_str()));
        let counted = before - uids.len();
        if uids.is_empty() {
            *list = None;
        }
        count(counted)
    };
    let (succeeded, failed) = (settled(&mut waiting.succeeded), settled(&mut waiting.failed));
    add(&mut status.succeeded, succeeded);
    add(&mut status.failed, failed);
    status
}

fn add(counter: &mut Option<i32>, more: i32) {
    if more > 0 {
        *counter = Some(counter.unwrap_or(0) + more);
    }
}

/// Creates or deletes until as many pods are active as are wanted.
fn manage(view: &View<'_>, plan: &mut Plan) {
    let active = view.active().count();
    let number = |value: i32| usize::try_from(value).unwrap_or(0);
    let parallelism = number(view.spec.parallelism.unwrap_or(1));
    let wanted = match view.spec.completions {
        _ if view.suspended => 0,
        // Work is shared by a queue: once one pod succeeded, no more are started.
        None if view.succeeded > 0 => active,
        None => parallelism,
        Some(completions) => {
            number(completions - view.succeeded - view.failed_indexes.total()).min(parallelism)
        }
    };
    plan.delete = remove::surplus(view, wanted);
    plan.delete.truncate(BURST);
    if !plan.delete.is_empty() || view.suspended {
        return;
    }
    let mut missing = wanted.saturating_sub(active);
    if view.replaces_only_failed() {
        missing = missing.saturating_sub(number(view.terminating()));
    }
    missing = missing.min(BURST);
    if missing == 0 {
        return;
    }
    if view.spec.backoff_limit_per_index.is_none()
        && let Some(wait) = backoff::of_job(view)
    {
        plan.requeue = Some(wait);
        return;
    }
    if view.indexed {
        plan.create = open_indexes(view, missing, &mut plan.requeue);
    } else {
        plan.create = vec![Order::default(); missing];
    }
}

/// The last failed pod of each index that has not been counted yet; it carries the index's number of failures.
fn last_failures<'a>(view: &View<'a>) -> BTreeMap<i32, &'a Arc<Pod>> {
    let mut last: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
    let failures = |pod: &Pod| annotated(pod, INDEX_FAILURES) + annotated(pod, INDEX_IGNORED);
    for pod in view.pods.iter().filter(|pod| is_tracked(pod) && view.is_failed(pod)) {
        let Some(index) = view.index(pod) else { continue };
        if last.get(&index).is_none_or(|known| failures(known) < failures(pod)) {
            last.insert(index, pod);
        }
    }
    last
}

/// Orders for the lowest indexes that no pod works on.
fn open_indexes(view: &View<'_>, missing: usize, requeue: &mut Option<Duration>) -> Vec<Order> {
    let busy_pod =
        |pod: &&Arc<Pod>| pods::is_active(pod) || (view.replaces_only_failed() && pods::is_terminating(pod));
    let busy: HashSet<i32> = view.pods.iter().filter(busy_pod).filter_map(|pod| view.index(pod)).collect();
    let per_index = view.spec.backoff_limit_per_index.is_some();
    let last = if per_index { last_failures(view) } else { BTreeMap::new() };
    let open = (0..view.spec.completions.unwrap_or(0)).filter(|index| {
        !busy.contains(index) && !view.succeeded_indexes.has(*index) && !view.failed_indexes.has(*index)
    });
    let mut orders = Vec::new();
    for index in open {
        if orders.len() == missing {
            break;
        }
        let failed = last.get(&index).copied();
        match failed.and_then(|pod| backoff::of_index(view, pod)) {
            Some(wait) => *requeue = Some(requeue.map_or(wait, |known| known.min(wait))),
            None => orders.push(Order::after(view, index, failed)),
        }
    }
    orders
}

fn suspend_or_resume(view: &View<'_>, status: &mut JobStatus, plan: &mut Plan) {
    let (value, told) = if view.suspended {
        ("True", ("JobSuspended", "Job suspended"))
    } else {
        ("False", ("JobResumed", "Job resumed"))
    };
    if ensure(status, "Suspended", value, told, view.now) {
        let reason = if view.suspended { "Suspended" } else { "Resumed" };
        plan.events.push((EventType::Normal, reason.to_owned(), told.1.to_owned()));
        // The time before the suspension does not count against the deadline. The start is taken away while the Job is
        // suspended, for later the API lets nobody change it.
        status.start_time = (!view.suspended).then_some(Time(view.now));
    }
}

/// Writes finished pods down and says which of them the status accounts for.
fn account(
    view: &View<'_>,
    ending: Option<&Ending>,
    deleting: bool,
    status: &mut JobStatus,
    plan: &mut Plan,
) {
    let everything = deleting || ending.is_some();
    let fails = ending.is_some_and(|ending| !ending.success);
    let kept = if everything || view.spec.backoff_limit_per_index.is_none() {
        BTreeMap::new()
    } else {
        last_failures(view)
    };
    let waiting = status.uncounted_terminated_pods.get_or_insert_default();
    for pod in view.pods.iter().filter(|pod| is_tracked(pod)) {
        if plan.release.len() == BURST {
            break;
        }
        let (succeeded, failed) = (pods::phase(pod) == "Succeeded", view.is_failed(pod));
        if !(everything || succeeded || failed) {
            continue;
        }
        // The last failure of an index that goes on remembers how many there were until a new pod carries it.
        let remembers = view.index(pod).is_some_and(|index| {
            !succeeded
                && kept.get(&index).is_some_and(|last| Arc::ptr_eq(last, pod))
                && !view.failed_indexes.has(index)
                && !view.succeeded_indexes.has(index)
                && !is_followed(view, index, pod)
        });
        if remembers {
            continue;
        }
        plan.release.push(pod.clone());
        if !view.is_written_down(pod) {
            write_down(view, pod, succeeded, failed || fails, waiting);
        }
    }
    if view.indexed {
        status.succeeded = Some(view.succeeded).filter(|count| *count > 0);
        status.completed_indexes = Some(view.succeeded_indexes.to_string()).filter(|text| !text.is_empty());
        status.failed_indexes = view.spec.backoff_limit_per_index.map(|_| view.failed_indexes.to_string());
    }
}

/// A later pod of the index carries its number of failures on.
fn is_followed(view: &View<'_>, index: i32, failed: &Pod) -> bool {
    let failures = |pod: &Pod| annotated(pod, INDEX_FAILURES) + annotated(pod, INDEX_IGNORED);
    view.pods.iter().any(|pod| view.index(pod) == Some(index) && failures(pod) > failures(failed))
}

fn write_down(
    view: &View<'_>,
    pod: &Pod,
    succeeded: bool,
    failed: bool,
    waiting: &mut UncountedTerminatedPods,
) {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if succeeded {
        // Indexes are written down as such.
        if !view.indexed {
            waiting.succeeded.get_or_insert_default().push(uid);
        }
    } else if failed && view.counts(pod) {
        waiting.failed.get_or_insert_default().push(uid);
    }
}

/// Tells the ending, at first as a decision, and as a fact once all pods are gone and counted.
fn end(view: &View<'_>, ending: &Ending, status: &mut JobStatus, plan: &mut Plan) {
    let (decision, fact) = ending.types();
    let told = (ending.reason.as_str(), ending.message.as_str());
    ensure(status, decision, "True", told, view.now);
    let waiting = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let counted = waiting.succeeded.is_none() && waiting.failed.is_none() && plan.release.is_empty();
    let gone = status.active == Some(0) && status.terminating == Some(0);
    if !(counted && gone) {
        return;
    }
    ensure(status, fact, "True", told, view.now);
    // A Job that ends while it is suspended has never started, but what has ended has a start.
    status.start_time.get_or_insert(Time(view.now));
    if ending.success {
        status.completion_time = Some(Time(view.now));
        plan.events.push((EventType::Normal, "Completed".to_owned(), "Job completed".to_owned()));
    } else {
        plan.events.push((EventType::Warning, ending.reason.clone(), ending.message.clone()));
    }
}
