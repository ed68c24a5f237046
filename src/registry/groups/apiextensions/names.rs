//! Checks of a definition's names.

use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names::is_dns1035_label;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Checks the names that are there.
pub(super) fn check(names: &Value, at: &Path, errors: &mut FieldErrors) {
    for field in ["plural", "singular"] {
        let name = text(names, field);
        let messages = is_dns1035_label(name);
        if !name.is_empty() && !messages.is_empty() {
            errors.push(FieldError::invalid(&at.child(field), name, messages.join(",")));
        }
    }
    for field in ["kind", "listKind"] {
        let name = text(names, field);
        let messages = is_dns1035_label(&name.to_lowercase());
        if !name.is_empty() && !messages.is_empty() {
            let why = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
            errors.push(FieldError::invalid(&at.child(field), name, why));
        }
    }
    for field in ["shortNames", "categories"] {
        let list = names.get(field).and_then(Value::as_array).into_iter().flatten();
        for (i, name) in list.filter_map(Value::as_str).enumerate() {
            let messages = is_dns1035_label(name);
            if !messages.is_empty() {
                errors.push(FieldError::invalid(&at.child(field).index(i), name, messages.join(",")));
            }
        }
    }
    let kind = text(names, "kind");
    if !kind.is_empty() && kind == text(names, "listKind") {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(&at.child("listKind"), kind, why));
    }
}

/// Checks that the names that a spec needs are there.
pub(super) fn required(names: &Value, at: &Path, errors: &mut FieldErrors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(names, field).is_empty() {
            errors.push(FieldError::required(&at.child(field), ""));
        }
    }
}
