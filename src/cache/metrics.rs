//! What the cache tells of itself, under upstream's names where there are any.

use std::sync::{Arc, Weak};

use super::Cache;
use super::resource::{ResourceCache, WINDOW_CHANGES};
use crate::telemetry::metrics::{self, Family};

const LABELS: &[&str] = &["group", "resource"];

static OBJECTS: Family =
    Family::gauge("apiserver_resource_objects", "Number of stored objects, by resource.", LABELS);
static OBJECTS_BEFORE: Family =
    Family::gauge("apiserver_storage_objects", "Number of stored objects, by resource.", &["resource"]);
static RECEIVED: Family = Family::gauge(
    "apiserver_watch_cache_events_received_total",
    "Changes that the watch cache received, by resource.",
    LABELS,
);
static REVISION: Family = Family::gauge(
    "apiserver_watch_cache_resource_version",
    "Resource version of the latest change in the watch cache, by resource.",
    LABELS,
);
static DROPPED: Family = Family::gauge(
    "apiserver_terminated_watchers_total",
    "Watchers that were cut off because they did not keep up, by resource.",
    LABELS,
);
static CAPACITY: Family = Family::gauge(
    "watch_cache_capacity",
    "Most changes that the watch cache remembers, by resource.",
    LABELS,
);
static CHANGES: Family = Family::gauge(
    "kube_lite_watch_cache_window_changes",
    "Changes that the watch cache remembers, by resource.",
    LABELS,
);
static BYTES: Family = Family::gauge(
    "kube_lite_watch_cache_window_bytes",
    "Bytes of the changes that the watch cache remembers, by resource.",
    LABELS,
);
static BUDGET: Family = Family::gauge(
    "kube_lite_watch_cache_window_limit_bytes",
    "Bytes that the changes in the watch cache may have together.",
    &[],
);
static WATCHERS: Family =
    Family::gauge("kube_lite_watch_cache_watchers", "Watchers of the watch cache, by resource.", LABELS);

/// Shows the cache in the metrics of the process for as long as it lives.
pub(super) fn export(cache: &Arc<Cache>) {
    let cache: Weak<Cache> = Arc::downgrade(cache);
    metrics::before_render(move || match cache.upgrade() {
        Some(cache) => {
            BUDGET.with(&[]).set(cache.budget.bytes as f64);
            let all = cache.lock_registered().all.clone();
            all.iter().for_each(|resource| set(resource));
            true
        }
        None => false,
    });
}

/// `resource.group`, or the resource alone for the core group.
pub(super) fn qualified(resource: &ResourceCache) -> String {
    let spec = resource.spec();
    match spec.api_version.split_once('/') {
        None => spec.resource.clone(),
        Some((group, _)) => format!("{}.{group}", spec.resource),
    }
}

fn set(resource: &ResourceCache) {
    let spec = resource.spec();
    let group = spec.api_version.split_once('/').map_or("", |(group, _)| group);
    let labels = [group, &*spec.resource];
    let figures = resource.figures();
    OBJECTS.with(&labels).set(figures.objects as f64);
    OBJECTS_BEFORE.with(&[&qualified(resource)]).set(figures.objects as f64);
    RECEIVED.with(&labels).set(figures.received as f64);
    REVISION.with(&labels).set(figures.revision.0 as f64);
    DROPPED.with(&labels).set(figures.dropped as f64);
    CAPACITY.with(&labels).set(WINDOW_CHANGES as f64);
    CHANGES.with(&labels).set(figures.window_changes as f64);
    BYTES.with(&labels).set(figures.window_bytes as f64);
    WATCHERS.with(&labels).set(resource.watchers() as f64);
}
