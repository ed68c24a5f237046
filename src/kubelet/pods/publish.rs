//! Sends a pod's status to the API: only changes, one request at a time, never losing the last one.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};

use crate::client::error;
use crate::kubelet::spec;
use crate::kubelet::status::patch::patch;

/// How a request ended.
#[derive(Clone, Debug)]
pub enum Sent {
    /// The API holds this pod now.
    Done(Arc<Pod>),
    /// The pod is gone, or another one has its name.
    Gone,
    /// To be tried again.
    Failed,
}

/// What still has to be said about the pod: the patch from what the API holds to what is true.
pub fn pending(base: &Pod, status: &PodStatus) -> Option<serde_json::Value> {
    let empty = PodStatus::default();
    patch(spec::uid(base), base.status.as_ref().unwrap_or(&empty), status)
}

/// Sends one patch.
pub async fn send(client: Client, base: Arc<Pod>, patch: serde_json::Value) -> Sent {
    let api: Api<Pod> = Api::namespaced(client, spec::namespace(&base));
    let name = spec::name(&base);
    match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(pod) => Sent::Done(Arc::new(pod)),
        Err(e) if error::is_not_found(&e) || error::is_conflict(&e) => Sent::Gone,
        Err(e) => {
            tracing::warn!(pod = name, error = &e as &dyn std::error::Error, "pod status not written");
            Sent::Failed
        }
    }
}

/// Removes the API object of a pod whose containers are gone. True when nothing more is to be done.
pub async fn delete(client: Client, pod: Arc<Pod>) -> bool {
    let api: Api<Pod> = Api::namespaced(client, spec::namespace(&pod));
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(spec::name(&pod), &params).await {
        Ok(_) => true,
        Err(e) if error::is_not_found(&e) || error::is_conflict(&e) => true,
        Err(e) => {
            tracing::warn!(pod = spec::name(&pod), error = &e as &dyn std::error::Error, "pod not deleted");
            false
        }
    }
}

/// The newer of two states of the same object; versions of one store are numbers that grow.
pub fn newer(a: Arc<Pod>, b: Arc<Pod>) -> Arc<Pod> {
    let version = |p: &Pod| p.metadata.resource_version.as_ref().and_then(|v| v.parse::<u64>().ok());
    if version(&b) >= version(&a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::json;

    #[test]
    fn the_newer_state_wins_whatever_way_it_came() {
        let at = |version: &str| {
            let mut pod = fixture::pod(json!({"containers": []}));
            pod.metadata.resource_version = Some(version.into());
            Arc::new(pod)
        };
        for (a, b, want) in [("9", "10", "10"), ("10", "9", "10"), ("5", "5", "5")] {
            assert_eq!(newer(at(a), at(b)).metadata.resource_version.as_deref(), Some(want));
        }
    }

    #[test]
    fn nothing_is_sent_when_the_api_knows() {
        let mut pod = fixture::pod(json!({"containers": []}));
        let status = PodStatus { phase: Some("Running".into()), ..PodStatus::default() };
        assert_eq!(pending(&pod, &status).unwrap()["status"], json!({"phase": "Running"}));
        pod.status = Some(status.clone());
        assert_eq!(pending(&pod, &status), None);
    }
}
