//! Carrying out the plan of a CronJob.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio_util::sync::CancellationToken;

use super::plan::{self, Start};
use crate::client::{Clock, Controller, EventType, Informer, Key, Next, Recorder, error, owner};
use crate::controllers::Context;
use crate::controllers::workload::{claims, failure_text, selects};

const WORKERS: usize = 5;

/// Why a CronJob could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A Job could not be looked up.
    #[error("get Job")]
    Get(#[source] kube::Error),
    /// A Job could not be made.
    #[error("create Job")]
    Create(#[source] kube::Error),
    /// A Job could not be deleted.
    #[error("delete Job")]
    Delete(#[source] kube::Error),
    /// The status could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
}

/// Runs the CronJob controller until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, clock, .. } = context;
    let (crons, jobs) = (informers.get::<CronJob>(), informers.get::<Job>());
    let controller =
        Controller::new("cronjob").workers(WORKERS).for_each(&crons).owned_by::<CronJob, _>(&jobs);
    let this = Arc::new(CronJobs { client, crons, jobs, recorder, clock });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

struct CronJobs {
    client: Client,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    recorder: Recorder,
    clock: Clock,
}

impl CronJobs {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(cron) = self.crons.get(key) else { return Ok(Next::Done) };
        let cron = cron.as_ref();
        let uid = cron.metadata.uid.as_deref().unwrap_or_default();
        let mut jobs = self.jobs.owned_by(uid);
        jobs.retain(|job| owner::is_controlled_by(job.as_ref(), uid));
        let lost = self.lost(cron, &jobs).await?;
        let plan = plan::plan(cron, &jobs, &lost, self.clock.now());
        for (event_type, reason, message) in plan.events {
            self.recorder.event(cron, event_type, reason, message);
        }
        for job in &plan.forget {
            self.delete(cron, job).await?;
        }
        let status = match plan.start {
            None => plan.status,
            Some(start) => self.start(cron, plan.status, start).await?,
        };
        self.write_status(cron, status).await?;
        Ok(plan.requeue.map_or(Next::Done, Next::After))
    }

    /// The uids of active Jobs that the server does not know either.
    async fn lost(&self, cron: &CronJob, jobs: &[Arc<Job>]) -> Result<Vec<String>, Error> {
        let api: Api<Job> = claims::api_beside(&self.client, &cron.metadata);
        let active = cron.status.iter().flat_map(|status| status.active.iter().flatten());
        let mut lost = Vec::new();
        for known in active.filter(|known| jobs.iter().all(|job| job.metadata.uid != known.uid)) {
            let name = known.name.as_deref().unwrap_or_default();
            let live = api.get_opt(name).await.map_err(Error::Get)?;
            if live.is_none_or(|job| job.metadata.uid != known.uid) {
                lost.extend(known.uid.clone());
            }
        }
        Ok(lost)
    }

    async fn start(
        &self,
        cron: &CronJob,
        mut status: CronJobStatus,
        start: Start,
    ) -> Result<CronJobStatus, Error> {
        for job in &start.replaces {
            self.delete(cron, job).await?;
            let active = status.active.get_or_insert_default();
            active.retain(|known| known.uid != job.metadata.uid);
        }
        let api: Api<Job> = claims::api_beside(&self.client, &cron.metadata);
        let name = start.job.metadata.name.as_deref().unwrap_or_default();
        let made = match api.create(&PostParams::default(), &start.job).await {
            Ok(made) => {
                let message = format!("Created job {name}");
                self.recorder.event(cron, EventType::Normal, "SuccessfulCreate", message);
                made
            }
            // Made before a crash, or by an earlier look at an older copy.
            Err(failure) if error::is_already_exists(&failure) => {
                let there = api.get(name).await.map_err(Error::Get)?;
                let uid = cron.metadata.uid.as_deref().unwrap_or_default();
                if !owner::is_controlled_by(&there, uid) {
                    return Err(Error::Create(failure));
                }
                there
            }
            Err(failure) if error::is_namespace_terminating(&failure) => return Ok(status),
            Err(failure) => {
                let message = format!("Error creating job: {}", failure_text(&failure));
                self.recorder.event(cron, EventType::Warning, "FailedCreate", message);
                return Err(Error::Create(failure));
            }
        };
        Ok(plan::started(status, &made, start.at))
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<(), Error> {
        let api: Api<Job> = claims::api_beside(&self.client, &job.metadata);
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let preconditions = Preconditions { uid: job.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match api.delete(name, &parameters).await {
            Ok(_) => {
                self.recorder.event(
                    cron,
                    EventType::Normal,
                    "SuccessfulDelete",
                    format!("Deleted job {name}"),
                );
                Ok(())
            }
            Err(failure) if error::is_not_found(&failure) => Ok(()),
            Err(failure) => {
                let message = format!("Deleted job: {}", failure_text(&failure));
                self.recorder.event(cron, EventType::Warning, "FailedDelete", message);
                Err(Error::Delete(failure))
            }
        }
    }

    async fn write_status(&self, cron: &CronJob, mut status: CronJobStatus) -> Result<(), Error> {
        status.active = status.active.filter(|active| !active.is_empty());
        if cron.status.clone().unwrap_or_default() == status {
            return Ok(());
        }
        let wanted = CronJob { status: Some(status), ..cron.clone() };
        selects::write_status(&self.client, &wanted).await.map_err(Error::Status)
    }
}
