//! What the workload kinds have in common: selector against template, replica counts, rolling updates, printed images.

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::selector;
use crate::registry::groups::core::pods;
use crate::registry::validation::{NEGATIVE, non_negative};

/// Checks the selector, and the template that it must select.
pub fn selector_and_template(
    label_selector: &LabelSelector,
    template: Option<&PodTemplateSpec>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let at_selector = at.child("selector");
    let empty = label_selector.match_labels.as_ref().is_none_or(|m| m.is_empty())
        && label_selector.match_expressions.as_ref().is_none_or(|e| e.is_empty());
    if empty {
        errors.push(FieldError::required(&at_selector, ""));
    } else {
        errors.extend(selector::validate_label_selector(label_selector, &at_selector));
    }
    let at = at.child("template");
    let Some(template) = template else {
        errors.push(FieldError::required(&at, ""));
        return;
    };
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    if !empty
        && let Ok(parsed) = selector::LabelSelector::from_meta(Some(label_selector))
        && !parsed.matches_map(&labels)
    {
        let at = at.child("metadata").child("labels");
        errors.push(FieldError::invalid(&at, &labels, "`selector` does not match template `labels`"));
    }
    pods::validate::template(template, &at, errors);
    let policy = template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or_default();
    if policy != "Always" {
        let at = at.child("spec").child("restartPolicy");
        errors.push(FieldError::not_supported(&at, policy, &["Always"]));
    }
    if template.spec.as_ref().is_some_and(|spec| spec.active_deadline_seconds.is_some()) {
        let at = at.child("spec").child("activeDeadlineSeconds");
        errors.push(FieldError::forbidden(&at, "activeDeadlineSeconds in ReplicaSet is not Supported"));
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
            for _ in names::is_percent(text) {
                let message = "must be an integer or percentage (e.g '5%%')".replace("%%", "%");
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

/// Whether both are zero, which would let nothing move.
pub fn both_zero(a: Option<&IntOrString>, b: Option<&IntOrString>) -> bool {
    [a, b].iter().all(|value| value.and_then(amount) == Some(0))
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
