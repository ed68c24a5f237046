//! Looks at the machine every ten seconds (unless it is told otherwise) and reports: at once when something changed, else every five minutes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::conditions::{self, Figures, OWNED};
use super::describe::{self, Machine};
use super::{images, lease, register};
use crate::client::{EventType, Informer, Recorder, error};
use crate::cri::Runtime;
use crate::host::Host;
use crate::kubelet::config::KubeletConfig;
use crate::kubelet::devices::Counts;
use crate::kubelet::eviction::Pressure;

/// While the node is not ready it is looked at often, so that it becomes ready without delay.
const CHECK_NOT_READY: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_millis(500);
/// The runtime's answer must come within this time, or it counts as down.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(10);

/// Everything that the reports are made of.
pub struct Heartbeat {
    /// Configuration.
    pub config: Arc<KubeletConfig>,
    /// The API.
    pub client: kube::Client,
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The machine.
    pub host: Host,
    /// What does not change.
    pub machine: Machine,
    /// Port of the kubelet's server.
    pub port: u16,
    /// Events about the node.
    pub recorder: Recorder,
    /// What the node is short of.
    pub pressure: watch::Receiver<Pressure>,
    /// The devices of device plugins.
    pub devices: watch::Receiver<Counts>,
    /// The machine is about to go down.
    pub shutdown: watch::Receiver<bool>,
    /// The node as others change it.
    pub nodes: Informer<Node>,
    /// Where the rest of the kubelet sees the node.
    pub node: watch::Sender<Option<Arc<Node>>>,
}

impl Heartbeat {
    /// Registers, then reports until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.work()).await;
    }

    async fn work(self) {
        let (mut devices, mut shutdown) = (self.devices.clone(), self.shutdown.clone());
        let figures = self.figures().await;
        let mut node = self.register(&figures).await;
        self.publish(&node);
        self.recorder.event(&*node, EventType::Normal, "Starting", "Starting kubelet.");
        if self.config.cgroup_root.is_some() {
            let text = "Updated Node Allocatable limit across pods";
            self.recorder.event(&*node, EventType::Normal, "NodeAllocatableEnforced", text);
        }
        self.announce_schedulable(&Node::default(), &node);
        let lease = self.renew_lease();
        tokio::pin!(lease);
        let mut changes = self.nodes.subscribe();
        let mut reported = Instant::now();
        let mut first = true;
        loop {
            let look = self.figures();
            tokio::pin!(look);
            let figures = loop {
                tokio::select! {
                    figures = &mut look => break figures,
                    () = &mut lease => {}
                }
            };
            let status = self.status(&figures, &node).await;
            let due = reported.elapsed() >= self.config.node_status_report;
            if let Some(patch) = patch(&node, &status, due || first) {
                match self.send(patch).await {
                    Ok(Some(newer)) => {
                        self.announce(&node, &newer);
                        node = newer;
                        self.publish(&node);
                        (reported, first) = (Instant::now(), false);
                    }
                    Ok(None) => node = self.register(&figures).await,
                    Err(()) => {
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }
            let leaving = *self.shutdown.borrow();
            let wait =
                if is_ready(&node) || leaving { self.config.node_status_update } else { CHECK_NOT_READY };
            let pause = tokio::time::sleep(wait);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => {}
                    Ok(()) = devices.changed() => {}
                    Ok(()) = shutdown.changed() => {}
                    () = &mut lease => {}
                    _ = changes.next() => match self.changed(&node) {
                        Some(newer) => {
                            self.announce_schedulable(&node, &newer);
                            node = newer;
                            self.publish(&node);
                        }
                        None => continue,
                    }
                }
                break;
            }
        }
    }

    /// What others have made of the node since this state of it.
    fn changed(&self, known: &Node) -> Option<Arc<Node>> {
        let version = |n: &Node| n.metadata.resource_version.as_ref().and_then(|v| v.parse::<u64>().ok());
        self.nodes.find("", &self.config.node_name).filter(|now| version(now) > version(known))
    }

    fn publish(&self, node: &Arc<Node>) {
        self.node.send_replace(Some(node.clone()));
    }

    async fn figures(&self) -> Figures {
        let answer = tokio::time::timeout(RUNTIME_PATIENCE, self.runtime.status(false)).await;
        let mut figures = Figures {
            pressure: *self.pressure.borrow(),
            shutting_down: *self.shutdown.borrow(),
            ..Figures::default()
        };
        figures.runtime = Some(match answer {
            Ok(Ok(answer)) => {
                (figures.handlers, figures.features) = (answer.runtime_handlers, answer.features);
                Ok(answer.status.unwrap_or_default().conditions)
            }
            Ok(Err(error)) => Err(error.upstream_message()),
            Err(_) => Err("no answer".to_owned()),
        });
        figures
    }

    async fn register(&self, figures: &Figures) -> Arc<Node> {
        let mut status = describe::status(&self.machine, &self.config, self.port, &self.devices.borrow());
        status.conditions = Some(conditions::conditions(figures, &[], self.host.clock.now()));
        loop {
            match register::register(&self.client, &self.config, &status).await {
                Ok((node, true)) => {
                    self.announce_reboot(&node);
                    return node;
                }
                Ok((node, false)) => {
                    self.announce(&Node::default(), &node);
                    return node;
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "node not registered");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn status(&self, figures: &Figures, node: &Node) -> NodeStatus {
        let former = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let mut status = describe::status(&self.machine, &self.config, self.port, &self.devices.borrow());
        status.conditions = Some(conditions::conditions(figures, &former, self.host.clock.now()));
        describe::keep_added(node.status.as_ref(), &mut status);
        if figures.runtime.as_ref().is_some_and(Result::is_ok) {
            status.runtime_handlers = describe::handlers(&figures.handlers);
            status.features = describe::features(figures.features.as_ref());
        }
        // Without an answer the list stays what it was.
        status.images = self
            .runtime
            .list_images(None)
            .await
            .ok()
            .map(|all| images::list(all, self.config.node_status_max_images));
        status
    }

    /// The API's new state; `None` when the node is not there any more.
    async fn send(&self, patch: Value) -> Result<Option<Arc<Node>>, ()> {
        let api: Api<Node> = Api::all(self.client.clone());
        let params = PatchParams::default();
        match api.patch_status(&self.config.node_name, &params, &Patch::Strategic(patch)).await {
            Ok(node) => Ok(Some(Arc::new(node))),
            Err(e) if error::is_not_found(&e) => Ok(None),
            Err(e) => {
                tracing::warn!(error = &e as &dyn std::error::Error, "node status not written");
                Err(())
            }
        }
    }

    fn announce(&self, former: &Node, node: &Node) {
        let name = &self.config.node_name;
        if is_ready(former) != is_ready(node) {
            let reason = if is_ready(node) { "NodeReady" } else { "NodeNotReady" };
            tracing::info!(node = %name, ready = is_ready(node), "node readiness changed");
            self.tell(node, reason);
        }
        for (type_, bad, good) in PRESSURES {
            let now = status_of(node, type_);
            if now.is_some() && now != status_of(former, type_) {
                self.tell(node, if now == Some("True") { bad } else { good });
            }
        }
    }

    fn announce_schedulable(&self, former: &Node, node: &Node) {
        let closed = |node: &Node| node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
        if closed(former) != closed(node) {
            self.tell(node, if closed(node) { "NodeNotSchedulable" } else { "NodeSchedulable" });
        }
    }

    /// The node is known from before the machine was started.
    fn announce_reboot(&self, node: &Node) {
        let known = node.status.as_ref().and_then(|s| s.node_info.as_ref()).map_or("", |info| &info.boot_id);
        let now = &self.machine.info.boot_id;
        if !known.is_empty() && known != now {
            let message = format!("Node {} has been rebooted, boot id: {now}", self.config.node_name);
            self.recorder.event(node, EventType::Warning, "Rebooted", message);
        }
    }

    fn tell(&self, node: &Node, reason: &str) {
        let message = format!("Node {} status is now: {reason}", self.config.node_name);
        self.recorder.event(node, EventType::Normal, reason, message);
    }

    /// Renews the lease for ever. A failure is tried again soon, since others count the seconds.
    async fn renew_lease(&self) {
        loop {
            let node = self.node.borrow().clone();
            let renewed = match node {
                Some(node) => {
                    lease::renew(&self.client, &node, self.config.node_lease, self.host.clock.as_ref()).await
                }
                None => Ok(()),
            };
            if let Err(error) = &renewed {
                tracing::warn!(error = error as &dyn std::error::Error, "node lease not renewed");
            }
            tokio::time::sleep(if renewed.is_ok() { self.config.node_lease / 4 } else { RETRY * 2 }).await;
        }
    }
}

/// Conditions with the events that tell of them when they become true and when they become false.
const PRESSURES: [(&str, &str, &str); 3] = [
    ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
];

fn status_of<'a>(node: &'a Node, type_: &str) -> Option<&'a str> {
    let mut conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.find(|c| c.type_ == type_).map(|c| c.status.as_str())
}

fn is_ready(node: &Node) -> bool {
    status_of(node, "Ready") == Some("True")
}

/// What to tell the API: everything that differs; the heartbeat times only when a report is due.
fn patch(node: &Node, status: &NodeStatus, due: bool) -> Option<Value> {
    let had = node.status.clone().unwrap_or_default();
    let mut out = serde_json::Map::new();
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    let former: Vec<NodeCondition> =
        had.conditions.iter().flatten().filter(|c| OWNED.contains(&c.type_.as_str())).cloned().collect();
    let conditions = status.conditions.clone().unwrap_or_default();
    if due || conditions::differ(&former, &conditions) {
        put("conditions", json!(conditions));
    }
    if had.addresses != status.addresses {
        // Several addresses may share a type, so the list is replaced rather than merged.
        let mut list = vec![json!({"$patch": "replace"})];
        list.extend(status.addresses.iter().flatten().map(|a| json!(a)));
        put("addresses", Value::Array(list));
    }
    for (name, had, now) in [
        ("capacity", &had.capacity, &status.capacity),
        ("allocatable", &had.allocatable, &status.allocatable),
    ] {
        if had != now {
            put(name, amounts(had, now));
        }
    }
    if had.node_info != status.node_info {
        put("nodeInfo", json!(status.node_info));
    }
    if had.daemon_endpoints != status.daemon_endpoints {
        put("daemonEndpoints", json!(status.daemon_endpoints));
    }
    if status.runtime_handlers.is_some() && had.runtime_handlers != status.runtime_handlers {
        put("runtimeHandlers", json!(status.runtime_handlers));
    }
    if status.features.is_some() && had.features != status.features {
        put("features", json!(status.features));
    }
    let listed = |images: &Option<Vec<_>>| images.clone().unwrap_or_default();
    if status.images.is_some() && listed(&had.images) != listed(&status.images) {
        put("images", json!(status.images));
    }
    (!out.is_empty()).then(|| json!({"status": out}))
}

/// Amounts that differ, and null for those that are no longer there.
fn amounts(had: &Option<BTreeMap<String, Quantity>>, now: &Option<BTreeMap<String, Quantity>>) -> Value {
    let (empty, had) = (BTreeMap::new(), had.iter().flatten().collect::<BTreeMap<_, _>>());
    let now = now.as_ref().unwrap_or(&empty);
    let news = now.iter().filter(|(name, amount)| had.get(name) != Some(amount));
    let gone = had.keys().filter(|name| !now.contains_key(**name)).map(|name| ((*name).clone(), Value::Null));
    Value::Object(news.map(|(name, amount)| (name.clone(), json!(amount))).chain(gone).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Informers;
    use crate::client::fake::{FakeApi, eventually};
    use crate::cri::fake::FakeRuntime;
    use crate::host::fake::FakeHost;
    use crate::kubelet::pods::fixture;
    use tokio_util::task::TaskTracker;

    fn node(status: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n1"}, "status": status})).unwrap()
    }

    fn ready(beat: &str) -> Value {
        json!([{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": beat}])
    }

    #[test]
    fn only_differences_are_sent() {
        let old = node(json!({"conditions": ready("2026-01-01T00:00:00Z"), "capacity": {"cpu": "1"}}));
        let mut status = node(json!({"conditions": ready("2026-01-01T00:01:00Z"), "capacity": {"cpu": "1"}}))
            .status
            .unwrap();
        assert_eq!(patch(&old, &status, false), None, "a heartbeat alone is no news");
        assert!(patch(&old, &status, true).unwrap()["status"]["conditions"].is_array());
        status.capacity = serde_json::from_value(json!({"cpu": "2"})).unwrap();
        assert_eq!(patch(&old, &status, false).unwrap(), json!({"status": {"capacity": {"cpu": "2"}}}));
    }

    #[test]
    fn amounts_that_are_gone_are_named() {
        let old = node(json!({"capacity": {"cpu": "1", "example.com/a": "5"},
            "allocatable": {"cpu": "1", "example.com/gone": "5"}}));
        let mut status = node(json!({"capacity": {"cpu": "1"}, "allocatable": {"cpu": "1"}})).status.unwrap();
        describe::keep_added(old.status.as_ref(), &mut status);
        let want = json!({"status": {"allocatable": {"example.com/a": "5", "example.com/gone": null}}});
        assert_eq!(patch(&old, &status, false), Some(want));
    }

    /// `[sig-scheduling] SchedulerPreemption` adds a resource to a node's capacity and makes pods that ask for it.
    #[tokio::test]
    async fn what_others_do_to_the_node_is_heeded_at_once_and_what_becomes_of_it_told() {
        let (api, stop) = (FakeApi::new(), CancellationToken::new());
        let (pressed, pressure) = watch::channel(Pressure::default());
        let host = FakeHost::default().host();
        let runtime = crate::cri::v1::VersionResponse::default();
        let informers = Informers::new(api.client(), stop.clone());
        let heartbeat = Heartbeat {
            config: Arc::new(fixture::config()),
            client: api.client(),
            runtime: Arc::new(FakeRuntime::new()),
            machine: Machine { info: host.machine.info(), disk: 1 << 30, runtime },
            host,
            port: 10250,
            recorder: Recorder::start(api.client(), "kubelet", "n1", &TaskTracker::new(), stop.clone()),
            pressure,
            devices: watch::channel(Counts::new()).1,
            shutdown: watch::channel(false).1,
            nodes: informers.get(),
            node: watch::channel(None).0,
        };
        let mut shown = heartbeat.node.subscribe();
        let task = tokio::spawn(heartbeat.run(stop.clone()));
        let added = "example.com/fakecpu".to_owned();
        let list = |node: &Node, list: fn(&NodeStatus) -> &Option<BTreeMap<String, Quantity>>| {
            list(node.status.as_ref().unwrap()).clone().unwrap().remove("example.com/fakecpu")
        };
        // The node is ready from its second report on, after which nothing would happen for ten seconds.
        shown.wait_for(|node| node.as_deref().is_some_and(is_ready)).await.unwrap();
        for amount in [Some(Quantity("3".to_owned())), None] {
            api.update("", "n1", |node: &mut Node| {
                let capacity = node.status.as_mut().unwrap().capacity.as_mut().unwrap();
                match &amount {
                    Some(amount) => drop(capacity.insert(added.clone(), amount.clone())),
                    None => drop(capacity.remove(&added)),
                }
            });
            let known = shown.wait_for(|node| {
                let node = node.as_ref().unwrap();
                list(node, |s| &s.allocatable) == amount && list(node, |s| &s.capacity) == amount
            });
            tokio::time::timeout(Duration::from_secs(8), known).await.expect("it is copied at once").unwrap();
            let stored = api.get::<Node>("", "n1").unwrap();
            assert_eq!(list(&stored, |s| &s.allocatable), amount);
        }
        pressed.send_replace(Pressure { pid: true, ..Pressure::default() });
        api.update("", "n1", |node: &mut Node| node.spec.get_or_insert_default().unschedulable = Some(true));
        let reasons = || {
            let all =
                api.list::<k8s_openapi::api::core::v1::Event>().into_iter().filter_map(|event| event.reason);
            all.collect::<std::collections::BTreeSet<_>>()
        };
        let told = [
            "NodeHasInsufficientPID",
            "NodeHasNoDiskPressure",
            "NodeHasSufficientMemory",
            "NodeHasSufficientPID",
            "NodeNotSchedulable",
            "NodeReady",
            "Starting",
        ];
        eventually("the events tell of it", || reasons().iter().eq(&told)).await;
        stop.cancel();
        task.await.unwrap();
    }

    #[test]
    fn addresses_replace_the_list() {
        let old = node(json!({}));
        let status =
            node(json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]})).status.unwrap();
        let got = patch(&old, &status, false).unwrap();
        assert_eq!(got["status"]["addresses"][0], json!({"$patch": "replace"}));
    }
}
