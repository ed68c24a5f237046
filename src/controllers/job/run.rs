//! Carrying out the plan of a Job: claims, pods, status, finalizers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::plan::{self, Plan};
use super::view::{FINALIZER, Input};
use super::{orphans, pod};
use crate::client::{Clock, Controller, Informer, Key, Next, Recorder, error};
use crate::controllers::Context;
use crate::controllers::workload::control::PodControl;
use crate::controllers::workload::{batch, claims, pods, selects};

const WORKERS: usize = 5;
/// The value of `spec.managedBy` that means this controller.
const OURSELVES: &str = "kubernetes.io/job-controller";

/// Why a Job could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its pods cannot be told.
    #[error("claim pods")]
    Claim(#[source] selects::Error),
    /// A pod could not be created.
    #[error("create pod")]
    Create(#[source] kube::Error),
    /// A pod could not be deleted.
    #[error("delete pod")]
    Delete(#[source] kube::Error),
    /// The status could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
    /// A pod that is counted could not be told so.
    #[error("remove finalizer of pod")]
    Release(#[source] kube::Error),
}

/// Runs the Job controller until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, clock, .. } = context;
    let (jobs, pods) = (informers.get::<Job>(), informers.get::<Pod>());
    let control = PodControl::new(client.clone(), pods.clone(), recorder.clone());
    let possible_owners = jobs.clone();
    let controller = Controller::new("job")
        .workers(WORKERS)
        .for_each(&jobs)
        .owned_by::<Job, _>(&pods)
        .watch(&pods, move |change| selects::possible_owners(&possible_owners, change));
    let leftovers = orphans::run(client.clone(), jobs.clone(), pods, stop.clone());
    let this = Arc::new(Jobs { client, jobs, control, recorder, clock, written: Mutex::default() });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    tokio::join!(controller.run(reconcile, stop), leftovers);
}

struct Jobs {
    client: Client,
    jobs: Informer<Job>,
    control: PodControl,
    recorder: Recorder,
    clock: Clock,
    /// The version of each Job that our last status write made: nothing is counted from an older copy.
    written: Mutex<HashMap<Key, String>>,
}

impl Jobs {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(job) = self.jobs.get(key) else {
            self.control.forget(key);
            self.written().remove(key);
            return Ok(Next::Done);
        };
        let job = job.as_ref();
        let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if manager.is_some_and(|manager| manager != OURSELVES) {
            return Ok(Next::Done);
        }
        if self.written().get(key).is_some_and(|version| !self.jobs.has_seen(version)) {
            // The event that brings the newer copy brings the key back.
            return Ok(Next::Done);
        }
        let settled = self.control.is_settled(key, job.metadata.uid.as_deref());
        let claimed = selects::claim(&self.client, job, self.control.pods(), |_| true).await;
        let owned = claimed.map_err(Error::Claim)?;
        let plan = plan::plan(&Input { job, pods: &owned, settled, now: self.clock.now() });
        self.carry_out(key, job, plan).await
    }

    async fn carry_out(&self, key: &Key, job: &Job, plan: Plan) -> Result<Next, Error> {
        let deleted = self.control.delete_all(job, key, &plan.delete).await;
        let made: Vec<Pod> = plan.create.iter().map(|order| pod::build(job, order)).collect();
        let create = |index: usize| self.control.create(job, key, &made[index]).boxed();
        let created = batch::slow_start(made.len(), create).await;
        let mut status = plan.status;
        if created.succeeded < made.len() {
            let missed = i32::try_from(made.len() - created.succeeded).unwrap_or(i32::MAX);
            status.active = status.active.map(|active| active.saturating_sub(missed));
        }
        if job.status.as_ref() != Some(&status) {
            let wanted = Job { status: Some(status), ..job.clone() };
            self.write_status(key, &wanted).await?;
            for (event_type, reason, message) in plan.events {
                self.recorder.event(job, event_type, &reason, message);
            }
        }
        let released = plan.release.into_iter().map(|pod| release(&self.client, pod).boxed());
        let released: Result<Vec<()>, _> = stream::iter(released.collect::<Vec<_>>())
            .buffer_unordered(batch::CONCURRENCY)
            .try_collect()
            .await;
        created.error.map_or(Ok(()), |failure| Err(Error::Create(failure)))?;
        deleted.map_err(Error::Delete)?;
        released.map_err(Error::Release)?;
        Ok(plan.requeue.map_or(Next::Done, Next::After))
    }

    async fn write_status(&self, key: &Key, job: &Job) -> Result<(), Error> {
        let api: Api<Job> = claims::api_beside(&self.client, &job.metadata);
        let name = job.metadata.name.as_deref().unwrap_or_default();
        match api.replace_status(name, &PostParams::default(), job).await {
            Ok(written) => {
                let version = written.metadata.resource_version.unwrap_or_default();
                self.written().insert(key.clone(), version);
                Ok(())
            }
            Err(failure) if error::is_not_found(&failure) => Ok(()),
            Err(failure) => Err(Error::Status(failure)),
        }
    }

    fn written(&self) -> std::sync::MutexGuard<'_, HashMap<Key, String>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the tracking finalizer off a pod; one that is gone is fine.
pub(super) async fn release(client: &Client, pod: Arc<Pod>) -> kube::Result<()> {
    let api: Api<Pod> = claims::api_beside(client, &pod.metadata);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let patch = json!({"metadata": {
        "uid": pod.metadata.uid,
        "$deleteFromPrimitiveList/finalizers": [FINALIZER],
    }});
    match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Err(failure) if !error::is_not_found(&failure) && !pods::is_replaced(&failure) => Err(failure),
        _ => Ok(()),
    }
}
