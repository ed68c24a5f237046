//! The loop of one probe: waits, tries, counts, reports changes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use rand::Rng as _;
use tokio::sync::mpsc;

use super::act::{self, Target};
use super::counts::{Counts, Whose};
use super::track::{Outcome, ProbeKind, Tracker};
use crate::kubelet::events::PodEvents;

/// A verdict that the worker should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The container's id.
    pub container_id: String,
    /// The container's name.
    pub name: String,
    /// Which probe.
    pub kind: ProbeKind,
    /// Healthy or not.
    pub healthy: bool,
}

/// Probes until the future is dropped, or until there is nothing more to learn.
pub async fn run(
    kind: ProbeKind,
    spec: Probe,
    target: Target,
    already_running: Duration,
    (counts, whose): (Arc<Counts>, Whose),
    (events, out): (PodEvents, mpsc::Sender<Verdict>),
) {
    let period = Duration::from_secs(u64::try_from(spec.period_seconds.unwrap_or(10)).unwrap_or(10).max(1));
    let initial = Duration::from_secs(u64::try_from(spec.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
    tokio::time::sleep(first_wait(initial, period, already_running)).await;
    let mut tracker = Tracker::new(&spec);
    let mut reported = None;
    loop {
        let outcome = Box::pin(act::probe(&target, &spec)).await;
        counts.note(&whose, kind, &outcome);
        let verdict = judge(kind, outcome, &mut tracker, &target, &events);
        if let Some(healthy) = verdict.filter(|v| reported != Some(*v)) {
            reported = Some(healthy);
            let (container_id, name) = (target.container_id.clone(), target.container.name.clone());
            if out.send(Verdict { container_id, name, kind, healthy }).await.is_err() {
                return;
            }
            // A started container is not asked again, and a dead one is about to be restarted.
            if kind == ProbeKind::Startup || (kind == ProbeKind::Liveness && !healthy) {
                return;
            }
        }
        tokio::time::sleep(period).await;
    }
}

/// A container that has run for a while (this process is new) is probed at a random moment of the period, so that all
/// pods of a node are not probed at once; a fresh one as soon as its delay is over.
fn first_wait(initial: Duration, period: Duration, already_running: Duration) -> Duration {
    if already_running > initial + period {
        return rand::rng().random_range(Duration::ZERO..period.min(Duration::from_secs(10)));
    }
    initial.saturating_sub(already_running)
}

fn judge(
    kind: ProbeKind,
    outcome: Outcome,
    tracker: &mut Tracker,
    target: &Target,
    events: &PodEvents,
) -> Option<bool> {
    let name = Some(target.container.name.as_str());
    match outcome {
        Outcome::Success => tracker.take(true),
        Outcome::Warning(text) => {
            events.warning(name, "ProbeWarning", &format!("{} probe warning: {text}", kind.word()));
            tracker.take(true)
        }
        Outcome::Failure(text) => {
            let message = format!("{} probe failed: {text}", kind.word());
            events.warning(name, "Unhealthy", &message);
            tracker.take(false)
        }
        Outcome::Unknown(text) => {
            let message = format!("{} probe errored and resulted in unknown state: {text}", kind.word());
            events.warning(name, "Unhealthy", &message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::fake::FakeRuntime;
    use crate::cri::v1;
    use k8s_openapi::api::core::v1::Container;
    use serde_json::json;
    use std::sync::atomic::{AtomicI32, Ordering};

    async fn target(runtime: FakeRuntime) -> Target {
        let container_id = crate::kubelet::pods::fixture::running_in(&runtime).await;
        Target {
            runtime: Arc::new(runtime),
            container_id,
            container: Box::new(Container { name: "a".into(), ..Container::default() }),
            pod_ip: String::new(),
        }
    }

    fn counted() -> (Arc<Counts>, Whose) {
        (Arc::default(), Whose::new(&k8s_openapi::api::core::v1::Pod::default(), "a"))
    }

    #[tokio::test(start_paused = true)]
    async fn verdicts_come_on_change_only() {
        let code = Arc::new(AtomicI32::new(1));
        let (runtime, shared) = (FakeRuntime::new(), code.clone());
        runtime.on_exec(move |_, _| {
            Ok(v1::ExecSyncResponse { exit_code: shared.load(Ordering::SeqCst), ..Default::default() })
        });
        let spec: Probe = serde_json::from_value(json!({
            "exec": {"command": ["x"]}, "initialDelaySeconds": 5, "periodSeconds": 2, "failureThreshold": 2}))
        .unwrap();
        let (tx, mut rx) = mpsc::channel(4);
        let begun = tokio::time::Instant::now();
        let task = tokio::spawn(run(
            ProbeKind::Readiness,
            spec,
            target(runtime).await,
            Duration::ZERO,
            counted(),
            (PodEvents::discard(), tx),
        ));
        assert!(!rx.recv().await.unwrap().healthy);
        assert_eq!(begun.elapsed(), Duration::from_secs(7), "after the delay and two failures");
        code.store(0, Ordering::SeqCst);
        assert!(rx.recv().await.unwrap().healthy);
        assert_eq!(begun.elapsed(), Duration::from_secs(9));
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_startup_probe_ends_with_its_verdict() {
        let spec: Probe = serde_json::from_value(json!({"exec": {"command": ["x"]}})).unwrap();
        let (tx, mut rx) = mpsc::channel(4);
        let target = target(FakeRuntime::new()).await;
        run(ProbeKind::Startup, spec, target, Duration::ZERO, counted(), (PodEvents::discard(), tx)).await;
        assert!(rx.recv().await.unwrap().healthy);
        assert!(rx.recv().await.is_none());
    }

    #[test]
    fn the_delay_counts_from_the_containers_start() {
        let s = Duration::from_secs;
        assert_eq!(first_wait(s(5), s(10), s(2)), s(3));
        assert_eq!(first_wait(s(0), s(10), s(2)), s(0));
        assert!(first_wait(s(5), s(10), s(60)) < s(10));
    }
}
