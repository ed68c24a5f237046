//! Following pods and their owners, and writing the status of budgets.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::plan;
use super::scale::{self, Scales};
use crate::api::selector::LabelSelector;
use crate::client::{Change, Clock, Controller, EventType, Informer, Key, Next, Recorder, error};
use crate::controllers::Context;
use crate::controllers::workload::claims::Object;
use crate::controllers::workload::selects;

/// Why a budget could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The wanted number of pods is not known; the status says so.
    #[error("compute the number of expected pods")]
    Scale(#[source] scale::Error),
    /// The status could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
}

/// Runs the disruption controller until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, clock, .. } = context;
    let (budgets, pods) = (informers.get::<PodDisruptionBudget>(), informers.get::<Pod>());
    let scales = Scales::new(client.clone(), &informers);
    let of_pods = budgets.clone();
    let controller = Controller::new("disruption")
        .for_each(&budgets)
        .watch(&pods, move |change| budgets_of_pod(&of_pods, change));
    let controller = follow_scale::<Deployment>(controller, &informers, &budgets);
    let controller = follow_scale::<ReplicaSet>(controller, &informers, &budgets);
    let controller = follow_scale::<StatefulSet>(controller, &informers, &budgets);
    let controller = follow_scale::<ReplicationController>(controller, &informers, &budgets);
    if stop.run_until_cancelled(scales.synced()).await.is_none() {
        return;
    }
    let this = Arc::new(Budgets { client, budgets, pods, scales, recorder, clock });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

/// The budgets that select the pod, as it is and as it was.
fn budgets_of_pod(budgets: &Informer<PodDisruptionBudget>, change: &Change<Pod>) -> Vec<Key> {
    let states = || [change.before(), change.after()].into_iter().flatten();
    let namespace = change.object().metadata.namespace.as_deref().unwrap_or_default();
    let all = budgets.in_namespace(namespace);
    let concerned = all.iter().filter(|budget| {
        let selector = selector(budget);
        states().any(|pod| selector.matches_labels(pod.metadata.labels.as_ref()))
    });
    concerned.map(|budget| Key::of(budget.as_ref())).collect()
}

/// A new size of an owner concerns the budgets of its namespace that count owners' sizes.
fn follow_scale<K: Object>(
    controller: Controller,
    informers: &crate::client::Informers,
    budgets: &Informer<PodDisruptionBudget>,
) -> Controller {
    let budgets = budgets.clone();
    controller.watch(&informers.get::<K>(), move |change| {
        let generation = |object: Option<&Arc<K>>| object.and_then(|object| object.meta().generation);
        if generation(change.before()) == generation(change.after()) {
            return Vec::new();
        }
        let all = budgets.in_namespace(change.object().meta().namespace.as_deref().unwrap_or_default());
        all.iter().filter(|b| plan::needs_scale(b)).map(|b| Key::of(b.as_ref())).collect()
    })
}

fn selector(budget: &PodDisruptionBudget) -> LabelSelector {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    LabelSelector::from_meta(selector).unwrap_or_else(|_| LabelSelector::nothing())
}

struct Budgets {
    client: Client,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    scales: Scales,
    recorder: Recorder,
    clock: Clock,
}

impl Budgets {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(budget) = self.budgets.get(key) else { return Ok(Next::Done) };
        let selector = selector(&budget);
        let mut pods = self.pods.in_namespace(key.namespace());
        pods.retain(|pod| selector.matches_labels(pod.metadata.labels.as_ref()));
        let now = self.clock.now();
        if pods.is_empty() {
            self.recorder.event(budget.as_ref(), EventType::Normal, "NoPods", "No matching pods found");
        }
        let mut sum = None;
        if plan::needs_scale(&budget) {
            match self.scales.of(&pods).await {
                Ok(scale) => {
                    self.warn_of_unmanaged(&budget, &scale.unmanaged);
                    sum = Some(scale.total);
                }
                Err(failure) => {
                    let text = error::chain(&failure);
                    let message = format!("Failed to calculate the number of expected pods: {text}");
                    let reason = "CalculateExpectedPodCountFailed";
                    self.recorder.event(budget.as_ref(), EventType::Warning, reason, message);
                    self.write(&budget, plan::failed(&budget, text, now)).await?;
                    return Err(Error::Scale(failure));
                }
            }
        }
        let plan = plan::plan(&budget, &pods, sum, now);
        for name in &plan.not_deleted {
            if let Some(pod) = pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(name)) {
                let message = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
                self.recorder.event(pod.as_ref(), EventType::Warning, "NotDeleted", message);
            }
        }
        self.write(&budget, plan.status).await?;
        Ok(plan.requeue.map_or(Next::Done, Next::After))
    }

    fn warn_of_unmanaged(&self, budget: &PodDisruptionBudget, unmanaged: &[String]) {
        if unmanaged.is_empty() {
            return;
        }
        let message = format!(
            "Pods selected by this PodDisruptionBudget are not managed by a controller, so that the status cannot be \
             computed correctly: {}. Set .spec.minAvailable to an integer to count them.",
            unmanaged.join(", ")
        );
        self.recorder.event(budget, EventType::Warning, "UnmanagedPods", message);
    }

    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), Error> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        // Written with the version it was computed from: an eviction granted meanwhile makes it a conflict.
        let wanted = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        selects::write_status(&self.client, &wanted).await.map_err(Error::Status)
    }
}
