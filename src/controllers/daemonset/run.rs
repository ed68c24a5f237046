//! Carrying out the plan of a DaemonSet: claims, revisions, pods, status.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::plan::{self, Input};
use super::{place, status};
use crate::client::backoff::exponential;
use crate::client::{Change, Clock, Controller, EventType, Informer, Key, Next, Recorder};
use crate::controllers::Context;
use crate::controllers::workload::control::PodControl;
use crate::controllers::workload::revisions::{self, POD_LABEL};
use crate::controllers::workload::{self, batch, pods, selects};

const WORKERS: usize = 2;
/// The first and the longest pause before a pod that failed on a node is removed, which makes room for the next.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(15 * 60);

/// Why a DaemonSet could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its pods or revisions cannot be told.
    #[error("claim pods and revisions")]
    Claim(#[source] selects::Error),
    /// The revision of the present template could not be recorded.
    #[error("record revision")]
    Revision(#[source] revisions::Error),
    /// Old revisions could not be deleted.
    #[error("delete old revisions")]
    History(#[source] kube::Error),
    /// A pod could not be created.
    #[error("create pod")]
    Create(#[source] kube::Error),
    /// A pod could not be deleted.
    #[error("delete pod")]
    Delete(#[source] kube::Error),
    /// The status could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
}

/// Runs the DaemonSet controller until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, clock, .. } = context;
    let (sets, pods) = (informers.get::<DaemonSet>(), informers.get::<Pod>());
    let (nodes, revisions) = (informers.get::<Node>(), informers.get::<ControllerRevision>());
    revisions.add_index(workload::ORPHANS, |r: &ControllerRevision| workload::orphan_namespace(r));
    let control = PodControl::new(client.clone(), pods.clone(), recorder.clone());
    let (of_pods, of_revisions, of_nodes) = (sets.clone(), sets.clone(), sets.clone());
    let controller = Controller::new("daemonset")
        .workers(WORKERS)
        .for_each(&sets)
        .owned_by::<DaemonSet, _>(&pods)
        .owned_by::<DaemonSet, _>(&revisions)
        .watch(&pods, move |change| selects::possible_owners(&of_pods, change))
        .watch(&revisions, move |change| selects::possible_owners(&of_revisions, change))
        .watch(&nodes, move |change| sets_of_node(&of_nodes, change));
    let failures = Mutex::default();
    let this = Arc::new(DaemonSets { client, sets, nodes, revisions, control, recorder, clock, failures });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

/// All sets, if the node came, went, or means something else to one of them.
fn sets_of_node(sets: &Informer<DaemonSet>, change: &Change<Node>) -> Vec<Key> {
    if let Change::Updated { old, new } = change {
        let face = |node: &Node| {
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
            (node.metadata.labels.clone(), taints)
        };
        if face(old) == face(new) {
            return Vec::new();
        }
        let concerned = |set: &DaemonSet| place::fit(set, old) != place::fit(set, new);
        return sets.list().iter().filter(|set| concerned(set)).map(|set| Key::of(set.as_ref())).collect();
    }
    sets.keys()
}

struct DaemonSets {
    client: Client,
    sets: Informer<DaemonSet>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    control: PodControl,
    recorder: Recorder,
    clock: Clock,
    /// How often pods of a set failed on a node, and when the last one of them was removed.
    failures: Mutex<HashMap<(String, String), (u32, Instant)>>,
}

impl DaemonSets {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(set) = self.sets.get(key) else {
            self.control.forget(key);
            return Ok(Next::Done);
        };
        let set = set.as_ref();
        if selects::Selects::selector(set).is_ok_and(|selector| selector.is_everything()) {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.event(set, EventType::Warning, "SelectingAll", message);
            return Ok(Next::Done);
        }
        let settled = self.control.is_settled(key, set.metadata.uid.as_deref());
        let claimed = selects::claim(&self.client, set, &self.revisions, |_| true).await;
        let known = claimed.map_err(Error::Claim)?;
        let claimed = selects::claim(&self.client, set, self.control.pods(), |_| true).await;
        let owned = claimed.map_err(Error::Claim)?;
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let current = revisions::record(&self.client, set, &known).await.map_err(Error::Revision)?;
        let labels = current.metadata.labels.as_ref();
        let hash = labels.and_then(|labels| labels.get(POD_LABEL)).cloned().unwrap_or_default();
        let (nodes, now) = (self.nodes.list(), self.clock.now());
        let input = Input { set, hash: &hash, nodes: &nodes, pods: &owned, now };
        let outcome = if settled { self.manage(key, &input).await } else { Ok(None) };
        let of_pods = owned.iter().filter_map(|pod| pod.metadata.labels.as_ref()?.get(POD_LABEL).cloned());
        let live: BTreeSet<_> = of_pods.chain([hash.clone()]).collect();
        revisions::clean(&self.client, set, &known, &live).await.map_err(Error::History)?;
        self.write_status(set, status::status(&input)).await?;
        let waits = [outcome?, status::recheck(&input)];
        Ok(waits.into_iter().flatten().min().map_or(Next::Done, Next::After))
    }

    /// Creates and deletes; returns when a failed pod is due.
    async fn manage(&self, key: &Key, input: &Input<'_>) -> Result<Option<Duration>, Error> {
        let mut plan = plan::plan(input);
        let wait = self.remove_ended(input.set, &mut plan);
        let made: Vec<Pod> =
            plan.create.iter().map(|node| place::pod_for(input.set, node, input.hash)).collect();
        let set = input.set;
        let create = |index: usize| self.control.create(set, key, &made[index]).boxed();
        let created = batch::slow_start(made.len(), create).await;
        let deleted = self.control.delete_all(set, key, &plan.delete).await;
        created.error.map_or(Ok(()), |failure| Err(Error::Create(failure)))?;
        deleted.map_err(Error::Delete)?;
        Ok(wait)
    }

    /// Moves the ended pods whose time has come to those to delete; returns when the next one is due.
    fn remove_ended(&self, set: &DaemonSet, plan: &mut plan::Plan) -> Option<Duration> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, (_, last)| last.elapsed() < 2 * LONGEST_RETRY);
        let mut wait = None;
        for pod in std::mem::take(&mut plan.ended) {
            let node = pods::node_name(&pod).unwrap_or_default().to_owned();
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let place =
                format!("{}/{name} on node {node}", pod.metadata.namespace.as_deref().unwrap_or_default());
            if pods::phase(&pod) == "Succeeded" {
                let message = format!("Found succeeded daemon pod {place}, will try to delete it");
                self.recorder.event(set, EventType::Normal, "SucceededDaemonPod", message);
                plan.delete.push(pod);
                continue;
            }
            let slot = (set.metadata.uid.clone().unwrap_or_default(), node);
            let left = failures.get(&slot).and_then(|(count, last)| {
                exponential(FIRST_RETRY, LONGEST_RETRY, count.saturating_sub(1)).checked_sub(last.elapsed())
            });
            if let Some(left) = left.filter(|left| !left.is_zero()) {
                wait = Some(wait.map_or(left, |wait: Duration| wait.min(left)));
                continue;
            }
            let count = failures.get(&slot).map_or(0, |(count, _)| *count).saturating_add(1);
            failures.insert(slot, (count, Instant::now()));
            let message = format!("Found failed daemon pod {place}, will try to kill it");
            self.recorder.event(set, EventType::Warning, "FailedDaemonPod", message);
            plan.delete.push(pod);
        }
        wait
    }

    async fn write_status(&self, set: &DaemonSet, wanted: DaemonSetStatus) -> Result<(), Error> {
        if set.status.as_ref().is_some_and(|before| status::same(before, &wanted)) {
            return Ok(());
        }
        let wanted = DaemonSet { status: Some(wanted), ..set.clone() };
        selects::write_status(&self.client, &wanted).await.map_err(Error::Status)
    }
}
