//! Keeps an informer's objects equal to those of a [`Source`]: one list, then one watch from the list's revision.
//!
//! A watch that ends is taken up again where it ended. Only when the server says that the revision is too old (410)
//! the objects are listed again. Failures are followed by a growing, jittered delay.

use super::{Sink, Source};
use crate::client::{Key, backoff::Backoff, error};
use futures::StreamExt;
use kube::{Resource, api::WatchEvent};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// The server ends a watch after 290 s; a connection that is silent for longer is dead.
const WATCH_SILENCE: Duration = Duration::from_secs(300);
/// A watch that lasted this long has worked, so the next failure starts with a short delay again.
const GOOD_WATCH: Duration = Duration::from_secs(5);

/// Why a watch stopped.
enum End {
    /// Ended by the server in the ordinary way; go on from the last revision.
    Closed,
    /// The revision is too old: list again.
    Expired,
    /// Something failed.
    Failed(kube::Error),
}

/// Makes `writer` equal to `source` until `stop`. `what` names the kind in the log.
pub async fn reflect<S: Source>(
    source: S,
    writer: impl Sink<S::Object>,
    what: String,
    stop: CancellationToken,
) {
    let work = run(&source, &writer, &what);
    stop.run_until_cancelled(work).await;
}

async fn run<S: Source>(source: &S, writer: &impl Sink<S::Object>, what: &str) {
    let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
    let mut revision: Option<String> = None;
    let mut warned = false;
    loop {
        let from = match revision.take() {
            Some(revision) => revision,
            None => match list(source, writer).await {
                Ok(revision) => {
                    debug!(kind = what, %revision, "listed");
                    revision
                }
                Err(failure) => {
                    report(what, &failure, &mut warned);
                    tokio::time::sleep(backoff.next_delay()).await;
                    continue;
                }
            },
        };
        let started = Instant::now();
        let (reached, end) = watch(source, writer, from).await;
        if started.elapsed() >= GOOD_WATCH {
            backoff.reset();
            warned = false;
        }
        match end {
            End::Expired => debug!(kind = what, "revision expired, listing again"),
            End::Closed => revision = Some(reached),
            End::Failed(failure) => {
                report(what, &failure, &mut warned);
                revision = Some(reached);
            }
        }
        if started.elapsed() < GOOD_WATCH {
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

/// The first failure of a row is worth a line; while a server restarts, the following ones are not.
fn report(what: &str, failure: &kube::Error, warned: &mut bool) {
    let cause = error::chain(failure);
    if *warned {
        debug!(kind = what, error = cause, "still cannot list or watch");
    } else {
        *warned = true;
        warn!(kind = what, error = cause, "cannot list or watch, trying again");
    }
}

async fn list<S: Source>(source: &S, writer: &impl Sink<S::Object>) -> kube::Result<String> {
    let mut objects = Vec::new();
    let mut more = None;
    loop {
        let page = match source.list(more.as_deref()).await {
            // The snapshot behind the continue token is gone: begin anew.
            Err(failure) if more.is_some() && error::is_expired(&failure) => {
                objects.clear();
                more = None;
                continue;
            }
            result => result?,
        };
        objects.extend(page.items);
        more = page.more;
        if more.is_none() {
            objects.shrink_to_fit();
            writer.replace(objects, page.revision.parse().unwrap_or_default());
            return Ok(page.revision);
        }
    }
}

/// Applies changes after `revision`; returns how far it got and why it stopped.
async fn watch<S: Source>(source: &S, writer: &impl Sink<S::Object>, mut revision: String) -> (String, End) {
    let mut events = match source.watch(&revision).await {
        Ok(events) => events,
        Err(failure) if error::is_expired(&failure) => return (revision, End::Expired),
        Err(failure) => return (revision, End::Failed(failure)),
    };
    loop {
        let Ok(next) = tokio::time::timeout(WATCH_SILENCE, events.next()).await else {
            return (revision, End::Closed);
        };
        match next {
            None => return (revision, End::Closed),
            Some(Err(failure)) => return (revision, End::Failed(failure)),
            Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                note(&mut revision, &object);
                writer.apply(object);
            }
            Some(Ok(WatchEvent::Deleted(object))) => {
                note(&mut revision, &object);
                writer.delete(&Key::of(&object), Some(object));
            }
            Some(Ok(WatchEvent::Bookmark(bookmark))) => {
                revision = bookmark.metadata.resource_version;
                writer.bookmark(revision.parse().unwrap_or_default());
            }
            Some(Ok(WatchEvent::Error(status))) if status.code == 410 => return (revision, End::Expired),
            Some(Ok(WatchEvent::Error(status))) => return (revision, End::Failed(kube::Error::Api(status))),
        }
    }
}

fn note<K: Resource>(revision: &mut String, object: &K) {
    if let Some(version) = &object.meta().resource_version {
        revision.clone_from(version);
    }
}
