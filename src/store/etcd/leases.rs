//! Leases for entries that expire. As upstream's lease manager does, entries that are written within a short time share
//! a lease, so that a thousand events do not cost a thousand of them; the lease lasts that much longer.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::errors::CallError;
use super::members::{Members, Repeat};
use super::wire::v3;
use super::wire::v3::lease_client::LeaseClient;

/// A lease is shared for this part of its time, but not longer than a minute, by at most so many entries.
const SHARED_PART: u32 = 20;
const SHARED_MOST: Duration = Duration::from_secs(60);
const ENTRIES_MOST: u32 = 1000;

#[derive(Debug, Clone, Copy)]
struct Lease {
    id: i64,
    ttl: Duration,
    until: Instant,
    entries: u32,
}

/// The lease that new entries are given.
#[derive(Debug, Default)]
pub(super) struct Leases {
    current: Mutex<Option<Lease>>,
}

impl Leases {
    /// A lease that ends after `ttl` or a little later.
    pub(super) async fn for_entry(&self, members: &Members, ttl: Duration) -> Result<i64, CallError> {
        let mut current = self.current.lock().await;
        if let Some(lease) = current.as_mut()
            && lease.ttl == ttl
            && lease.entries < ENTRIES_MOST
            && Instant::now() < lease.until
        {
            lease.entries += 1;
            return Ok(lease.id);
        }
        let shared = (ttl / SHARED_PART).min(SHARED_MOST);
        let until = Instant::now() + shared;
        let seconds = (ttl + shared).as_millis().div_ceil(1000).max(1) as i64;
        // Granted twice, the first is left over and ends by itself.
        let granted = members
            .call("lease grant", Repeat::Freely, |channel| async move {
                let request = v3::LeaseGrantRequest { ttl: seconds, id: 0 };
                LeaseClient::new(channel).lease_grant(request).await
            })
            .await?;
        *current = Some(Lease { id: granted.id, ttl, until, entries: 1 });
        Ok(granted.id)
    }

    /// Lets go of a lease that etcd does not know any more.
    pub(super) async fn forget(&self, id: i64) {
        let mut current = self.current.lock().await;
        if current.is_some_and(|lease| lease.id == id) {
            *current = None;
        }
    }
}
