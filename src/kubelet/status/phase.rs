//! The pod's phase, from its containers' states.

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use super::derive::View;
use crate::kubelet::spec::{self, RestartPolicy};

/// One of `Pending`, `Running`, `Succeeded`, `Failed`.
pub fn phase(view: &View<'_>, status: &PodStatus) -> &'static str {
    if let Some(kept) = former_terminal(view) {
        return kept;
    }
    let inits = init_count(view, status);
    let mains = main_count(view, status);
    let policy = spec::restart_policy(view.pod);
    if view.stopped() {
        return final_phase(&inits, &mains);
    }
    if inits.failed > 0 && policy == RestartPolicy::Never {
        return if inits.sidecars_running || view.life.stop().is_some() { "Pending" } else { "Failed" };
    }
    if inits.pending + inits.failed > 0 && mains.running + mains.stopped == 0 {
        return "Pending";
    }
    if mains.waiting > 0 {
        return "Pending";
    }
    if mains.running > 0 {
        return "Running";
    }
    match mains.stopped {
        0 => "Pending",
        // Nothing final is said while something may still run; `stopped` decides then.
        _ => "Running",
    }
}

/// A final phase never changes.
fn former_terminal(view: &View<'_>) -> Option<&'static str> {
    match view.pod.status.as_ref()?.phase.as_deref()? {
        "Succeeded" => Some("Succeeded"),
        "Failed" => Some("Failed"),
        _ => None,
    }
}

fn final_phase(inits: &Inits, mains: &Mains) -> &'static str {
    let all_succeeded = inits.failed == 0 && mains.total > 0 && mains.succeeded == mains.total;
    if all_succeeded { "Succeeded" } else { "Failed" }
}

#[derive(Debug, Default)]
struct Inits {
    pending: usize,
    failed: usize,
    sidecars_running: bool,
}

#[derive(Debug, Default)]
struct Mains {
    total: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
}

fn init_count(view: &View<'_>, status: &PodStatus) -> Inits {
    let mut count = Inits::default();
    let wanted = spec::init_containers(view.pod);
    for (c, s) in wanted.iter().zip(status.init_container_statuses.iter().flatten()) {
        let state = s.state.clone().unwrap_or_default();
        if spec::is_sidecar(c) {
            count.sidecars_running |= state.running.is_some();
            count.pending += usize::from(s.started != Some(true));
            continue;
        }
        match (state.terminated, last_exit(s)) {
            (Some(t), _) => count.failed += usize::from(t.exit_code != 0),
            (None, Some(code)) if code != 0 => count.failed += 1,
            (None, _) => count.pending += 1,
        }
    }
    count
}

fn main_count(view: &View<'_>, status: &PodStatus) -> Mains {
    let mut count = Mains { total: spec::main_containers(view.pod).len(), ..Mains::default() };
    for s in status.container_statuses.iter().flatten() {
        let state = s.state.clone().unwrap_or_default();
        if state.running.is_some() {
            count.running += 1;
        } else if let Some(t) = state.terminated {
            count.stopped += 1;
            count.succeeded += usize::from(t.exit_code == 0);
        } else if last_exit(s).is_some() {
            count.stopped += 1;
        } else {
            count.waiting += 1;
        }
    }
    count
}

fn last_exit(s: &ContainerStatus) -> Option<i32> {
    Some(s.last_state.as_ref()?.terminated.as_ref()?.exit_code)
}
