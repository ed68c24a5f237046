//! Pods that wait to be counted by a Job that is gone, has finished, or lost them: nobody will count them.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::run::release;
use super::view::{is_finished, is_tracked};
use crate::client::{Change, Controller, Informer, Key, Next};
use crate::controllers::workload::{ownership, selects::Selects};

/// Removes the finalizer of such pods until `stop`.
pub(super) async fn run(client: Client, jobs: Informer<Job>, pods: Informer<Pod>, stop: CancellationToken) {
    let all = pods.clone();
    let controller = Controller::new("job-orphan-pod")
        .watch(&pods, |change| {
            let tracked = change.after().filter(|pod| is_tracked(pod));
            tracked.map(|pod| Key::of(pod.as_ref())).into_iter().collect()
        })
        .watch(&jobs, move |change| pods_of_gone_job(&all, change));
    let reconcile = move |key: Key| {
        let (client, jobs, pods) = (client.clone(), jobs.clone(), pods.clone());
        async move {
            match pods.get(&key).filter(|pod| is_tracked(pod) && is_left_behind(pod, &jobs)) {
                Some(pod) => release(&client, pod).await.map(|()| Next::Done),
                None => Ok(Next::Done),
            }
        }
    };
    controller.run(reconcile, stop).await;
}

fn pods_of_gone_job(pods: &Informer<Pod>, change: &Change<Job>) -> Vec<Key> {
    if change.after().is_some_and(|job| !is_finished(job)) {
        return Vec::new();
    }
    let owned = pods.owned_by(change.object().metadata.uid.as_deref().unwrap_or_default());
    owned.iter().filter(|pod| is_tracked(pod)).map(|pod| Key::of(pod.as_ref())).collect()
}

/// No Job will count the pod.
fn is_left_behind(pod: &Pod, jobs: &Informer<Job>) -> bool {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let Some(owner) = ownership::controller_of(&pod.metadata) else {
        // A Job that selects it will adopt it.
        let selects =
            |job: &Job| job.selector().is_ok_and(|s| s.matches_labels(pod.metadata.labels.as_ref()));
        return !jobs.in_namespace(namespace).iter().any(|job| selects(job));
    };
    if owner.kind != "Job" {
        return true;
    }
    let job = jobs.find(namespace, &owner.name).filter(|job| job.metadata.uid.as_deref() == Some(&owner.uid));
    job.is_none_or(|job| is_finished(&job))
}
