//! The loop of one probe: waits, tries, counts, reports changes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::act::{self, Target};
use super::counts::{Counts, Whose};
use super::track::{Outcome, ProbeKind, Tracker};
use crate::kubelet::events::PodEvents;
use k8s_openapi::api::core::v1::Probe;
use rand::Rng as _;
use tokio::sync::Notify;

/// A verdict that the worker should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The container's id.
    pub container_id: String,
    /// Which probe.
    pub kind: ProbeKind,
    /// Healthy or not.
    pub healthy: bool,
}

/// What the probes of a pod have said and nobody has heard yet: of each probe only the last word.
#[derive(Debug, Default)]
pub struct Verdicts {
    said: Mutex<Vec<Verdict>>,
    more: Notify,
}

impl Verdicts {
    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<Verdict>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A probe says something.
    pub fn put(&self, verdict: Verdict) {
        let mut said = self.locked();
        said.retain(|old| (&old.container_id, old.kind) != (&verdict.container_id, verdict.kind));
        said.push(verdict);
        drop(said);
        self.more.notify_one();
    }

    /// The next word. Cancel-safe, for one listener.
    pub async fn next(&self) -> Verdict {
        loop {
            if let Some(first) = self.take() {
                return first;
            }
            self.more.notified().await;
        }
    }

    fn take(&self) -> Option<Verdict> {
        let mut said = self.locked();
        (!said.is_empty()).then(|| said.remove(0))
    }
}

/// Probes until the future is dropped, or until there is nothing more to learn.
pub async fn run(
    kind: ProbeKind,
    spec: Probe,
    target: Target,
    already_running: Duration,
    (counts, whose): (Arc<Counts>, Whose),
    (events, out): (PodEvents, Arc<Verdicts>),
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
            out.put(Verdict { container_id: target.container_id.clone(), kind, healthy });
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
    let name = Some(target.name.as_str());
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
        let runtime: Arc<dyn crate::cri::Runtime> = Arc::new(runtime);
        let container = Container { name: "a".into(), ..Container::default() };
        Target::new(&runtime, &container_id, &container, String::new())
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
        let said = Arc::new(Verdicts::default());
        let begun = tokio::time::Instant::now();
        let task = tokio::spawn(run(
            ProbeKind::Readiness,
            spec,
            target(runtime).await,
            Duration::ZERO,
            counted(),
            (PodEvents::discard(), said.clone()),
        ));
        assert!(!said.next().await.healthy);
        assert_eq!(begun.elapsed(), Duration::from_secs(7), "after the delay and two failures");
        code.store(0, Ordering::SeqCst);
        assert!(said.next().await.healthy);
        assert_eq!(begun.elapsed(), Duration::from_secs(9));
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_startup_probe_ends_with_its_verdict() {
        let spec: Probe = serde_json::from_value(json!({"exec": {"command": ["x"]}})).unwrap();
        let said = Arc::new(Verdicts::default());
        let target = target(FakeRuntime::new()).await;
        run(
            ProbeKind::Startup,
            spec,
            target,
            Duration::ZERO,
            counted(),
            (PodEvents::discard(), said.clone()),
        )
        .await;
        assert!(said.next().await.healthy);
    }

    #[tokio::test]
    async fn only_the_last_word_of_a_probe_is_kept() {
        let said = Verdicts::default();
        let verdict = |id: &str, kind, healthy| Verdict { container_id: id.to_owned(), kind, healthy };
        let (ready, live) = (ProbeKind::Readiness, ProbeKind::Liveness);
        for (id, kind, healthy) in
            [("a", ready, true), ("a", live, true), ("b", ready, true), ("a", ready, false)]
        {
            said.put(verdict(id, kind, healthy));
        }
        for (id, kind, healthy) in [("a", live, true), ("b", ready, true), ("a", ready, false)] {
            assert_eq!(said.next().await, verdict(id, kind, healthy));
        }
        assert!(futures::FutureExt::now_or_never(said.next()).is_none());
    }

    #[test]
    fn the_delay_counts_from_the_containers_start() {
        let s = Duration::from_secs;
        assert_eq!(first_wait(s(5), s(10), s(2)), s(3));
        assert_eq!(first_wait(s(0), s(10), s(2)), s(0));
        assert!(first_wait(s(5), s(10), s(60)) < s(10));
    }
}
