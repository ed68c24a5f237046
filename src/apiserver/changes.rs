//! Loops of the API server itself: something is brought in line with cached objects whenever those change.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use super::ApiServer;
use crate::api::error::ApiError;
use crate::cache::{Consistency, Selection, WatchFrom, WatchRequest, WatchStream};
use crate::registry::Resource;

/// A round that failed is repeated after this long.
const RETRY: Duration = Duration::from_millis(500);
/// Changes that come so close together are one.
const SETTLE: Duration = Duration::from_millis(50);
/// A round without cause, should an event have been missed.
const RESYNC: Duration = Duration::from_secs(300);

/// Brings something in line with what is cached; it is repeated until it succeeds.
pub(super) type Round = for<'a> fn(&'a ApiServer) -> BoxFuture<'a, Result<(), ApiError>>;

impl ApiServer {
    /// A stream that says of every event of these kinds whether it was one, or the end of events.
    pub(super) async fn changes(&self, rows: &[&Resource]) -> Option<BoxStream<'static, bool>> {
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let request = WatchRequest {
                from: WatchFrom::State(Consistency::Any),
                selection: Selection::default(),
                bookmarks: false,
                mark_initial_end: false,
            };
            let events: WatchStream = self.registry.cached(row)?.watch(request).await.ok()?;
            let end = futures::stream::once(std::future::ready(false));
            all.push(events.map(|event| event.is_ok()).chain(end).boxed());
        }
        Some(futures::stream::select_all(all).boxed())
    }

    /// Runs `round` whenever objects of these kinds change, until the server stops. The caller owns the task.
    pub(super) async fn keep(
        self: Arc<Self>,
        kinds: &'static [(&'static str, &'static str, &'static str)],
        round: Round,
    ) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.keep_on(kinds, round)).await;
    }

    async fn keep_on(&self, kinds: &[(&str, &str, &str)], round: Round) {
        // What is not loaded yet is not gone.
        if self.registry.cache().ready().await.is_err() {
            return;
        }
        let catalog = self.registry.catalog();
        let rows: Vec<&Resource> = kinds
            .iter()
            .filter_map(|(group, version, plural)| catalog.by_plural(group, version, plural))
            .map(|row| &**row)
            .collect();
        loop {
            let Some(events) = self.changes(&rows).await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            let mut events = events.ready_chunks(1024);
            let mut wait = Duration::ZERO;
            loop {
                match tokio::time::timeout(wait, events.next()).await {
                    Ok(Some(events)) if events.iter().all(|&alive| alive) => tokio::time::sleep(SETTLE).await,
                    Ok(_) => break,
                    Err(_) => {}
                }
                wait = match round(self).await {
                    Ok(()) => RESYNC,
                    Err(error) => {
                        tracing::debug!(%error, ?kinds, "a round is repeated");
                        RETRY
                    }
                };
            }
        }
    }
}
