//! Carrying out the plan of a ReplicaSet: claims, creates, deletes, status.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio_util::sync::CancellationToken;

use super::plan::{self, Failure};
use super::victims;
use crate::api::selector::{LabelSelector, SelectorError};
use crate::client::{Change, Clock, Controller, EventType, Informer, Informers, Key, Next, Recorder, error};
use crate::controllers::workload::expectations::{Expectations, Seen};
use crate::controllers::workload::{self, batch, claims, ownership, pods, template};

/// How many ReplicaSets are reconciled at once.
const WORKERS: usize = 5;

/// Why a ReplicaSet could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The selector cannot be used.
    #[error("read selector")]
    Selector(#[source] SelectorError),
    /// A pod could not be adopted or released.
    #[error("claim pods")]
    Claim(#[source] kube::Error),
    /// A pod could not be created.
    #[error("create pod")]
    Create(#[source] kube::Error),
    /// A pod could not be deleted.
    #[error("delete pod")]
    Delete(#[source] kube::Error),
    /// The status could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
}

/// Runs the ReplicaSet controller until `stop`.
pub async fn run(
    client: Client,
    informers: Informers,
    recorder: Recorder,
    clock: Clock,
    stop: CancellationToken,
) {
    let (sets, pods) = (informers.get::<ReplicaSet>(), informers.get::<Pod>());
    pods.add_index(workload::ORPHANS, |pod: &Pod| workload::orphan_namespace(pod));
    let possible_owners = sets.clone();
    let controller = Controller::new("replicaset")
        .workers(WORKERS)
        .for_each(&sets)
        .owned_by::<ReplicaSet, _>(&pods)
        .watch(&pods, move |change| sets_for_orphan(&possible_owners, change));
    let expectations = Expectations::default();
    let this = Arc::new(ReplicaSets { client, sets, pods, recorder, clock, expectations });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

/// The sets that might adopt an orphaned pod.
fn sets_for_orphan(sets: &Informer<ReplicaSet>, change: &Change<Pod>) -> Vec<Key> {
    let Some(pod) = change.after() else { return Vec::new() };
    if ownership::controller_of(&pod.metadata).is_some() || pods::is_deleting(pod) {
        return Vec::new();
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let interested = |set: &ReplicaSet| {
        selector(set).is_ok_and(|selector| selector.matches_labels(pod.metadata.labels.as_ref()))
    };
    sets.in_namespace(namespace)
        .iter()
        .filter(|set| interested(set))
        .map(|set| Key::of(set.as_ref()))
        .collect()
}

fn selector(set: &ReplicaSet) -> Result<LabelSelector, SelectorError> {
    LabelSelector::from_meta(set.spec.as_ref().map(|spec| &spec.selector))
}

struct ReplicaSets {
    client: Client,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: Recorder,
    clock: Clock,
    expectations: Expectations,
}

impl ReplicaSets {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key.as_str());
            return Ok(Next::Done);
        };
        let settled = self.is_settled(key, &set);
        let owned = self.claim(&set).await?;
        let now = self.clock.now();
        let outcome = if settled { self.manage(key, &set, &owned, now).await } else { Ok(()) };
        let failure = outcome.as_ref().err().map(failure_of);
        self.write_status(&set, plan::status(&set, &owned, failure.as_ref(), now)).await?;
        outcome?;
        Ok(plan::recheck(&set, &owned, now).map_or(Next::Done, Next::After))
    }

    /// The cache shows everything that this set's earlier reconciles did.
    fn is_settled(&self, key: &Key, set: &ReplicaSet) -> bool {
        // The revision is read before the pods, so that no pod up to that revision can be missing.
        let revision = self.pods.revision();
        let owned = self.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
        let by_uid: HashMap<_, _> =
            owned.iter().map(|pod| (pod.metadata.uid.as_deref().unwrap_or_default(), pod)).collect();
        self.expectations.satisfied(key.as_str(), revision, Instant::now(), |uid| match by_uid.get(uid) {
            None => Seen::Absent,
            Some(pod) if pods::is_deleting(pod) => Seen::Deleting,
            Some(_) => Seen::Alive,
        })
    }

    async fn claim(&self, set: &ReplicaSet) -> Result<Vec<Arc<Pod>>, Error> {
        let selector = selector(set).map_err(Error::Selector)?;
        let mut candidates = self.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let orphans = self.pods.by_index(workload::ORPHANS, namespace);
        candidates.extend(orphans.into_iter().filter(|pod| pods::is_active(pod)));
        let matches = |pod: &Pod| selector.matches_labels(pod.metadata.labels.as_ref());
        claims::claim(&self.client, set, candidates, matches).await.map_err(Error::Claim)
    }

    async fn manage(
        &self,
        key: &Key,
        set: &Arc<ReplicaSet>,
        owned: &[Arc<Pod>],
        now: Timestamp,
    ) -> Result<(), Error> {
        let active = owned.iter().filter(|pod| pods::is_active(pod)).count();
        let crowding = if active > plan::desired(set) { self.crowding(set) } else { HashMap::new() };
        let plan = plan::plan(set, owned, &crowding, now);
        let api: Api<Pod> = claims::api_beside(&self.client, &set.metadata);
        if plan.create > 0 {
            let created = batch::slow_start(plan.create, || self.create(&api, key, set)).await;
            if let Some(failure) = created.error {
                return Err(Error::Create(failure));
            }
        }
        let mut failure = None;
        for pod in &plan.delete {
            if let Err(error) = self.delete(&api, key, set, pod).await {
                failure = failure.or(Some(error));
            }
        }
        failure.map_or(Ok(()), |error| Err(Error::Delete(error)))
    }

    /// How many pods of this set and of its siblings under the same owner run on each node.
    fn crowding(&self, set: &ReplicaSet) -> HashMap<String, usize> {
        let mut family = vec![set.metadata.uid.clone().unwrap_or_default()];
        if let Some(parent) = ownership::controller_uid(&set.metadata) {
            family
                .extend(self.sets.owned_by(parent).iter().filter_map(|sibling| sibling.metadata.uid.clone()));
        }
        family.sort();
        family.dedup();
        let related: Vec<_> = family.iter().flat_map(|uid| self.pods.owned_by(uid)).collect();
        victims::crowding(related.iter().map(AsRef::as_ref))
    }

    async fn create(&self, api: &Api<Pod>, key: &Key, set: &Arc<ReplicaSet>) -> kube::Result<()> {
        let owner = ownership::controller_reference("apps/v1", "ReplicaSet", &set.metadata);
        let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        let pod = template::pod_from_template(&template, key.namespace(), key.name(), owner);
        match api.create(&PostParams::default(), &pod).await {
            Ok(pod) => {
                let meta = &pod.metadata;
                let revision = meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
                let uid = meta.uid.as_deref().unwrap_or_default();
                self.expectations.created(key.as_str(), uid, revision, Instant::now());
                let message = format!("Created pod: {}", meta.name.as_deref().unwrap_or_default());
                self.recorder.event(set.as_ref(), EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            // The pods of a namespace that goes away are not missed.
            Err(failure) if error::is_namespace_terminating(&failure) => Ok(()),
            Err(failure) => {
                let message = format!("Error creating: {}", workload::failure_text(&failure));
                self.recorder.event(set.as_ref(), EventType::Warning, "FailedCreate", message);
                Err(failure)
            }
        }
    }

    async fn delete(&self, api: &Api<Pod>, key: &Key, set: &Arc<ReplicaSet>, pod: &Pod) -> kube::Result<()> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.clone();
        let preconditions = Preconditions { uid: uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(name, &parameters).await {
            Ok(_) => {
                self.expectations.deleted(key.as_str(), uid.as_deref().unwrap_or_default(), Instant::now());
                let message = format!("Deleted pod: {name}");
                self.recorder.event(set.as_ref(), EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(failure) if error::is_not_found(&failure) => Ok(()),
            Err(failure) => {
                let message = format!("Error deleting: {}", workload::failure_text(&failure));
                self.recorder.event(set.as_ref(), EventType::Warning, "FailedDelete", message);
                Err(failure)
            }
        }
    }

    async fn write_status(
        &self,
        set: &ReplicaSet,
        status: k8s_openapi::api::apps::v1::ReplicaSetStatus,
    ) -> Result<(), Error> {
        if set.status.as_ref().is_some_and(|before| plan::same_status(before, &status)) {
            return Ok(());
        }
        let api: Api<ReplicaSet> = claims::api_beside(&self.client, &set.metadata);
        let mut wanted = set.clone();
        wanted.status = Some(status);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        match api.replace_status(name, &PostParams::default(), &wanted).await {
            Err(failure) if !error::is_not_found(&failure) => Err(Error::Status(failure)),
            _ => Ok(()),
        }
    }
}

fn failure_of(error: &Error) -> Failure {
    let (reason, source) = match error {
        Error::Delete(source) => ("FailedDelete", source),
        Error::Create(source) | Error::Claim(source) | Error::Status(source) => ("FailedCreate", source),
        Error::Selector(source) => return Failure { reason: "FailedCreate", message: source.to_string() },
    };
    Failure { reason, message: workload::failure_text(source) }
}
