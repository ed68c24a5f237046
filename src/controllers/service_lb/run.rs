//! Carrying out the plan: all Services are looked at together, because they share the nodes' ports.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::plan::{self, World};
use crate::client::{Change, Controller, EventType, Informer, Key, Next, Recorder};
use crate::controllers::Context;
use crate::controllers::workload::selects;

/// The one key.
const ALL: &str = "all";

/// Why addresses could not be handed out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A Service's status could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, .. } = context;
    let (services, nodes) = (informers.get::<Service>(), informers.get::<Node>());
    let (pods, slices) = (informers.get::<Pod>(), informers.get::<EndpointSlice>());
    let when = |concerned: bool| if concerned { vec![Key::cluster(ALL)] } else { Vec::new() };
    let is_any_local = services.clone();
    let controller = Controller::new("service_lb")
        .watch(&services, move |change: &Change<Service>| {
            let states = [change.before(), change.after()];
            when(
                states
                    .into_iter()
                    .flatten()
                    .any(|service| plan::is_balanced(service) || !plan::ingress(service).is_empty()),
            )
        })
        .watch(&nodes, move |change: &Change<Node>| when(face(change.before()) != face(change.after())))
        .watch(&pods, move |change: &Change<Pod>| {
            when(host_ports(change.before()) != host_ports(change.after()))
        })
        .watch(&slices, move |_| {
            let local = |service: &Arc<Service>| {
                let policy = service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref());
                plan::is_balanced(service) && policy == Some("Local")
            };
            when(is_any_local.list().iter().any(local))
        });
    let this = Arc::new(Balancers { client, services, nodes, pods, slices, recorder });
    let reconcile = move |_: Key| {
        let this = this.clone();
        async move { this.reconcile().await }
    };
    controller.run(reconcile, stop).await;
}

/// What matters of a node.
fn face(node: Option<&Arc<Node>>) -> Option<impl PartialEq + use<>> {
    let node = node?;
    let status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready").map(|c| c.status);
    Some((node.metadata.labels.clone(), node.metadata.deletion_timestamp.clone(), ready, status.addresses))
}

/// The host ports of a pod and where they are taken.
fn host_ports(pod: Option<&Arc<Pod>>) -> Option<(Vec<i32>, Option<String>, bool)> {
    let pod = pod?;
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports: Vec<_> =
        containers.flat_map(|c| c.ports.iter().flatten()).filter_map(|port| port.host_port).collect();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let finished = crate::controllers::workload::pods::is_finished(pod);
    (!ports.is_empty()).then_some((ports, node, finished))
}

struct Balancers {
    client: Client,
    services: Informer<Service>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    slices: Informer<EndpointSlice>,
    recorder: Recorder,
}

impl Balancers {
    async fn reconcile(&self) -> Result<Next, Error> {
        let (services, nodes) = (self.services.list(), self.nodes.list());
        let (pods, slices) = (self.pods.list(), self.slices.list());
        let world = World { services: &services, nodes: &nodes, pods: &pods, slices: &slices };
        for (key, ingress) in plan::plan(&world) {
            if let Some(service) = self.services.get(&key) {
                self.write(&service, ingress).await?;
            }
        }
        Ok(Next::Done)
    }

    async fn write(&self, service: &Service, ingress: Vec<LoadBalancerIngress>) -> Result<(), Error> {
        let shown: Vec<_> = ingress.iter().filter_map(|one| one.ip.clone()).collect();
        let mut wanted = service.clone();
        let balancer = wanted.status.get_or_insert_default().load_balancer.get_or_insert_default();
        balancer.ingress = Some(ingress).filter(|ingress| !ingress.is_empty());
        selects::write_status(&self.client, &wanted).await.map_err(Error::Status)?;
        let message = format!("LoadBalancer Ingress IP addresses updated: {}", shown.join(", "));
        self.recorder.event(service, EventType::Normal, "UpdatedIngressIP", message);
        Ok(())
    }
}
