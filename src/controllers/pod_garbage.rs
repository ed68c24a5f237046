//! Removes pods that nobody else would: those bound to nodes that are gone, those deleted before they were bound, those
//! on nodes declared out of service, and the oldest of too many finished ones.

use super::Context;
use crate::client::{
    Change, Clock, Controller, Informer, Key, Next, clock::age, conditions, error, informer::index,
};
use k8s_openapi::{
    api::core::v1::{Node, Pod, PodCondition},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// A node that is missing is given this long to come (back) before its pods are removed.
const QUARANTINE: Duration = Duration::from_secs(40);
/// The key that stands for the count of finished pods. No pod has it: it has no namespace.
const FINISHED: &str = "finished-pods";

/// What went wrong with one pod.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node could not be looked up.
    #[error("get node")]
    Node(#[source] kube::Error),
    /// The pod's status could not be set.
    #[error("mark pod as failed")]
    Mark(#[source] kube::Error),
    /// The pod could not be deleted.
    #[error("delete pod")]
    Delete(#[source] kube::Error),
}

/// What is to become of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is somebody else's business.
    Keep,
    /// Its node is not known; look again later.
    Wait(Duration),
    /// It goes. The reason is set if the pod did not end by itself.
    Remove(Option<&'static str>),
}

/// What is known about the node of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeState {
    Unbound,
    There,
    OutOfService,
    MissingFor(Duration),
}

fn decide(pod: &Pod, node: NodeState) -> Fate {
    let going = pod.metadata.deletion_timestamp.is_some();
    match node {
        NodeState::Unbound if going => Fate::Remove(None),
        NodeState::OutOfService if going => Fate::Remove(None),
        NodeState::MissingFor(time) if time >= QUARANTINE => {
            Fate::Remove(Some("PodGC: node no longer exists"))
        }
        NodeState::MissingFor(time) => Fate::Wait(QUARANTINE - time),
        NodeState::Unbound | NodeState::There | NodeState::OutOfService => Fate::Keep,
    }
}

/// A node whose pods will not come back by themselves: an administrator says so, and it is not ready.
fn is_out_of_service(node: &Node) -> bool {
    let tainted = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let declared = tainted.into_iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service");
    let all = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    declared && !conditions::is_true(all, "Ready")
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// The oldest finished pods over the threshold.
fn surplus(pods: &[Arc<Pod>], threshold: usize) -> Vec<Arc<Pod>> {
    let mut finished: Vec<_> = pods.iter().filter(|pod| is_finished(pod)).collect();
    let count = finished.len().saturating_sub(threshold);
    finished.sort_by_key(|pod| {
        (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), Key::of(pod.as_ref()))
    });
    finished.into_iter().take(count).cloned().collect()
}

struct PodGarbage {
    client: Client,
    clock: Clock,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    threshold: usize,
    /// Since when each node has been missing.
    missing: Mutex<HashMap<String, Timestamp>>,
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let (pods, nodes) = (context.informers.get::<Pod>(), context.informers.get::<Node>());
    pods.add_index(index::NODE, index::pod_node);
    let threshold = context.config.terminated_pod_threshold;
    let (all, known, on_node) = (pods.clone(), nodes.clone(), pods.clone());
    let controller = Controller::new("pod-garbage-collector")
        .watch(&pods, move |change| keys_of_pod(&all, &known, threshold, change))
        .watch(&nodes, move |change: &Change<Node>| {
            let relevant = change.after().is_none_or(|node| is_out_of_service(node));
            let name = change.object().metadata.name.as_deref().filter(|_| relevant);
            let pods = name.map(|name| on_node.by_index(index::NODE, name)).unwrap_or_default();
            pods.iter().map(|pod| Key::of(pod.as_ref())).collect()
        });
    let (client, clock) = (context.client, context.clock);
    let this = Arc::new(PodGarbage { client, clock, pods, nodes, threshold, missing: Mutex::default() });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

/// Only pods that may be ours to remove become keys: a pod on a node that is there costs nothing.
fn keys_of_pod(
    pods: &Informer<Pod>,
    nodes: &Informer<Node>,
    threshold: usize,
    change: &Change<Pod>,
) -> Vec<Key> {
    let Some(pod) = change.after() else { return Vec::new() };
    let mut keys = Vec::new();
    if pod.metadata.deletion_timestamp.is_some()
        || node_name(pod).is_some_and(|n| nodes.find("", n).is_none())
    {
        keys.push(Key::of(pod.as_ref()));
    }
    if is_finished(pod) && threshold > 0 && pods.len() > threshold {
        keys.push(Key::cluster(FINISHED));
    }
    keys
}

impl PodGarbage {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        if key.as_str() == FINISHED {
            for pod in surplus(&self.pods.list(), self.threshold) {
                self.remove(&pod, None).await?;
            }
            return Ok(Next::Done);
        }
        let Some(pod) = self.pods.get(key) else { return Ok(Next::Done) };
        match decide(&pod, self.node_state(&pod)) {
            Fate::Keep => Ok(Next::Done),
            Fate::Wait(time) => Ok(Next::After(time)),
            Fate::Remove(None) => self.remove(&pod, None).await.map(|()| Next::Done),
            Fate::Remove(Some(reason)) => {
                // The cache may be behind: only the API knows that the node is not there.
                let name = node_name(&pod).unwrap_or_default();
                let node = Api::<Node>::all(self.client.clone()).get_metadata_opt(name).await;
                if node.map_err(Error::Node)?.is_none() {
                    self.remove(&pod, Some(reason)).await?;
                }
                Ok(Next::Done)
            }
        }
    }

    fn node_state(&self, pod: &Pod) -> NodeState {
        let Some(name) = node_name(pod) else { return NodeState::Unbound };
        let node = self.nodes.find("", name);
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.retain(|name, _| self.nodes.find("", name).is_none());
        match node {
            Some(node) if is_out_of_service(&node) => NodeState::OutOfService,
            Some(_) => NodeState::There,
            None => {
                let now = self.clock.now();
                NodeState::MissingFor(age(now, *missing.entry(name.to_owned()).or_insert(now)))
            }
        }
    }

    /// Marks the pod as failed if a reason is given, then deletes it without a grace period.
    async fn remove(&self, pod: &Pod, reason: Option<&'static str>) -> Result<(), Error> {
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        if let Some(message) = reason.filter(|_| !is_finished(pod)) {
            let patch = disrupted(pod, "DeletionByPodGC", message, self.clock.now());
            match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Err(failure) if error::is_not_found(&failure) => return Ok(()),
                result => drop(result.map_err(Error::Mark)?),
            }
        }
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(name, &params).await {
            Ok(_) => info!(namespace, pod = name, reason, "removed pod that nobody else would"),
            // Gone already, or another pod has its name now.
            Err(failure) if error::is_not_found(&failure) || error::is_conflict(&failure) => {}
            Err(failure) => return Err(Error::Delete(failure)),
        }
        Ok(())
    }
}

/// A status patch that fails a pod and says that it was disrupted.
fn disrupted(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> serde_json::Value {
    let condition = disruption(pod, reason, message, now);
    serde_json::json!({
        "metadata": {"uid": pod.metadata.uid},
        "status": {"phase": "Failed", "conditions": [condition]},
    })
}

/// The condition that tells why a pod was removed by somebody else than its owner.
pub(super) fn disruption(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> PodCondition {
    let old = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let known = conditions::find(&old, "DisruptionTarget").filter(|old| old.status == "True");
    PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: known
            .and_then(|old| old.last_transition_time.clone())
            .or(Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now))),
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests;
