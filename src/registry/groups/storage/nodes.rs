//! CSINodes: the drivers on a node.

use k8s_openapi::api::storage::v1::CSINode;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::drivers::csi_name;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};
use crate::registry::validation::each;

/// The columns of CSINodes.
pub const COLUMNS: &[Column] = &[NAME, column("Drivers", "integer", "How many drivers the node has."), AGE];

const MAX_NODE_ID: usize = 192;

/// The strategy of CSINodes.
pub struct CsiNodeStrategy;

impl Strategy for CsiNodeStrategy {
    type Object = CSINode;

    fn validate(&self, node: &CSINode, errors: &mut FieldErrors) {
        let mut seen = std::collections::BTreeSet::new();
        for (i, driver) in node.spec.drivers.iter().enumerate() {
            let at = Path::new("spec").child("drivers").index(i);
            csi_name(&driver.name, &at.child("name"), errors);
            if !seen.insert(&driver.name) {
                errors.push(FieldError::duplicate(&at.child("name"), &driver.name));
            }
            if driver.node_id.is_empty() {
                errors.push(FieldError::required(&at.child("nodeID"), ""));
            } else if driver.node_id.len() > MAX_NODE_ID {
                let message = format!("must be {MAX_NODE_ID} characters or less");
                errors.push(FieldError::invalid(&at.child("nodeID"), &driver.node_id, message));
            }
            if let Some(count) = driver.allocatable.as_ref().and_then(|a| a.count).filter(|count| *count < 0)
            {
                let at = at.child("allocatable").child("count");
                errors.push(FieldError::invalid(&at, count, crate::registry::validation::NEGATIVE));
            }
            for key in driver.topology_keys.iter().flatten() {
                each(names::is_qualified_name(key), key, &at.child("topologyKeys"), errors);
            }
        }
    }

    fn validate_update(&self, new: &CSINode, old: &CSINode, errors: &mut FieldErrors) {
        for was in &old.spec.drivers {
            let now = new.spec.drivers.iter().find(|driver| driver.name == was.name);
            if now.is_some_and(|now| now.node_id != was.node_id || now.topology_keys != was.topology_keys) {
                let at = Path::new("spec").child("drivers");
                errors.push(FieldError::invalid(&at, now, "field is immutable"));
            }
        }
    }

    fn cells(&self, node: &CSINode, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&node.metadata), node.spec.drivers.len().into(), age_cell(&node.metadata, now)]
    }
}
