//! Graceful node shutdown: when the machine is about to go down, pods are ended by priority, the lowest first, while a
//! lock keeps the machine waiting. From the first word on the node is not ready and takes no pods.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::EventType;
use crate::host::logind::LogindError;
use crate::kubelet::config::ShutdownPeriod;
use crate::kubelet::context::Context;
use crate::kubelet::pods::table::{Eviction, Table};
use crate::kubelet::spec;

const WHY: &str = "Kubelet needs time to handle node shutdown";
const REASON: &str = "Terminated";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// Wait before logind is asked again after it went away.
const RETRY: Duration = Duration::from_secs(1);
/// How often pods that are ending are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What keeps a shutdown from being graceful.
#[derive(Debug, thiserror::Error)]
enum ShutdownError {
    #[error(transparent)]
    Logind(#[from] LogindError),
    #[error("logind waits {0:?} at most, and not the {1:?} that pods were promised")]
    TooShort(Duration, Duration),
}

/// Watches for shutdowns until `stop`; `now` says whether one is under way.
pub async fn run(ctx: Arc<Context>, table: Table, now: watch::Sender<bool>, stop: CancellationToken) {
    if ctx.config.shutdown.is_empty() {
        return;
    }
    stop.run_until_cancelled(async {
        let error = watch_shutdowns(&ctx, &table, &now).await;
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "pods are not ended before the machine goes down"
        );
    })
    .await;
}

/// Does what logind says, for ever; the error says why it cannot be asked, at the first time.
async fn watch_shutdowns(ctx: &Context, table: &Table, now: &watch::Sender<bool>) -> ShutdownError {
    let mut heard = false;
    loop {
        match listen(ctx, table, now, &mut heard).await {
            Err(error) if !heard => return error,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "shutdowns are not heard of at present"
                );
            }
            Ok(()) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Takes a lock and acts on what logind says, until it goes away.
async fn listen(
    ctx: &Context,
    table: &Table,
    now: &watch::Sender<bool>,
    heard: &mut bool,
) -> Result<(), ShutdownError> {
    let logind = &ctx.host.logind;
    let wanted = ctx.config.shutdown.iter().map(|period| period.grace).sum();
    if logind.longest_delay().await? < wanted {
        logind.set_longest_delay(wanted).await?;
        let longest = logind.longest_delay().await?;
        if longest < wanted {
            return Err(ShutdownError::TooShort(longest, wanted));
        }
    }
    let mut lock = Some(logind.delay(WHY).await?);
    let mut shutdowns = logind.shutdowns().await?;
    *heard = true;
    while let Some(begins) = shutdowns.next().await {
        let word = if begins { "shutdown event" } else { "shutdown cancellation" };
        tracing::info!(begins, "the machine shuts down");
        if let Some(node) = ctx.node.borrow().clone() {
            let message = format!("Shutdown manager detected {word}");
            ctx.recorder.event(&*node, EventType::Normal, "NodeShutdown", message);
        }
        now.send_replace(begins);
        if begins {
            end_pods(ctx, table).await;
            lock = None;
        } else if lock.is_none() {
            lock = Some(logind.delay(WHY).await?);
        }
    }
    Ok(())
}

/// Ends all pods, the ones of low priority first; each group has its time.
async fn end_pods(ctx: &Context, table: &Table) {
    let active: Vec<Arc<Pod>> =
        table.snapshots().into_iter().filter(|s| s.active).filter_map(|s| s.pod).collect();
    for (period, pods) in grouped(&ctx.config.shutdown, active) {
        for pod in &pods {
            let grace = spec::spec_grace(pod).min(period.grace);
            let eviction = Eviction { reason: REASON, message: MESSAGE.to_owned(), grace };
            if let Some(handle) = table.get(spec::uid(pod)) {
                handle.desired.send_modify(|desired| desired.evicted = Some(eviction));
            }
        }
        let all_ended = async {
            while !pods.iter().all(|pod| ended(ctx, table, pod)) {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(period.grace, all_ended).await.is_err() {
            tracing::warn!(
                priority = period.priority,
                "pods did not end in the time that a shutdown leaves them"
            );
        }
    }
}

/// Whether a pod has ended, given its volumes back and said so.
fn ended(ctx: &Context, table: &Table, pod: &Pod) -> bool {
    let uid = spec::uid(pod);
    let Some(handle) = table.get(uid) else { return true };
    let snapshot = handle.snapshot.borrow();
    let told = snapshot.pod.as_deref().is_none_or(spec::is_terminal);
    told && snapshot.observed.alive().next().is_none() && !ctx.config.pod_dir(uid).exists()
}

/// The pods of each period, which holds from its priority up to the next one's. Those below all belong to the first.
fn grouped(periods: &[ShutdownPeriod], pods: Vec<Arc<Pod>>) -> Vec<(ShutdownPeriod, Vec<Arc<Pod>>)> {
    let mut sorted = periods.to_vec();
    sorted.sort_by_key(|period| period.priority);
    let mut groups: Vec<_> = sorted.into_iter().map(|period| (period, Vec::new())).collect();
    for pod in pods {
        let priority = spec::pod_spec(&pod).priority.unwrap_or(0);
        let index = groups.iter().rposition(|(period, _)| period.priority <= priority).unwrap_or(0);
        if let Some((_, own)) = groups.get_mut(index) {
            own.push(pod);
        }
    }
    groups.retain(|(_, pods)| !pods.is_empty());
    groups
}

#[cfg(test)]
mod tests;
