//! What the workload kinds have in common: selector against template, replica counts, rolling updates, printed images.

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::selector;
use crate::registry::groups::core::pods;
use crate::registry::validation::{NEGATIVE, non_negative};

/// What every pod template of a workload must hold to.
pub struct Workload {
    /// The kind that a refusal of a deadline names.
    pub kind: &'static str,
    /// Whether a missing selector is reported as such.
    pub selector_required: bool,
}

/// Deployments and ReplicaSets.
pub const REPLICAS: Workload = Workload { kind: "ReplicaSet", selector_required: true };

/// Checks the selector, and the template that it must select. An empty selector is taken for a missing one: it selects
/// nothing.
pub fn selector_and_template(
    label_selector: &LabelSelector,
    template: Option<&PodTemplateSpec>,
    workload: &Workload,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let at_selector = at.child("selector");
    let empty = label_selector.match_labels.as_ref().is_none_or(|m| m.is_empty())
        && label_selector.match_expressions.as_ref().is_none_or(|e| e.is_empty());
    if !empty {
        errors.extend(selector::validate_label_selector(label_selector, &at_selector));
    } else if workload.selector_required {
        errors.push(FieldError::required(&at_selector, ""));
    }
    let none = PodTemplateSpec::default();
    let (template, at) = (template.unwrap_or(&none), at.child("template"));
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let parsed = selector::LabelSelector::from_meta(Some(label_selector));
    if empty || parsed.is_ok_and(|parsed| !parsed.matches_map(&labels)) {
        let at = at.child("metadata").child("labels");
        errors.push(FieldError::invalid(&at, &labels, "`selector` does not match template `labels`"));
    }
    pods::validate::template(template, &at, errors);
    lasting(template, workload.kind, &at, errors);
}

/// Checks that the pods of a template run on and on.
pub fn lasting(template: &PodTemplateSpec, kind: &str, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("spec");
    let spec = template.spec.as_ref();
    let policy = spec.and_then(|spec| spec.restart_policy.as_deref()).unwrap_or_default();
    if policy != "Always" {
        errors.push(FieldError::not_supported(&at.child("restartPolicy"), policy, &["Always"]));
    }
    if spec.is_some_and(|spec| spec.active_deadline_seconds.is_some()) {
        let message = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(&at.child("activeDeadlineSeconds"), message));
    }
}

/// Drops what only features that are off would use from a template.
pub fn drop_disabled(template: &mut PodTemplateSpec, old: Option<&PodTemplateSpec>) {
    pods::prepare::drop_disabled_in(template, old);
}

/// Warnings about a name that pods are called after.
pub fn name_warning(meta: &ObjectMeta) -> Option<String> {
    pods::warnings::name(meta, "Pod names and hostnames")
}

/// Warnings about a template, unless nothing of its owner's spec has changed; `called` says after whom pods are called.
pub fn warnings<S: PartialEq>(
    called: Option<&ObjectMeta>,
    (new, old): (&S, Option<&S>),
    template: &PodTemplateSpec,
) -> Vec<String> {
    let mut warnings = Vec::from_iter(called.filter(|_| old.is_none()).and_then(name_warning));
    if old != Some(new) {
        warnings.extend(pods::warnings::template(template, &Path::new("spec").child("template")));
    }
    warnings
}

/// Checks that a count of pods is no more than another one.
pub fn at_most(
    (field, count): (&'static str, Option<i32>),
    (other, most): (&str, Option<i32>),
    at: &Path,
    errors: &mut FieldErrors,
) {
    let count = count.unwrap_or(0);
    if count > most.unwrap_or(0) {
        errors.push(FieldError::invalid(&at.child(field), count, format!("cannot be greater than {other}")));
    }
}

/// Checks that a count of collisions of names only grows.
pub fn collisions(new: Option<i32>, old: Option<i32>, errors: &mut FieldErrors) {
    let at = Path::new("status").child("collisionCount");
    non_negative(new.map(i64::from), &at, errors);
    if let Some(old) = old
        && new.unwrap_or(0) < old
    {
        errors.push(FieldError::invalid(&at, new, "cannot be decremented"));
    }
}

/// Checks counts that may not be negative.
pub fn counts(fields: &[(&'static str, Option<i32>)], at: &Path, errors: &mut FieldErrors) {
    for (field, value) in fields {
        non_negative(value.map(i64::from), &at.child(*field), errors);
    }
}

/// The number or percentage, if it is written as one.
fn amount(value: &IntOrString) -> Option<i64> {
    match value {
        IntOrString::Int(number) => Some(i64::from(*number)),
        IntOrString::String(text) => text.strip_suffix('%').and_then(|number| number.parse().ok()),
    }
}

/// Checks a number or percentage.
pub fn number_or_percent(value: Option<&IntOrString>, at: &Path, errors: &mut FieldErrors) {
    match value {
        Some(IntOrString::String(text)) => {
            for message in names::is_percent(text) {
                errors.push(FieldError::invalid(at, text, message));
            }
        }
        Some(IntOrString::Int(number)) if *number < 0 => {
            errors.push(FieldError::invalid(at, number, NEGATIVE))
        }
        _ => {}
    }
}

/// Checks that a percentage of what there is is no more than all of it.
pub fn at_most_all(value: Option<&IntOrString>, at: &Path, errors: &mut FieldErrors) {
    if let Some(IntOrString::String(text)) = value
        && amount(&IntOrString::String(text.clone())).is_some_and(|percent| percent > 100)
    {
        errors.push(FieldError::invalid(at, text, "must not be greater than 100%"));
    }
}

/// Whether a number or percentage is nothing at all.
pub fn is_zero(value: Option<&IntOrString>) -> bool {
    value.is_none_or(|value| amount(value).unwrap_or(0) == 0)
}

/// Whether both are zero, which would let nothing move.
pub fn both_zero(a: Option<&IntOrString>, b: Option<&IntOrString>) -> bool {
    is_zero(a) && is_zero(b)
}

/// Names and images of the containers, for wide output.
pub fn containers_and_images(spec: Option<&PodSpec>) -> (String, String) {
    let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let names: Vec<&str> = containers.iter().map(|c| c.name.as_str()).collect();
    let images: Vec<&str> = containers.iter().map(|c| c.image.as_deref().unwrap_or_default()).collect();
    (names.join(","), images.join(","))
}

/// A selector in its text form, `<none>` when it is empty.
pub fn selector_cell(label_selector: Option<&LabelSelector>) -> String {
    let text = selector::LabelSelector::from_meta(label_selector).map(|s| s.to_string()).unwrap_or_default();
    if text.is_empty() { "<none>".into() } else { text }
}
