//! The garbage collector: deletes objects whose owners have gone, and carries out foreground and orphaning deletion.
//!
//! [`graph`] knows every deletable object and its owner references, fed by metadata-only watches of every kind that
//! discovery shows. Changes put uids into a queue; [`decide`] says, from the graph alone, what an object needs; only
//! then the API is asked and written to. An owner that the graph does not know is looked up by name and compared by
//! uid before anything is deleted. All writes carry the uid and resourceVersion that they were decided on.

mod act;
mod decide;
mod feed;
mod graph;

use super::{Context, discovery};
use crate::client::{Controller, Key, Next, WorkQueue, backoff::Backoff, error};
use act::Collector;
use feed::{Feed, Kinds};
use futures::FutureExt;
use graph::Graph;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

const WORKERS: usize = 8;
/// One kind that cannot be listed does not hold up all others for longer than this.
const FIRST_SYNC: Duration = Duration::from_secs(30);
/// New kinds tend to come in groups; they are looked up together.
const REDISCOVERY_PAUSE: Duration = Duration::from_secs(1);

pub use act::Error;

/// What the watches, the workers and discovery share.
struct Shared {
    graph: Mutex<Graph>,
    kinds: Mutex<Kinds>,
    queue: Arc<WorkQueue<Key>>,
    /// A definition of kinds has changed.
    kinds_changed: Notify,
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let controller = Controller::new("garbage-collector").workers(WORKERS);
    let shared = Arc::new(Shared {
        graph: Mutex::new(Graph::default()),
        kinds: Mutex::new(Kinds::default()),
        queue: controller.queue(),
        kinds_changed: Notify::new(),
    });
    let collector = Arc::new(Collector {
        client: context.client.clone(),
        shared: shared.clone(),
        recorder: context.recorder.clone(),
        absent: Mutex::default(),
    });
    let watches = stop.child_token();
    let _end_watches = watches.clone().drop_guard();
    let follow = follow_kinds(&context, &shared, &watches);
    let work = async {
        // Before all kinds are known to the graph, "has no dependents" would be a guess.
        match tokio::time::timeout(FIRST_SYNC, shared.first_complete()).await {
            Ok(()) => info!(objects = shared.graph().len(), "garbage collector knows all objects"),
            Err(_elapsed) => warn!("some kinds could not be listed, collecting garbage without them"),
        }
        let reconcile = move |key: Key| {
            let collector = collector.clone();
            async move { collector.attempt(key.as_str()).await.map(|()| Next::Done) }
        };
        controller.run(reconcile, stop.clone()).await;
    };
    let both = async { tokio::join!(follow, work) };
    stop.run_until_cancelled(both).await;
}

/// Watches every deletable kind; looks for new ones when a definition of kinds changes.
async fn follow_kinds(context: &Context, shared: &Arc<Shared>, stop: &CancellationToken) {
    let mut watched = HashMap::new();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    loop {
        match discovery::discover(&context.client).await {
            Ok(found) => {
                backoff.reset();
                update_watches(context, shared, stop, &mut watched, &found).await;
                if found.stale.is_empty() {
                    shared.kinds_changed.notified().await;
                } else {
                    debug!(stale = ?found.stale, "not all kinds are known");
                }
                tokio::time::sleep(REDISCOVERY_PAUSE).await;
            }
            Err(failure) => {
                warn!(error = error::chain(&failure), "cannot discover kinds, trying again");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

/// How a kind is watched.
enum Watch {
    /// By a metadata watch of its own, until the token is cancelled.
    Own(CancellationToken),
    /// Through the informer that other loops use too.
    Shared(feed::SharedFeed),
}

async fn update_watches(
    context: &Context,
    shared: &Arc<Shared>,
    stop: &CancellationToken,
    watched: &mut HashMap<discovery::ResourceType, Watch>,
    found: &discovery::Discovered,
) {
    let wanted: Vec<_> = found.types.iter().filter(|row| feed::is_collectable(row)).collect();
    for row in &wanted {
        if !watched.contains_key(*row) {
            let kind = shared.kinds().add((*row).clone());
            let watch = match feed::share(&context.informers, row, Feed { shared: shared.clone(), kind }) {
                Ok(feed) => Watch::Shared(feed),
                Err(feed) => {
                    let token = stop.child_token();
                    context.informers.metadata(&row.resource, feed, &token);
                    Watch::Own(token)
                }
            };
            watched.insert((*row).clone(), watch);
        }
    }
    if found.stale.is_empty() {
        watched.retain(|row, watch| {
            let keep = wanted.contains(&row);
            if !keep {
                if let Watch::Own(token) = watch {
                    token.cancel();
                }
                shared.forget_kind(row);
            }
            keep
        });
    }
    for (row, watch) in watched.iter_mut() {
        if let Watch::Shared(feed) = watch {
            feed.complete.as_mut().await;
            feed.complete = std::future::ready(()).boxed();
            shared.kinds().listed_elsewhere(row);
        }
    }
    shared.kinds().discovered();
}

impl Shared {
    fn graph(&self) -> std::sync::MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kinds(&self) -> std::sync::MutexGuard<'_, Kinds> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, uids: impl IntoIterator<Item = graph::Uid>) {
        for uid in uids {
            self.queue.add(Key::cluster(&uid));
        }
    }

    fn forget_kind(&self, row: &discovery::ResourceType) {
        let kind = self.kinds().remove(row);
        if let Some(kind) = kind {
            let uids = self.graph().replace(kind, Vec::new());
            self.enqueue(uids);
        }
    }

    async fn first_complete(&self) {
        let mut complete = self.kinds().complete.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _sender_is_alive = complete.wait_for(|complete| *complete).await;
    }
}

#[cfg(test)]
mod tests;
