//! Watches that outlive members: a stream that breaks is started again, with the next member, where it ended.
//!
//! All keys are watched and the prefix is applied here. So every revision shows on the stream, and whoever waits for a
//! revision that touched other keys is told at once, with no need to ask etcd for its progress (which versions before
//! 3.4.25 and 3.5.8 can answer wrongly). `hasleader` makes a member that is cut off from the others end the stream
//! instead of keeping silent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use tonic::{Request, Streaming};
use tracing::debug;

use super::errors::{Attempt, CallError, CallFailure, classify};
use super::wire::v3::watch_client::WatchClient;
use super::wire::{event_of, revision_of, v3};
use super::{Inner, MAX_MESSAGE};
use crate::store::{Batch, Event, Revision, StoreError, WatchStream};

const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// A watch of one consumer.
struct Watching {
    inner: Arc<Inner>,
    prefix: Bytes,
    /// Everything up to here has been handed out.
    reached: Revision,
    stream: Option<(usize, Streaming<v3::WatchResponse>)>,
    /// Events of a message that etcd sends in several parts.
    parts: Vec<v3::Event>,
    pause: Duration,
}

/// A stream of what happens under `prefix` after `after`.
pub(super) fn watch(inner: Arc<Inner>, prefix: &str, after: Revision) -> WatchStream {
    let watching = Watching {
        inner,
        prefix: Bytes::copy_from_slice(prefix.as_bytes()),
        reached: Revision(after.0.max(1)),
        stream: None,
        parts: Vec::new(),
        pause: PAUSE_FIRST,
    };
    WatchStream::new(futures::stream::unfold(Some(watching), async |watching| {
        let mut watching = watching?;
        match watching.next().await {
            Ok(batch) => Some((Ok(batch), Some(watching))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

/// The revision that etcd has been compacted to, learned from a watch that begins at the beginning.
pub(super) async fn compacted_to(inner: &Arc<Inner>) -> Result<Revision, StoreError> {
    let (_, mut stream) = open(inner, Revision(1)).await?;
    let answer = async {
        while let Some(response) = stream.message().await? {
            if response.canceled || !response.events.is_empty() {
                return Ok(Revision(response.compact_revision.max(1) as u64));
            }
        }
        Ok(Revision(1))
    };
    match tokio::time::timeout(inner.options.attempt_timeout, answer).await {
        Ok(result) => {
            result.map_err(|status: tonic::Status| StoreError::Unavailable { source: Arc::new(status) })
        }
        Err(_) => Ok(Revision(1)),
    }
}

/// Starts a stream with the member that is preferred. Events at `from` itself are sent again: etcd then refuses what
/// has been compacted exactly when changes after `from` may be missing.
async fn open(
    inner: &Arc<Inner>,
    from: Revision,
) -> Result<(usize, Streaming<v3::WatchResponse>), StoreError> {
    const OPERATION: &str = "watch";
    let (at, member) = inner.members.preferred();
    let create = v3::WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: from.0 as i64,
        progress_notify: true,
        prev_kv: true,
        fragment: true,
        watch_id: 0,
    };
    let request =
        v3::WatchRequest { request_union: Some(v3::watch_request::RequestUnion::CreateRequest(create)) };
    // The stream of requests stays open as long as the answers are read.
    let requests = futures::StreamExt::chain(
        futures::stream::once(std::future::ready(request)),
        futures::stream::pending(),
    );
    let mut call = Request::new(requests);
    call.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
    let mut client = WatchClient::new(member.channel).max_decoding_message_size(MAX_MESSAGE);
    match tokio::time::timeout(inner.options.attempt_timeout, client.watch(call)).await {
        Ok(Ok(answer)) => Ok((at, answer.into_inner())),
        Ok(Err(status)) => {
            inner.members.failed(at);
            Err(match classify(status, &member.name, OPERATION) {
                Attempt::NotDone(error)
                | Attempt::Unknown(error)
                | Attempt::Final(CallError::Store(error)) => error,
                Attempt::Final(_) => StoreError::Closed,
            })
        }
        Err(_) => {
            inner.members.failed(at);
            let (member, after) = (member.name.to_string(), inner.options.attempt_timeout);
            Err(CallFailure::Timeout { member, operation: OPERATION, after }.into_store())
        }
    }
}

impl Watching {
    /// The next batch; an error when the watch cannot go on.
    async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            let (at, stream) = match &mut self.stream {
                Some((at, stream)) => (*at, stream),
                None => match open(&self.inner, self.reached).await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        continue;
                    }
                    Err(error) => {
                        debug!(%error, "etcd cannot be watched, trying again");
                        self.wait().await;
                        continue;
                    }
                },
            };
            let response = match stream.message().await {
                Ok(Some(response)) => response,
                ended => {
                    let reason = ended.err().map(|status| status.to_string());
                    debug!(?reason, "watch of etcd broke, starting it again");
                    self.broke(at).await;
                    continue;
                }
            };
            if response.compact_revision > 0 {
                let oldest = Revision(response.compact_revision as u64);
                self.inner.know_compacted(oldest);
                return Err(StoreError::Compacted { oldest });
            }
            if response.canceled {
                debug!(reason = %response.cancel_reason, "etcd ended a watch, starting it again");
                self.broke(at).await;
                continue;
            }
            if response.created {
                continue;
            }
            self.pause = PAUSE_FIRST;
            if let Some(batch) = self.take(response) {
                return Ok(batch);
            }
        }
    }

    async fn broke(&mut self, at: usize) {
        self.stream = None;
        self.parts.clear();
        self.inner.members.failed(at);
        self.wait().await;
    }

    async fn wait(&mut self) {
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(self.pause.mul_f64(jitter)).await;
        self.pause = (self.pause * 2).min(PAUSE_MOST);
    }

    /// What a response adds to what has been handed out.
    fn take(&mut self, response: v3::WatchResponse) -> Option<Batch> {
        let progress = response.events.is_empty().then(|| revision_of(response.header.as_ref()));
        self.parts.extend(response.events);
        if response.fragment {
            return None;
        }
        let parts = std::mem::take(&mut self.parts);
        let last = parts.iter().rev().find_map(|event| Some(event.kv.as_ref()?.mod_revision as u64));
        let revision = last.map(Revision).or(progress)?;
        if revision <= self.reached {
            return None;
        }
        let (after, prefix) = (self.reached, self.prefix.clone());
        let wanted = |event: &v3::Event| {
            event
                .kv
                .as_ref()
                .is_some_and(|kv| kv.mod_revision as u64 > after.0 && kv.key.starts_with(&prefix))
        };
        let events: Vec<Event> = parts.into_iter().filter(wanted).filter_map(event_of).collect();
        self.reached = revision;
        Some(Batch { revision, events })
    }
}
