//! Pod conditions that the kubelet owns; those of others are passed through.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};

use super::derive::{View, time};
use crate::kubelet::pods::state::Life;
use crate::kubelet::spec;

/// Types that only the kubelet sets.
pub const OWNED: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    // The last two are there only while a resize is.
    "PodResizePending",
    "PodResizeInProgress",
];

/// Set by whoever ends a pod before its time, the kubelet among others.
pub const DISRUPTION: &str = "DisruptionTarget";

/// Outcome of one condition.
struct Verdict {
    status: bool,
    reason: Option<String>,
    message: Option<String>,
}

impl Verdict {
    const fn yes() -> Self {
        Self { status: true, reason: None, message: None }
    }

    fn no(reason: &str, message: String) -> Self {
        let message = (!message.is_empty()).then_some(message);
        Self { status: false, reason: Some(reason.to_owned()), message }
    }
}

/// All conditions of the pod, with transition times kept where nothing changed.
pub fn conditions(view: &View<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let containers = containers_ready(view, status);
    let ready = ready(view, &containers);
    let sandbox = Verdict {
        status: *view.life != Life::Gone && !view.stopped() && view.observed.ready_sandbox().is_some(),
        reason: None,
        message: None,
    };
    let own = [sandbox, initialized(view, status), ready, containers, Verdict::yes()];
    let mut out: Vec<PodCondition> =
        OWNED.iter().zip(own).map(|(type_, verdict)| merge(view, type_, verdict)).collect();
    if let Some((reason @ ("Evicted" | "Terminated"), message)) = view.life.stop().and_then(|s| s.failure())
        && (reason == "Terminated"
            || view.pod.status.as_ref().is_some_and(|s| s.phase.as_deref() != Some("Pending")))
    {
        let verdict = Verdict {
            status: true,
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(message.to_owned()),
        };
        out.push(merge(view, DISRUPTION, verdict));
    }
    for own in view.resize {
        let verdict = Verdict { reason: own.reason.clone(), message: own.message.clone(), status: true };
        out.push(merge(view, &own.type_, verdict));
    }
    let foreign = view.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let foreign: Vec<_> = foreign
        .filter(|c| !OWNED.contains(&c.type_.as_str()) && !out.iter().any(|o| o.type_ == c.type_))
        .cloned()
        .collect();
    out.extend(foreign);
    out
}

fn merge(view: &View<'_>, type_: &str, verdict: Verdict) -> PodCondition {
    let word = if verdict.status { "True" } else { "False" };
    let former =
        view.pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == type_);
    let since = match former {
        Some(f) if f.status == word => f.last_transition_time.clone(),
        _ => Some(time(view.now)),
    };
    PodCondition {
        type_: type_.to_owned(),
        status: word.to_owned(),
        reason: verdict.reason,
        message: verdict.message,
        last_probe_time: None,
        last_transition_time: since,
        observed_generation: view.pod.metadata.generation,
    }
}

fn finished(status: &PodStatus) -> Option<&'static str> {
    match status.phase.as_deref() {
        Some("Succeeded") => Some("PodCompleted"),
        Some("Failed") => Some("PodFailed"),
        _ => None,
    }
}

fn initialized(view: &View<'_>, status: &PodStatus) -> Verdict {
    if finished(status) == Some("PodCompleted") {
        return Verdict { reason: Some("PodCompleted".to_owned()), ..Verdict::yes() };
    }
    let begun = status.container_statuses.iter().flatten().any(has_run);
    let waiting: Vec<&str> = spec::init_containers(view.pod)
        .iter()
        .zip(status.init_container_statuses.iter().flatten())
        .filter(
            |(c, s)| {
                if spec::is_sidecar(c) { !begun && s.started != Some(true) } else { !begun && !s.ready }
            },
        )
        .map(|(c, _)| c.name.as_str())
        .collect();
    if waiting.is_empty() {
        return Verdict::yes();
    }
    let message = format!("containers with incomplete status: [{}]", waiting.join(" "));
    Verdict::no("ContainersNotInitialized", message)
}

fn has_run(s: &ContainerStatus) -> bool {
    let ended = s.last_state.as_ref().is_some_and(|l| l.terminated.is_some());
    let state = s.state.as_ref();
    ended || state.is_some_and(|s| s.running.is_some() || s.terminated.is_some())
}

fn containers_ready(view: &View<'_>, status: &PodStatus) -> Verdict {
    if let Some(reason) = finished(status) {
        return Verdict::no(reason, String::new());
    }
    let inits = spec::init_containers(view.pod).iter().zip(status.init_container_statuses.iter().flatten());
    let sidecars = inits.filter(|(c, _)| spec::is_sidecar(c)).map(|(_, s)| s);
    let unready: Vec<&str> = sidecars
        .chain(status.container_statuses.iter().flatten())
        .filter(|s| !s.ready)
        .map(|s| s.name.as_str())
        .collect();
    if unready.is_empty() {
        return Verdict::yes();
    }
    Verdict::no("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
}

fn ready(view: &View<'_>, containers: &Verdict) -> Verdict {
    if !containers.status {
        return Verdict {
            status: false,
            reason: containers.reason.clone(),
            message: containers.message.clone(),
        };
    }
    let former: Vec<&PodCondition> =
        view.pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).collect();
    let mut messages = Vec::new();
    for gate in spec::pod_spec(view.pod).readiness_gates.iter().flatten() {
        let name = &gate.condition_type;
        match former.iter().find(|c| c.type_ == *name) {
            None => {
                messages.push(format!(
                    "corresponding condition of pod readiness gate \"{name}\" does not exist."
                ));
            }
            Some(c) if c.status != "True" => messages.push(format!(
                "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                c.status
            )),
            Some(_) => {}
        }
    }
    if messages.is_empty() {
        return Verdict::yes();
    }
    Verdict::no("ReadinessGatesNotReady", messages.join(", "))
}
