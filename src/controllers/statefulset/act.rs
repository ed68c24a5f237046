//! The writes of the StatefulSet controller: claims, pods and their events.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use super::{claims, identity};
use crate::client::{EventType, Informer, Recorder, error};
use crate::controllers::workload::claims::api_beside;
use crate::controllers::workload::failure_text;

/// What the writes are made with.
pub(super) struct Hands {
    pub(super) client: Client,
    pub(super) recorder: Recorder,
    pub(super) claims: Informer<PersistentVolumeClaim>,
}

impl Hands {
    /// Creates the pod's claims that are missing, then the pod.
    pub(super) async fn create(&self, set: &StatefulSet, ordinal: i32, pod: &Pod) -> kube::Result<()> {
        self.create_claims(set, ordinal).await?;
        let api: Api<Pod> = api_beside(&self.client, &set.metadata);
        let result = match api.create(&PostParams::default(), pod).await {
            // The cache lags behind, or a pod that is not ours has the name; its end is an event.
            Err(failure) if error::is_already_exists(&failure) => return Ok(()),
            Err(failure) if error::is_namespace_terminating(&failure) => return Ok(()),
            result => result.map(drop),
        };
        self.tell(set, "Create", &format!("Pod {}", identity::pod_name(set, ordinal)), result.as_ref().err());
        result
    }

    /// Creates the claims of a pod that are missing.
    pub(super) async fn create_claims(&self, set: &StatefulSet, ordinal: i32) -> kube::Result<()> {
        let api: Api<PersistentVolumeClaim> = api_beside(&self.client, &set.metadata);
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        for claim in claims::claims_for(set, ordinal) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            if self.claims.find(namespace, name).is_some() {
                continue;
            }
            let result = match api.create(&PostParams::default(), &claim).await {
                Err(failure) if error::is_already_exists(&failure) => continue,
                Err(failure) if error::is_namespace_terminating(&failure) => return Ok(()),
                result => result.map(drop),
            };
            let what = format!("Claim {name} Pod {}", identity::pod_name(set, ordinal));
            self.tell(set, "Create", &what, result.as_ref().err());
            result?;
        }
        Ok(())
    }

    /// Deletes exactly this pod.
    pub(super) async fn delete(&self, set: &StatefulSet, pod: &Pod) -> kube::Result<()> {
        let api: Api<Pod> = api_beside(&self.client, &pod.metadata);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let result = match api.delete(name, &parameters).await {
            Err(failure) if error::is_not_found(&failure) || error::is_conflict(&failure) => return Ok(()),
            result => result.map(drop),
        };
        self.tell(set, "Delete", &format!("Pod {name}"), result.as_ref().err());
        result
    }

    /// Gives a pod the labels back that it must have.
    pub(super) async fn mend(&self, set: &StatefulSet, pod: &Pod) -> kube::Result<()> {
        let Some(ordinal) = identity::ordinal(set, pod) else { return Ok(()) };
        let mut wanted = pod.clone();
        identity::identify(set, ordinal, &mut wanted);
        let api: Api<Pod> = api_beside(&self.client, &pod.metadata);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match api.replace(name, &PostParams::default(), &wanted).await {
            Err(failure) if !error::is_not_found(&failure) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Gives the claims of a pod the owners that the retention policy wants.
    pub(super) async fn own_claims(&self, set: &StatefulSet, pod: &Pod) -> kube::Result<()> {
        let Some(ordinal) = identity::ordinal(set, pod) else { return Ok(()) };
        let api: Api<PersistentVolumeClaim> = api_beside(&self.client, &set.metadata);
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        for claim in claims::claims_for(set, ordinal) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let Some(known) = self.claims.find(namespace, name) else { continue };
            let owners = claims::owners(set, pod, &known);
            if known.metadata.owner_references.as_deref().unwrap_or_default() == owners {
                continue;
            }
            let mut wanted = known.as_ref().clone();
            wanted.metadata.owner_references = Some(owners);
            match api.replace(name, &PostParams::default(), &wanted).await {
                Err(failure) if !error::is_not_found(&failure) => return Err(failure),
                _ => {}
            }
        }
        Ok(())
    }

    /// Records an event in upstream's words.
    fn tell(&self, set: &StatefulSet, verb: &str, what: &str, failure: Option<&kube::Error>) {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let action = verb.to_lowercase();
        match failure {
            None => {
                let outcome = if what.starts_with("Claim") { "success" } else { "successful" };
                let message = format!("{action} {what} in StatefulSet {name} {outcome}");
                self.recorder.event(set, EventType::Normal, &format!("Successful{verb}"), message);
            }
            Some(failure) => {
                let error = failure_text(failure);
                let message = format!("{action} {what} in StatefulSet {name} failed error: {error}");
                self.recorder.event(set, EventType::Warning, &format!("Failed{verb}"), message);
            }
        }
    }
}
