//! ResourceSlices: the devices of a pool.

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, ResourceSlice, ResourceSliceSpec};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{checks, devices};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::groups::core::pods::validate::node_selector;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{each, immutable};

/// The columns of ResourceSlices.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Node", "string", "The node that has the devices."),
    column("Driver", "string", "The driver that knows them."),
    column("Pool", "string", "The pool they belong to."),
    AGE,
];

const MAX_DEVICES: usize = 128;
/// Most devices where one has taints, counters or lists.
const MAX_ELABORATE_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;

/// The strategy of ResourceSlices.
pub struct SliceStrategy;

fn spec(spec: &ResourceSliceSpec, old: Option<&ResourceSliceSpec>, errors: &mut FieldErrors) {
    let at = Path::new("spec");
    checks::driver(&spec.driver, &at.child("driver"), errors);
    let (pool, at_pool) = (&spec.pool, at.child("pool"));
    checks::pool(&pool.name, &at_pool.child("name"), errors);
    if pool.resource_slice_count <= 0 {
        let at = at_pool.child("resourceSliceCount");
        errors.push(FieldError::invalid(&at, pool.resource_slice_count, "must be greater than zero"));
    }
    if pool.generation < 0 {
        let message = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(&at_pool.child("generation"), pool.generation, message));
    }
    place(spec, &at, errors);
    if spec.shared_counters.is_some() && spec.devices.is_some() {
        let message = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(FieldError::invalid(&at, "", message));
    }
    let elaborate = spec.devices.iter().flatten().any(is_elaborate);
    let most = if elaborate { MAX_ELABORATE_DEVICES } else { MAX_DEVICES };
    let per_device = spec.per_device_node_selection == Some(true);
    checks::set(
        spec.devices.as_ref(),
        most,
        &at.child("devices"),
        errors,
        |device| device.name.clone(),
        |device, at, errors| {
            let old = old.iter().flat_map(|old| old.devices.iter().flatten());
            let old = { old }.find(|old| old.name == device.name);
            devices::device(device, old, per_device, at, errors);
        },
    );
    let sets = spec.shared_counters.as_ref();
    let at = at.child("sharedCounters");
    checks::set(sets, MAX_COUNTER_SETS, &at, errors, |set| set.name.clone(), devices::counter_set);
}

fn is_elaborate(device: &Device) -> bool {
    let lists = |value: &DeviceAttribute| {
        value.bools.is_some() || value.ints.is_some() || value.strings.is_some() || value.versions.is_some()
    };
    device.taints.as_ref().is_some_and(|taints| !taints.is_empty())
        || device.consumes_counters.as_ref().is_some_and(|counters| !counters.is_empty())
        || device.attributes.iter().flat_map(|all| all.values()).any(lists)
}

/// Where the devices are: said in one way.
fn place(spec: &ResourceSliceSpec, at: &Path, errors: &mut FieldErrors) {
    let mut given = Vec::new();
    match spec.node_name.as_deref() {
        None => {}
        Some("") => {
            let message = "must be either unset or set to a non-empty string";
            errors.push(FieldError::invalid(&at.child("nodeName"), "", message));
        }
        Some(name) => {
            given.push("`nodeName`");
            each(names::is_dns1123_subdomain(name), name, &at.child("nodeName"), errors);
        }
    }
    if let Some(selector) = &spec.node_selector {
        given.push("`nodeSelector`");
        let at = at.child("nodeSelector");
        node_selector(selector, &at, errors);
        if selector.node_selector_terms.len() != 1 {
            let message = "must have exactly one node selector term";
            let terms = &selector.node_selector_terms;
            errors.push(FieldError::invalid(&at.child("nodeSelectorTerms"), terms, message));
        }
    }
    for (field, name, value) in [
        ("allNodes", "`allNodes`", spec.all_nodes),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`", spec.per_device_node_selection),
    ] {
        match value {
            None => {}
            Some(true) => given.push(name),
            Some(false) => {
                let message = "must be either unset or set to true";
                errors.push(FieldError::invalid(&at.child(field), false, message));
            }
        }
    }
    let message =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.len() {
        0 => errors.push(FieldError::required(at, message)),
        1 => {}
        _ => {
            let message = format!("{message}, but multiple fields are set");
            errors.push(FieldError::invalid(at, format!("{{{}}}", given.join(", ")), message));
        }
    }
}

impl Strategy for SliceStrategy {
    type Object = ResourceSlice;

    fn validate_create(&self, slice: &ResourceSlice, errors: &mut FieldErrors) {
        spec(&slice.spec, None, errors);
    }

    fn validate_update(&self, new: &ResourceSlice, old: &ResourceSlice, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        let (now, was) = (&new.spec, &old.spec);
        spec(now, Some(was), errors);
        immutable(&now.pool.name, &was.pool.name, &at.child("pool").child("name"), errors);
        immutable(&now.driver, &was.driver, &at.child("driver"), errors);
        immutable(&now.node_name, &was.node_name, &at.child("nodeName"), errors);
    }

    fn cells(&self, slice: &ResourceSlice, now: Timestamp) -> Vec<Value> {
        vec![
            name_cell(&slice.metadata),
            slice.spec.node_name.clone().unwrap_or_default().into(),
            slice.spec.driver.clone().into(),
            slice.spec.pool.name.clone().into(),
            age_cell(&slice.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(patch: Value) -> Vec<String> {
        let mut spec_of = json!({"driver": "d.example", "nodeName": "n",
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}});
        json_patch::merge(&mut spec_of, &patch);
        let slice: ResourceSlice = serde_json::from_value(json!({"spec": spec_of})).unwrap();
        let mut errors = FieldErrors::new();
        SliceStrategy.validate_create(&slice, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    fn of_device(patch: Value) -> Vec<String> {
        let mut device = json!({"name": "gpu-0"});
        json_patch::merge(&mut device, &patch);
        let at = "spec.devices[0]";
        wrong(json!({"devices": [device]})).iter().map(|error| error.replacen(at, "", 1)).collect()
    }

    #[test]
    fn a_slice_says_in_one_way_where_its_devices_are() {
        let one =
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        for (patch, expected) in [
            (json!({}), vec![]),
            (json!({"nodeName": null}), vec![format!("spec: Required value: {one}")]),
            (
                json!({"allNodes": true}),
                vec![format!(
                    "spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {one}, but multiple fields are set"
                )],
            ),
            (
                json!({"allNodes": false}),
                vec!["spec.allNodes: Invalid value: false: must be either unset or set to true".to_owned()],
            ),
            (
                json!({"pool": {"name": "a//b", "generation": -1, "resourceSliceCount": 0}}),
                vec![
                    "spec.pool.name: Invalid value".to_owned(),
                    "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero".to_owned(),
                    "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero"
                        .to_owned(),
                ],
            ),
            (
                json!({"devices": [{"name": "a"}, {"name": "a"}]}),
                vec!["spec.devices[1]: Duplicate value: \"a\"".to_owned()],
            ),
        ] {
            let found = wrong(patch.clone());
            assert_eq!(found.len(), expected.len(), "{patch}: {found:?}");
            for (found, expected) in found.iter().zip(&expected) {
                assert!(found.starts_with(expected.as_str()), "{patch}: {found}");
            }
        }
    }

    #[test]
    fn devices_are_checked_as_upstream_does() {
        let range = |min: &str, step: &str, default: &str| {
            let policy = json!({"default": default, "validRange": {"min": min, "step": step}});
            json!({"allowMultipleAllocations": true, "capacity": {"mem": {"value": "8", "requestPolicy": policy}}})
        };
        let one = "Invalid value: \"\": exactly one value must be specified";
        for (patch, expected) in [
            (json!({"attributes": {"a": {"string": "x"}, "d.example/b": {"version": "1.2.3-rc.1+b"}}}), vec![]),
            (json!({"attributes": {"a": {}}}), vec![format!(".attributes[a]: {one}")]),
            (
                json!({"attributes": {"v": {"version": "1.2"}}}),
                vec![
                    ".attributes[v].version: Invalid value: \"1.2\": must be a string compatible with semver.org spec 2.0.0"
                        .to_owned(),
                ],
            ),
            (
                json!({"attributes": {"a/b/c": {"int": 1}}}),
                vec![".attributes: Invalid value: \"a/b/c\": must not contain more than one slash".to_owned()],
            ),
            (
                json!({"taints": [{"key": "k", "effect": "Never"}]}),
                vec![
                    ".taints[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\""
                        .to_owned(),
                ],
            ),
            (
                json!({"consumesCounters": [{"counterSet": "", "counters": {}}]}),
                vec![
                    ".consumesCounters[0].counterSet: Required value".to_owned(),
                    ".consumesCounters[0].counters: Required value".to_owned(),
                ],
            ),
            (
                json!({"bindingConditions": ["a"]}),
                vec![
                    ".bindingFailureConditions: Invalid value: []: bindingFailureConditions are required to use bindingConditions"
                        .to_owned(),
                ],
            ),
            (json!({"allNodes": true}), vec![": Invalid value: \"null\": `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec".to_owned()]),
            (range("2", "2", "4"), vec![]),
            (
                range("2", "2", "5"),
                vec![
                    ".capacity[mem].requestPolicy.validRange.step: Invalid value: \"5\": value is not a multiple of a given step (2) from (2)"
                        .to_owned(),
                ],
            ),
            (
                json!({"capacity": {"mem": {"value": "8", "requestPolicy": {"default": "1"}}}}),
                vec![".capacity[mem].requestPolicy: Forbidden: allowMultipleAllocations must be true".to_owned()],
            ),
        ] {
            assert_eq!(of_device(patch.clone()), expected, "{patch}");
        }
    }
}
