//! CSIStorageCapacities.

use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::{IMMUTABLE, each, selector};

/// The columns of CSIStorageCapacities.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("StorageClassName", "string", "The class that the capacity is for."),
    column("Capacity", "string", "How much there is."),
    AGE,
];

/// The strategy of CSIStorageCapacities.
pub struct CapacityStrategy;

impl Strategy for CapacityStrategy {
    type Object = CSIStorageCapacity;

    fn validate(&self, capacity: &CSIStorageCapacity, errors: &mut FieldErrors) {
        let name = &capacity.storage_class_name;
        each(names::is_dns1123_subdomain(name), name, &Path::new("storageClassName"), errors);
        selector(capacity.node_topology.as_ref(), &Path::new("nodeTopology"), errors);
        let amounts =
            [("capacity", &capacity.capacity), ("maximumVolumeSize", &capacity.maximum_volume_size)];
        for (field, amount) in amounts {
            crate::registry::validation::non_negative_quantity(amount.as_ref(), &Path::new(field), errors);
        }
    }

    fn validate_update(&self, new: &CSIStorageCapacity, old: &CSIStorageCapacity, errors: &mut FieldErrors) {
        if new.storage_class_name != old.storage_class_name {
            let at = Path::new("storageClassName");
            errors.push(FieldError::invalid(&at, &new.storage_class_name, IMMUTABLE));
        }
        if new.node_topology != old.node_topology {
            errors.push(FieldError::invalid(&Path::new("nodeTopology"), &new.node_topology, IMMUTABLE));
        }
    }

    fn cells(&self, capacity: &CSIStorageCapacity, now: Timestamp) -> Vec<Value> {
        let amount = capacity.capacity.as_ref().map_or("<unset>", |amount| amount.0.as_str());
        vec![
            name_cell(&capacity.metadata),
            capacity.storage_class_name.clone().into(),
            amount.into(),
            age_cell(&capacity.metadata, now),
        ]
    }
}
