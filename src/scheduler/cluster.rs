//! The scheduler's picture of the cluster: nodes with the pods placed on them, kept up to date incrementally.
//!
//! One task owns it, so it needs no copy per decision. A pod that was assigned a node but whose binding the informer has
//! not shown yet is *assumed*: it counts as placed until it is confirmed, forgotten, or expires.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use tokio::time::Instant;

use super::affinity::Namespaces;
use super::budgets::Budgets;
use super::pod_info::{HostPort, PodInfo};
use super::resources::{self, Resources};
use super::storage::Storage;
use crate::api::selector::node::NodeFace;
use crate::client::Key;

/// A node and the pods placed on it.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    /// The node's name.
    pub name: Arc<str>,
    /// The node; `None` while only pods that name it are known.
    pub node: Option<Arc<Node>>,
    /// What the node offers.
    pub allocatable: Resources,
    /// How many pods the node allows.
    pub allowed_pods: i64,
    /// What the pods on it request.
    pub requested: Resources,
    /// What the pods on it request as counted for scoring: milli CPU and memory.
    pub scored: (i64, i64),
    /// The pods.
    pub pods: Vec<Arc<PodInfo>>,
    /// Those of them that have affinity terms.
    pub with_terms: Vec<Arc<PodInfo>>,
    /// Host ports in use.
    pub ports: Vec<HostPort>,
    /// How many pods of each controller there are.
    pub owners: HashMap<Arc<str>, u32>,
    /// Sizes of the images on the node, by each of their names.
    pub images: HashMap<String, i64>,
}

impl NodeInfo {
    fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref());
        self.allocatable = Resources::of(allocatable);
        self.allowed_pods = resources::allowed_pods(allocatable);
        self.images = status
            .and_then(|s| s.images.as_ref())
            .into_iter()
            .flatten()
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (name.clone(), size))
            })
            .collect();
        self.node = Some(node);
    }

    /// What the node is selected by.
    pub fn face(&self) -> NodeFace<'_> {
        let labels = self.node.as_ref().and_then(|node| node.metadata.labels.as_ref());
        NodeFace { name: &self.name, labels }
    }

    /// The value of a label of the node.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.as_ref()?.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// The node's taints.
    pub fn taints(&self) -> &[Taint] {
        let spec = self.node.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    /// The node is cordoned.
    pub fn is_unschedulable(&self) -> bool {
        let spec = self.node.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.unschedulable).unwrap_or(false)
    }

    /// Puts a pod on the node.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored = (self.scored.0 + pod.scored.0, self.scored.1 + pod.scored.1);
        self.ports.extend(pod.ports.iter().cloned());
        if let Some(owner) = &pod.owner {
            *self.owners.entry(owner.clone()).or_default() += 1;
        }
        if !pod.terms.is_empty() {
            self.with_terms.push(pod.clone());
        }
        self.pods.push(pod);
    }

    /// Takes a pod off the node.
    pub fn remove(&mut self, uid: &str) {
        let Some(at) = self.pods.iter().position(|pod| pod.uid.as_ref() == uid) else { return };
        let pod = self.pods.swap_remove(at);
        self.requested.sub(&pod.requests);
        self.scored = (self.scored.0 - pod.scored.0, self.scored.1 - pod.scored.1);
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|used| used == port) {
                self.ports.swap_remove(at);
            }
        }
        if let Some(owner) = &pod.owner
            && let Some(count) = self.owners.get_mut(owner)
        {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(owner);
            }
        }
        self.with_terms.retain(|other| other.uid != pod.uid);
    }
}

#[derive(Debug)]
struct Placed {
    node: Arc<str>,
    pod: Arc<PodInfo>,
    /// `Some` while assumed: when the assumption ends unless it is confirmed; `None` inside while the binding runs.
    assumed: Option<Option<Instant>>,
}

/// All nodes and placed pods.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: Vec<NodeInfo>,
    by_name: HashMap<Arc<str>, usize>,
    placed: HashMap<Key, Placed>,
    nominated: HashMap<Key, (Arc<str>, Arc<PodInfo>)>,
    /// Labels of the namespaces.
    pub namespaces: Namespaces,
    /// Claims, volumes and what makes them.
    pub storage: Storage,
    /// Disruption budgets.
    pub budgets: Budgets,
}

impl Cluster {
    /// All nodes, known or only named by pods; check [`NodeInfo::node`].
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// The node called `name`.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|at| &self.nodes[*at])
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.iter().filter(|node| node.node.is_some()).count()
    }

    fn slot(&mut self, name: &str) -> &mut NodeInfo {
        let at = match self.by_name.get(name) {
            Some(at) => *at,
            None => {
                let name: Arc<str> = name.into();
                self.nodes.push(NodeInfo { name: name.clone(), ..NodeInfo::default() });
                self.by_name.insert(name, self.nodes.len() - 1);
                self.nodes.len() - 1
            }
        };
        &mut self.nodes[at]
    }

    /// A node is new or changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        self.slot(&name).set_node(node);
    }

    /// A node is gone. Pods that name it stay until they are gone too.
    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.by_name.get(name).copied() else { return };
        if self.nodes[at].pods.is_empty() {
            self.drop_slot(at);
        } else {
            self.nodes[at].node = None;
        }
    }

    fn drop_slot(&mut self, at: usize) {
        let gone = self.nodes.swap_remove(at);
        self.by_name.remove(&gone.name);
        if let Some(moved) = self.nodes.get(at) {
            self.by_name.insert(moved.name.clone(), at);
        }
    }

    /// A pod is bound to a node, as the API server says: confirms an assumption or corrects it.
    pub fn place(&mut self, pod: Arc<PodInfo>) {
        let Some(node) = pod.node_name().map(str::to_owned) else { return };
        self.remove_pod(&pod.key);
        self.nominated.remove(&pod.key);
        self.insert(&node, pod, None);
    }

    /// A node was chosen for the pod; the binding is under way.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.key);
        self.nominated.remove(&pod.key);
        self.insert(node, pod, Some(None));
    }

    fn insert(&mut self, node: &str, pod: Arc<PodInfo>, assumed: Option<Option<Instant>>) {
        let slot = self.slot(node);
        slot.add(pod.clone());
        let node = slot.name.clone();
        self.placed.insert(pod.key.clone(), Placed { node, pod, assumed });
    }

    /// The binding is done: the assumption ends at `deadline` unless the informer confirms it before.
    pub fn finish_binding(&mut self, key: &Key, deadline: Instant) {
        if let Some(placed) = self.placed.get_mut(key)
            && placed.assumed.is_some()
        {
            placed.assumed = Some(Some(deadline));
        }
    }

    /// The pod is assumed on a node.
    pub fn is_assumed(&self, key: &Key) -> bool {
        self.placed.get(key).is_some_and(|placed| placed.assumed.is_some())
    }

    /// The placed pod under this key.
    pub fn placed(&self, key: &Key) -> Option<&Arc<PodInfo>> {
        self.placed.get(key).map(|placed| &placed.pod)
    }

    /// Takes a placed pod off its node and returns it.
    pub fn remove_pod(&mut self, key: &Key) -> Option<Arc<PodInfo>> {
        let placed = self.placed.remove(key)?;
        if let Some(at) = self.by_name.get(&placed.node).copied() {
            self.nodes[at].remove(&placed.pod.uid);
            if self.nodes[at].node.is_none() && self.nodes[at].pods.is_empty() {
                self.drop_slot(at);
            }
        }
        Some(placed.pod)
    }

    /// Takes assumed pods whose time is over off their nodes; returns their keys.
    pub fn expire(&mut self, now: Instant) -> Vec<Key> {
        let expired = |placed: &Placed| matches!(placed.assumed, Some(Some(deadline)) if deadline <= now);
        let keys: Vec<_> =
            self.placed.iter().filter(|(_, placed)| expired(placed)).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.remove_pod(key);
        }
        keys
    }

    /// The earliest end of an assumption.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.placed.values().filter_map(|placed| placed.assumed.flatten()).min()
    }

    /// Room on `node` is being made for the pod.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.nominated.insert(pod.key.clone(), (node.into(), pod));
    }

    /// Pods of less than this priority for which room on `node` was being made: they lose it to a more important one.
    pub fn take_lesser_nominations(&mut self, node: &str, priority: i32) -> Vec<Arc<PodInfo>> {
        let lost = |on: &str, pod: &PodInfo| on == node && pod.priority < priority;
        let taken = self.nominated.extract_if(|_, (on, pod)| lost(on, pod));
        taken.map(|(_, (_, pod))| pod).collect()
    }

    /// Nothing is kept for the pod any more.
    pub fn drop_nomination(&mut self, key: &Key) {
        self.nominated.remove(key);
    }

    /// Pods of at least this priority, other than `key`, for which room on `node` is being made.
    pub fn nominated_on<'a>(
        &'a self,
        node: &'a str,
        priority: i32,
        key: &'a Key,
    ) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        self.nominated
            .iter()
            .filter(move |(other, (on, pod))| {
                on.as_ref() == node && pod.priority >= priority && *other != key
            })
            .map(|(_, (_, pod))| pod)
    }

    /// The node on which room is being made for the pod.
    pub fn nominated_node(&self, key: &Key) -> Option<&str> {
        self.nominated.get(key).map(|(node, _)| node.as_ref())
    }

    /// No room is being made for anybody.
    pub fn has_nominations(&self) -> bool {
        !self.nominated.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node, pod, pod_on};
    use serde_json::json;

    fn usage(cluster: &Cluster, name: &str) -> (usize, i64) {
        cluster.node(name).map_or((0, 0), |node| (node.pods.len(), node.requested.milli_cpu))
    }

    #[tokio::test(start_paused = true)]
    async fn an_assumed_pod_counts_until_confirmed_forgotten_or_expired() {
        let mut cluster = Cluster::default();
        cluster.set_node(node("n", json!({})));
        let (now, pending) = (Instant::now(), pod("a", json!({"cpu": "100m"})));
        cluster.assume(pending.clone(), "n");
        assert_eq!(usage(&cluster, "n"), (1, 100));
        assert!(cluster.is_assumed(&pending.key) && cluster.next_expiry().is_none(), "binding runs");
        cluster.finish_binding(&pending.key, now + std::time::Duration::from_secs(30));
        assert!(cluster.expire(now).is_empty());
        cluster.place(pod_on("a", "n", json!({"cpu": "100m"})));
        assert_eq!(usage(&cluster, "n"), (1, 100), "not counted twice");
        assert!(!cluster.is_assumed(&pending.key) && cluster.next_expiry().is_none());
        cluster.assume(pod("b", json!({})), "n");
        cluster.finish_binding(&Key::new("default", "b"), now);
        assert_eq!(cluster.expire(now), [Key::new("default", "b")]);
        assert_eq!(usage(&cluster, "n"), (1, 100));
    }

    #[test]
    fn pods_may_come_before_and_outlive_their_node() {
        let mut cluster = Cluster::default();
        cluster.place(pod_on("a", "n", json!({"cpu": "1"})));
        assert_eq!(cluster.node_count(), 0);
        cluster.set_node(node("n", json!({})));
        cluster.set_node(node("m", json!({})));
        assert_eq!((cluster.node_count(), usage(&cluster, "n")), (2, (1, 1000)));
        cluster.remove_node("n");
        assert_eq!((cluster.node_count(), usage(&cluster, "n")), (1, (1, 1000)));
        cluster.remove_pod(&Key::new("default", "a"));
        assert!(cluster.node("n").is_none() && cluster.node("m").is_some());
    }

    #[test]
    fn removing_a_pod_gives_everything_back() {
        let mut info = NodeInfo::default();
        let pod = pod_on("a", "n", json!({"cpu": "1", "x/y": "2"}));
        info.add(pod.clone());
        info.add(pod_on("b", "n", json!({"memory": "5"})));
        info.remove(&pod.uid);
        assert_eq!(
            (info.requested.milli_cpu, info.requested.memory, info.requested.extended("x/y")),
            (0, 5, 0)
        );
        assert_eq!((info.pods.len(), info.owners.len()), (1, 1));
        info.remove("unknown");
        assert_eq!(info.pods.len(), 1);
    }
}
