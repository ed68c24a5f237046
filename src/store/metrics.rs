//! What stores tell of their size, under upstream's name, and the warning before they are full.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{info, warn};

use crate::telemetry::metrics::Family;

static SIZE: Family = Family::gauge(
    "apiserver_storage_size_bytes",
    "Size of the storage database file physically allocated in bytes.",
    &["storage_cluster_id"],
);

/// From this part of its quota on a store is nearly full.
const NEARLY_FULL: f64 = 0.8;

/// The size of one store, and whether its operator has been warned.
#[derive(Debug, Default)]
pub(super) struct Size {
    warned: AtomicBool,
}

impl Size {
    /// Reports the bytes of the files, those of them in use, and the most there may be.
    pub(super) fn report(&self, cluster: &str, bytes: u64, in_use: u64, quota: Option<u64>) {
        SIZE.with(&[cluster]).set(bytes as f64);
        let Some(quota) = quota else { return };
        let nearly_full = in_use as f64 > quota as f64 * NEARLY_FULL;
        let warned = self.warned.swap(nearly_full, Ordering::Relaxed);
        match (warned, nearly_full) {
            (false, true) => {
                warn!(in_use, quota, "the datastore is nearly full, soon writes will be refused")
            }
            (true, false) => info!(in_use, quota, "the datastore has room again"),
            _ => {}
        }
    }
}
