//! Carrying out what claims and volumes need.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio_util::sync::CancellationToken;

use super::local_path;
use super::plan::{self, ClaimStep, Consumers, VolumeStep};
use crate::client::volumes::{self, claims_of};
use crate::client::{Change, Clock, Controller, EventType, Informer, Key, Next, Recorder, WorkQueue, error};
use crate::controllers::Context;
use crate::controllers::storage_protection;
use crate::controllers::workload::{claims, failure_text, pods, selects};

const WORKERS: usize = 2;

/// Why a claim or a volume could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The claim of a volume could not be looked up.
    #[error("get claim")]
    Get(#[source] kube::Error),
    /// The volume could not be written.
    #[error("write volume")]
    Volume(#[source] kube::Error),
    /// The claim could not be written.
    #[error("write claim")]
    Claim(#[source] kube::Error),
    /// The node did not remove the volume's directory.
    #[error("remove directory of volume")]
    Directory(#[source] kube::Error),
}

/// Runs the binder until `stop`. Claims are keyed by namespace and name, volumes by name.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, clock, config } = context;
    let provisions = !config.disabled.iter().any(|part| part == "local-storage");
    let (claims, volumes) = (informers.get::<PersistentVolumeClaim>(), informers.get::<PersistentVolume>());
    let (classes, nodes) = (informers.get::<StorageClass>(), informers.get::<Node>());
    let pods = informers.get::<Pod>();
    pods.add_index(storage_protection::BY_CLAIM, claims_of);
    let (of_volumes, of_classes, of_claims) = (claims.clone(), claims.clone(), volumes.clone());
    let controller = Controller::new("persistentvolume-binder")
        .workers(WORKERS)
        .for_each(&claims)
        .for_each(&volumes)
        .watch(&volumes, move |change| claims_of_volume(&of_volumes, change))
        .watch(&claims, move |change| volumes_of_claim(&of_claims, change))
        .watch(&pods, |change: &Change<Pod>| {
            let placed = change.after().filter(|pod| pods::node_name(pod).is_some());
            placed.map(|pod| keys(claims_of(pod))).unwrap_or_default()
        })
        .watch(&classes, move |_| unbound(&of_classes))
        .after(&nodes);
    let queue = controller.queue();
    let this = Arc::new(Binder {
        client,
        claims,
        volumes,
        classes,
        nodes,
        pods,
        recorder,
        clock,
        queue,
        provisions,
    });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { if key.namespace().is_empty() { this.volume(&key).await } else { this.claim(&key).await } }
    };
    controller.run(reconcile, stop).await;
}

fn keys(names: Vec<String>) -> Vec<Key> {
    names
        .iter()
        .filter_map(|key| key.split_once('/'))
        .map(|(namespace, name)| Key::new(namespace, name))
        .collect()
}

fn unbound(claims: &Informer<PersistentVolumeClaim>) -> Vec<Key> {
    let free = |claim: &PersistentVolumeClaim| !volumes::has(&claim.metadata, volumes::BIND_COMPLETED);
    claims.list().iter().filter(|claim| free(claim)).map(|claim| Key::of(claim.as_ref())).collect()
}

/// The claim that a volume names; a free volume may suit any claim that waits.
fn claims_of_volume(claims: &Informer<PersistentVolumeClaim>, change: &Change<PersistentVolume>) -> Vec<Key> {
    let reference = change.object().spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    match reference {
        Some(claim) => vec![Key::new(
            claim.namespace.as_deref().unwrap_or_default(),
            claim.name.as_deref().unwrap_or_default(),
        )],
        None => unbound(claims),
    }
}

/// The volume that a claim names, and the volumes that name it.
fn volumes_of_claim(
    volumes: &Informer<PersistentVolume>,
    change: &Change<PersistentVolumeClaim>,
) -> Vec<Key> {
    let claim = change.object();
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    let naming = volumes.list().into_iter().filter(|volume| {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let is_named = named.is_some() && named == volume.metadata.name.as_deref();
        is_named
            || reference
                .is_some_and(|r| r.name == claim.metadata.name && r.namespace == claim.metadata.namespace)
    });
    naming.map(|volume| Key::of(volume.as_ref())).collect()
}

struct Binder {
    client: Client,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    recorder: Recorder,
    clock: Clock,
    queue: Arc<WorkQueue<Key>>,
    /// Volumes on nodes' disks are made here.
    provisions: bool,
}

impl Binder {
    async fn claim(&self, key: &Key) -> Result<Next, Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(Next::Done) };
        let claim = claim.as_ref();
        if claim.metadata.deletion_timestamp.is_some()
            && !volumes::has(&claim.metadata, volumes::BIND_COMPLETED)
        {
            return Ok(Next::Done);
        }
        let class = self.classes.find("", volumes::class_of_claim(claim));
        let consumers = self.consumers(key);
        let step = plan::claim(claim, &self.volumes.list(), class.as_deref(), &consumers);
        match step {
            ClaimStep::Bind(volume) => self.bind(claim, &volume).await?,
            ClaimStep::Provision(provisioner) => {
                self.phase(claim, "Pending").await?;
                if let Some(class) = class {
                    self.provision(claim, &class, &provisioner, consumers.node).await?;
                }
            }
            ClaimStep::Wait(event_type, reason, message) => {
                self.recorder.event(claim, event_type, reason, message);
                self.phase(claim, "Pending").await?;
            }
            ClaimStep::Lose(reason, message) => {
                self.recorder.event(claim, EventType::Warning, reason, message);
                self.phase(claim, "Lost").await?;
            }
        }
        Ok(Next::Done)
    }

    fn consumers(&self, key: &Key) -> Consumers {
        let mut consumers = Consumers::default();
        for pod in self.pods.by_index(storage_protection::BY_CLAIM, key.as_str()) {
            match pods::node_name(&pod) {
                _ if !pods::is_active(&pod) => {}
                Some(node) => consumers.node = Some(node.to_owned()),
                None => consumers.waiting.extend(pod.metadata.name.clone()),
            }
        }
        consumers
    }

    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), Error> {
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let mut volume = volume.clone();
        if let Some(wanted) = volumes::bound_volume(&volume, claim) {
            let name = volume.metadata.name.clone().unwrap_or_default();
            volume = volumes.replace(&name, &PostParams::default(), &wanted).await.map_err(Error::Volume)?;
        }
        self.volume_phase(&volume, "Bound").await?;
        let mut claim = claim.clone();
        if let Some(wanted) = plan::bound_claim(&claim, &volume) {
            let api: Api<PersistentVolumeClaim> = claims::api_beside(&self.client, &claim.metadata);
            let name = claim.metadata.name.clone().unwrap_or_default();
            claim = api.replace(&name, &PostParams::default(), &wanted).await.map_err(Error::Claim)?;
        }
        let status = plan::bound_status(&claim, &volume);
        if claim.status.as_ref() == Some(&status) {
            return Ok(());
        }
        claim.status = Some(status);
        selects::write_status(&self.client, &claim).await.map_err(Error::Claim)
    }

    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        provisioner: &str,
        consumer: Option<String>,
    ) -> Result<(), Error> {
        if plan::ASKED.iter().any(|annotation| !volumes::has(&claim.metadata, annotation)) {
            let mut wanted = claim.clone();
            let annotations = wanted.metadata.annotations.get_or_insert_default();
            for annotation in plan::ASKED {
                annotations.insert(annotation.to_owned(), provisioner.to_owned());
            }
            let api: Api<PersistentVolumeClaim> = claims::api_beside(&self.client, &claim.metadata);
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            // The new version of the claim comes back as an event.
            return api.replace(name, &PostParams::default(), &wanted).await.map(drop).map_err(Error::Claim);
        }
        if provisioner != local_path::PROVISIONER || !self.provisions {
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by \
                 the system administrator. If volume creation is delayed, please verify that the provisioner is \
                 running and correctly registered."
            );
            self.recorder.event(claim, EventType::Normal, "ExternalProvisioning", message);
            return Ok(());
        }
        let selected = volumes::selected_node(claim).map(str::to_owned);
        let any = || self.nodes.list().first().and_then(|node| node.metadata.name.clone());
        let Some(node) = selected.or(consumer).or_else(any) else { return Ok(()) };
        let host = self
            .nodes
            .find("", &node)
            .and_then(|node| node.metadata.labels.as_ref()?.get(local_path::HOST_NAME).cloned());
        let volume = local_path::volume(class, claim, host.as_deref().unwrap_or(&node));
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        match volumes.create(&PostParams::default(), &volume).await {
            Ok(made) => {
                let name = made.metadata.name.unwrap_or_default();
                let message = format!("Successfully provisioned volume {name}");
                self.recorder.event(claim, EventType::Normal, "ProvisioningSucceeded", message);
                Ok(())
            }
            Err(failure) if error::is_already_exists(&failure) => Ok(()),
            Err(failure) => Err(Error::Volume(failure)),
        }
    }

    async fn phase(&self, claim: &PersistentVolumeClaim, phase: &str) -> Result<(), Error> {
        let mut status = claim.status.clone().unwrap_or_default();
        if status.phase.as_deref() == Some(phase) {
            return Ok(());
        }
        status.phase = Some(phase.to_owned());
        let wanted = PersistentVolumeClaim { status: Some(status), ..claim.clone() };
        selects::write_status(&self.client, &wanted).await.map_err(Error::Claim)
    }

    async fn volume(&self, key: &Key) -> Result<Next, Error> {
        let Some(volume) = self.volumes.get(key) else { return Ok(Next::Done) };
        let volume = volume.as_ref();
        let claim = self.claim_of(volume).await?;
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        match plan::volume(volume, claim.as_deref()) {
            VolumeStep::Phase(phase) => self.volume_phase(volume, phase).await?,
            VolumeStep::Ask => {
                if let Some(claim) = claim {
                    self.queue.add(Key::of(claim.as_ref()));
                }
            }
            VolumeStep::Free => {
                let mut wanted = volume.clone();
                wanted.spec.get_or_insert_default().claim_ref = None;
                wanted.metadata.annotations.get_or_insert_default().remove(volumes::BOUND_BY_CONTROLLER);
                api.replace(key.name(), &PostParams::default(), &wanted).await.map_err(Error::Volume)?;
            }
            VolumeStep::Delete => {
                self.remove_directory(volume).await?;
                let preconditions =
                    Some(Preconditions { uid: volume.metadata.uid.clone(), resource_version: None });
                let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
                match api.delete(key.name(), &parameters).await {
                    Err(failure) if !error::is_not_found(&failure) => return Err(Error::Volume(failure)),
                    _ => {}
                }
            }
        }
        Ok(Next::Done)
    }

    /// Has the volume's node remove what it holds. A node that is gone has taken it along.
    async fn remove_directory(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Failed") {
            self.volume_phase(volume, "Released").await?;
        }
        let Some((host, directory)) = local_path::place(volume) else { return Ok(()) };
        let is_host = |node: &&Arc<Node>| {
            let labels = node.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(local_path::HOST_NAME)).is_some_and(|label| label == host)
                || node.metadata.name.as_deref() == Some(host)
        };
        let nodes = self.nodes.list();
        let Some(node) = nodes.iter().find(is_host) else { return Ok(()) };
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let uri = format!("/api/v1/nodes/{name}/proxy/localVolumes/{directory}");
        let request = http::Request::delete(uri).body(Vec::new());
        let request = request.map_err(|error| Error::Directory(kube::Error::HttpError(error)))?;
        if let Err(failure) = self.client.request_text(request).await {
            let message = format!("failed to remove the volume's directory: {}", failure_text(&failure));
            self.recorder.event(volume, EventType::Warning, "VolumeFailedDelete", message);
            self.volume_phase(volume, "Failed").await?;
            return Err(Error::Directory(failure));
        }
        Ok(())
    }

    /// The claim that the volume names. Before it counts as gone, the server is asked.
    async fn claim_of(&self, volume: &PersistentVolume) -> Result<Option<Arc<PersistentVolumeClaim>>, Error> {
        let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
            return Ok(None);
        };
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let name = reference.name.as_deref().unwrap_or_default();
        let known = self.claims.find(namespace, name);
        if known.as_ref().is_some_and(|claim| reference.uid.is_none() || claim.metadata.uid == reference.uid)
        {
            return Ok(known);
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await.map_err(Error::Get)?.map(Arc::new))
    }

    async fn volume_phase(&self, volume: &PersistentVolume, phase: &str) -> Result<(), Error> {
        let mut status = volume.status.clone().unwrap_or_default();
        if status.phase.as_deref() == Some(phase) {
            return Ok(());
        }
        status.phase = Some(phase.to_owned());
        status.last_phase_transition_time = Some(Time(self.clock.now()));
        let wanted = PersistentVolume { status: Some(status), ..volume.clone() };
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        match api.replace_status(name, &PostParams::default(), &wanted).await {
            Err(failure) if !error::is_not_found(&failure) => Err(Error::Volume(failure)),
            _ => Ok(()),
        }
    }
}
