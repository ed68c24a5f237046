//! Carrying out the plan of a StatefulSet: claims, revisions, pods, status.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::act::Hands;
use super::plan::{self, Action, Input};
use super::{identity, status};
use crate::client::{Clock, Controller, EventType, Informer, Key, Next, Recorder};
use crate::controllers::Context;
use crate::controllers::workload::revisions;
use crate::controllers::workload::{self, pods, selects};

const WORKERS: usize = 5;

/// Why a StatefulSet could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its pods or revisions cannot be told.
    #[error("claim pods and revisions")]
    Claim(#[source] selects::Error),
    /// The revision of the present template could not be recorded.
    #[error("record revision")]
    Revision(#[source] revisions::Error),
    /// Old revisions could not be deleted.
    #[error("delete old revisions")]
    History(#[source] kube::Error),
    /// A pod or one of its volume claims could not be written.
    #[error("change pods")]
    Pods(#[source] kube::Error),
    /// The status could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
}

/// Runs the StatefulSet controller until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, clock, .. } = context;
    let (sets, pods) = (informers.get::<StatefulSet>(), informers.get::<Pod>());
    let revisions = informers.get::<ControllerRevision>();
    let claims = informers.get::<PersistentVolumeClaim>();
    revisions.add_index(workload::ORPHANS, |r: &ControllerRevision| workload::orphan_namespace(r));
    pods.add_index(workload::ORPHANS, |pod: &Pod| workload::orphan_namespace(pod));
    let (of_pods, of_revisions) = (sets.clone(), sets.clone());
    let controller = Controller::new("statefulset")
        .workers(WORKERS)
        .for_each(&sets)
        .owned_by::<StatefulSet, _>(&pods)
        .owned_by::<StatefulSet, _>(&revisions)
        .watch(&pods, move |change| selects::possible_owners(&of_pods, change))
        .watch(&revisions, move |change| selects::possible_owners(&of_revisions, change))
        .after(&claims);
    let hands = Hands { client: client.clone(), recorder: recorder.clone(), claims };
    let this = Arc::new(StatefulSets { client, sets, pods, revisions, hands, recorder, clock });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

struct StatefulSets {
    client: Client,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    revisions: Informer<ControllerRevision>,
    hands: Hands,
    recorder: Recorder,
    clock: Clock,
}

impl StatefulSets {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(set) = self.sets.get(key) else { return Ok(Next::Done) };
        let set = set.as_ref();
        let claimed = selects::claim(&self.client, set, &self.revisions, |_| true).await;
        let known = claimed.map_err(Error::Claim)?;
        let adoptable = |pod: &Pod| identity::ordinal(set, pod).is_some();
        let claimed = selects::claim(&self.client, set, &self.pods, adoptable).await;
        let mut owned = claimed.map_err(Error::Claim)?;
        owned.retain(|pod| adoptable(pod));
        let update = revisions::record(&self.client, set, &known).await.map_err(Error::Revision)?;
        let current = self.current_revision(set, &known).unwrap_or_else(|| update.clone());
        let name = |revision: &ControllerRevision| revision.metadata.name.clone().unwrap_or_default();
        let (current_name, update_name) = (name(&current), name(&update));
        let input =
            Input { set, current: &current_name, update: &update_name, pods: &owned, now: self.clock.now() };
        let plan = plan::plan(&input);
        let outcome = self.carry_out(set, &owned, &plan.actions, [&current, &update]).await;
        self.write_status(set, status::status(&input)).await?;
        outcome?;
        let of_pods = owned.iter().map(|pod| identity::revision(pod).to_owned());
        let live: BTreeSet<_> = of_pods.chain([current_name.clone(), update_name.clone()]).collect();
        revisions::clean(&self.client, set, &known, &live).await.map_err(Error::History)?;
        Ok(plan.requeue.map_or(Next::Done, Next::After))
    }

    fn current_revision(
        &self,
        set: &StatefulSet,
        known: &[Arc<ControllerRevision>],
    ) -> Option<Arc<ControllerRevision>> {
        let name = set.status.as_ref()?.current_revision.as_ref()?;
        known.iter().find(|revision| revision.metadata.name.as_ref() == Some(name)).cloned()
    }

    async fn carry_out(
        &self,
        set: &StatefulSet,
        owned: &[Arc<Pod>],
        actions: &[Action],
        [current, update]: [&ControllerRevision; 2],
    ) -> Result<(), Error> {
        if set.metadata.deletion_timestamp.is_none() {
            for pod in owned.iter().filter(|pod| !pods::is_deleting(pod)) {
                self.hands.own_claims(set, pod).await.map_err(Error::Pods)?;
                // Somebody may have deleted the claim that the pod waits for.
                if pods::phase(pod) == "Pending"
                    && let Some(ordinal) = identity::ordinal(set, pod)
                {
                    self.hands.create_claims(set, ordinal).await.map_err(Error::Pods)?;
                }
            }
        }
        for action in actions {
            let done = match action {
                Action::Create { ordinal, updated } => {
                    let revision = if *updated { update } else { current };
                    let template = revisions::template_of(revision).unwrap_or_default();
                    let name = revision.metadata.name.as_deref().unwrap_or_default();
                    let pod = identity::build(set, *ordinal, &template, name);
                    self.hands.create(set, *ordinal, &pod).await
                }
                Action::Delete(pod) => self.hands.delete(set, pod).await,
                Action::Recreate(pod) => {
                    let meta = &set.metadata;
                    let message = format!(
                        "StatefulSet {}/{} is recreating {} Pod {}",
                        meta.namespace.as_deref().unwrap_or_default(),
                        meta.name.as_deref().unwrap_or_default(),
                        pods::phase(pod).to_lowercase(),
                        pod.metadata.name.as_deref().unwrap_or_default()
                    );
                    let reason = format!(
                        "Recreating{}Pod",
                        if pods::phase(pod) == "Failed" { "Failed" } else { "Terminated" }
                    );
                    self.recorder.event(set, EventType::Warning, &reason, message);
                    self.hands.delete(set, pod).await
                }
                Action::Mend(pod) => self.hands.mend(set, pod).await,
            };
            done.map_err(Error::Pods)?;
        }
        Ok(())
    }

    async fn write_status(&self, set: &StatefulSet, wanted: StatefulSetStatus) -> Result<(), Error> {
        if set.status.as_ref().is_some_and(|before| status::same(before, &wanted)) {
            return Ok(());
        }
        let wanted = StatefulSet { status: Some(wanted), ..set.clone() };
        selects::write_status(&self.client, &wanted).await.map_err(Error::Status)
    }
}
