//! The scheduler without I/O: what it knows, what it decides next, and what the outcome of an effect changes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use tokio::time::Instant;

use super::cluster::{Cluster, NodeInfo};
use super::decide::{Decider, Misfit};
use super::framework::{
    CLAIMS, Events, NODE_ADDED, NODE_ALLOCATABLE, NODE_LABELS, NODE_TAINTS, POD_GONE, POD_PLACED,
    POD_UPDATED, STORAGE_CLASSES, STORAGE_DRIVERS, VOLUMES,
};
use super::plugins::Plugins;
use super::pod_info::{self, PodInfo};
use super::preemption::{self, NoPreemption, Preemption};
use super::queue::Queue;
use super::storage::Plan;
use crate::client::Key;

/// How long a finished binding may take to show up in the informer.
pub const ASSUMED_FOR: Duration = Duration::from_secs(60);

/// Something to be done about one pod.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Bind the pod to the node; it is assumed there until [`Core::bound`] is called.
    Bind {
        /// The pod.
        pod: Arc<PodInfo>,
        /// The node.
        node: Arc<str>,
        /// What its claims need first.
        volumes: Plan,
    },
    /// Say that the pod cannot be scheduled now.
    Report {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Why, in upstream's words.
        message: String,
        /// What is made of room for it.
        room: Room,
    },
}

/// What becomes of the room that a pod without a node was promised.
#[derive(Debug, Clone)]
pub enum Room {
    /// All stays as it is.
    Unchanged,
    /// No preemption can help: what was promised before is worth nothing.
    None,
    /// Less important pods have to go.
    Made {
        /// Where, and which ones.
        preemption: Preemption,
        /// Less important pods that were promised room there, and lose it.
        losers: Vec<Arc<PodInfo>>,
    },
}

/// Everything that the scheduler knows.
#[derive(Debug)]
pub struct Core {
    scheduler_name: String,
    cluster: Cluster,
    queue: Queue,
    decider: Decider,
}

impl Core {
    /// Knows nothing yet.
    pub fn new(scheduler_name: &str, plugins: Plugins, seed: u64) -> Self {
        Self {
            scheduler_name: scheduler_name.to_owned(),
            cluster: Cluster::default(),
            queue: Queue::default(),
            decider: Decider::new(plugins, seed),
        }
    }

    /// The cluster as the scheduler sees it.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// How many pods are active, backing off, unschedulable and gated.
    pub fn pending(&self) -> [usize; 4] {
        self.queue.counts()
    }

    /// The present state of a node; `None` if it is gone.
    pub fn node(&mut self, name: &str, node: Option<Arc<Node>>, now: Instant) {
        let Some(node) = node else { return self.cluster.remove_node(name) };
        let before = self.cluster.node(name).cloned();
        self.cluster.set_node(node);
        let happened = match (before.filter(|info| info.node.is_some()), self.cluster.node(name)) {
            (Some(before), Some(after)) => node_events(&before, after),
            _ => NODE_ADDED,
        };
        if happened != 0 {
            self.queue.notify(happened, now);
        }
    }

    /// The present state of a namespace; `None` if it is gone.
    pub fn namespace(&mut self, name: &str, namespace: Option<&Namespace>) {
        match namespace {
            Some(namespace) => {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                self.cluster.namespaces.insert(name.to_owned(), labels);
            }
            None => drop(self.cluster.namespaces.remove(name)),
        }
    }

    /// The present state of a claim; `None` if it is gone.
    pub fn claim(&mut self, key: &Key, claim: Option<Arc<PersistentVolumeClaim>>, now: Instant) {
        if put(&mut self.cluster.storage.claims, key.clone(), claim) {
            self.queue.notify_users(CLAIMS, key, now);
        }
    }

    /// The present state of a volume; `None` if it is gone.
    pub fn volume(&mut self, name: &str, volume: Option<Arc<PersistentVolume>>, now: Instant) {
        let volumes = &mut self.cluster.storage.volumes;
        match volume {
            None => drop(volumes.remove(name)),
            Some(volume) => {
                volumes.insert(name.to_owned(), volume);
                self.queue.notify(VOLUMES, now);
            }
        }
    }

    /// The present state of a storage class; `None` if it is gone.
    pub fn storage_class(&mut self, name: &str, class: Option<Arc<StorageClass>>, now: Instant) {
        if put(&mut self.cluster.storage.classes, name.to_owned(), class) {
            self.queue.notify(STORAGE_CLASSES, now);
        }
    }

    /// The present state of what a node says of its storage drivers; `None` if it is gone.
    pub fn csi_node(&mut self, name: &str, node: Option<Arc<CSINode>>, now: Instant) {
        put(&mut self.cluster.storage.csi_nodes, name.to_owned(), node);
        self.queue.notify(STORAGE_DRIVERS, now);
    }

    /// The present state of a storage driver; `None` if it is gone.
    pub fn driver(&mut self, name: &str, driver: Option<Arc<CSIDriver>>, now: Instant) {
        put(&mut self.cluster.storage.drivers, name.to_owned(), driver);
        self.queue.notify(STORAGE_DRIVERS, now);
    }

    /// The present state of a driver's free space; `None` if it is gone.
    pub fn capacity(&mut self, key: &Key, capacity: Option<Arc<CSIStorageCapacity>>, now: Instant) {
        if put(&mut self.cluster.storage.capacities, key.clone(), capacity) {
            self.queue.notify(STORAGE_DRIVERS, now);
        }
    }

    /// The present state of a disruption budget; `None` if it is gone.
    pub fn budget(&mut self, key: &Key, budget: Option<Arc<PodDisruptionBudget>>) {
        self.cluster.budgets.set(key, budget);
    }

    /// The present state of a pod; `None` if it is gone.
    pub fn pod(&mut self, key: &Key, pod: Option<Arc<Pod>>, now: Instant) {
        let Some(pod) = pod.filter(|pod| !pod_info::is_finished(pod)) else { return self.gone(key, now) };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if self.cluster.placed(key).is_some_and(|known| known.uid.as_ref() != uid) {
            self.gone(key, now);
        }
        let spec = pod.spec.as_ref();
        if spec.and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty()) {
            self.queue.remove(key);
            return self.placed(key, pod, now);
        }
        let ours = spec.and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or("default-scheduler")
            == self.scheduler_name;
        if !ours || pod.metadata.deletion_timestamp.is_some() {
            return self.gone(key, now);
        }
        if self.cluster.is_assumed(key) {
            return;
        }
        let nominated = pod.status.as_ref().and_then(|status| status.nominated_node_name.clone());
        let info = PodInfo::new(pod);
        match nominated.filter(|node| !node.is_empty()) {
            Some(node) => self.cluster.nominate(info.clone(), &node),
            None => self.cluster.drop_nomination(key),
        }
        self.queue.offer(info, now);
    }

    fn gone(&mut self, key: &Key, now: Instant) {
        self.queue.remove(key);
        self.cluster.drop_nomination(key);
        if let Some(gone) = self.cluster.remove_pod(key) {
            self.cluster.storage.release(&gone);
            self.queue.notify(POD_GONE, now);
        }
    }

    fn placed(&mut self, key: &Key, pod: Arc<Pod>, now: Instant) {
        let Some(known) = self.cluster.placed(key).cloned() else {
            self.cluster.place(PodInfo::new(pod));
            return self.queue.notify(POD_PLACED, now);
        };
        let same = known.pod.spec == pod.spec
            && known.pod.metadata.labels == pod.metadata.labels
            && known.is_deleting() == pod.metadata.deletion_timestamp.is_some();
        if same {
            return;
        }
        let happened = if self.cluster.is_assumed(key) { POD_PLACED } else { POD_UPDATED };
        self.cluster.place(PodInfo::new(pod));
        self.queue.notify(happened, now);
    }

    /// Decides about the next pod, if one is ready.
    pub fn next(&mut self, now: Instant) -> Option<Effect> {
        let pod = self.queue.pop(now)?;
        match self.decider.decide(&pod, &self.cluster) {
            Ok(node) => {
                let volumes = self.plan_volumes(&pod, &node);
                self.cluster.storage.promise(&pod, &node, &volumes);
                self.cluster.assume(pod.clone(), &node);
                Some(Effect::Bind { pod, node, volumes })
            }
            Err(misfit) => Some(self.misfit(pod, &misfit, now)),
        }
    }

    /// What the pod's claims need on the node that was found to suit them.
    fn plan_volumes(&self, pod: &PodInfo, node: &str) -> Plan {
        let storage = &self.cluster.storage;
        let needs = storage.needs(pod).unwrap_or_default();
        let plan = self.cluster.node(node).map(|node| storage.plan(&needs, node));
        plan.and_then(Result::ok).unwrap_or_default()
    }

    fn misfit(&mut self, pod: Arc<PodInfo>, misfit: &Misfit, now: Instant) -> Effect {
        let mut message = misfit.to_string();
        let mut room = Room::Unchanged;
        if misfit.nodes > 0 {
            match preemption::find(self.decider.plugins(), &pod, &self.cluster, misfit) {
                Ok(preemption) => room = self.make_room(&pod, preemption, now),
                Err(no) => {
                    message = format!("{message} preemption: {no}");
                    if matches!(no, NoPreemption::Nodes { .. }) {
                        self.cluster.drop_nomination(&pod.key);
                        room = Room::None;
                    }
                }
            }
        }
        self.queue.unschedulable(&pod.key, misfit.events, now);
        Effect::Report { pod, message, room }
    }

    /// Keeps the room for the pod. Less important pods to whom it was promised look for another place.
    fn make_room(&mut self, pod: &Arc<PodInfo>, preemption: Preemption, now: Instant) -> Room {
        let mut losers = Vec::new();
        if preemption.victims.iter().any(|victim| !victim.is_deleting()) {
            losers = self.cluster.take_lesser_nominations(&preemption.node, pod.priority);
            losers.iter().for_each(|loser| self.queue.reconsider(&loser.key, now));
        }
        self.cluster.nominate(pod.clone(), &preemption.node);
        Room::Made { preemption, losers }
    }

    /// A binding has succeeded or failed.
    pub fn bound(&mut self, pod: &PodInfo, succeeded: bool, now: Instant) {
        self.cluster.storage.release(pod);
        let known = self.cluster.placed(&pod.key).is_some_and(|placed| placed.uid == pod.uid);
        if !known || !self.cluster.is_assumed(&pod.key) {
            return;
        }
        if succeeded {
            return self.cluster.finish_binding(&pod.key, now + ASSUMED_FOR);
        }
        self.cluster.remove_pod(&pod.key);
        self.queue.failed(&pod.key, now);
        self.queue.notify(POD_GONE, now);
    }

    /// Gives up assumptions that were never confirmed.
    pub fn tick(&mut self, now: Instant) {
        for key in self.cluster.expire(now) {
            self.queue.failed(&key, now);
        }
    }

    /// When to call [`tick`](Self::tick) and [`next`](Self::next) although nothing happened.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.next_due().into_iter().chain(self.cluster.next_expiry()).min()
    }
}

/// Brings a map up to date; true if the object is there.
fn put<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) -> bool {
    match value {
        Some(value) => {
            map.insert(key, value);
            true
        }
        None => {
            map.remove(&key);
            false
        }
    }
}

fn node_events(before: &NodeInfo, after: &NodeInfo) -> Events {
    let labels = |info: &NodeInfo| info.node.as_ref().and_then(|node| node.metadata.labels.clone());
    let mut happened = 0;
    if before.allocatable != after.allocatable || before.allowed_pods != after.allowed_pods {
        happened |= NODE_ALLOCATABLE;
    }
    if labels(before) != labels(after) {
        happened |= NODE_LABELS;
    }
    if before.taints() != after.taints() || before.is_unschedulable() != after.is_unschedulable() {
        happened |= NODE_TAINTS;
    }
    happened
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{node, pod, pod_on, pod_with};
    use serde_json::json;

    fn core() -> (Core, Instant) {
        (Core::new("default-scheduler", Plugins::default(), 1), Instant::now())
    }

    fn see(core: &mut Core, pod: &Arc<PodInfo>, now: Instant) {
        core.pod(&pod.key, Some(pod.pod.clone()), now);
    }

    fn describe(effect: Option<Effect>) -> String {
        match effect {
            None => "nothing".into(),
            Some(Effect::Bind { pod, node, .. }) => format!("bind {} to {node}", pod.key.name()),
            Some(Effect::Report { pod, message, room }) => {
                let room = match room {
                    Room::Made { preemption: p, losers } => {
                        let losers: Vec<_> = losers.iter().map(|pod| pod.key.name()).collect();
                        let from = if losers.is_empty() { "" } else { " promised to " };
                        let losers = losers.join(", ");
                        format!(" preempting {} pods on {}{from}{losers}", p.victims.len(), p.node)
                    }
                    Room::None | Room::Unchanged => String::new(),
                };
                format!("{}: {message}{room}", pod.key.name())
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_waits_for_room_and_gets_it() {
        let (mut core, now) = core();
        core.node("n", Some(node("n", json!({}))), now);
        let (running, waiting) =
            (pod_on("running", "n", json!({"cpu": "3"})), pod("waiting", json!({"cpu": "2"})));
        see(&mut core, &running, now);
        see(&mut core, &waiting, now);
        assert_eq!(
            describe(core.next(now)),
            "waiting: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
             1 No preemption victims found for incoming pod."
        );
        core.pod(&running.key, None, now);
        let later = now + Duration::from_secs(1);
        assert_eq!((describe(core.next(now)).as_str(), core.next_due()), ("nothing", Some(later)));
        assert_eq!(describe(core.next(later)), "bind waiting to n");
        core.bound(&waiting, true, later);
        see(&mut core, &pod_on("waiting", "n", json!({"cpu": "2"})), later);
        assert_eq!((core.pending(), core.next_due()), ([0; 4], None));
    }

    #[tokio::test(start_paused = true)]
    async fn assumed_pods_take_their_room_at_once() {
        let (mut core, now) = core();
        core.node("n", Some(node("n", json!({}))), now);
        for name in ["a", "b"] {
            see(&mut core, &pod(name, json!({"cpu": "3"})), now);
        }
        assert_eq!(describe(core.next(now)), "bind a to n");
        assert!(describe(core.next(now)).starts_with("b: 0/1 nodes are available: 1 Insufficient cpu."));
        see(&mut core, &pod("a", json!({"cpu": "3"})), now);
        assert_eq!(core.cluster().node("n").unwrap().pods.len(), 1, "a stale pending copy changes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_binding_gives_the_room_back_and_is_tried_again() {
        let (mut core, now) = core();
        core.node("n", Some(node("n", json!({}))), now);
        let pod = pod("a", json!({"cpu": "3"}));
        see(&mut core, &pod, now);
        core.next(now);
        core.bound(&pod, false, now);
        assert!(core.cluster().node("n").unwrap().pods.is_empty());
        assert_eq!(describe(core.next(now + Duration::from_secs(1))), "bind a to n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_binding_that_never_shows_up_is_given_up() {
        let (mut core, now) = core();
        core.node("n", Some(node("n", json!({}))), now);
        let pod = pod("a", json!({}));
        see(&mut core, &pod, now);
        core.next(now);
        core.bound(&pod, true, now);
        let later = now + ASSUMED_FOR;
        assert_eq!(core.next_due(), Some(later));
        core.tick(later);
        assert_eq!(describe(core.next(later + Duration::from_secs(1))), "bind a to n");
    }

    #[tokio::test(start_paused = true)]
    async fn only_own_living_pods_are_scheduled() {
        let (mut core, now) = core();
        core.node("n", Some(node("n", json!({}))), now);
        for patch in [
            json!({"spec": {"schedulerName": "other"}}),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            json!({"status": {"phase": "Failed"}}),
            json!({"spec": {"schedulingGates": [{"name": "g"}]}}),
        ] {
            see(&mut core, &pod_with("a", patch), now);
            assert_eq!(describe(core.next(now)), "nothing");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_pod_is_another_pod() {
        let (mut core, now) = core();
        core.node("n", Some(node("n", json!({}))), now);
        see(&mut core, &pod_on("a", "n", json!({"cpu": "1"})), now);
        see(&mut core, &pod_with("a", json!({"metadata": {"uid": "second"}})), now);
        assert!(core.cluster().node("n").unwrap().pods.is_empty());
        assert_eq!(describe(core.next(now)), "bind a to n");
    }

    #[tokio::test(start_paused = true)]
    async fn an_uncordoned_or_untainted_node_wakes_pods_up() {
        for patch in [
            json!({"spec": {"unschedulable": true}}),
            json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
        ] {
            let (mut core, now) = core();
            core.node("n", Some(node("n", patch)), now);
            see(&mut core, &pod("a", json!({})), now);
            assert!(describe(core.next(now)).contains("1 Preemption is not helpful for scheduling."));
            core.node("n", Some(node("n", json!({}))), now);
            assert_eq!(describe(core.next(now + Duration::from_secs(1))), "bind a to n");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_important_pod_makes_room_and_the_room_is_kept_for_it() {
        let (mut core, now) = core();
        core.node("n", Some(node("n", json!({}))), now);
        let victim = pod_on("victim", "n", json!({"cpu": "3"}));
        see(&mut core, &victim, now);
        let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "2"}}}]);
        let important = pod_with("important", json!({"spec": {"priority": 10, "containers": containers}}));
        see(&mut core, &important, now);
        assert_eq!(
            describe(core.next(now)),
            "important: 0/1 nodes are available: 1 Insufficient cpu. preempting 1 pods on n"
        );
        core.pod(&victim.key, None, now);
        see(&mut core, &pod("greedy", json!({"cpu": "3"})), now);
        assert!(describe(core.next(now)).starts_with("greedy: 0/1"));
        assert_eq!(describe(core.next(now + Duration::from_secs(1))), "bind important to n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_more_important_pod_takes_the_room_that_was_promised_to_another() {
        let (mut core, now) = core();
        for name in ["n", "m"] {
            core.node(name, Some(node(name, json!({}))), now);
            see(&mut core, &pod_on(&format!("on-{name}"), name, json!({"cpu": "3"})), now);
        }
        let wants = |name: &str, priority: i32| {
            let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "3"}}}]);
            let here = json!({"kubernetes.io/hostname": "n"});
            pod_with(
                name,
                json!({"spec": {"priority": priority, "containers": containers, "nodeSelector": here}}),
            )
        };
        see(&mut core, &wants("middle", 5), now);
        assert!(describe(core.next(now)).ends_with("preempting 1 pods on n"));
        see(&mut core, &wants("high", 10), now);
        assert!(describe(core.next(now)).ends_with("preempting 1 pods on n promised to middle"));
        assert_eq!(core.cluster().nominated_node(&Key::new("default", "middle")), None);
        assert_eq!(core.cluster().nominated_node(&Key::new("default", "high")), Some("n"));
        let later = now + Duration::from_secs(1);
        let Some(Effect::Report { pod, room: Room::None, message }) = core.next(later) else {
            panic!("the loser is looked at again, and loses the promise in its status too")
        };
        assert_eq!(pod.key.name(), "middle");
        assert!(message.contains("1 No preemption victims found for incoming pod"), "{message}");
    }
}
