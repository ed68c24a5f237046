//! What of a pod may change.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::api::field::{FieldError, FieldErrors, Path};

const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";

/// Checks a change of a pod: almost nothing of its spec may change.
pub fn update(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    let (Some(spec), Some(was)) = (&new.spec, &old.spec) else { return };
    let at = Path::new("spec");
    if spec.containers.len() != was.containers.len() {
        let message = "pod updates may not add or remove containers";
        errors.push(FieldError::forbidden(&at.child("containers"), message));
        return;
    }
    if spec.init_containers.as_ref().map_or(0, Vec::len) != was.init_containers.as_ref().map_or(0, Vec::len) {
        let message = "pod updates may not add or remove containers";
        errors.push(FieldError::forbidden(&at.child("initContainers"), message));
        return;
    }
    deadline(spec, was, &at, errors);
    if spec.tolerations.iter().flatten().count() < was.tolerations.iter().flatten().count()
        || was
            .tolerations
            .iter()
            .flatten()
            .any(|t| !spec.tolerations.iter().flatten().any(|n| same_but_time(n, t)))
    {
        let message = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&at.child("tolerations"), message));
    }
    let mut munged = spec.clone();
    for (new, old) in munged.containers.iter_mut().zip(&was.containers) {
        new.image.clone_from(&old.image);
    }
    for (new, old) in munged.init_containers.iter_mut().flatten().zip(was.init_containers.iter().flatten()) {
        new.image.clone_from(&old.image);
    }
    munged.active_deadline_seconds = was.active_deadline_seconds;
    munged.tolerations.clone_from(&was.tolerations);
    if was.scheduling_gates.is_some() {
        gated(&mut munged, spec, was, &at, errors);
    }
    if was.termination_grace_period_seconds.is_some_and(|s| s < 0)
        && spec.termination_grace_period_seconds == Some(1)
    {
        munged.termination_grace_period_seconds = was.termination_grace_period_seconds;
    }
    if munged != *was {
        errors.push(FieldError::forbidden(&at, MUTABLE));
    }
}

/// A pod that waits may lose gates and gain conditions on its node.
fn gated(munged: &mut PodSpec, spec: &PodSpec, was: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let known = was.scheduling_gates.iter().flatten();
    if spec.scheduling_gates.iter().flatten().any(|gate| !known.clone().any(|k| k == gate)) {
        let message = "only deletion is allowed, but found new scheduling gate";
        errors.push(FieldError::forbidden(&at.child("schedulingGates"), message));
    }
    munged.scheduling_gates.clone_from(&was.scheduling_gates);
    let kept = was.node_selector.iter().flatten();
    if kept
        .clone()
        .all(|(key, value)| spec.node_selector.as_ref().is_some_and(|new| new.get(key) == Some(value)))
    {
        munged.node_selector.clone_from(&was.node_selector);
    }
}

fn same_but_time(
    a: &k8s_openapi::api::core::v1::Toleration,
    b: &k8s_openapi::api::core::v1::Toleration,
) -> bool {
    (&a.key, &a.operator, &a.value, &a.effect) == (&b.key, &b.operator, &b.value, &b.effect)
}

fn deadline(spec: &PodSpec, was: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("activeDeadlineSeconds");
    match (spec.active_deadline_seconds, was.active_deadline_seconds) {
        (Some(new), Some(old)) if new > old => {
            let message = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(&at, new, message));
        }
        (None, Some(old)) => {
            errors.push(FieldError::invalid(&at, old, "must not update from a positive integer to nil value"))
        }
        _ => {}
    }
}

/// Checks a change of a pod's status.
pub fn status_update(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    if node(new) != node(old) {
        let message = "may not be changed directly";
        errors.push(FieldError::forbidden(&Path::new("status").child("nominatedNodeName"), message));
    }
    let qos = |pod: &Pod| pod.status.as_ref().and_then(|status| status.qos_class.clone());
    if qos(old).is_some() && qos(new) != qos(old) {
        let at = Path::new("status").child("qosClass");
        errors.push(FieldError::invalid(&at, qos(new), "field is immutable"));
    }
}
