//! Carrying out the plan of a deployment: claims, ReplicaSets, revision, status, events.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio_util::sync::CancellationToken;

use super::plan::{self, Action, Input};
use super::{annotations, status, strategy};
use crate::client::{Change, Clock, Controller, EventType, Informer, Key, Next, Recorder, error};
use crate::controllers::Context;
use crate::controllers::workload::{self, claims, ownership, selects};

/// How many deployments are reconciled at once.
const WORKERS: usize = 5;

/// Why a deployment could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its ReplicaSets cannot be told.
    #[error("claim ReplicaSets")]
    Claim(#[source] selects::Error),
    /// The ReplicaSet of the current template could not be created.
    #[error("create ReplicaSet")]
    Create(#[source] kube::Error),
    /// Another ReplicaSet has the name that the current template's hash gives; the next one gets another name.
    #[error("the name of the new ReplicaSet is taken")]
    Collision,
    /// A ReplicaSet could not be scaled or annotated.
    #[error("update ReplicaSet")]
    Update(#[source] kube::Error),
    /// An old ReplicaSet could not be deleted.
    #[error("delete ReplicaSet")]
    Delete(#[source] kube::Error),
    /// The deployment's revision annotation could not be written.
    #[error("record revision")]
    Revision(#[source] kube::Error),
    /// The status could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
}

/// Runs the deployment controller until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, clock, .. } = context;
    let deployments = informers.get::<Deployment>();
    let (sets, pods) = (informers.get::<ReplicaSet>(), informers.get::<Pod>());
    sets.add_index(workload::ORPHANS, |set: &ReplicaSet| workload::orphan_namespace(set));
    let (possible_owners, sets_of_pods) = (deployments.clone(), sets.clone());
    let controller = Controller::new("deployment")
        .workers(WORKERS)
        .for_each(&deployments)
        .owned_by::<Deployment, _>(&sets)
        .watch(&sets, move |change| selects::possible_owners(&possible_owners, change))
        .watch(&pods, move |change| deployment_of_gone_pod(&sets_of_pods, change));
    let this = Arc::new(Deployments { client, deployments, sets, pods, recorder, clock });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

/// The Recreate strategy waits for the end of old pods; only their disappearance matters here.
fn deployment_of_gone_pod(sets: &Informer<ReplicaSet>, change: &Change<Pod>) -> Vec<Key> {
    let pod = change.object();
    if change.after().is_some_and(|pod| !workload::pods::is_finished(pod)) {
        return Vec::new();
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let owner = ownership::controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet");
    let set = owner.and_then(|owner| sets.find(namespace, &owner.name));
    let owner = set.as_ref().and_then(|set| ownership::controller_of(&set.metadata));
    owner.map(|owner| Key::new(namespace, &owner.name)).into_iter().collect()
}

struct Deployments {
    client: Client,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: Recorder,
    clock: Clock,
}

impl Deployments {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(Next::Done) };
        let deployment = deployment.as_ref();
        if plan::selector(deployment).is_none() {
            return self.selects_everything(deployment).await;
        }
        let claimed = selects::claim(&self.client, deployment, &self.sets, |_| true).await;
        let sets = claimed.map_err(Error::Claim)?;
        let recreate = strategy::Limits::of(deployment).recreate;
        let pods = if recreate { self.pods_of(&sets) } else { Vec::new() };
        let plan = plan::plan(Input { deployment, sets, pods: &pods, now: self.clock.now() });
        for action in plan.actions {
            self.act(deployment, action).await?;
        }
        if let Some(revision) = plan.revision {
            // The write brings a new version of the deployment, and the status follows with the next reconcile.
            self.record_revision(deployment, revision, plan.status).await?;
        } else {
            self.write_status(deployment, plan.status).await?;
        }
        Ok(plan.requeue.map_or(Next::Done, Next::After))
    }

    async fn selects_everything(&self, deployment: &Deployment) -> Result<Next, Error> {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        self.recorder.event(deployment, EventType::Warning, "SelectingAll", message);
        let mut status = deployment.status.clone().unwrap_or_default();
        status.observed_generation = deployment.metadata.generation;
        self.write_status(deployment, status).await?;
        Ok(Next::Done)
    }

    fn pods_of(&self, sets: &[Arc<ReplicaSet>]) -> Vec<Arc<Pod>> {
        let uids = sets.iter().filter_map(|set| set.metadata.uid.as_deref());
        uids.flat_map(|uid| self.pods.owned_by(uid)).collect()
    }

    async fn act(&self, deployment: &Deployment, action: Action) -> Result<(), Error> {
        let api: Api<ReplicaSet> = claims::api_beside(&self.client, &deployment.metadata);
        match action {
            Action::Create(set) => self.create(&api, deployment, *set).await,
            Action::Update { set, from, to } => {
                let name = set.metadata.name.clone().unwrap_or_default();
                api.replace(&name, &PostParams::default(), &set).await.map_err(Error::Update)?;
                if from != to {
                    self.report_scaling(deployment, &name, from, to);
                }
                Ok(())
            }
            Action::Delete(set) => {
                let preconditions = Preconditions { uid: set.metadata.uid.clone(), resource_version: None };
                let parameters =
                    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                match api.delete(set.metadata.name.as_deref().unwrap_or_default(), &parameters).await {
                    Err(failure) if !error::is_not_found(&failure) => Err(Error::Delete(failure)),
                    _ => Ok(()),
                }
            }
        }
    }

    async fn create(
        &self,
        api: &Api<ReplicaSet>,
        deployment: &Deployment,
        set: ReplicaSet,
    ) -> Result<(), Error> {
        let name = set.metadata.name.clone().unwrap_or_default();
        let failure = match api.create(&PostParams::default(), &set).await {
            Ok(created) => {
                let size = super::sets::replicas(&created);
                if size > 0 {
                    self.report_scaling(deployment, &name, 0, size);
                }
                return Ok(());
            }
            Err(failure) => failure,
        };
        if error::is_namespace_terminating(&failure) {
            return Ok(());
        }
        if error::is_already_exists(&failure) {
            return self.resolve_collision(api, deployment, &set, &name).await;
        }
        let message = workload::failure_text(&failure);
        let text = format!("Failed to create new replica set \"{name}\": {message}");
        self.recorder.event(deployment, EventType::Warning, "ReplicaSetCreateError", text);
        let status = plan::create_failed(deployment, &name, &message, self.clock.now());
        self.write_status(deployment, status).await?;
        Err(Error::Create(failure))
    }

    /// The name exists: either the cache has not shown our own set yet, or another template has the same hash.
    async fn resolve_collision(
        &self,
        api: &Api<ReplicaSet>,
        deployment: &Deployment,
        wanted: &ReplicaSet,
        name: &str,
    ) -> Result<(), Error> {
        let existing = api.get_opt(name).await.map_err(Error::Create)?;
        if existing.is_some_and(|existing| plan::is_same_set(&existing, wanted)) {
            return Ok(());
        }
        let mut status = deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
        self.write_status(deployment, status).await?;
        Err(Error::Collision)
    }

    fn report_scaling(&self, deployment: &Deployment, name: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
        self.recorder.event(deployment, EventType::Normal, "ScalingReplicaSet", message);
    }

    async fn record_revision(
        &self,
        deployment: &Deployment,
        revision: String,
        status: DeploymentStatus,
    ) -> Result<(), Error> {
        let api: Api<Deployment> = claims::api_beside(&self.client, &deployment.metadata);
        let mut wanted = deployment.clone();
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(annotations::REVISION.to_owned(), revision);
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let mut written =
            api.replace(name, &PostParams::default(), &wanted).await.map_err(Error::Revision)?;
        written.status = deployment.status.clone();
        self.write_status(&written, status).await
    }

    async fn write_status(&self, deployment: &Deployment, status: DeploymentStatus) -> Result<(), Error> {
        if deployment.status.as_ref().is_some_and(|before| status::same(before, &status)) {
            return Ok(());
        }
        let mut wanted = deployment.clone();
        wanted.status = Some(status);
        selects::write_status(&self.client, &wanted).await.map_err(Error::Status)
    }
}
