//! Carrying out the plan of a service's Endpoints object.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use tokio_util::sync::CancellationToken;

use super::plan::{self, CONTROLLER, MANAGED_BY};
use crate::client::{Controller, Informer, Informers, Key, Next, error};
use crate::controllers::endpointslice::trigger::Triggers;
use crate::controllers::endpointslice::{select, selected, services_of_pod};
use crate::controllers::workload::claims;

/// How many services are reconciled at once.
const WORKERS: usize = 5;
/// How long to wait at most for the cache to show one's own writes.
const STALE_RETRY: Duration = Duration::from_secs(1);

/// Why a service's endpoints could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object could not be written.
    #[error("write Endpoints")]
    Write(#[source] kube::Error),
    /// The object of a service that is gone could not be deleted.
    #[error("delete Endpoints")]
    Delete(#[source] kube::Error),
}

/// Runs the Endpoints controller until `stop`.
pub async fn run(client: Client, informers: Informers, stop: CancellationToken) {
    let (services, pods) = (informers.get::<Service>(), informers.get::<Pod>());
    let endpoints = informers.get::<Endpoints>();
    let for_pods = services.clone();
    let controller = Controller::new("endpoint")
        .workers(WORKERS)
        .for_each(&services)
        .for_each(&endpoints)
        .watch(&pods, move |change| services_of_pod(&for_pods, change));
    let written = Mutex::default();
    let this =
        Arc::new(Objects { client, services, pods, endpoints, triggers: Triggers::default(), written });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

struct Objects {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    triggers: Triggers,
    /// The newest revision written for each service.
    written: Mutex<HashMap<Key, u64>>,
}

impl Objects {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(service) = self.services.get(key) else { return self.clean_up(key).await };
        if !select::is_selecting(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let written = self.written().get(key).copied().unwrap_or(0);
        if self.endpoints.revision() < written {
            return Ok(Next::After(STALE_RETRY));
        }
        let existing = self.endpoints.get(key);
        let selected = selected(&self.pods, &service);
        let trigger = self.triggers.observe(key, &service, selected.iter().map(AsRef::as_ref));
        let Some(wanted) = plan::plan(&service, &selected, existing.as_deref(), trigger) else {
            return Ok(Next::Done);
        };
        let api: Api<Endpoints> = claims::api_beside(&self.client, &service.metadata);
        let parameters = PostParams::default();
        let result = match existing {
            Some(_) => api.replace(key.name(), &parameters, &wanted).await,
            None => api.create(&parameters, &wanted).await,
        };
        match result {
            Ok(object) => {
                let version = object.metadata.resource_version.as_deref().and_then(|v| v.parse().ok());
                self.written().insert(key.clone(), version.unwrap_or(0));
                Ok(Next::Done)
            }
            Err(failure) if error::is_namespace_terminating(&failure) => Ok(Next::Done),
            Err(failure) => Err(Error::Write(failure)),
        }
    }

    fn written(&self) -> MutexGuard<'_, HashMap<Key, u64>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes the object of a service that is gone, if it is one of this controller's.
    async fn clean_up(&self, key: &Key) -> Result<Next, Error> {
        self.triggers.forget(key);
        self.written().remove(key);
        let Some(object) = self.endpoints.get(key) else { return Ok(Next::Done) };
        let manager = object.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
        if manager.map(String::as_str) != Some(CONTROLLER) {
            return Ok(Next::Done);
        }
        let api: Api<Endpoints> = claims::api_beside(&self.client, &object.metadata);
        match api.delete(key.name(), &DeleteParams::default()).await {
            Err(failure) if !error::is_not_found(&failure) => Err(Error::Delete(failure)),
            _ => Ok(Next::Done),
        }
    }
}
