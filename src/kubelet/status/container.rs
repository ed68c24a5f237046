//! The status of one container: state, last state, restart count, readiness.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, ResourceRequirements, VolumeMountStatus,
};

use super::derive::{View, time};
use crate::kubelet::containers::resources::milli;
use crate::kubelet::observed::{ObservedContainer, RunState};
use crate::kubelet::spec::{self, Kind};

/// Derives the status of one container of the spec.
pub fn status(view: &View<'_>, kind: Kind, wanted: &Container) -> ContainerStatus {
    let former = former_status(view, kind, &wanted.name);
    let mut out = match view.observed.latest(&wanted.name) {
        Some(latest) => from_runtime(view, wanted, latest),
        None => without_runtime(view, wanted, former.as_ref()),
    };
    if out.last_state.is_none() || out.last_state == Some(ContainerState::default()) {
        // The runtime keeps one dead container; what it no longer has, the API still remembers.
        let last = former.as_ref().and_then(|f| f.last_state.clone());
        out.last_state = last.or(Some(ContainerState::default()));
    }
    if let Some(former) = &former {
        keep_end(&former.state, &mut out.state);
        keep_end(&former.last_state, &mut out.last_state);
    }
    set_waiting(view, wanted, &mut out);
    set_ready(view, kind, wanted, &mut out);
    out
}

/// An end that the API knows stays as it is: the file of the termination message may be gone by now.
fn keep_end(former: &Option<ContainerState>, state: &mut Option<ContainerState>) {
    let id = |s: &Option<ContainerState>| s.as_ref()?.terminated.as_ref()?.container_id.clone();
    if let Some(known) = id(former)
        && id(state) == Some(known)
    {
        state.clone_from(former);
    }
}

fn former_status(view: &View<'_>, kind: Kind, name: &str) -> Option<ContainerStatus> {
    let status = view.pod.status.as_ref()?;
    let list = match kind {
        Kind::Init | Kind::Sidecar => &status.init_container_statuses,
        Kind::Main => &status.container_statuses,
        Kind::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|s| s.name == name).cloned()
}

fn from_runtime(view: &View<'_>, wanted: &Container, latest: &ObservedContainer) -> ContainerStatus {
    let before = view.observed.of(&wanted.name).nth(1).filter(|c| c.state == RunState::Exited);
    ContainerStatus {
        name: wanted.name.clone(),
        image: latest.image.clone(),
        image_id: latest.image_id.clone(),
        container_id: Some(container_id(view, latest)),
        restart_count: i32::try_from(latest.attempt).unwrap_or(i32::MAX),
        state: Some(state(view, latest)),
        last_state: before
            .map(|c| ContainerState { terminated: Some(terminated(view, c)), ..ContainerState::default() }),
        resources: Some(resources(view, wanted, latest)),
        allocated_resources: wanted.resources.as_ref().and_then(|r| r.requests.clone()),
        user: latest
            .user
            .clone()
            .filter(|_| latest.running())
            .map(|linux| ContainerUser { linux: Some(linux) }),
        volume_mounts: mounts(wanted),
        ..ContainerStatus::default()
    }
}

/// What the container has: its allocation, with CPU and memory as they are by now.
fn resources(view: &View<'_>, wanted: &Container, latest: &ObservedContainer) -> ResourceRequirements {
    let mut out = wanted.resources.clone().unwrap_or_default();
    if let Some(has) = view.actuated.get(&latest.id).filter(|_| latest.running()) {
        for (list, from) in [(&mut out.limits, &has.limits), (&mut out.requests, &has.requests)] {
            for name in ["cpu", "memory"] {
                let (now, asked) =
                    (from.as_ref().and_then(|f| f.get(name)), list.as_ref().and_then(|l| l.get(name)));
                if now.map(milli) == asked.map(milli) {
                    continue;
                }
                match now {
                    Some(amount) => {
                        drop(list.get_or_insert_default().insert(name.to_owned(), amount.clone()))
                    }
                    None => drop(list.as_mut().and_then(|l| l.remove(name))),
                }
            }
            // A client that compares must not find an empty list where the spec has none.
            *list = list.take().filter(|l| !l.is_empty());
        }
    }
    out
}

fn container_id(view: &View<'_>, c: &ObservedContainer) -> String {
    format!("{}://{}", view.runtime_name, c.id)
}

fn state(view: &View<'_>, c: &ObservedContainer) -> ContainerState {
    let mut out = ContainerState::default();
    match c.state {
        RunState::Running => {
            out.running = Some(ContainerStateRunning { started_at: c.started_at.map(time) });
        }
        RunState::Exited => out.terminated = Some(terminated(view, c)),
        RunState::Created | RunState::Unknown => out.waiting = Some(initial_wait(view)),
    }
    out
}

fn terminated(view: &View<'_>, c: &ObservedContainer) -> ContainerStateTerminated {
    let reason = match (c.reason.as_str(), c.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (given, _) => given,
    };
    ContainerStateTerminated {
        container_id: Some(container_id(view, c)),
        exit_code: c.exit_code,
        finished_at: c.finished_at.map(time),
        started_at: c.started_at.map(time),
        reason: Some(reason.to_owned()),
        message: (!c.message.is_empty()).then(|| c.message.clone()),
        signal: None,
    }
}

/// The runtime has nothing of this name: it was never started, or its record is lost.
fn without_runtime(view: &View<'_>, wanted: &Container, former: Option<&ContainerStatus>) -> ContainerStatus {
    let blank = ContainerStatus {
        name: wanted.name.clone(),
        image: wanted.image.clone().unwrap_or_default(),
        restart_count: former.map_or(0, |f| f.restart_count),
        state: Some(ContainerState { waiting: Some(initial_wait(view)), ..ContainerState::default() }),
        volume_mounts: mounts(wanted),
        ..ContainerStatus::default()
    };
    let former_state = former.and_then(|f| f.state.as_ref());
    if former_state.is_some_and(|s| s.terminated.is_some()) {
        return former.cloned().unwrap_or(blank);
    }
    let was_running = former_state.is_some_and(|s| s.running.is_some());
    let failed_before_start = view.life.stop().is_some_and(|s| s.failure().is_some());
    let ran = was_running || !(failed_before_start || kind_never_ran(view));
    if view.stopped() && ran {
        return ContainerStatus { state: Some(lost("deleted")), ..blank };
    }
    if was_running {
        return ContainerStatus { last_state: Some(lost("restarted")), ..blank };
    }
    blank
}

/// A pod that ended by itself before this container's turn keeps showing it as waiting.
fn kind_never_ran(view: &View<'_>) -> bool {
    view.life.stop().is_some_and(|s| s.why == crate::kubelet::pods::state::Why::Completed)
}

fn lost(when: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(format!("The container could not be located when the pod was {when}")),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn initial_wait(view: &View<'_>) -> ContainerStateWaiting {
    let reason =
        if spec::init_containers(view.pod).is_empty() { "ContainerCreating" } else { "PodInitializing" };
    ContainerStateWaiting { reason: Some(reason.to_owned()), message: None }
}

/// A failed start or a back-off shows as waiting; what ended before becomes the last state.
fn set_waiting(view: &View<'_>, wanted: &Container, out: &mut ContainerStatus) {
    let state = out.state.clone().unwrap_or_default();
    if state.running.is_some() || view.life.stop().is_some() {
        return;
    }
    let wait = if let Some(message) = view.crash_loop.get(&wanted.name) {
        ContainerStateWaiting { reason: Some("CrashLoopBackOff".to_owned()), message: Some(message.clone()) }
    } else if let Some(failure) = view.failures.get(&wanted.name)
        && state.terminated.as_ref().is_none_or(|t| spec::container_restarts(view.pod, wanted, t.exit_code))
    {
        ContainerStateWaiting {
            reason: Some(failure.reason.clone()),
            message: (!failure.message.is_empty()).then(|| failure.message.clone()),
        }
    } else {
        return;
    };
    if state.terminated.is_some() {
        out.last_state = Some(state);
    }
    out.state = Some(ContainerState { waiting: Some(wait), ..ContainerState::default() });
}

fn set_ready(view: &View<'_>, kind: Kind, wanted: &Container, out: &mut ContainerStatus) {
    let running = view.observed.latest(&wanted.name).filter(|c| c.running());
    let is_running = out.state.as_ref().is_some_and(|s| s.running.is_some());
    let started = is_running && running.is_some_and(|c| view.started.contains(&c.id));
    out.started = (kind != Kind::Ephemeral).then_some(started);
    out.ready = match kind {
        Kind::Init => {
            out.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0)
        }
        Kind::Sidecar | Kind::Main => started && running.is_some_and(|c| !view.unready.contains(&c.id)),
        Kind::Ephemeral => false,
    };
}

fn mounts(wanted: &Container) -> Option<Vec<VolumeMountStatus>> {
    let list: Vec<_> = wanted
        .volume_mounts
        .iter()
        .flatten()
        .map(|m| VolumeMountStatus {
            name: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only: m.read_only.filter(|r| *r),
            recursive_read_only: m
                .read_only
                .filter(|r| *r)
                .map(|_| m.recursive_read_only.clone().unwrap_or_else(|| "Disabled".to_owned())),
            ..VolumeMountStatus::default()
        })
        .collect();
    (!list.is_empty()).then_some(list)
}
