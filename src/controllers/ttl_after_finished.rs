//! Deletes finished Jobs when the time to live after their end is over.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DeleteParams, Preconditions};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::job::view::condition;
use crate::client::{Controller, Key, Next, error};

/// Why a Job could not be deleted.
#[derive(Debug, thiserror::Error)]
#[error("delete finished Job")]
pub struct Error(#[source] kube::Error);

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, clock, .. } = context;
    let jobs = informers.get::<Job>();
    let controller = Controller::new("ttl-after-finished").workers(5).watch(&jobs, |change| {
        let mortal = change.after().filter(|job| expires_at(job).is_some());
        mortal.map(|job| Key::of(job.as_ref())).into_iter().collect()
    });
    let reconcile = move |key: Key| {
        let (client, jobs, now) = (client.clone(), jobs.clone(), clock.now());
        async move {
            let Some(job) = jobs.get(&key) else { return Ok(Next::Done) };
            let Some(end) = expires_at(&job) else { return Ok(Next::Done) };
            let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
            if !left.is_zero() {
                return Ok(Next::After(left));
            }
            // The version makes sure that nobody has prolonged the Job's life meanwhile.
            let (uid, resource_version) = (job.metadata.uid.clone(), job.metadata.resource_version.clone());
            let preconditions = Some(Preconditions { uid, resource_version });
            let parameters = DeleteParams { preconditions, ..DeleteParams::foreground() };
            let api: Api<Job> = Api::namespaced(client, key.namespace());
            match api.delete(key.name(), &parameters).await {
                Err(failure) if !error::is_not_found(&failure) => Err(Error(failure)),
                _ => Ok(Next::Done),
            }
        }
    };
    controller.run(reconcile, stop).await;
}

/// When the Job's time is over; `None` if it lives on.
fn expires_at(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let status = job.status.as_ref()?;
    let ended = condition(status, "Complete").or_else(|| condition(status, "Failed"))?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    ended.last_transition_time.as_ref()?.0.checked_add(SignedDuration::from_secs(ttl.into())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_finished_jobs_with_a_ttl_expire() {
        let job = |ttl: Option<i32>, type_: &str| -> Job {
            serde_json::from_value(json!({
                "spec": {"template": {}, "ttlSecondsAfterFinished": ttl},
                "status": {"conditions": [{"type": type_, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap()
        };
        let text = |job: &Job| expires_at(job).map(|at| at.to_string());
        assert_eq!(text(&job(Some(60), "Complete")).as_deref(), Some("2026-01-01T00:01:00Z"));
        assert_eq!(text(&job(Some(0), "Failed")).as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(text(&job(Some(60), "Suspended")), None);
        assert_eq!(text(&job(None, "Complete")), None);
    }
}
