//! Empties namespaces that are being deleted, and then lets them go.
//!
//! For a namespace with a deletion timestamp and the `kubernetes` finalizer: its pods are deleted first, then every
//! other kind that discovery shows, custom ones too. Conditions on the namespace say what is left and what failed. When
//! nothing is left the finalizer is removed, by which the namespace disappears.

mod content;
mod status;

use super::{Context, discovery::discover};
use crate::client::{Change, Clock, Controller, Informer, Key, Next, error};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, Client, api::PostParams};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// The finalizer in the spec of every namespace that this controller removes.
const FINALIZER: &str = "kubernetes";
const WORKERS: usize = 4;
/// A pod that disappears is a reason to look again, at most this often.
const POD_GONE_PAUSE: Duration = Duration::from_millis(250);
/// While something remains the pause between two looks doubles from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What went wrong with one namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace could not be read.
    #[error("get namespace")]
    Get(#[source] kube::Error),
    /// The kinds of the server could not be learnt.
    #[error("discover resources")]
    Discover(#[source] kube::Error),
    /// The conditions could not be written.
    #[error("update namespace conditions")]
    Status(#[source] kube::Error),
    /// The finalizer could not be removed.
    #[error("finalize namespace")]
    Finalize(#[source] kube::Error),
    /// Some content could not be deleted; the conditions say which.
    #[error("delete all content: {0}")]
    Content(String),
}

struct Namespaces {
    client: Client,
    clock: Clock,
    cache: Informer<Namespace>,
    /// How often each namespace was found not to be empty yet.
    looks: Mutex<HashMap<Key, u32>>,
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let cache = context.informers.get::<Namespace>();
    let pods = context.informers.get::<Pod>();
    let controller = Controller::new("namespace").workers(WORKERS).for_each(&cache);
    let (queue, going) = (controller.queue(), cache.clone());
    let watch_pods = pods.add_handler(move |change: &Change<Pod>| {
        if let (None, Some(namespace)) = (change.after(), &change.object().metadata.namespace) {
            let key = Key::cluster(namespace);
            if going.get(&key).is_some_and(|namespace| is_going(&namespace)) {
                queue.add_after(key, POD_GONE_PAUSE);
            }
        }
    });
    let this = Namespaces { client: context.client, clock: context.clock, cache, looks: Mutex::default() };
    let this = Arc::new(this);
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
    drop(watch_pods);
}

/// Deleted, and waiting for us.
fn is_going(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some() && has_finalizer(namespace)
}

fn has_finalizer(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == FINALIZER))
}

impl Namespaces {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        if !self.cache.get(key).is_some_and(|cached| is_going(&cached)) {
            self.forget(key);
            return Ok(Next::Done);
        }
        let api = Api::<Namespace>::all(self.client.clone());
        let Some(live) = api.get_opt(key.name()).await.map_err(Error::Get)? else { return Ok(Next::Done) };
        if !is_going(&live) {
            return Ok(Next::Done);
        }
        // From now on nothing new is admitted, so what is deleted below stays deleted.
        let live = self.publish(&api, live, status::terminating).await?;
        let discovered = discover(&self.client).await.map_err(Error::Discover)?;
        let mut report = content::empty(&self.client, key.name(), &discovered).await;
        if report.is_empty() && report.deleted {
            // What was under way when the phase changed may have arrived behind the deletion.
            report = content::empty(&self.client, key.name(), &discovered).await;
        }
        let now = self.clock.now();
        let live = self.publish(&api, live, |namespace| status::apply(namespace, &report, now)).await?;
        if report.is_empty() && discovered.stale.is_empty() {
            self.finalize(&api, live).await?;
            self.forget(key);
            return Ok(Next::Done);
        }
        if let Some(failure) = report.failures.first() {
            return Err(Error::Content(failure.clone()));
        }
        debug!(namespace = %key, remaining = report.remaining(), "namespace is not empty yet");
        Ok(Next::After(self.pause(key)))
    }

    fn pause(&self, key: &Key) -> Duration {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let count = looks.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        crate::client::backoff::exponential(FIRST_PAUSE, LONGEST_PAUSE, *count - 1)
    }

    fn forget(&self, key: &Key) {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Writes the status if `edit` changes it; returns the newest state.
    async fn publish(
        &self,
        api: &Api<Namespace>,
        live: Namespace,
        edit: impl FnOnce(&mut Namespace) -> bool,
    ) -> Result<Namespace, Error> {
        let mut wanted = live.clone();
        if !edit(&mut wanted) {
            return Ok(live);
        }
        let name = live.metadata.name.as_deref().unwrap_or_default();
        // It carries the resourceVersion that it was decided on.
        api.replace_status(name, &PostParams::default(), &wanted).await.map_err(Error::Status)
    }

    async fn finalize(&self, api: &Api<Namespace>, mut live: Namespace) -> Result<(), Error> {
        let name = live.metadata.name.clone().unwrap_or_default();
        if let Some(finalizers) = live.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        match api.replace_subresource("finalize", &name, &PostParams::default(), &live).await {
            Ok(_) => Ok(()),
            Err(failure) if error::is_not_found(&failure) => Ok(()),
            Err(failure) => Err(Error::Finalize(failure)),
        }
    }
}

#[cfg(test)]
mod tests;
