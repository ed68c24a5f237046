//! Carrying out the plan of a service's slices.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio_util::sync::CancellationToken;

use super::hints::{self, Policy, ZONE, Zones};
use super::plan::{self, Topology};
use super::select;
use super::trigger::Triggers;
use super::writes::{Error, STALE_RETRY, Writes};
use crate::api::selector::LabelSelector;
use crate::client::informer::index;
use crate::client::{Change, Controller, Informer, Key, Next, Recorder};
use crate::controllers::Context;
use crate::controllers::workload::pods as pod_state;

/// How many services are reconciled at once.
const WORKERS: usize = 5;

/// Runs the EndpointSlice controller until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, .. } = context;
    let (services, pods) = (informers.get::<Service>(), informers.get::<Pod>());
    let (slices, nodes) = (informers.get::<EndpointSlice>(), informers.get::<Node>());
    pods.add_index(index::NODE, index::pod_node);
    let (for_pods, for_nodes, pods_of_nodes) = (services.clone(), services.clone(), pods.clone());
    let controller = Controller::new("endpoint_slice")
        .workers(WORKERS)
        .for_each(&services)
        .owned_by::<Service, _>(&slices)
        .watch(&pods, move |change| services_of_pod(&for_pods, change))
        .watch(&nodes, move |change| services_of_node(&for_nodes, &pods_of_nodes, change));
    let writes = Writes::new(client, slices.clone());
    let this =
        Arc::new(Slices { services, pods, slices, nodes, recorder, triggers: Triggers::default(), writes });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

/// The services that a change of a pod concerns.
pub(in crate::controllers) fn services_of_pod(
    services: &Informer<Service>,
    change: &Change<Pod>,
) -> Vec<Key> {
    if let (Some(before), Some(after)) = (change.before(), change.after())
        && !select::matters(before, after)
    {
        return Vec::new();
    }
    let states: Vec<_> = change.before().into_iter().chain(change.after()).collect();
    let namespace = change.object().metadata.namespace.as_deref().unwrap_or_default();
    let all = services.in_namespace(namespace);
    let selecting = all.iter().filter(|service| states.iter().any(|pod| selects(service, pod)));
    selecting.map(|service| Key::of(service.as_ref())).collect()
}

/// The services with pods on a node whose zone changed, and those that share endpoints out by the weight of nodes.
fn services_of_node(services: &Informer<Service>, pods: &Informer<Pod>, change: &Change<Node>) -> Vec<Key> {
    let mut concerned = Vec::new();
    let weight = |node: Option<&Arc<Node>>| node.and_then(|node| hints::weight(node));
    if weight(change.before()) != weight(change.after()) {
        let all = services.list();
        let auto = all.iter().filter(|service| hints::is_auto(service));
        concerned.extend(auto.map(|service| Key::of(service.as_ref())));
    }
    let zone = |node: Option<&Arc<Node>>| node.and_then(|node| zone(node));
    if zone(change.before()) != zone(change.after()) {
        let name = change.object().metadata.name.as_deref().unwrap_or_default();
        let of_pod = |pod: Arc<Pod>| services_of_pod(services, &Change::Added(pod));
        concerned.extend(pods.by_index(index::NODE, name).into_iter().flat_map(of_pod));
    }
    concerned
}

fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get(ZONE).cloned()
}

fn selects(service: &Service, pod: &Pod) -> bool {
    if !select::is_selecting(service) {
        return false;
    }
    let Some(wanted) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { return false };
    let labels = pod.metadata.labels.as_ref();
    wanted.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// The pods that a service selects.
pub(in crate::controllers) fn selected(pods: &Informer<Pod>, service: &Service) -> Vec<Arc<Pod>> {
    let wanted = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    let selector = LabelSelector::from_map(&wanted);
    let mut all = pods.in_namespace(service.metadata.namespace.as_deref().unwrap_or_default());
    all.retain(|pod| selector.matches_labels(pod.metadata.labels.as_ref()) && !pod_state::is_finished(pod));
    all
}

struct Slices {
    services: Informer<Service>,
    pods: Informer<Pod>,
    slices: Informer<EndpointSlice>,
    nodes: Informer<Node>,
    recorder: Recorder,
    triggers: Triggers,
    writes: Writes,
}

impl Slices {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(service) = self.services.get(key) else {
            self.triggers.forget(key);
            self.writes.forget(key);
            return Ok(Next::Done);
        };
        if !select::is_selecting(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        if self.writes.is_cache_behind(key) {
            return Ok(Next::After(STALE_RETRY));
        }
        let slices = self.slices_of(&service);
        let selected = selected(&self.pods, &service);
        let trigger = self.triggers.observe(key, &service, selected.iter().map(AsRef::as_ref));
        let zone_of = |node: &str| self.nodes.get(&Key::cluster(node)).and_then(|node| zone(&node));
        let zones = if hints::is_auto(&service) { self.zones() } else { Zones::new() };
        let topology = Topology { zone_of, policy: Policy::of(&service, &zones) };
        let mut plan = plan::plan(&service, &selected, &slices, trigger, &topology);
        for (event_type, reason, message) in std::mem::take(&mut plan.events) {
            self.recorder.event(service.as_ref(), event_type, reason, message);
        }
        self.writes.carry_out(key, plan.create, plan.update, plan.delete).await?;
        Ok(Next::Done)
    }

    fn zones(&self) -> Zones {
        hints::zones(self.nodes.list().iter().map(AsRef::as_ref))
    }

    /// The slices that this controller made for the service.
    fn slices_of(&self, service: &Service) -> Vec<Arc<EndpointSlice>> {
        let name = service.metadata.name.as_deref();
        let mut all = self.slices.owned_by(service.metadata.uid.as_deref().unwrap_or_default());
        all.retain(|slice| {
            let label = |key| slice.metadata.labels.as_ref().and_then(|labels| labels.get(key));
            label(plan::SERVICE_NAME).map(String::as_str) == name
                && label(plan::MANAGED_BY).map(String::as_str) == Some(plan::CONTROLLER)
                && slice.metadata.deletion_timestamp.is_none()
        });
        all
    }
}
