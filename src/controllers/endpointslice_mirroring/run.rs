//! Carrying out the mirroring.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio_util::sync::CancellationToken;

use super::plan::{self, CAPACITY, CONTROLLER, Plan};
use crate::client::{Change, Controller, EventType, Informer, Key, Next, Recorder};
use crate::controllers::Context;
use crate::controllers::endpointslice::plan::{MANAGED_BY, SERVICE_NAME};
use crate::controllers::endpointslice::writes::{Error, STALE_RETRY, Writes};

const WORKERS: usize = 5;
/// Index of the slices of this controller by the key of their Endpoints.
const MIRRORS: &str = "mirrors-of";

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
    let writes = Writes::new(client, slices.clone());
    let this = Arc::new(Mirrors { services, endpoints, slices, recorder, writes });
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
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    recorder: Recorder,
    writes: Writes,
}

impl Mirrors {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        if self.writes.is_cache_behind(key) {
            return Ok(Next::After(STALE_RETRY));
        }
        let slices: Vec<_> = self.slices.by_index(MIRRORS, key.as_str());
        let serves = self.services.get(key).is_some_and(|service| !has_selector(&service));
        let mirrored = self.endpoints.get(key).filter(|endpoints| serves && plan::is_mirrored(endpoints));
        let Some(endpoints) = mirrored else {
            self.writes.forget(key);
            self.writes.carry_out(key, Vec::new(), Vec::new(), slices).await?;
            return Ok(Next::Done);
        };
        let mut plan = plan::plan(&endpoints, &slices);
        self.tell(&endpoints, &plan);
        if endpoints.metadata.deletion_timestamp.is_some() {
            plan.create.clear();
        }
        self.writes.carry_out(key, plan.create, plan.update, plan.delete).await?;
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
}
