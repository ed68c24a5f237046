//! Creating and deleting the pods of a workload, with upstream's events and with memory of one's own writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::batch::CONCURRENCY;
use super::claims::{self, Object};
use super::expectations::{Expectations, Seen};
use super::{ORPHANS, failure_text, orphan_namespace, pods};
use crate::client::{EventType, Informer, Key, Recorder, error};

/// What a controller creates and deletes pods with.
#[derive(Debug)]
pub struct PodControl {
    pods: Informer<Pod>,
    recorder: Recorder,
    client: ClientHandle,
    expectations: Expectations,
}

/// A client, which has no `Debug` of its own.
struct ClientHandle(Client);

impl std::fmt::Debug for ClientHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl PodControl {
    /// Adds the index that adoption needs.
    pub fn new(client: Client, pods: Informer<Pod>, recorder: Recorder) -> Self {
        pods.add_index(ORPHANS, |pod: &Pod| orphan_namespace(pod));
        Self { pods, recorder, client: ClientHandle(client), expectations: Expectations::default() }
    }

    /// The pods as the cache shows them.
    pub fn pods(&self) -> &Informer<Pod> {
        &self.pods
    }

    /// Forgets an owner that is gone.
    pub fn forget(&self, key: &Key) {
        self.expectations.forget(key.as_str());
    }

    /// The cache shows everything that the earlier reconciles of the owner `uid` did.
    pub fn is_settled(&self, key: &Key, uid: Option<&str>) -> bool {
        // The revision is read before the pods, so that no pod up to that revision can be missing.
        let revision = self.pods.revision();
        let owned = self.pods.owned_by(uid.unwrap_or_default());
        let by_uid: HashMap<_, _> =
            owned.iter().map(|pod| (pod.metadata.uid.as_deref().unwrap_or_default(), pod)).collect();
        self.expectations.satisfied(key.as_str(), revision, Instant::now(), |uid| match by_uid.get(uid) {
            None => Seen::Absent,
            Some(pod) if pods::is_deleting(pod) => Seen::Deleting,
            Some(_) => Seen::Alive,
        })
    }

    /// Creates a pod for `owner`. A pod that a namespace refuses because it goes away is not missed.
    ///
    /// # Errors
    /// The server refused; an event on the owner says so.
    pub async fn create<O: Object>(&self, owner: &O, key: &Key, pod: &Pod) -> kube::Result<()> {
        let api = claims::api_beside::<Pod>(&self.client.0, owner.meta());
        match api.create(&PostParams::default(), pod).await {
            Ok(created) => {
                let meta = &created.metadata;
                let revision = meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
                let uid = meta.uid.as_deref().unwrap_or_default();
                self.expectations.created(key.as_str(), uid, revision, Instant::now());
                let message = format!("Created pod: {}", meta.name.as_deref().unwrap_or_default());
                self.recorder.event(owner, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(failure) if error::is_namespace_terminating(&failure) => Ok(()),
            Err(failure) => {
                let message = format!("Error creating: {}", failure_text(&failure));
                self.recorder.event(owner, EventType::Warning, "FailedCreate", message);
                Err(failure)
            }
        }
    }

    /// Deletes exactly this pod of `owner`; one that is gone already is fine.
    ///
    /// # Errors
    /// The server refused; an event on the owner says so.
    pub async fn delete<O: Object>(&self, owner: &O, key: &Key, pod: &Pod) -> kube::Result<()> {
        let api = claims::api_beside::<Pod>(&self.client.0, owner.meta());
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.clone();
        let preconditions = Preconditions { uid: uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(name, &parameters).await {
            Ok(_) => {
                self.expectations.deleted(key.as_str(), uid.as_deref().unwrap_or_default(), Instant::now());
                let message = format!("Deleted pod: {name}");
                self.recorder.event(owner, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(failure) if error::is_not_found(&failure) => Ok(()),
            Err(failure) => {
                let message = format!("Error deleting: {}", failure_text(&failure));
                self.recorder.event(owner, EventType::Warning, "FailedDelete", message);
                Err(failure)
            }
        }
    }

    /// Deletes all of `doomed`, several at a time.
    ///
    /// # Errors
    /// The first error; the other pods are deleted all the same.
    pub async fn delete_all<O: Object>(&self, owner: &O, key: &Key, doomed: &[Arc<Pod>]) -> kube::Result<()> {
        let calls: Vec<_> = doomed.iter().map(|pod| self.delete(owner, key, pod).boxed()).collect();
        let results: Vec<_> = stream::iter(calls).buffer_unordered(CONCURRENCY).collect().await;
        results.into_iter().collect()
    }
}
