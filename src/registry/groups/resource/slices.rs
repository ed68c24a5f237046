//! ResourceSlices: the devices of a pool.

use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{IMMUTABLE, each};

/// The columns of ResourceSlices.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Node", "string", "The node that has the devices."),
    column("Driver", "string", "The driver that knows them."),
    column("Pool", "string", "The pool they belong to."),
    AGE,
];

const MAX_DRIVER: usize = 63;

/// The strategy of ResourceSlices.
pub struct SliceStrategy;

impl Strategy for SliceStrategy {
    type Object = ResourceSlice;

    fn validate(&self, slice: &ResourceSlice, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        let spec = &slice.spec;
        if spec.driver.is_empty() {
            errors.push(FieldError::required(&at.child("driver"), ""));
        } else if spec.driver.len() > MAX_DRIVER {
            errors.push(FieldError::too_long(&at.child("driver"), MAX_DRIVER));
        } else {
            each(names::is_dns1123_subdomain(&spec.driver), &spec.driver, &at.child("driver"), errors);
        }
        if spec.pool.name.is_empty() {
            errors.push(FieldError::required(&at.child("pool").child("name"), ""));
        }
        if spec.pool.resource_slice_count <= 0 {
            let at = at.child("pool").child("resourceSliceCount");
            errors.push(FieldError::invalid(
                &at,
                spec.pool.resource_slice_count,
                "must be greater than zero",
            ));
        }
        let placed = [
            spec.node_name.as_deref().is_some_and(|name| !name.is_empty()),
            spec.node_selector.is_some(),
            spec.all_nodes == Some(true),
            spec.per_device_node_selection == Some(true),
        ];
        match placed.iter().filter(|place| **place).count() {
            0 => {
                let message = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
                errors.push(FieldError::required(&at, message));
            }
            1 => {}
            _ => {
                let message = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is \
                    required, but multiple fields are set";
                errors.push(FieldError::invalid(&at, "", message));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        for (i, device) in spec.devices.iter().flatten().enumerate() {
            let at = at.child("devices").index(i).child("name");
            each(names::is_dns1123_label(&device.name), &device.name, &at, errors);
            if !seen.insert(&device.name) {
                errors.push(FieldError::duplicate(&at, &device.name));
            }
        }
    }

    fn validate_update(&self, new: &ResourceSlice, old: &ResourceSlice, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        let (spec, was) = (&new.spec, &old.spec);
        if spec.node_name != was.node_name {
            errors.push(FieldError::invalid(&at.child("nodeName"), &spec.node_name, IMMUTABLE));
        }
        if spec.driver != was.driver {
            errors.push(FieldError::invalid(&at.child("driver"), &spec.driver, IMMUTABLE));
        }
        if spec.pool.name != was.pool.name {
            errors.push(FieldError::invalid(&at.child("pool").child("name"), &spec.pool.name, IMMUTABLE));
        }
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
