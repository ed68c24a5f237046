//! Carrying out the plan of a service's slices.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Resource};
use tokio_util::sync::CancellationToken;

use super::hints::{self, Policy, ZONE, Zones};
use super::plan::{self, Plan, Topology};
use super::select;
use super::trigger::Triggers;
use crate::api::selector::LabelSelector;
use crate::client::informer::index;
use crate::client::{Change, Controller, Informer, Key, Next, Recorder, error};
use crate::controllers::Context;
use crate::controllers::workload::{claims, pods as pod_state};

/// How many services are reconciled at once.
const WORKERS: usize = 5;
/// How long to wait at most for the cache to show one's own writes.
const STALE_RETRY: Duration = Duration::from_secs(1);

/// Why a service's slices could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A slice could not be created.
    #[error("create EndpointSlice")]
    Create(#[source] kube::Error),
    /// A slice could not be updated.
    #[error("update EndpointSlice")]
    Update(#[source] kube::Error),
    /// A slice could not be deleted.
    #[error("delete EndpointSlice")]
    Delete(#[source] kube::Error),
}

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
    let this = Arc::new(Slices {
        client,
        services,
        pods,
        slices,
        nodes,
        recorder,
        triggers: Triggers::default(),
        written: Mutex::default(),
    });
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
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    slices: Informer<EndpointSlice>,
    nodes: Informer<Node>,
    recorder: Recorder,
    triggers: Triggers,
    /// The newest revision written for each service.
    written: Mutex<HashMap<Key, u64>>,
}

impl Slices {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(service) = self.services.get(key) else {
            self.triggers.forget(key);
            self.written().remove(key);
            return Ok(Next::Done);
        };
        if !select::is_selecting(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let written = self.written().get(key).copied().unwrap_or(0);
        if self.slices.revision() < written {
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
        self.apply(key, &service, plan).await?;
        Ok(Next::Done)
    }

    fn zones(&self) -> Zones {
        hints::zones(self.nodes.list().iter().map(AsRef::as_ref))
    }

    fn written(&self) -> MutexGuard<'_, HashMap<Key, u64>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
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

    async fn apply(&self, key: &Key, service: &Service, plan: Plan) -> Result<(), Error> {
        let api: Api<EndpointSlice> = claims::api_beside(&self.client, &service.metadata);
        let parameters = PostParams::default();
        for slice in plan.create {
            match api.create(&parameters, &slice).await {
                Ok(slice) => self.note(key, &slice),
                Err(failure) if error::is_namespace_terminating(&failure) => return Ok(()),
                Err(failure) => return Err(Error::Create(failure)),
            }
        }
        for slice in plan.update {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            let slice = api.replace(name, &parameters, &slice).await.map_err(Error::Update)?;
            self.note(key, &slice);
        }
        for slice in plan.delete {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            match api.delete(name, &DeleteParams::default()).await {
                Err(failure) if !error::is_not_found(&failure) => return Err(Error::Delete(failure)),
                _ => {}
            }
        }
        Ok(())
    }

    fn note(&self, key: &Key, slice: &EndpointSlice) {
        let revision = slice.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
        let mut written = self.written();
        let newest = written.entry(key.clone()).or_default();
        *newest = revision.max(*newest);
    }
}
