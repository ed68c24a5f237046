//! Sends a pod's status to the API: only changes, one request at a time, never losing the last one.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, Request};
use kube::{Api, Client, Resource as _};
use serde::Deserialize;

use crate::client::error;
use crate::kubelet::spec;
use crate::kubelet::status::patch::patch;

/// How a request ended.
#[derive(Clone, Debug)]
pub enum Sent {
    /// The API holds a pod of this version now, which the informer will show.
    Done(Option<u64>),
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

/// What is read of the answer to a patch: the pod itself comes by way of the informer, whose copy is the only one.
#[derive(Debug, Deserialize)]
struct Written {
    metadata: WrittenMetadata,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMetadata {
    resource_version: String,
}

/// The version of a pod as a number: versions of one store are numbers that grow.
pub fn version(pod: &Pod) -> Option<u64> {
    pod.metadata.resource_version.as_ref().and_then(|v| v.parse().ok())
}

/// Sends one patch.
pub async fn send(client: Client, base: Arc<Pod>, patch: serde_json::Value) -> Sent {
    let name = spec::name(&base);
    let request = Request::new(Pod::url_path(&(), Some(spec::namespace(&base))));
    let params = PatchParams::default();
    let request = match request.patch_subresource("status", name, &params, &Patch::Strategic(patch)) {
        Ok(request) => request,
        Err(error) => {
            tracing::error!(pod = name, error = &error as &dyn std::error::Error, "pod status not writable");
            return Sent::Gone;
        }
    };
    match client.request::<Written>(request).await {
        Ok(written) => Sent::Done(written.metadata.resource_version.parse().ok()),
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

/// The newer of two states of the same object.
pub fn newer(a: Arc<Pod>, b: Arc<Pod>) -> Arc<Pod> {
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
