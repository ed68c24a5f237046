//! The devices of a ResourceSlice, and the counters that they share.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, Counter, CounterSet, Device, DeviceAttribute,
    DeviceCapacity, DeviceTaint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use super::checks;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::registry::groups::core::pods::validate::node_selector;
use crate::registry::validation::{each, required, text};

const MAX_ATTRIBUTES_AND_CAPACITIES: usize = 32;
const MAX_ATTRIBUTE_VALUE: usize = 64;
const MAX_TAINTS: usize = 16;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_OPTIONS: usize = 10;

/// Checks a device; `old` is the one of its name before.
pub fn device(device: &Device, old: Option<&Device>, per_device: bool, at: &Path, errors: &mut FieldErrors) {
    checks::label(&device.name, &at.child("name"), errors);
    let (attributes, capacity) = (device.attributes.as_ref(), device.capacity.as_ref());
    let count = attributes.map_or(0, BTreeMap::len) + capacity.map_or(0, BTreeMap::len);
    if count > MAX_ATTRIBUTES_AND_CAPACITIES {
        let message = format!(
            "the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES_AND_CAPACITIES}"
        );
        errors.push(FieldError::invalid(at, count, message));
    }
    let at_attributes = at.child("attributes");
    for (name, value) in attributes.into_iter().flatten() {
        checks::qualified_name(name, &at_attributes, errors);
        attribute(value, &at_attributes.key(name.clone()), errors);
    }
    if old.is_none_or(|old| old.capacity != device.capacity) {
        let at = at.child("capacity");
        for (name, value) in capacity.into_iter().flatten() {
            checks::qualified_name(name, &at, errors);
            capacity_of(
                value,
                device.allow_multiple_allocations == Some(true),
                &at.key(name.clone()),
                errors,
            );
        }
    }
    if old.is_none_or(|old| old.taints != device.taints) {
        checks::list(device.taints.as_ref(), MAX_TAINTS, &at.child("taints"), errors, taint);
    }
    checks::set(
        device.consumes_counters.as_ref(),
        MAX_CONSUMPTIONS,
        &at.child("consumesCounters"),
        errors,
        |consumption| consumption.counter_set.clone(),
        |consumption, at, errors| {
            counters_of(&consumption.counter_set, "counterSet", &consumption.counters, at, errors);
        },
    );
    place(device, per_device, at, errors);
    let (conditions, failures) =
        (device.binding_conditions.as_ref(), device.binding_failure_conditions.as_ref());
    checks::binding(conditions, failures, at, errors);
}

/// Where the device is, if the slice leaves that to its devices.
fn place(device: &Device, per_device: bool, at: &Path, errors: &mut FieldErrors) {
    let (node, selector, all) = (&device.node_name, &device.node_selector, device.all_nodes);
    if !per_device {
        if node.is_some() || selector.is_some() || all.is_some() {
            let message = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is \
                           set to true in the ResourceSlice spec";
            errors.push(FieldError::invalid(at, serde_json::Value::Null, message));
        }
        return;
    }
    let mut given = Vec::new();
    match node.as_deref() {
        None => {}
        Some("") => errors.push(FieldError::invalid(&at.child("nodeName"), "", "must not be empty")),
        Some(name) => {
            given.push("`nodeName`");
            each(names::is_dns1123_subdomain(name), name, &at.child("nodeName"), errors);
        }
    }
    if let Some(selector) = selector {
        given.push("`nodeSelector`");
        node_selector(selector, &at.child("nodeSelector"), errors);
    }
    match all {
        None => {}
        Some(true) => given.push("`allNodes`"),
        Some(false) => {
            let message = "must be either unset or set to true";
            errors.push(FieldError::invalid(&at.child("allNodes"), false, message));
        }
    }
    let message = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                   `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match given.len() {
        0 => errors.push(FieldError::required(at, message)),
        1 => {}
        _ => errors.push(FieldError::invalid(at, format!("{{{}}}", given.join(", ")), message)),
    }
}

fn attribute(attribute: &DeviceAttribute, at: &Path, errors: &mut FieldErrors) {
    let mut short = |value: &str, at: &Path, is_version: bool| {
        if is_version && !is_semantic_version(value) {
            let message = "must be a string compatible with semver.org spec 2.0.0";
            errors.push(FieldError::invalid(at, value, message));
        }
        if value.len() > MAX_ATTRIBUTE_VALUE {
            errors.push(FieldError::too_long(at, MAX_ATTRIBUTE_VALUE));
        }
    };
    let one = [("string", &attribute.string, false), ("version", &attribute.version, true)];
    for (name, value, is_version) in one {
        value.iter().for_each(|value| short(value, &at.child(name), is_version));
    }
    let many = [("strings", &attribute.strings, false), ("versions", &attribute.versions, true)];
    for (name, values, is_version) in many {
        for (i, value) in values.iter().flatten().enumerate() {
            short(value, &at.child(name).index(i), is_version);
        }
    }
    let given = [
        attribute.bool.is_some(),
        attribute.int.is_some(),
        attribute.string.is_some(),
        attribute.version.is_some(),
        attribute.bools.is_some(),
        attribute.ints.is_some(),
        attribute.strings.is_some(),
        attribute.versions.is_some(),
    ];
    let message = "exactly one value must be specified";
    match given.iter().filter(|given| **given).count() {
        0 => errors.push(FieldError::invalid(at, "", message)),
        1 => {}
        _ => errors.push(FieldError::invalid(at, attribute, message)),
    }
}

/// Whether the text is a version as semver.org has it.
fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let identifier =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let numeric = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    core.split('.').count() == 3
        && core.split('.').all(numeric)
        && pre
            .is_none_or(|pre| pre.split('.').all(|part| identifier(part) && (!digits(part) || numeric(part))))
        && build.is_none_or(|build| build.split('.').all(identifier))
}

fn taint(taint: &DeviceTaint, at: &Path, errors: &mut FieldErrors) {
    checks::label_pair(&taint.key, &at.child("key"), errors);
    let value = text(&taint.value);
    each(names::is_label_value(value), value, &at.child("value"), errors);
    required(&taint.effect, &at.child("effect"), errors);
    checks::effect(&taint.effect, &at.child("effect"), errors);
}

/// Checks a set of counters.
pub fn counter_set(set: &CounterSet, at: &Path, errors: &mut FieldErrors) {
    counters_of(&set.name, "name", &set.counters, at, errors);
}

fn counters_of(
    name: &str,
    field: &'static str,
    counters: &BTreeMap<String, Counter>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    if name.is_empty() {
        errors.push(FieldError::required(&at.child(field), ""));
    } else {
        checks::label(name, &at.child(field), errors);
    }
    let at = at.child("counters");
    match counters.len() {
        0 => errors.push(FieldError::required(&at, "")),
        many if many > MAX_COUNTERS => errors.push(FieldError::too_many(&at, many, MAX_COUNTERS)),
        _ => counters.keys().for_each(|name| checks::label(name, &at, errors)),
    }
}

fn capacity_of(capacity: &DeviceCapacity, several: bool, at: &Path, errors: &mut FieldErrors) {
    let Some(policy) = &capacity.request_policy else { return };
    let at = at.child("requestPolicy");
    if !several {
        return errors.push(FieldError::forbidden(&at, "allowMultipleAllocations must be true"));
    }
    // Quantities that are none are refused when the body is read.
    if let Ok(whole) = Quantity::try_from(&capacity.value) {
        request_policy(policy, &whole, &at, errors);
    }
}

fn request_policy(policy: &CapacityRequestPolicy, whole: &Quantity, at: &Path, errors: &mut FieldErrors) {
    let values = policy.valid_values.as_deref().unwrap_or_default();
    let default = policy.default.as_ref().and_then(parsed);
    let at_default = at.child("default");
    match (values, &policy.valid_range) {
        ([], None) => {}
        ([], Some(range)) => match default {
            None => errors.push(FieldError::required(&at_default, "required when validRange is defined")),
            Some(default) => request_range(range, &default, whole, &at.child("validRange"), errors),
        },
        (_, Some(_)) => {
            let message = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            errors.push(FieldError::forbidden(at, message));
        }
        (values, None) => match default {
            None => errors.push(FieldError::required(&at_default, "required when validValues is defined")),
            Some(default) => valid_values(values, &default, whole, &at.child("validValues"), errors),
        },
    }
}

fn parsed(quantity: &RawQuantity) -> Option<Quantity> {
    Quantity::try_from(quantity).ok()
}

fn valid_values(
    values: &[RawQuantity],
    default: &Quantity,
    whole: &Quantity,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let all: Vec<Quantity> = values.iter().filter_map(parsed).collect();
    for (i, pair) in all.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        let message = "values must be sorted in ascending order";
        errors.push(FieldError::invalid(&at.index(i + 1), pair[1].to_string(), message));
    }
    if all.len() > MAX_OPTIONS {
        errors.push(FieldError::too_many(at, all.len(), MAX_OPTIONS));
    } else {
        for (i, option) in all.iter().enumerate() {
            if option > whole {
                let message = format!("option is larger than capacity value: {whole}");
                errors.push(FieldError::invalid(&at.index(i), option.to_string(), message));
            }
            if all[..i].contains(option) {
                errors.push(FieldError::duplicate(&at.index(i), option.value().to_string()));
            }
        }
    }
    if !all.contains(default) {
        let message = "default value is not valid according to the requestPolicy";
        errors.push(FieldError::invalid(at, default.to_string(), message));
    }
}

fn request_range(
    range: &CapacityRequestPolicyRange,
    default: &Quantity,
    whole: &Quantity,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let Some(min) = parsed(&range.min) else { return };
    let mut wrong = |field: &'static str, value: &Quantity, message: String| {
        errors.push(FieldError::invalid(&at.child(field), value.to_string(), message));
    };
    if min > *whole {
        wrong("min", &min, format!("min is larger than capacity value: {whole}"));
    }
    if *default < min {
        wrong("default", default, format!("default is less than min: {min}"));
    }
    let max = range.max.as_ref().and_then(parsed);
    if let Some(max) = &max {
        if min > *max {
            wrong("max", &min, format!("min is larger than max: {max}"));
        }
        if max > whole {
            wrong("max", max, format!("max is larger than capacity value: {whole}"));
        }
        if default > max {
            wrong("default", default, format!("default is more than max: {max}"));
        }
    }
    let Some(step) = range.step.as_ref().and_then(parsed) else { return };
    if !step.sign().is_gt() {
        return wrong("step", &step, "must be greater than zero".to_owned());
    }
    let first = min.add(&step);
    if first > *whole {
        wrong("step", &step, format!("one step {first} is larger than capacity value: {whole}"));
    }
    for value in std::iter::once(default).chain(max.as_ref()) {
        let (value_, from, by) = (value.as_i64(), min.as_i64(), step.as_i64());
        if let (Some(number), Some(from), Some(by)) = (value_, from, by)
            && number.checked_sub(from).is_some_and(|distance| distance % by != 0)
        {
            wrong("step", value, format!("value is not a multiple of a given step ({step}) from ({min})"));
        }
    }
}
