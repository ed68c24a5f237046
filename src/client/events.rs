//! The event recorder: tells users what happened to their objects, as core/v1 `Event`s.
//!
//! Recording never waits: an event goes into a bounded queue, and when that is full it is dropped and counted. A
//! background task merges repetitions into a count, groups similar messages and limits each object's rate, as
//! upstream's recorder does.

mod correlator;

use super::{Clock, error};
use correlator::{Correlator, Write};
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

/// Events that wait to be written; more are dropped.
const QUEUE: usize = 1000;
/// Attempts to write one event while the server cannot be reached.
const ATTEMPTS: u32 = 12;
/// How long a recorder that is stopped may take to write what is queued.
const FLUSH: Duration = Duration::from_secs(2);
/// Pause between the attempts.
const RETRY: Duration = Duration::from_secs(5);

/// Whether an event tells of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Ordinary progress.
    Normal,
    /// Something a user should look at.
    Warning,
}

impl EventType {
    /// As it is spelled in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One thing that happened, before it is merged with others.
#[derive(Debug, Clone)]
struct Occurrence {
    regarding: ObjectReference,
    event_type: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Records events for one component. Cloning gives another handle on the same queue.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
    dropped: Arc<AtomicU64>,
    clock: Clock,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("dropped", &self.dropped()).finish()
    }
}

impl Recorder {
    /// Starts the background task of a recorder in `tasks`; after `stop` it writes what is queued and ends. `component` is the event's source,
    /// such as `replicaset-controller` or `kubelet`; `host` is the node it runs on, empty if that does not matter.
    pub fn start(
        client: Client,
        component: &str,
        host: &str,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let source = EventSource {
            component: Some(component.to_owned()),
            host: Some(host.to_owned()).filter(|host| !host.is_empty()),
        };
        tasks.spawn(run(client, source, receiver, stop));
        Self { queue, dropped: Arc::default(), clock: Clock::System }
    }

    /// A recorder that drops everything: for tests.
    pub fn discard() -> Self {
        Self { queue: mpsc::channel(1).0, dropped: Arc::default(), clock: Clock::System }
    }

    /// Records that something happened to `object`.
    pub fn event<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        event_type: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event_for(object.object_ref(&()), event_type, reason, message);
    }

    /// Records that something happened to the object (or the part of it, by `fieldPath`) that `regarding` names.
    pub fn event_for(
        &self,
        regarding: ObjectReference,
        event_type: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let (reason, message, at) = (reason.to_owned(), message.into(), self.clock.now());
        let occurrence = Occurrence { regarding, event_type, reason, message, at };
        if self.queue.try_send(occurrence).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// How many events were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

async fn run(
    client: Client,
    source: EventSource,
    mut queue: mpsc::Receiver<Occurrence>,
    stop: CancellationToken,
) {
    let mut correlator = Correlator::new(source);
    while let Some(Some(occurrence)) = stop.run_until_cancelled(queue.recv()).await {
        if let Some(write) = correlator.record(occurrence) {
            perform(&client, write, &mut correlator, &stop).await;
        }
    }
    let flush = async {
        while let Ok(occurrence) = queue.try_recv() {
            if let Some(write) = correlator.record(occurrence) {
                perform(&client, write, &mut correlator, &stop).await;
            }
        }
    };
    if tokio::time::timeout(FLUSH, flush).await.is_err() {
        debug!("some events could not be written before the end");
    }
}

/// Writes one event, again and again while the server cannot be reached and nobody says stop.
async fn perform(client: &Client, mut write: Write, correlator: &mut Correlator, stop: &CancellationToken) {
    for attempt in 1..=ATTEMPTS {
        match send(client, &write).await {
            Ok(()) => return,
            // The event expired on the server, so it is new again.
            Err(failure) if error::is_not_found(&failure) && write.patch => {
                write.patch = false;
            }
            Err(failure) if error::code(&failure).is_some_and(|code| code < 500 && code != 429) => {
                debug!(error = error::chain(&failure), "event refused");
                correlator.forget(&write.event);
                return;
            }
            Err(failure) => {
                debug!(error = error::chain(&failure), attempt, "cannot write event, trying again");
                if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                    return;
                }
            }
        }
    }
    correlator.forget(&write.event);
}

async fn send(client: &Client, write: &Write) -> kube::Result<()> {
    let event = &write.event;
    let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    if write.patch {
        let patch = serde_json::json!({
            "count": event.count,
            "lastTimestamp": event.last_timestamp,
            "message": event.message,
        });
        let name = event.metadata.name.as_deref().unwrap_or_default();
        events.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    } else {
        let mut fresh = event.clone();
        fresh.metadata = ObjectMeta {
            name: event.metadata.name.clone(),
            namespace: event.metadata.namespace.clone(),
            ..ObjectMeta::default()
        };
        events.create(&PostParams::default(), &fresh).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
