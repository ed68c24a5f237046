//! The pods that have a worker, as others may see them: the relist that wakes workers, the HTTPS server, the node.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, watch};

use crate::kubelet::observed::ObservedPod;

/// What a worker last knew.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The pod, or `None` for an orphan.
    pub pod: Option<Arc<Pod>>,
    /// What the runtime held.
    pub observed: Arc<ObservedPod>,
    /// The pod still uses, or will use, the node's resources.
    pub active: bool,
    /// Its sandbox or its containers are being started: what the runtime holds is not known before that has ended.
    pub starting: bool,
}

/// What the worker should do.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The pod as last known.
    pub pod: Option<Arc<Pod>>,
    /// What the API shows of a static pod.
    pub mirror: Option<Arc<Pod>>,
    /// It is still there.
    pub present: bool,
    /// The node did not admit it: reason and message.
    pub rejected: Option<(String, String)>,
    /// The node wants it to end.
    pub evicted: Option<Eviction>,
}

/// A pod that the node ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Reason of the status: `Evicted`, or `Terminated` before a shutdown.
    pub reason: &'static str,
    /// Text of the status.
    pub message: String,
    /// Time until its containers are killed.
    pub grace: Duration,
}

/// Handle on one worker.
#[derive(Debug)]
pub struct Handle {
    /// Changes what is wanted.
    pub desired: watch::Sender<Desired>,
    /// Makes the worker look at the runtime.
    pub wake: Arc<Notify>,
    /// What the worker last knew.
    pub snapshot: watch::Receiver<Snapshot>,
}

/// All workers by pod UID.
#[derive(Clone, Debug, Default)]
pub struct Table {
    workers: Arc<Mutex<HashMap<String, Arc<Handle>>>>,
    changed: Arc<Notify>,
}

impl Table {
    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Handle>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker of a pod.
    pub fn get(&self, uid: &str) -> Option<Arc<Handle>> {
        self.locked().get(uid).cloned()
    }

    /// Adds a worker.
    pub fn insert(&self, uid: &str, handle: Arc<Handle>) {
        self.locked().insert(uid.to_owned(), handle);
        self.changed.notify_waiters();
    }

    /// Forgets a worker.
    pub fn remove(&self, uid: &str) {
        self.locked().remove(uid);
    }

    /// No worker at all.
    pub fn is_empty(&self) -> bool {
        self.locked().is_empty()
    }

    /// Returns when there is a worker.
    pub async fn not_empty(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Makes one worker look at the runtime.
    pub fn wake(&self, uid: &str) {
        if let Some(handle) = self.get(uid) {
            handle.wake.notify_one();
        }
    }

    /// Makes the workers look at the runtime that know something else than it lists.
    pub fn wake_wrong(&self, listing: &HashMap<String, BTreeMap<String, i32>>) {
        for (uid, handle) in self.locked().iter() {
            let known = handle.snapshot.borrow();
            if !known.starting && !known.observed.is_listed_as(listing.get(uid)) {
                handle.wake.notify_one();
            }
        }
    }

    /// What all workers last knew.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let handles: Vec<Arc<Handle>> = self.locked().values().cloned().collect();
        handles.iter().map(|h| h.snapshot.borrow().clone()).collect()
    }
}
