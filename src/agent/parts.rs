//! The long-running parts of a process: started by name, stopped together, and waited for.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error};

use crate::host::program;

/// The parts of one process. A part that fails stops the others, and its failure is what the process ends with.
#[derive(Clone)]
pub(crate) struct Parts {
    tasks: TaskTracker,
    stop: CancellationToken,
    failure: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Parts {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Parts { tasks: TaskTracker::new(), stop, failure: Arc::default() }
    }

    /// The signal that stops every part.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs what keeps this process small.
    pub(crate) fn spawn_upkeep(&self) {
        let stop = self.stop.clone();
        self.spawn("memory", async move {
            program::give_back_code(stop).await;
            Ok(())
        });
    }

    /// Runs a part until it ends by itself, which it should do after the signal.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let (stop, failure) = (self.stop.clone(), self.failure.clone());
        self.tasks.spawn(async move {
            match part.await {
                Ok(()) => debug!(part = name, "part has stopped"),
                Err(problem) => {
                    error!(part = name, error = format!("{problem:#}"), "part has failed");
                    failure
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(problem.context(name));
                    stop.cancel();
                }
            }
        });
    }

    /// Waits for all parts, and returns the first failure.
    pub(crate) async fn drain(self) -> anyhow::Result<()> {
        self.tasks.close();
        self.tasks.wait().await;
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(problem) => Err(problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failure_of_one_part_stops_the_others_and_is_told() {
        let parts = Parts::new(CancellationToken::new());
        let stop = parts.stop().clone();
        parts.spawn("waits", async move {
            stop.cancelled().await;
            Ok(())
        });
        parts.spawn("fails", async { anyhow::bail!("no port") });
        let error = parts.drain().await.unwrap_err();
        assert_eq!(format!("{error:#}"), "fails: no port");
    }

    #[tokio::test]
    async fn quiet_end_is_no_error() {
        let parts = Parts::new(CancellationToken::new());
        parts.spawn("ends", async { Ok(()) });
        parts.drain().await.unwrap();
    }
}
