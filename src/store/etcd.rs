//! etcd v3 as the store: for clusters with several servers.
//!
//! Keys are those that upstream uses, so that `etcdctl get /registry --prefix` shows what people expect. Writes are
//! transactions that compare the revision of the key; the revision of the store is etcd's. Several servers on one etcd
//! see each other's writes: a read without revision is linearizable, and a consistent read of the cache asks etcd where
//! it is. Entries with a time to live are attached to leases; entries whose leases end together share a revision.

pub(crate) mod bolt;
mod compaction;
mod errors;
mod leases;
mod members;
mod revision;
mod snapshot;
#[cfg(test)]
mod tests;
mod tls;
mod watch;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{Entry, ListOptions, ListPage, Revision, Store, StoreError, Usage, WatchStream, metrics};
use errors::CallError;
use leases::Leases;
use members::{Members, Repeat};
use revision::RevisionAsker;
use wire::v3::kv_client::KvClient;
use wire::v3::maintenance_client::MaintenanceClient;
use wire::v3::request_op::Request;
use wire::v3::response_op::Response;
use wire::{bytes, end_of, entry_of, get, op, revision_of, unchanged_since, v3};

/// Largest message that is taken from etcd, as upstream's client has it.
const MAX_MESSAGE: usize = i32::MAX as usize;
/// Largest request that clients of etcd send; a server takes 1.5 MiB unless told otherwise.
const MAX_REQUEST: usize = 2 << 20;
/// Entries of the first part of a list, and about how many bytes the next parts should have.
const PART_FIRST: usize = 500;
const PART_MOST: usize = 10_000;
const PART_BYTES: usize = 8 << 20;

/// How etcd is reached.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// The members' client URLs.
    pub endpoints: Vec<String>,
    /// PEM file of the authorities that members' certificates are checked with; the host's own if absent.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the certificate that is shown to etcd.
    pub cert_file: Option<PathBuf>,
    /// PEM file of its private key.
    pub key_file: Option<PathBuf>,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long one member may take for what can be asked of another one.
    pub attempt_timeout: Duration,
    /// How long a request may take in all.
    pub request_timeout: Duration,
    /// How often history is compacted; never if absent.
    pub compaction_interval: Option<Duration>,
}

impl EtcdOptions {
    /// The defaults, for these members.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            ca_file: None,
            cert_file: None,
            key_file: None,
            connect_timeout: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(10),
            compaction_interval: Some(Duration::from_secs(300)),
        }
    }
}

/// A [`Store`] in an etcd cluster.
#[derive(Debug)]
pub struct EtcdStore {
    inner: Arc<Inner>,
    asker: Arc<RevisionAsker>,
    leases: Leases,
}

/// What watches need as well.
#[derive(Debug)]
struct Inner {
    members: Members,
    options: EtcdOptions,
    /// How far history is known to be compacted.
    compacted: AtomicU64,
    /// Why etcd refuses writes while it answers reads.
    full: Mutex<Option<StoreError>>,
}

impl Inner {
    /// Notes whether etcd has room for writes.
    fn know_full(&self, full: Option<StoreError>) {
        *self.full.lock().unwrap_or_else(PoisonError::into_inner) = full;
    }

    fn is_full(&self) -> Option<StoreError> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn know_compacted(&self, oldest: Revision) {
        self.compacted.fetch_max(oldest.0, Ordering::AcqRel);
    }
}

impl EtcdStore {
    /// Connects and waits until etcd answers.
    ///
    /// [`StoreError::Unavailable`] whose causes say what is wrong: a setting, a file, or each member's failure.
    pub async fn connect(options: EtcdOptions) -> Result<Arc<Self>, StoreError> {
        let members = Members::new(&options)?;
        let inner =
            Arc::new(Inner { members, options, compacted: AtomicU64::new(1), full: Mutex::default() });
        let store = Arc::new(Self { inner, asker: Arc::default(), leases: Leases::default() });
        store.current_revision().await?;
        Ok(store)
    }

    /// Compacts history periodically until `stop`, in turn with other servers.
    pub async fn maintain(self: Arc<Self>, stop: CancellationToken) {
        compaction::run(self, stop).await;
    }

    async fn range(&self, request: v3::RangeRequest) -> Result<v3::RangeResponse, CallError> {
        range(&self.inner.members, request).await
    }

    /// Turns what a call failed with into the contract's terms; `at` is the revision that was asked for.
    async fn explain(&self, error: CallError, at: Option<Revision>) -> StoreError {
        match error {
            CallError::Store(error) => error,
            CallError::Compacted => {
                match watch::compacted_to(&self.inner).await {
                    Ok(oldest) => self.inner.know_compacted(oldest),
                    Err(error) => return error,
                }
                StoreError::Compacted { oldest: Revision(self.inner.compacted.load(Ordering::Acquire)) }
            }
            CallError::Future => match self.current_revision().await {
                Ok(current) => StoreError::TooNew { requested: at.unwrap_or_default(), current },
                Err(error) => error,
            },
            CallError::NoLease => StoreError::Unavailable { source: Arc::new(LeaseLost) },
            CallError::TooLarge => StoreError::TooLarge { size: 0, limit: MAX_REQUEST },
        }
    }

    /// Does `change` if the last change of `key` is `expected` (0: if it does not exist). The result of a refusal is
    /// what is there.
    async fn change(
        &self,
        key: &str,
        expected: Revision,
        change: Request,
    ) -> Result<Result<Revision, Option<Entry>>, CallError> {
        let request = v3::TxnRequest {
            compare: vec![unchanged_since(key, expected.0)],
            success: vec![op(change)],
            failure: vec![op(Request::RequestRange(get(key)))],
        };
        let answer = self
            .inner
            .members
            .call("write", Repeat::OnlyIfNotDone, |channel| {
                let request = request.clone();
                async move { KvClient::new(channel).max_decoding_message_size(MAX_MESSAGE).txn(request).await }
            })
            .await;
        let answer = match answer {
            Err(CallError::Store(error @ StoreError::Full { .. })) => {
                self.inner.know_full(Some(error.clone()));
                return Err(CallError::Store(error));
            }
            other => other?,
        };
        if answer.succeeded {
            self.inner.know_full(None);
            return Ok(Ok(revision_of(answer.header.as_ref())));
        }
        let found = answer.responses.into_iter().find_map(|response| match response.response {
            Some(Response::ResponseRange(range)) => range.kvs.into_iter().find_map(entry_of),
            _ => None,
        });
        Ok(Err(found))
    }

    /// Writes a value under a lease if it has a time to live.
    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Result<Revision, Option<Entry>>, StoreError> {
        let size = value.len();
        if size + key.len() > MAX_REQUEST {
            return Err(StoreError::TooLarge { size, limit: MAX_REQUEST });
        }
        let mut tries_left = 2;
        loop {
            let lease = match ttl {
                None => 0,
                Some(ttl) => match self.leases.for_entry(&self.inner.members, ttl).await {
                    Ok(lease) => lease,
                    Err(error) => return Err(self.explain(error, None).await),
                },
            };
            let put = v3::PutRequest { key: bytes(key), value: value.clone(), lease };
            match self.change(key, expected, Request::RequestPut(put)).await {
                Ok(result) => return Ok(result),
                Err(CallError::TooLarge) => return Err(StoreError::TooLarge { size, limit: MAX_REQUEST }),
                Err(CallError::NoLease) if tries_left > 1 => {
                    tries_left -= 1;
                    self.leases.forget(lease).await;
                }
                Err(error) => return Err(self.explain(error, None).await),
            }
        }
    }

    async fn list_parts(&self, prefix: &str, options: &ListOptions) -> Result<ListPage, CallError> {
        let mut from = match options.start_after.as_deref() {
            // The least key that is greater.
            Some(after) if after >= prefix => bytes(&format!("{after}\0")),
            _ => bytes(prefix),
        };
        let range_end = end_of(prefix.as_bytes());
        let wanted = options.limit.unwrap_or(usize::MAX);
        let mut page = ListPage { entries: Vec::new(), revision: Revision(0), more: false, remaining: None };
        let mut at = options.revision;
        let mut part = PART_FIRST;
        loop {
            let request = v3::RangeRequest {
                key: from,
                range_end: range_end.clone(),
                limit: part.min(wanted - page.entries.len()) as i64,
                revision: at.map_or(0, |at| at.0 as i64),
                ..Default::default()
            };
            let answer = self.range(request).await?;
            // Later parts show what the first one does.
            let at = *at.get_or_insert(revision_of(answer.header.as_ref()));
            let (count, got) = (answer.count.max(0) as u64, answer.kvs.len());
            let size: usize = answer.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
            let last = answer.kvs.last().map(|kv| kv.key.clone());
            page.entries.extend(answer.kvs.into_iter().filter_map(entry_of));
            page.revision = at;
            page.more = answer.more;
            page.remaining = answer.more.then(|| count.saturating_sub(got as u64));
            let Some(last) = last.filter(|_| answer.more && page.entries.len() < wanted) else {
                return Ok(page);
            };
            from = [&last[..], b"\0"].concat().into();
            part = (PART_BYTES / (size / got.max(1)).max(1)).clamp(50, PART_MOST);
        }
    }
}

/// etcd has no room, as it says itself.
#[derive(Debug, thiserror::Error)]
#[error("etcd has raised the alarm NOSPACE")]
struct Alarm;

/// A lease ended twice while an entry was being attached to it.
#[derive(Debug, thiserror::Error)]
#[error("etcd's lease ended before it could be used")]
struct LeaseLost;

async fn range(members: &Members, request: v3::RangeRequest) -> Result<v3::RangeResponse, CallError> {
    members
        .call("read", Repeat::Freely, |channel| {
            let request = request.clone();
            async move { KvClient::new(channel).max_decoding_message_size(MAX_MESSAGE).range(request).await }
        })
        .await
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        let request = v3::RangeRequest { revision: at.map_or(0, |at| at.0 as i64), ..get(key) };
        match self.range(request).await {
            Ok(answer) => Ok(answer.kvs.into_iter().find_map(entry_of)),
            Err(error) => Err(self.explain(error, at).await),
        }
    }

    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<ListPage, StoreError> {
        match self.list_parts(prefix, options).await {
            Ok(page) => Ok(page),
            Err(error) => Err(self.explain(error, options.revision).await),
        }
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, StoreError> {
        let created = self.put(key, value, Revision(0), ttl).await?;
        created.map_err(|_| StoreError::Exists { key: key.into() })
    }

    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        let updated = self.put(key, value, existing(expected), ttl).await?;
        updated.map_err(|found| refusal(key, found))
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        let delete = v3::DeleteRangeRequest { key: bytes(key), range_end: Bytes::new() };
        match self.change(key, existing(expected), Request::RequestDeleteRange(delete)).await {
            Ok(deleted) => deleted.map_err(|found| refusal(key, found)),
            Err(error) => Err(self.explain(error, None).await),
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        // etcd would tell only later that history is gone.
        let request = v3::RangeRequest { revision: after.0.max(1) as i64, count_only: true, ..get("\0") };
        match self.range(request).await {
            Ok(_) | Err(CallError::Future) => Ok(watch::watch(self.inner.clone(), prefix, after)),
            Err(error) => Err(self.explain(error, Some(after)).await),
        }
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        let inner = self.inner.clone();
        self.asker
            .ask(move || async move {
                let request = v3::RangeRequest { count_only: true, ..get("\0") };
                match range(&inner.members, request).await {
                    Ok(answer) => Ok(revision_of(answer.header.as_ref())),
                    Err(CallError::Store(error)) => Err(error),
                    Err(_) => Err(StoreError::Closed),
                }
            })
            .await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let done = self
            .inner
            .members
            .call("compaction", Repeat::Freely, |channel| async move {
                let request = v3::CompactionRequest { revision: revision.0 as i64, physical: false };
                KvClient::new(channel).compact(request).await
            })
            .await;
        match done {
            Ok(_) => self.inner.know_compacted(revision),
            // Somebody was there before.
            Err(CallError::Compacted) => {}
            Err(error) => return Err(self.explain(error, Some(revision)).await),
        }
        Ok(())
    }

    async fn snapshot(&self, path: &Path) -> Result<Revision, StoreError> {
        snapshot::save(&self.inner, path).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.current_revision().await?;
        self.inner.is_full().map_or(Ok(()), Err)
    }

    fn known_health(&self) -> Result<(), StoreError> {
        self.inner.members.last_failure().or_else(|| self.inner.is_full()).map_or(Ok(()), Err)
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let status = self
            .inner
            .members
            .call("status", Repeat::Freely, |channel| async move {
                MaintenanceClient::new(channel).status(v3::StatusRequest {}).await
            })
            .await;
        let status = match status {
            Ok(status) => status,
            Err(error) => return Err(self.explain(error, None).await),
        };
        let no_room = status.errors.iter().any(|alarm| alarm.contains("NOSPACE"));
        match (no_room, self.inner.is_full()) {
            (true, None) => self.inner.know_full(Some(StoreError::Full { source: Arc::new(Alarm) })),
            (false, Some(_)) => self.inner.know_full(None),
            _ => {}
        }
        let usage = Usage {
            cluster: status.header.map_or_else(String::new, |h| format!("{:x}", h.cluster_id)),
            bytes: status.db_size.max(0) as u64,
            in_use: status.db_size_in_use.max(0) as u64,
            // Told by version 3.6 and later.
            quota: u64::try_from(status.db_size_quota).ok().filter(|quota| *quota > 0),
            disk_left: None,
            alarms: status.errors,
        };
        metrics::report(&usage);
        Ok(usage)
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// What to compare with for a key that must exist: 0 would mean "does not exist" to etcd, and no key has it.
fn existing(expected: Revision) -> Revision {
    match expected {
        Revision(0) => Revision(i64::MAX as u64),
        known => known,
    }
}

fn refusal(key: &str, found: Option<Entry>) -> StoreError {
    match found {
        None => StoreError::NotFound { key: key.into() },
        current => StoreError::Conflict { key: key.into(), current },
    }
}
