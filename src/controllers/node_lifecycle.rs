//! Watches over the health of nodes.
//!
//! A node is heard of by its lease and by its status. One that was not heard of for the grace period gets conditions
//! `Unknown`. Conditions lead to taints: `NoSchedule` at once, `NoExecute` (which evicts pods) at a limited rate, and
//! not at all while no node is healthy, since then the fault is more likely ours. What the taints do to pods is the
//! business of `taint_eviction`.

mod health;
mod taints;

use super::Context;
use crate::client::{
    Change, Clock, Controller, EventType, Informer, Key, Next, Recorder, Selection, WorkQueue, conditions,
    error, informer::index,
};
use health::{Health, Signal};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, ObjectReference, Pod, PodCondition, Taint},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use taints::{Pace, Ready};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Where the kubelets keep their leases.
const LEASES: &str = "kube-node-lease";

/// What went wrong with one node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The conditions could not be written.
    #[error("update node conditions")]
    Conditions(#[source] kube::Error),
    /// The taints could not be written.
    #[error("update node taints")]
    Taints(#[source] kube::Error),
    /// A pod of the node could not be marked as not ready.
    #[error("mark pods as not ready")]
    Pods(#[source] kube::Error),
}

struct Lifecycle {
    client: Client,
    clock: Clock,
    recorder: Recorder,
    grace: Duration,
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    queue: Arc<WorkQueue<Key>>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    health: HashMap<Key, Health>,
    /// The uids of the nodes that were announced.
    announced: HashMap<Key, String>,
    /// When the next node may get a taint that evicts.
    next_eviction: Option<Instant>,
    /// No node is ready.
    all_down: bool,
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let nodes = context.informers.get::<Node>();
    let leases = context.informers.select::<Lease>(Selection::namespace(LEASES));
    let pods = context.informers.get::<Pod>();
    pods.add_index(index::NODE, index::pod_node);
    let controller = Controller::new("node-lifecycle")
        .for_each(&nodes)
        .watch(&leases, |change: &Change<Lease>| {
            change.object().metadata.name.iter().map(|name| Key::cluster(name)).collect()
        })
        .after(&pods);
    let this = Arc::new(Lifecycle {
        client: context.client,
        clock: context.clock,
        recorder: context.recorder,
        grace: context.config.node_monitor_grace,
        nodes,
        leases,
        pods,
        queue: controller.queue(),
        memory: Mutex::default(),
    });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

impl Lifecycle {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(node) = self.nodes.get(key) else {
            self.forget(key);
            self.watch_disruption();
            return Ok(Next::Done);
        };
        let silence = self.observe(key, &node);
        if silence >= self.grace {
            let missing = health::unknown(&node, self.clock.now());
            if !missing.is_empty() {
                return self.mark_unknown(key, &node, missing).await;
            }
        }
        self.watch_disruption();
        let retry = self.update_taints(key, &node).await?;
        if taints::ready(&node) == Ready::Unknown {
            self.mark_pods(key).await?;
        }
        let staleness = (silence < self.grace).then(|| self.grace - silence);
        let next = [retry, staleness].into_iter().flatten().min();
        Ok(next.map_or(Next::Done, Next::After))
    }

    /// The node is gone.
    fn forget(&self, key: &Key) {
        let mut memory = self.memory();
        memory.health.remove(key);
        let Some(uid) = memory.announced.remove(key) else { return };
        drop(memory);
        let node = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(key.name().to_owned()),
            uid: Some(uid),
            ..ObjectReference::default()
        };
        let message = format!("Node {key} event: Removing Node {key} from Controller");
        self.recorder.event_for(node, EventType::Normal, "RemovingNode", message);
    }

    /// Notes what the node said last; returns for how long it has been silent.
    fn observe(&self, key: &Key, node: &Node) -> Duration {
        let signal = Signal::of(node, self.leases.find(LEASES, key.name()).as_deref());
        let now = Instant::now();
        let mut memory = self.memory();
        let is_new = !memory.health.contains_key(key);
        let health = memory.health.entry(key.clone()).or_insert_with(|| Health::new(signal.clone(), now));
        health.hear(signal, now);
        let silence = health.silence(now);
        if is_new {
            memory.announced.insert(key.clone(), node.metadata.uid.clone().unwrap_or_default());
        }
        drop(memory);
        if is_new {
            let message = format!("Node {key} event: Registered Node {key} in Controller");
            self.recorder.event(node, EventType::Normal, "RegisteredNode", message);
        }
        silence
    }

    /// The change comes back through the informer, and the taints follow then.
    async fn mark_unknown(&self, key: &Key, node: &Node, missing: Vec<NodeCondition>) -> Result<Next, Error> {
        warn!(node = %key, "node has not been heard of, its state is unknown");
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "status": {"conditions": missing},
        });
        let api = Api::<Node>::all(self.client.clone());
        match api.patch_status(key.name(), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => {
                let message = format!("Node {key} status is now: NodeNotReady");
                self.recorder.event(node, EventType::Normal, "NodeNotReady", message);
                Ok(Next::Done)
            }
            Err(failure) if error::is_not_found(&failure) => Ok(Next::Done),
            Err(failure) => Err(Error::Conditions(failure)),
        }
    }

    /// Brings the taints in line with the conditions. Returns when to look again if the rate limit forbids one now.
    async fn update_taints(&self, key: &Key, node: &Node) -> Result<Option<Duration>, Error> {
        let now = self.clock.now();
        let current = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let mut wanted = taints::no_schedule(node, &current, now);
        let mut retry = None;
        match self.may_evict(node, &current) {
            Ok(evict) => wanted = taints::no_execute(taints::ready(node), evict, wanted, now),
            Err(wait) => retry = Some(wait),
        }
        if wanted != current {
            self.write_taints(key, node, &wanted).await?;
        }
        Ok(retry)
    }

    /// Whether pods may be evicted from a node that is not ready: yes, no (not while all are down), or later.
    fn may_evict(&self, node: &Node, current: &[Taint]) -> Result<bool, Duration> {
        let mut memory = self.memory();
        if memory.all_down || taints::ready(node) == Ready::Yes {
            return Ok(!memory.all_down);
        }
        if taints::evicts(current) {
            return Ok(true);
        }
        let (total, down) = self.count();
        let pause = match taints::pace(total, down) {
            Pace::Stop => return Err(Duration::from_secs(60)),
            Pace::Every(pause) => pause,
        };
        let now = Instant::now();
        match memory.next_eviction.filter(|next| *next > now) {
            Some(next) => Err(next - now),
            None => {
                memory.next_eviction = Some(now + pause);
                Ok(true)
            }
        }
    }

    async fn write_taints(&self, key: &Key, node: &Node, wanted: &[Taint]) -> Result<(), Error> {
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": wanted},
        });
        let api = Api::<Node>::all(self.client.clone());
        match api.patch(key.name(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {
                let names: Vec<_> =
                    wanted.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect();
                info!(node = %key, taints = names.join(","), "node taints changed");
                Ok(())
            }
            Err(failure) if error::is_not_found(&failure) => Ok(()),
            Err(failure) => Err(Error::Taints(failure)),
        }
    }

    /// Pods of a node that is silent are not known to be ready, so Services stop sending to them.
    async fn mark_pods(&self, key: &Key) -> Result<(), Error> {
        for pod in self.pods.by_index(index::NODE, key.name()) {
            let all = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            let Some(ready) = conditions::find(all, "Ready").filter(|ready| ready.status == "True") else {
                continue;
            };
            let last_transition_time = Some(Time(self.clock.now()));
            let condition =
                PodCondition { status: "False".to_owned(), last_transition_time, ..ready.clone() };
            let patch = json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"conditions": [condition]},
            });
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    self.recorder.event(pod.as_ref(), EventType::Warning, "NodeNotReady", "Node is not ready")
                }
                Err(failure) if error::is_not_found(&failure) || error::is_conflict(&failure) => {}
                Err(failure) => return Err(Error::Pods(failure)),
            }
        }
        Ok(())
    }

    /// When the last node goes down or the first one comes back, all nodes are worth a look.
    fn watch_disruption(&self) {
        let (total, down) = self.count();
        let all_down = total > 0 && down == total;
        let mut memory = self.memory();
        if memory.all_down == all_down {
            return;
        }
        memory.all_down = all_down;
        drop(memory);
        if all_down {
            warn!("no node is ready, evictions are suspended");
        } else {
            info!("a node is ready again, evictions are resumed");
        }
        for key in self.nodes.keys() {
            self.queue.add(key);
        }
    }

    /// How many nodes there are, and how many are not ready.
    fn count(&self) -> (usize, usize) {
        let nodes = self.nodes.list();
        let down = nodes.iter().filter(|node| taints::ready(node) != Ready::Yes).count();
        (nodes.len(), down)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
