//! The runner of level-triggered controllers.
//!
//! A controller is a function of the current state for one key. The runner turns changes of informers into keys,
//! waits until the informers have synced, calls the function with as many keys at once as there are workers, and
//! repeats a failed key with a growing delay. A panic in the function counts as a failure of that key alone.

use super::{Change, Informer, Key, error, informer::HandlerGuard, owner, queue::Work, queue::WorkQueue};
use futures::{FutureExt, future::BoxFuture};
use kube::Resource;
use std::{fmt, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error as log_error, info_span, trace, warn};

/// What a reconcile asks for when it succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something changes.
    Done,
    /// Another look after this time, or earlier when something changes.
    After(Duration),
}

/// A controller under construction: which changes concern which keys. [`run`](Self::run) starts it.
pub struct Controller {
    name: &'static str,
    queue: Arc<WorkQueue<Key>>,
    workers: usize,
    guards: Vec<HandlerGuard>,
    synced: Vec<BoxFuture<'static, ()>>,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("name", &self.name).field("workers", &self.workers).finish()
    }
}

impl Controller {
    /// A controller that watches nothing yet. The name appears in logs and metrics.
    pub fn new(name: &'static str) -> Self {
        Self { name, queue: WorkQueue::new(name), workers: 1, guards: Vec::new(), synced: Vec::new() }
    }

    /// How many keys are reconciled at once; 1 unless set.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// The queue, for keys that do not come from an informer.
    pub fn queue(&self) -> Arc<WorkQueue<Key>> {
        self.queue.clone()
    }

    /// Every change of an object concerns its own key.
    pub fn for_each<K: Resource + Send + Sync + 'static>(self, informer: &Informer<K>) -> Self {
        self.watch(informer, |change| vec![Key::of(change.object().as_ref())])
    }

    /// Every change of an object concerns its controller (now and before) if that is of kind `O`.
    pub fn owned_by<O, K>(self, informer: &Informer<K>) -> Self
    where
        O: Resource<DynamicType = ()>,
        K: Resource + Send + Sync + 'static,
    {
        let owner_kind = (O::kind(&()), O::group(&()));
        self.watch(informer, move |change| {
            let states = [change.before(), change.after()];
            let owners = states.into_iter().flatten().filter_map(|object| {
                let reference = owner::controller_of(object.as_ref())?;
                let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
                let namespace = object.meta().namespace.as_deref().unwrap_or_default();
                (reference.kind == owner_kind.0 && group == owner_kind.1)
                    .then(|| Key::new(namespace, &reference.name))
            });
            let mut keys: Vec<Key> = owners.collect();
            keys.dedup();
            keys
        })
    }

    /// A change concerns the keys that `keys_of` returns. It runs in the informer's task: quick, no blocking.
    pub fn watch<K, F>(mut self, informer: &Informer<K>, keys_of: F) -> Self
    where
        K: Resource + Send + Sync + 'static,
        F: Fn(&Change<K>) -> Vec<Key> + Send + Sync + 'static,
    {
        let queue = self.queue.clone();
        self.guards.push(informer.add_handler(move |change| {
            for key in keys_of(change) {
                queue.add(key);
            }
        }));
        self.after(informer)
    }

    /// Work starts only when `informer` has synced; its changes concern no key.
    pub fn after<K: Resource + Send + Sync + 'static>(mut self, informer: &Informer<K>) -> Self {
        let informer = informer.clone();
        self.synced.push(async move { informer.synced().await }.boxed());
        self
    }

    /// Reconciles until `stop`; then the reconciles in progress are cut off at their next await.
    pub async fn run<F, Fut, E>(self, reconcile: F, stop: CancellationToken)
    where
        F: Fn(Key) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Next, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let Self { name, queue, workers, guards, synced } = self;
        if stop.run_until_cancelled(futures::future::join_all(synced)).await.is_none() {
            queue.shut_down();
            return;
        }
        debug!(controller = name, workers, "controller started");
        let reconcile = Arc::new(reconcile);
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            let (queue, reconcile, stop) = (queue.clone(), reconcile.clone(), stop.clone());
            tasks.spawn(async move {
                let work = async {
                    while let Some(work) = queue.next().await {
                        reconcile_one(name, &queue, work, reconcile.as_ref()).await;
                    }
                };
                stop.run_until_cancelled(work).await;
            });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(failure) = ended {
                log_error!(controller = name, error = %failure, "worker ended abnormally");
            }
        }
        queue.shut_down();
        drop(guards);
        debug!(controller = name, "controller stopped");
    }
}

async fn reconcile_one<F, Fut, E>(
    name: &'static str,
    queue: &Arc<WorkQueue<Key>>,
    work: Work<Key>,
    reconcile: &F,
) where
    F: Fn(Key) -> Fut,
    Fut: Future<Output = Result<Next, E>> + Send,
    E: std::error::Error + 'static,
{
    let key = work.key().clone();
    let span = info_span!("reconcile", controller = name, %key);
    let attempt = AssertUnwindSafe(async { reconcile(key.clone()).await });
    let outcome = attempt.catch_unwind().instrument(span.clone()).await;
    let metrics = queue.metrics();
    let _in_span = span.enter();
    match outcome {
        Ok(Ok(next)) => {
            queue.forget(&key);
            trace!(?next, "reconciled");
            if let Next::After(delay) = next {
                metrics.requeues.inc();
                queue.add_after(key, delay);
            } else {
                metrics.successes.inc();
            }
        }
        Ok(Err(failure)) => {
            metrics.errors.inc();
            metrics.failures.inc();
            let delay = queue.add_rate_limited(key);
            let cause = error::chain(&failure);
            if error::is_conflict_in_chain(&failure) {
                debug!(error = cause, ?delay, "somebody else wrote first, trying again");
            } else {
                warn!(error = cause, ?delay, "reconcile failed, trying again");
            }
        }
        Err(panic) => {
            metrics.panics.inc();
            metrics.failures.inc();
            let delay = queue.add_rate_limited(key);
            log_error!(panic = panic_text(panic.as_ref()), ?delay, "reconcile panicked, trying again");
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}

#[cfg(test)]
mod tests;
