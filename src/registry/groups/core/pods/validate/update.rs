//! What of a pod may change.

use k8s_openapi::api::core::v1::{
    Affinity, Container, NodeAffinity, NodeSelectorTerm, Pod, PodSpec, Toleration,
};

use super::annotations;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::required;

const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";

/// Checks a change of a pod: almost nothing of its spec may change.
pub fn update(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    annotations::update(&new.metadata, &old.metadata, errors);
    let (Some(spec), Some(was)) = (&new.spec, &old.spec) else { return };
    let at = Path::new("spec");
    let lists = |spec: &PodSpec| (spec.containers.clone(), spec.init_containers.clone().unwrap_or_default());
    let ((now, now_init), (before, before_init)) = (lists(spec), lists(was));
    if !same_containers(&now, &before, &at.child("containers"), errors)
        || !same_containers(&now_init, &before_init, &at.child("initContainers"), errors)
        || !deadline(spec, was, &at.child("activeDeadlineSeconds"), errors)
    {
        return;
    }
    tolerations(spec, was, &at.child("tolerations"), errors);
    gates(spec, was, &at.child("schedulingGates"), errors);
    if spec == was {
        return;
    }
    let mut munged = spec.clone();
    for (new, old) in munged.containers.iter_mut().zip(&was.containers) {
        new.image.clone_from(&old.image);
    }
    for (new, old) in munged.init_containers.iter_mut().flatten().zip(was.init_containers.iter().flatten()) {
        new.image.clone_from(&old.image);
    }
    munged.active_deadline_seconds = was.active_deadline_seconds;
    munged.scheduling_gates.clone_from(&was.scheduling_gates);
    munged.tolerations.clone_from(&was.tolerations);
    if was.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0)
        && spec.termination_grace_period_seconds == Some(1)
    {
        munged.termination_grace_period_seconds = was.termination_grace_period_seconds;
    }
    if was.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        waiting(&mut munged, was, &at, errors);
    }
    if munged != *was {
        errors.push(FieldError::forbidden(&at, MUTABLE));
    }
}

/// Whether there are as many containers as before; their images are checked on the way.
fn same_containers(new: &[Container], old: &[Container], at: &Path, errors: &mut FieldErrors) -> bool {
    if new.len() != old.len() {
        errors.push(FieldError::forbidden(at, "pod updates may not add or remove containers"));
        return false;
    }
    for (i, container) in new.iter().enumerate() {
        required(container.image.as_deref().unwrap_or_default(), &at.index(i).child("image"), errors);
        super::containers::trimmed(container.image.as_deref(), &at.index(i), errors);
    }
    true
}

/// A deadline may be set, and then come nearer; whether the rest may be checked.
fn deadline(spec: &PodSpec, was: &PodSpec, at: &Path, errors: &mut FieldErrors) -> bool {
    match (spec.active_deadline_seconds, was.active_deadline_seconds) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            let message = names::inclusive_range_error(0, i64::from(i32::MAX));
            errors.push(FieldError::invalid(at, new, message));
            false
        }
        (Some(new), Some(old)) if new > old => {
            errors.push(FieldError::invalid(at, new, "must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            let message = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(at, None::<i64>, message));
            true
        }
        _ => true,
    }
}

fn tolerations(spec: &PodSpec, was: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let same = |a: &Toleration, b: &Toleration| {
        (&a.key, &a.operator, &a.value, &a.effect) == (&b.key, &b.operator, &b.value, &b.effect)
    };
    let now = spec.tolerations.as_deref().unwrap_or_default();
    if was.tolerations.iter().flatten().any(|old| !now.iter().any(|new| same(new, old))) {
        let message = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(at, message));
    } else {
        super::tolerations(now, at, errors);
    }
}

fn gates(spec: &PodSpec, was: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    for (i, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        if !was.scheduling_gates.iter().flatten().any(|old| old == gate) {
            let message = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.push(FieldError::forbidden(&at.index(i).child("name"), message));
        }
    }
}

/// A pod that waits may gain conditions on its node.
fn waiting(munged: &mut PodSpec, was: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    if munged.node_selector != was.node_selector {
        let now = munged.node_selector.as_ref();
        let mut kept = was.node_selector.iter().flatten();
        if kept.any(|(key, value)| now.and_then(|now| now.get(key)) != Some(value)) {
            let message = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(&at.child("nodeSelector"), now, message));
        }
        munged.node_selector.clone_from(&was.node_selector);
    }
    let nodes = |spec: &PodSpec| spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    let (now, before) = (nodes(munged), nodes(was));
    if now == before {
        return;
    }
    let at = at.child("affinity").child("nodeAffinity");
    node_affinity(now.as_ref(), before.as_ref(), &at, errors);
    match munged.affinity.as_mut() {
        None => {
            munged.affinity = before.map(|own| Affinity { node_affinity: Some(own), ..Default::default() })
        }
        Some(own)
            if was.affinity.is_none() && own.pod_affinity.is_none() && own.pod_anti_affinity.is_none() =>
        {
            munged.affinity = None;
        }
        Some(own) => own.node_affinity = before,
    }
}

fn node_affinity(
    new: Option<&NodeAffinity>,
    old: Option<&NodeAffinity>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let terms = |affinity: Option<&NodeAffinity>| {
        let required =
            affinity.and_then(|own| own.required_during_scheduling_ignored_during_execution.clone());
        required.map(|selector| selector.node_selector_terms)
    };
    let Some(old) = terms(old) else { return };
    let new = terms(new).unwrap_or_default();
    let at = at.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    if !old.is_empty() && old.len() != new.len() {
        let message = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(&at, &new, message));
        return;
    }
    for (i, (now, was)) in new.iter().zip(&old).enumerate() {
        if !only_adds(now, was) {
            let message = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(&at.index(i), now, message));
        }
    }
}

/// A term that selected nothing stays so; another one may select less.
fn only_adds(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let lists = |term: &NodeSelectorTerm| {
        let own = |list: &Option<Vec<_>>| list.clone().unwrap_or_default();
        (own(&term.match_expressions), own(&term.match_fields))
    };
    let ((new_labels, new_fields), (old_labels, old_fields)) = (lists(new), lists(old));
    if old_labels.is_empty() && old_fields.is_empty() {
        return new_labels.is_empty() && new_fields.is_empty();
    }
    new_labels.starts_with(&old_labels) && new_fields.starts_with(&old_fields)
}
