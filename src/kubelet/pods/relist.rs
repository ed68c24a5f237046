//! Notices what happens in the runtime and wakes the workers concerned: by container events where the runtime has
//! them, else by listing once a second while there are pods.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::table::Table;
use crate::cri::{CriError, EventStream, Runtime};
use crate::kubelet::labels;

const PERIOD: Duration = Duration::from_secs(1);

/// State of every sandbox and container, by pod UID.
type Listing = HashMap<String, BTreeMap<String, i32>>;

/// Watches the runtime until `stop`.
pub async fn run(runtime: Arc<dyn Runtime>, table: Table, stop: CancellationToken) {
    stop.run_until_cancelled(watch(runtime, table)).await;
}

async fn watch(runtime: Arc<dyn Runtime>, table: Table) {
    loop {
        match runtime.container_events().await {
            Ok(events) => follow(events, &runtime, &table).await,
            Err(error) if error.is_unimplemented() => return relist(&runtime, &table).await,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "no container events");
                tokio::time::sleep(PERIOD).await;
            }
        }
    }
}

async fn follow(mut events: EventStream, runtime: &Arc<dyn Runtime>, table: &Table) {
    // What happened before the stream began is seen by one listing.
    if let Ok(listing) = list(runtime).await {
        table.wake_wrong(&listing);
    }
    while let Some(Ok(event)) = events.next().await {
        let metadata = event.pod_sandbox_status.and_then(|s| s.metadata);
        match metadata {
            Some(metadata) => table.wake(&metadata.uid),
            None => tracing::debug!(container = %event.container_id, "container event without a pod"),
        }
    }
}

async fn relist(runtime: &Arc<dyn Runtime>, table: &Table) {
    loop {
        table.not_empty().await;
        match list(runtime).await {
            Ok(listing) => table.wake_wrong(&listing),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "runtime not listed");
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Lists everything that carries a pod UID.
pub async fn list(runtime: &Arc<dyn Runtime>) -> Result<HashMap<String, BTreeMap<String, i32>>, CriError> {
    let (sandboxes, containers) =
        futures::try_join!(runtime.list_pod_sandboxes(None), runtime.list_containers(None))?;
    let mut out = Listing::new();
    let sandboxes = sandboxes.into_iter().map(|s| (s.labels.get(labels::POD_UID).cloned(), s.id, s.state));
    let containers = containers.into_iter().map(|c| (c.labels.get(labels::POD_UID).cloned(), c.id, c.state));
    for (uid, id, state) in sandboxes.chain(containers) {
        if let Some(uid) = uid {
            out.entry(uid).or_default().insert(id, state);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::observed::ObservedPod;
    use crate::kubelet::pods::fixture::{observed, running};
    use crate::kubelet::pods::table::{Desired, Handle, Snapshot};
    use futures::FutureExt as _;
    use tokio::sync::{Notify, watch};

    #[test]
    fn only_workers_that_know_something_else_are_woken() {
        let table = Table::default();
        let (known, mut stopped) = (observed(vec![running("a")]), observed(vec![running("a")]));
        stopped.sandboxes[0].ready = false;
        let here: BTreeMap<String, i32> =
            [(known.sandboxes[0].id.clone(), 0), (known.containers[0].id.clone(), 1)].into();
        let listing: Listing =
            ["same", "stopped", "started", "starting"].map(|uid| (uid.to_owned(), here.clone())).into();
        let add = |uid: &str, observed: &ObservedPod, starting| {
            let observed = Arc::new(observed.clone());
            let (desired, wake) = (watch::channel(Desired::default()).0, Arc::new(Notify::new()));
            let snapshot = watch::channel(Snapshot { observed, starting, ..Snapshot::default() }).1;
            table.insert(uid, Arc::new(Handle { desired, wake: wake.clone(), snapshot }));
            wake
        };
        let nothing = ObservedPod::default();
        let workers = [
            (add("same", &known, false), false),
            (add("stopped", &stopped, false), true),
            (add("started", &nothing, false), true),
            (add("starting", &nothing, true), false),
            (add("gone", &known, false), true),
            (add("new", &nothing, false), false),
        ];
        table.wake_wrong(&listing);
        for (i, (wake, wanted)) in workers.iter().enumerate() {
            assert_eq!(wake.notified().now_or_never().is_some(), *wanted, "{i}");
        }
    }
}
