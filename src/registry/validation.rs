//! Checks that several kinds share. Kinds' own checks live beside their rows.

pub mod metadata;

use crate::api::field::{FieldError, FieldErrors, Path};

/// The message for a value below zero.
pub const NEGATIVE: &str = "must be greater than or equal to 0";
/// The message for a changed value that may not change.
pub const IMMUTABLE: &str = "field is immutable";

/// Reports `value` when it is negative.
pub fn non_negative(value: Option<i64>, at: &Path, errors: &mut FieldErrors) {
    if let Some(value) = value.filter(|v| *v < 0) {
        errors.push(FieldError::invalid(at, value, NEGATIVE));
    }
}

/// Reports each message about `value`.
pub fn each(messages: Vec<String>, value: &str, at: &Path, errors: &mut FieldErrors) {
    for message in messages {
        errors.push(FieldError::invalid(at, value, message));
    }
}

/// Reports a changed value.
pub fn immutable<T: PartialEq + serde::Serialize>(new: &T, old: &T, at: &Path, errors: &mut FieldErrors) {
    if new != old {
        errors.push(FieldError::invalid(at, new, IMMUTABLE));
    }
}

/// Checks a label selector, where there is one.
pub fn selector(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    if let Some(selector) = selector {
        errors.extend(crate::api::selector::validate_label_selector(selector, at));
    }
}

/// The text, or nothing where there is none.
pub fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// Reports a value that is missing or not one of `supported`.
pub fn one_of(value: Option<&str>, supported: &[&str], at: &Path, errors: &mut FieldErrors) {
    match value.unwrap_or_default() {
        "" => errors.push(FieldError::required(at, "")),
        value => known(Some(value), supported, at, errors),
    }
}

/// Reports a value that is there and not one of `supported`.
pub fn known(value: Option<&str>, supported: &[&str], at: &Path, errors: &mut FieldErrors) {
    if let Some(value) = value.filter(|value| !supported.contains(value)) {
        errors.push(FieldError::not_supported(at, value, supported));
    }
}

/// Reports a missing or empty string.
pub fn required(value: &str, at: &Path, errors: &mut FieldErrors) {
    if value.is_empty() {
        errors.push(FieldError::required(at, ""));
    }
}

/// Reports a value that is not a domain with a path below it, such as `acme.io/foo`.
pub fn domain_prefixed_path(value: &str, at: &Path, errors: &mut FieldErrors) {
    if value.is_empty() {
        errors.push(FieldError::required(at, ""));
        return;
    }
    let parts = value.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty());
    let Some((domain, path)) = parts else {
        let message = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(at, value, message));
        return;
    };
    each(crate::api::names::is_dns1123_subdomain(domain), domain, at, errors);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !path.bytes().all(plain) {
        let message = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        errors.push(FieldError::invalid(at, path, message));
    }
}

/// Reports a quantity that is negative or no quantity.
pub fn non_negative_quantity(
    amount: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let Some(amount) = amount else { return };
    match crate::api::quantity::Quantity::try_from(amount) {
        Ok(parsed) if parsed.sign().is_lt() => errors.push(FieldError::invalid(at, &amount.0, NEGATIVE)),
        Ok(_) => {}
        Err(error) => errors.push(FieldError::invalid(at, &amount.0, error.to_string())),
    }
}

/// Checks conditions as upstream's `ValidateConditions` does: one of each type, each of them complete.
pub fn conditions(
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    at: &Path,
    errors: &mut FieldErrors,
) {
    const LONGEST_REASON: usize = 1024;
    const LONGEST_MESSAGE: usize = 32 * 1024;
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        if conditions[..i].iter().any(|other| other.type_ == condition.type_) {
            errors.push(FieldError::duplicate(&at.child("type"), &condition.type_));
        }
        each(
            crate::api::names::is_qualified_name(&condition.type_),
            &condition.type_,
            &at.child("type"),
            errors,
        );
        let statuses = ["False", "True", "Unknown"];
        if !statuses.contains(&condition.status.as_str()) {
            errors.push(FieldError::not_supported(&at.child("status"), &condition.status, &statuses));
        }
        if let Some(generation) = condition.observed_generation.filter(|generation| *generation < 0) {
            let message = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(&at.child("observedGeneration"), generation, message));
        }
        if crate::registry::decode::is_zero_time(&condition.last_transition_time) {
            errors.push(FieldError::required(&at.child("lastTransitionTime"), "must be set"));
        }
        let (reason, at_reason) = (&condition.reason, at.child("reason"));
        if reason.is_empty() {
            errors.push(FieldError::required(&at_reason, "must be set"));
        } else {
            each(crate::api::names::is_condition_reason(reason), reason, &at_reason, errors);
            if reason.len() > LONGEST_REASON {
                errors.push(FieldError::too_long(&at_reason, LONGEST_REASON));
            }
        }
        if condition.message.len() > LONGEST_MESSAGE {
            errors.push(FieldError::too_long(&at.child("message"), LONGEST_MESSAGE));
        }
    }
}
