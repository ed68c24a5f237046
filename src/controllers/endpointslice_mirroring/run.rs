//! Carrying out the mirroring.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use tokio_util::sync::CancellationToken;

use super::plan::{self, CAPACITY, CONTROLLER, Plan};
use crate::client::{Change, Controller, EventType, Informer, Key, Next, Recorder, error};
use crate::controllers::Context;
use crate::controllers::endpointslice::plan::{MANAGED_BY, SERVICE_NAME};

const WORKERS: usize = 5;
/// How long to wait at most for the cache to show one's own writes.
const STALE_RETRY: Duration = Duration::from_secs(1);
/// Index of the slices of this controller by the key of their Endpoints.
const MIRRORS: &str = "mirrors-of";

/// Why the mirror of an Endpoints object could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A slice could not be created.
    #[error("create EndpointSlice")]
    Create(#[source] kube::Error),
    /// A slice could not be updated.
    #[error("update EndpointSlice")]
    Update(#[source] kube::Error),
    /// A slice could not be deleted.
    #[error("delete EndpointSlice")]
    Delete(#[source] kube::Error),
}

/// Runs the mirroring controller until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, .. } = context;
    let (services, endpoints) = (informers.get::<Service>(), informers.get::<Endpoints>());
    let slices = informers.get::<EndpointSlice>();
    slices.add_index(MIRRORS, |slice| key_of(slice).map(|key| key.to_string()).into_iter().collect());
    let controller = Controller::new("endpoint_slice_mirroring")
        .workers(WORKERS)
        .for_each(&endpoints)
        .watch(&services, |change| {
            let selector = |service: Option<&Arc<Service>>| service.map(|service| has_selector(service));
            let changed = selector(change.before()) != selector(change.after());
            if changed { vec![Key::of(change.object().as_ref())] } else { Vec::new() }
        })
        .watch(&slices, |change: &Change<EndpointSlice>| {
            [change.before(), change.after()]
                .into_iter()
                .flatten()
                .filter_map(|slice| key_of(slice))
                .collect()
        });
    let this = Arc::new(Mirrors { client, services, endpoints, slices, recorder, written: Mutex::default() });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

/// The Endpoints that a slice of this controller mirrors.
fn key_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    let ours = labels.get(MANAGED_BY).is_some_and(|manager| manager == CONTROLLER);
    let name = labels.get(SERVICE_NAME).filter(|_| ours)?;
    Some(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), name))
}

fn has_selector(service: &Service) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| !selector.is_empty())
}

struct Mirrors {
    client: Client,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    recorder: Recorder,
    /// The newest revision written for each object.
    written: Mutex<HashMap<Key, u64>>,
}

impl Mirrors {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let revision = self.written().get(key).copied().unwrap_or(0);
        if self.slices.revision() < revision {
            return Ok(Next::After(STALE_RETRY));
        }
        let slices: Vec<_> = self.slices.by_index(MIRRORS, key.as_str());
        let serves = self.services.get(key).is_some_and(|service| !has_selector(&service));
        let mirrored = self.endpoints.get(key).filter(|endpoints| serves && plan::is_mirrored(endpoints));
        let Some(endpoints) = mirrored else {
            self.written().remove(key);
            self.carry_out(key, Plan { delete: slices, ..Plan::default() }).await?;
            return Ok(Next::Done);
        };
        let mut plan = plan::plan(&endpoints, &slices);
        self.tell(&endpoints, &plan);
        if endpoints.metadata.deletion_timestamp.is_some() {
            plan.create.clear();
        }
        self.carry_out(key, plan).await?;
        Ok(Next::Done)
    }

    fn tell(&self, endpoints: &Endpoints, plan: &Plan) {
        if plan.invalid > 0 {
            let message =
                format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", plan.invalid);
            self.recorder.event(endpoints, EventType::Warning, "InvalidIPAddress", message);
        }
        if plan.skipped > plan.invalid {
            let message = format!(
                "A max of {CAPACITY} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses \
                 were skipped",
                plan.skipped
            );
            self.recorder.event(endpoints, EventType::Warning, "TooManyAddressesToMirror", message);
        }
    }

    async fn carry_out(&self, key: &Key, plan: Plan) -> Result<(), Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), key.namespace());
        let parameters = PostParams::default();
        for slice in plan.create {
            match api.create(&parameters, &slice).await {
                Ok(slice) => self.note(key, &slice),
                Err(failure) if error::is_namespace_terminating(&failure) => return Ok(()),
                Err(failure) => return Err(Error::Create(failure)),
            }
        }
        for slice in plan.update {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            let slice = api.replace(name, &parameters, &slice).await.map_err(Error::Update)?;
            self.note(key, &slice);
        }
        for slice in plan.delete {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            match api.delete(name, &DeleteParams::default()).await {
                Err(failure) if !error::is_not_found(&failure) => return Err(Error::Delete(failure)),
                _ => {}
            }
        }
        Ok(())
    }

    fn note(&self, key: &Key, slice: &EndpointSlice) {
        let version = slice.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        let mut written = self.written();
        let newest = written.entry(key.clone()).or_default();
        *newest = version.unwrap_or(0).max(*newest);
    }

    fn written(&self) -> MutexGuard<'_, HashMap<Key, u64>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
