//! Live watches: committed batches handed from the writer to those who watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::store::{Batch, Revision, StoreError, WatchStream};

/// The writer's end of a watch.
pub(super) struct Watcher {
    prefix: String,
    after: Revision,
    sender: mpsc::Sender<Batch>,
    lagged: Arc<AtomicBool>,
}

/// The consumer's end of a watch.
pub(super) struct Live {
    receiver: mpsc::Receiver<Batch>,
    lagged: Arc<AtomicBool>,
}

/// A watch of what is under `prefix` and later than `after`. When `backlog` batches wait, it is cut off.
pub(super) fn watcher(prefix: &str, after: Revision, backlog: usize) -> (Watcher, Live) {
    let (sender, receiver) = mpsc::channel(backlog.max(1));
    let lagged = Arc::new(AtomicBool::new(false));
    let watcher = Watcher { prefix: prefix.to_owned(), after, sender, lagged: lagged.clone() };
    (watcher, Live { receiver, lagged })
}

/// All live watches; owned by the writer.
#[derive(Default)]
pub(super) struct Feed {
    watchers: Vec<Watcher>,
}

impl Feed {
    pub(super) fn add(&mut self, watcher: Watcher) {
        self.watchers.retain(|w| !w.sender.is_closed());
        self.watchers.push(watcher);
    }

    /// Hands out one durable batch; drops the watches that are gone or too slow.
    pub(super) fn publish(&mut self, batch: &Batch) {
        self.watchers.retain(|watcher| match watcher.select(batch) {
            None => !watcher.sender.is_closed(),
            Some(selected) => match watcher.sender.try_send(selected) {
                Ok(()) => true,
                Err(TrySendError::Closed(_)) => false,
                Err(TrySendError::Full(_)) => {
                    watcher.lagged.store(true, Ordering::Release);
                    false
                }
            },
        });
    }
}

impl Watcher {
    fn wants(&self, event: &crate::store::Event) -> bool {
        event.revision > self.after && event.key.starts_with(&self.prefix)
    }

    /// What this watch gets of a batch; an empty batch tells it how far the store is.
    fn select(&self, batch: &Batch) -> Option<Batch> {
        if batch.revision <= self.after {
            return None;
        }
        let events = batch.events.iter().filter(|e| self.wants(e)).cloned().collect();
        Some(Batch { revision: batch.revision, events })
    }
}

/// Past changes up to and including `until`; the last batch has that revision.
pub(super) struct Past {
    pub(super) batches: mpsc::Receiver<Result<Batch, StoreError>>,
    pub(super) reached: Revision,
    pub(super) until: Revision,
}

/// The past, if any, followed by the present.
pub(super) fn stream(past: Option<Past>, live: Live) -> WatchStream {
    enum State {
        Past(Past, Live),
        Present(Live),
        Ended,
    }
    let first = match past {
        Some(past) => State::Past(past, live),
        None => State::Present(live),
    };
    WatchStream::new(futures::stream::unfold(first, async |mut state| {
        loop {
            state = match state {
                State::Past(mut past, live) => match past.batches.recv().await {
                    Some(Ok(batch)) => {
                        past.reached = batch.revision;
                        return Some((Ok(batch), State::Past(past, live)));
                    }
                    Some(Err(error)) => return Some((Err(error), State::Ended)),
                    None if past.reached < past.until => {
                        return Some((Err(StoreError::Closed), State::Ended));
                    }
                    None => State::Present(live),
                },
                State::Present(mut live) => match live.receiver.recv().await {
                    Some(batch) => return Some((Ok(batch), State::Present(live))),
                    None if live.lagged.load(Ordering::Acquire) => {
                        return Some((Err(StoreError::Lagged), State::Ended));
                    }
                    None => return Some((Err(StoreError::Closed), State::Ended)),
                },
                State::Ended => return None,
            };
        }
    }))
}
