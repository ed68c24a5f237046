//! Checks that claims, classes and slices share; limits and messages are upstream's.

use std::collections::BTreeSet;

use k8s_openapi::api::resource::v1::{DeviceToleration, OpaqueDeviceConfiguration};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde::Serialize;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, known, text};

/// Most requests, constraints, configurations and selectors of a claim or class.
pub const MOST: usize = 32;
/// Longest name of a driver.
const MAX_DRIVER: usize = 63;
/// Longest identifier of an attribute or a capacity.
const MAX_ID: usize = 32;
const MAX_POOL: usize = 253;
/// Longest parameters of a driver, and longest data of a device.
pub const MAX_RAW: usize = 10 * 1024;
const MAX_CONDITIONS: usize = 4;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// Checks a list: its length, and each item unless there are too many.
pub fn list<T>(
    items: Option<&Vec<T>>,
    most: usize,
    at: &Path,
    errors: &mut FieldErrors,
    mut check: impl FnMut(&T, &Path, &mut FieldErrors),
) {
    let items = items.map(Vec::as_slice).unwrap_or_default();
    if items.len() > most {
        return errors.push(FieldError::too_many(at, items.len(), most));
    }
    items.iter().enumerate().for_each(|(i, item)| check(item, &at.index(i), errors));
}

/// Checks a list as [`list`] does, and that no two items have the same key.
pub fn set<T, K: Ord + Serialize>(
    items: Option<&Vec<T>>,
    most: usize,
    at: &Path,
    errors: &mut FieldErrors,
    key: impl Fn(&T) -> K,
    check: impl FnMut(&T, &Path, &mut FieldErrors),
) {
    list(items, most, at, errors, check);
    let mut seen = BTreeSet::new();
    for (i, item) in items.into_iter().flatten().enumerate().take(most) {
        let key = key(item);
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(&at.index(i), key));
        } else {
            seen.insert(key);
        }
    }
}

/// The name of a driver, as of CSI drivers.
pub fn driver(name: &str, at: &Path, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.push(FieldError::required(at, ""));
    }
    if name.len() > MAX_DRIVER {
        errors.push(FieldError::too_long(at, MAX_DRIVER));
    }
    each(names::is_dns1123_subdomain(&name.to_lowercase()), name, at, errors);
}

/// The name of a pool: subdomains with slashes between.
pub fn pool(name: &str, at: &Path, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.push(FieldError::required(at, ""));
    }
    if name.len() > MAX_POOL {
        errors.push(FieldError::too_long(at, MAX_POOL));
    }
    for part in name.split('/') {
        each(names::is_dns1123_subdomain(part), part, at, errors);
    }
}

/// A label of DNS, as devices, requests and counters are named.
pub fn label(name: &str, at: &Path, errors: &mut FieldErrors) {
    each(names::is_dns1123_label(name), name, at, errors);
}

fn c_identifier(id: &str, at: &Path, errors: &mut FieldErrors) {
    if id.len() > MAX_ID {
        errors.push(FieldError::too_long(at, MAX_ID));
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if id.is_empty() || !id.bytes().all(word) || id.as_bytes()[0].is_ascii_digit() {
        let message = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                       alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for \
                       validation is '[A-Za-z_][A-Za-z0-9_]*')";
        errors.push(FieldError::invalid(at, id, message));
    }
}

/// The name of an attribute or a capacity: an identifier, maybe behind a domain and a slash.
pub fn qualified_name(name: &str, at: &Path, errors: &mut FieldErrors) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => c_identifier(id, at, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(at, "", "the domain must not be empty"));
            } else {
                driver(domain, at, errors);
            }
            if id.is_empty() {
                errors.push(FieldError::invalid(at, "", "the name must not be empty"));
            } else {
                c_identifier(id, at, errors);
            }
        }
        _ => errors.push(FieldError::invalid(at, name, "must not contain more than one slash")),
    }
}

/// The name of an attribute with its domain.
pub fn fully_qualified_name(name: &str, at: &Path, errors: &mut FieldErrors) {
    qualified_name(name, at, errors);
    if !name.contains('/') {
        let message = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(FieldError::invalid(at, name, message));
    }
}

/// The configuration of a driver; what is `stored` already may be longer than what is new.
pub fn configuration(
    opaque: Option<&OpaqueDeviceConfiguration>,
    stored: bool,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let at = at.child("opaque");
    let Some(opaque) = opaque else { return errors.push(FieldError::required(&at, "")) };
    driver(&opaque.driver, &at.child("driver"), errors);
    raw(&opaque.parameters, stored, &at.child("parameters"), errors);
}

/// An object of any kind.
pub fn raw(raw: &RawExtension, stored: bool, at: &Path, errors: &mut FieldErrors) {
    if raw.0.is_null() {
        errors.push(FieldError::required(at, ""));
    } else if !stored && raw.0.to_string().len() > MAX_RAW {
        errors.push(FieldError::too_long(at, MAX_RAW));
    } else if !raw.0.is_object() {
        errors.push(FieldError::invalid(at, "<value omitted>", "must be a valid JSON object"));
    }
}

/// The key of a taint or toleration, and its value.
pub fn label_pair(key: &str, at: &Path, errors: &mut FieldErrors) {
    each(names::is_qualified_name(key), key, at, errors);
}

/// What a toleration tolerates.
pub fn toleration(toleration: &DeviceToleration, at: &Path, errors: &mut FieldErrors) {
    let (key, value) = (text(&toleration.key), text(&toleration.value));
    if !key.is_empty() {
        label_pair(key, &at.child("key"), errors);
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" if !value.is_empty() => {
            let message = "must be empty for operator `Exists`";
            errors.push(FieldError::invalid(&at.child("value"), value, message));
        }
        "Exists" => {}
        "Equal" => each(names::is_label_value(value), value, &at.child("value"), errors),
        other => errors.push(FieldError::not_supported(&at.child("operator"), other, &["Equal", "Exists"])),
    }
    effect(text(&toleration.effect), &at.child("effect"), errors);
}

/// The effect of a taint, where there is one.
pub fn effect(effect: &str, at: &Path, errors: &mut FieldErrors) {
    known(Some(effect).filter(|effect| !effect.is_empty()), &EFFECTS, at, errors);
}

/// The conditions of binding, and those of its failure: there are both or neither, and none twice.
pub fn binding(
    conditions: Option<&Vec<String>>,
    failures: Option<&Vec<String>>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let (at_conditions, at_failures) = (at.child("bindingConditions"), at.child("bindingFailureConditions"));
    for (list_of, at) in [(conditions, &at_conditions), (failures, &at_failures)] {
        set(list_of, MAX_CONDITIONS, at, errors, String::clone, |name, at, errors| {
            label_pair(name, at, errors);
        });
    }
    let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
    let failures = failures.map(Vec::as_slice).unwrap_or_default();
    for (i, failure) in failures.iter().enumerate().filter(|(_, failure)| conditions.contains(failure)) {
        let message = "bindingFailureConditions must not overlap with bindingConditions";
        errors.push(FieldError::invalid(&at_failures.index(i), failure, message));
    }
    if conditions.is_empty() && !failures.is_empty() {
        let message = "bindingConditions are required to use bindingFailureConditions";
        errors.push(FieldError::invalid(&at_conditions, conditions, message));
    }
    if failures.is_empty() && !conditions.is_empty() {
        let message = "bindingFailureConditions are required to use bindingConditions";
        errors.push(FieldError::invalid(&at_failures, failures, message));
    }
}
