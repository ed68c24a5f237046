//! Asking etcd for its revision, shared by all who ask at the same time.
//!
//! An answer counts for everybody who asked before the request was sent; who comes later waits for the next one. So a
//! thousand concurrent consistent reads cost a request or two.

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

use crate::store::{Revision, StoreError};

type Asking = Shared<BoxFuture<'static, Result<Revision, StoreError>>>;

/// Who asks together.
#[derive(Default)]
pub(super) struct RevisionAsker {
    /// Not sent yet: whoever comes may still join.
    next: Mutex<Option<Asking>>,
    /// Held while a request is under way.
    turn: tokio::sync::Mutex<()>,
}

impl RevisionAsker {
    /// The result of a request that is sent after this call began.
    pub(super) async fn ask<F>(
        self: &Arc<Self>,
        request: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Revision, StoreError>
    where
        F: Future<Output = Result<Revision, StoreError>> + Send,
    {
        let asking = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            match &*next {
                Some(asking) => asking.clone(),
                None => {
                    let this = Arc::clone(self);
                    let asking = async move {
                        let _turn = this.turn.lock().await;
                        *this.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
                        request().await
                    };
                    next.insert(asking.boxed().shared()).clone()
                }
            }
        };
        asking.await
    }
}

impl std::fmt::Debug for RevisionAsker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RevisionAsker").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn who_asks_while_a_request_is_under_way_shares_the_next_one() {
        let asker = Arc::new(RevisionAsker::default());
        let requests = Arc::new(AtomicU64::new(0));
        let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let ask = || {
            let (asker, requests) = (asker.clone(), requests.clone());
            let (begun, release) = (begun.clone(), release.clone());
            tokio::spawn(async move {
                asker
                    .ask(move || async move {
                        let number = requests.fetch_add(1, Ordering::SeqCst) + 1;
                        if number == 1 {
                            begun.notify_one();
                            release.notified().await;
                        }
                        Ok(Revision(number))
                    })
                    .await
                    .unwrap()
            })
        };
        let first = ask();
        begun.notified().await;
        let later: Vec<_> = (0..50).map(|_| ask()).collect();
        while asker.next.lock().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        release.notify_one();
        assert_eq!(first.await.unwrap(), Revision(1));
        for task in later {
            assert!(task.await.unwrap() > Revision(1), "an answer from before the question");
        }
        assert!(requests.load(Ordering::SeqCst) <= 51);
    }

    #[tokio::test]
    async fn one_who_gives_up_does_not_stop_the_others() {
        let asker = Arc::new(RevisionAsker::default());
        let mut first = Box::pin(asker.ask(|| async {
            tokio::task::yield_now().await;
            Ok(Revision(7))
        }));
        assert!(futures::poll!(&mut first).is_pending());
        drop(first);
        assert_eq!(asker.ask(|| async { Ok(Revision(8)) }).await.unwrap(), Revision(8));
    }
}
