//! The contract of `Store` as tests that every backend passes.
//!
//! A backend calls [`contract_tests!`] with an async function that makes an empty store and something that keeps it
//! alive (a temporary folder, a child process). Nothing here may depend on revisions being consecutive or on a backend
//! being alone in its database.

mod concurrency;
mod history;
mod model;
mod watches;
mod writes;

pub(crate) use concurrency::*;
pub(crate) use history::*;
pub(crate) use model::*;
pub(crate) use watches::*;
pub(crate) use writes::*;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::{Batch, Entry, Event, EventKind, ListOptions, Revision, Store, StoreError, WatchStream};

/// Longest that anything here may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The store under test.
pub(crate) type Subject = Arc<dyn Store>;

/// Makes one `#[tokio::test]` for each rule of the contract.
macro_rules! contract_tests {
    ($make:path) => {
        contract_tests!(@each $make:
            a_created_key_is_read_back, a_taken_key_is_not_created_again, an_update_needs_the_revision_of_the_key,
            a_deletion_needs_the_revision_of_the_key, a_deleted_key_can_be_created_anew, revisions_grow_with_every_write,
            a_refused_write_leaves_no_trace, values_may_be_empty_or_large, an_entry_with_a_ttl_goes_away_by_itself,
            an_update_without_ttl_keeps_the_entry,
            a_list_is_ordered_and_bound_to_its_prefix, pages_show_one_revision, a_page_may_start_after_any_key,
            old_revisions_can_be_read, reads_in_the_future_are_refused, compacted_revisions_are_refused,
            a_snapshot_opens_no_window,
            a_watch_delivers_what_happens, a_watch_starts_with_the_past, a_watch_from_the_future_waits_for_it,
            a_watch_of_forgotten_history_is_refused, a_watch_sees_only_its_prefix, many_watches_see_the_same,
            one_writer_wins_a_race, counters_lose_no_increment, writes_through_many_tasks_appear_in_one_order,
            random_histories_agree_with_the_model,
        );
    };
    (@each $make:path: $($test:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let (store, _keep) = $make().await;
            $crate::store::contract::$test(store).await;
        })*
    };
}
pub(crate) use contract_tests;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn create(store: &Subject, key: &str, value: &str) -> Revision {
    store.create(key, bytes(value), None).await.unwrap()
}

async fn list_all(store: &Subject, prefix: &str, at: Option<Revision>) -> Vec<Entry> {
    store.list(prefix, &ListOptions { revision: at, ..ListOptions::default() }).await.unwrap().entries
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|e| &*e.key).collect()
}

/// The next batch that is not empty.
async fn next(watch: &mut WatchStream) -> Result<Batch, StoreError> {
    loop {
        let item = tokio::time::timeout(PATIENCE, watch.next()).await.expect("an item in time");
        let batch = item.expect("the watch goes on")?;
        if !batch.events.is_empty() {
            return Ok(batch);
        }
    }
}

/// Collects events up to the one with revision `until`.
async fn collect(watch: &mut WatchStream, until: Revision) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.last().is_none_or(|e| e.revision < until) {
        let batch = next(watch).await.unwrap();
        assert!(batch.events.last().is_some_and(|e| e.revision <= batch.revision));
        events.extend(batch.events);
    }
    events
}
