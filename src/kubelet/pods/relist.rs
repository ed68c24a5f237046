//! Notices what happens in the runtime and wakes the workers concerned: by container events where the runtime has
//! them, else by listing once a second while there are pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
        listing.keys().for_each(|uid| table.wake(uid));
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
    let mut former = Listing::new();
    loop {
        table.not_empty().await;
        match list(runtime).await {
            Ok(listing) => {
                changed(&former, &listing).iter().for_each(|uid| table.wake(uid));
                former = listing;
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "runtime not listed");
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Pods whose sandboxes or containers are not what they were.
fn changed<'a>(former: &'a Listing, now: &'a Listing) -> BTreeSet<&'a str> {
    let uids = former.keys().chain(now.keys());
    uids.filter(|uid| former.get(*uid) != now.get(*uid)).map(String::as_str).collect()
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

    #[test]
    fn only_pods_that_changed_are_named() {
        let listing = |entries: &[(&str, &str, i32)]| {
            let mut out = Listing::new();
            for (uid, id, state) in entries {
                out.entry((*uid).to_owned()).or_default().insert((*id).to_owned(), *state);
            }
            out
        };
        let former = listing(&[("same", "1", 1), ("state", "2", 1), ("gone", "3", 1)]);
        let now = listing(&[("same", "1", 1), ("state", "2", 2), ("new", "4", 0)]);
        assert_eq!(changed(&former, &now).into_iter().collect::<Vec<_>>(), ["gone", "new", "state"]);
    }
}
