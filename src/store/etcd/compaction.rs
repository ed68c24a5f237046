//! Periodic compaction, as upstream's API server does it: every interval one of the servers compacts to where the
//! store was at the interval before. They agree through the version of one key, whose name is upstream's, so that
//! kube-lite and kube-apiserver may even share an etcd.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::errors::CallError;
use super::members::Repeat;
use super::wire::v3::compare::{CompareResult, CompareTarget, TargetUnion};
use super::wire::v3::kv_client::KvClient;
use super::wire::v3::request_op::Request;
use super::wire::v3::response_op::Response;
use super::wire::{bytes, get, op, revision_of, v3};
use super::{EtcdStore, Inner};
use crate::store::{Revision, Store as _};

const KEY: &str = "compact_rev_key";

/// Compacts until `stop`; a failure is tried again at the next interval.
pub(super) async fn run(store: Arc<EtcdStore>, stop: CancellationToken) {
    let Some(interval) = store.inner.options.compaction_interval else { return };
    let mut turn = Turn::default();
    loop {
        if stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_none() {
            return;
        }
        match step(&store.inner, turn).await {
            Err(error) => warn!(?error, "compaction of etcd failed"),
            Ok((next, compact_to)) => {
                turn = next;
                if let Some(revision) = compact_to {
                    match store.compact(revision).await {
                        Ok(()) => debug!(%revision, "etcd compacted"),
                        Err(error) => warn!(%error, "compaction of etcd failed"),
                    }
                }
            }
        }
    }
}

/// What a server remembers between two intervals: the version of the key, and where the store was.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Turn {
    version: i64,
    revision: Revision,
}

/// Tries to take the turn; the result is what to remember, and the revision to compact to when it was taken.
pub(super) async fn step(inner: &Inner, turn: Turn) -> Result<(Turn, Option<Revision>), CallError> {
    let unchanged = v3::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Version.into(),
        key: bytes(KEY),
        target_union: Some(TargetUnion::Version(turn.version)),
    };
    let value = bytes(&turn.revision.to_string());
    let put = v3::PutRequest { key: bytes(KEY), value, lease: 0 };
    let request = v3::TxnRequest {
        compare: vec![unchanged],
        success: vec![op(Request::RequestPut(put))],
        failure: vec![op(Request::RequestRange(get(KEY)))],
    };
    let answer = inner
        .members
        .call("compaction turn", Repeat::OnlyIfNotDone, |channel| {
            let request = request.clone();
            async move { KvClient::new(channel).txn(request).await }
        })
        .await?;
    let revision = revision_of(answer.header.as_ref());
    if answer.succeeded {
        let compact_to = (turn.revision > Revision(0)).then_some(turn.revision);
        return Ok((Turn { version: turn.version + 1, revision }, compact_to));
    }
    let found = answer.responses.into_iter().find_map(|response| match response.response {
        Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    });
    Ok((Turn { version: found.map_or(0, |kv| kv.version), revision }, None))
}
