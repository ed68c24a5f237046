//! What stores tell of their size, under upstream's name.

use super::Usage;
use crate::telemetry::metrics::Family;

static SIZE: Family = Family::gauge(
    "apiserver_storage_size_bytes",
    "Size of the storage database file physically allocated in bytes.",
    &["storage_cluster_id"],
);
static IN_USE: Family = Family::gauge(
    "kube_lite_storage_in_use_bytes",
    "Bytes of the storage database file that are in use.",
    &["storage_cluster_id"],
);
static QUOTA: Family = Family::gauge(
    "kube_lite_storage_quota_bytes",
    "Most bytes that the storage database may use, where that is known.",
    &["storage_cluster_id"],
);

/// Shows the size of a store.
pub(super) fn report(usage: &Usage) {
    let labels = [usage.cluster.as_str()];
    SIZE.with(&labels).set(usage.bytes as f64);
    IN_USE.with(&labels).set(usage.in_use as f64);
    if let Some(quota) = usage.quota {
        QUOTA.with(&labels).set(quota as f64);
    }
}
