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
