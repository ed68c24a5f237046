//! What of a Job's spec may change.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Affinity, PodTemplateSpec};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::validation::immutable;

/// Checks a change of a Job's spec.
pub(super) fn validate(new: &JobSpec, was: &JobSpec, old: &Job, errors: &mut FieldErrors) {
    let at = Path::new("spec");
    completions(new, was, &at, errors);
    immutable(&new.selector, &was.selector, &at.child("selector"), errors);
    template(new, was, old, &at, errors);
    immutable(&new.completion_mode, &was.completion_mode, &at.child("completionMode"), errors);
    immutable(&new.pod_failure_policy, &was.pod_failure_policy, &at.child("podFailurePolicy"), errors);
    let limits = (&new.backoff_limit_per_index, &was.backoff_limit_per_index);
    immutable(limits.0, limits.1, &at.child("backoffLimitPerIndex"), errors);
    immutable(&new.managed_by, &was.managed_by, &at.child("managedBy"), errors);
    immutable(&new.success_policy, &was.success_policy, &at.child("successPolicy"), errors);
}

/// An indexed Job may become larger or smaller as a whole.
fn completions(new: &JobSpec, was: &JobSpec, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("completions");
    if new.completion_mode.as_deref() != Some("Indexed") {
        immutable(&new.completions, &was.completions, &at, errors);
    } else if new.completions != was.completions
        && let Some(completions) = new.completions
        && new.completions != new.parallelism
    {
        let message = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid(&at, completions, message));
    }
}

/// A suspended Job that has not started yet may have its pods placed elsewhere, and given other amounts while it is
/// suspended.
fn template(new: &JobSpec, was: &JobSpec, old: &Job, at: &Path, errors: &mut FieldErrors) {
    let suspended = was.suspend == Some(true);
    let active = old.status.as_ref().and_then(|status| status.active).unwrap_or(0);
    let started = old.status.as_ref().is_some_and(|status| status.start_time.is_some());
    let told = old
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Suspended" && condition.status == "True");
    let mut before = was.template.clone();
    if suspended && active == 0 && (!started || told) {
        place(&mut before, &new.template);
        amounts(&mut before, &new.template);
        let at = at.child("template.spec");
        immutable(&new.template.spec, &before.spec, &at, errors);
    } else {
        immutable(&new.template, &before, &at.child("template"), errors);
    }
}

/// Takes over what decides on which nodes pods run.
fn place(before: &mut PodTemplateSpec, new: &PodTemplateSpec) {
    let meta = new.metadata.clone().unwrap_or_default();
    let own = before.metadata.get_or_insert_default();
    (own.labels, own.annotations) = (meta.labels, meta.annotations);
    let (Some(own), Some(new)) = (&mut before.spec, &new.spec) else { return };
    let nodes = new.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    let mut affinity = own.affinity.take().unwrap_or_default();
    affinity.node_affinity = nodes;
    own.affinity = (new.affinity.is_some() || affinity != Affinity::default()).then_some(affinity);
    own.node_selector.clone_from(&new.node_selector);
    own.tolerations.clone_from(&new.tolerations);
    own.scheduling_gates.clone_from(&new.scheduling_gates);
}

/// Takes over how much containers ask for.
fn amounts(before: &mut PodTemplateSpec, new: &PodTemplateSpec) {
    let (Some(own), Some(new)) = (&mut before.spec, &new.spec) else { return };
    let lists = [
        (own.containers.as_mut_slice(), new.containers.as_slice()),
        (
            own.init_containers.as_deref_mut().unwrap_or_default(),
            new.init_containers.as_deref().unwrap_or_default(),
        ),
    ];
    for (own, new) in lists.into_iter().filter(|(own, new)| own.len() == new.len()) {
        for (own, new) in own.iter_mut().zip(new).filter(|(own, new)| own.name == new.name) {
            own.resources.clone_from(&new.resources);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(changes: &[(&str, Value)]) -> Job {
        let mut object = json!({"metadata": {"name": "j"}, "status": {}, "spec": {"completions": 2, "parallelism": 2,
            "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        for (pointer, value) in changes {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn only_a_job_that_waits_may_change_its_pods() {
        let indexed = || ("/spec/completionMode", json!("Indexed"));
        let suspended = || ("/spec/suspend", json!(true));
        let selector = || ("/spec/template/spec/nodeSelector", json!({"a": "b"}));
        let amounts = || ("/spec/template/spec/containers/0/resources", json!({"requests": {"cpu": "1"}}));
        let fixed = "field is immutable";
        let cases = [
            (vec![], vec![("/spec/parallelism", json!(5))], None),
            (vec![], vec![("/spec/completions", json!(5))], Some(format!("spec.completions: Invalid value: 5: {fixed}"))),
            (
                vec![indexed()],
                vec![indexed(), ("/spec/completions", json!(5))],
                Some("spec.completions: Invalid value: 5: can only be modified in tandem with spec.parallelism".into()),
            ),
            (
                vec![indexed()],
                vec![indexed(), ("/spec/completions", json!(5)), ("/spec/parallelism", json!(5))],
                None,
            ),
            (
                vec![],
                vec![("/spec/managedBy", json!("a/b"))],
                Some(format!("spec.managedBy: Invalid value: \"a/b\": {fixed}")),
            ),
            (vec![], vec![selector()], Some("spec.template: Invalid value: {".into())),
            (vec![suspended()], vec![suspended(), selector(), amounts()], None),
            (
                vec![suspended(), ("/status/active", json!(1))],
                vec![suspended(), selector()],
                Some("spec.template: Invalid value: {".into()),
            ),
            (
                vec![suspended()],
                vec![suspended(), ("/spec/template/spec/containers/0/image", json!("other"))],
                Some("spec.template.spec: Invalid value: {".into()),
            ),
            (
                vec![suspended()],
                vec![suspended(), ("/spec/template/spec/affinity", json!({"podAffinity": {}}))],
                Some("spec.template.spec: Invalid value: {".into()),
            ),
            (
                vec![suspended()],
                vec![suspended(), ("/spec/template/spec/affinity", json!({"nodeAffinity": {}}))],
                None,
            ),
        ];
        for (before, after, expected) in cases {
            let (old, new) = (job(&before), job(&after));
            let mut errors = FieldErrors::new();
            validate(new.spec.as_ref().unwrap(), old.spec.as_ref().unwrap(), &old, &mut errors);
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            match expected {
                None => assert_eq!(found, Vec::<String>::new(), "{after:?}"),
                Some(expected) => {
                    assert!(found.len() == 1 && found[0].starts_with(&expected), "{after:?}: {found:?}");
                }
            }
        }
    }
}
