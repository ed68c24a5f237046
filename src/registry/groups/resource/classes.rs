//! DeviceClasses.

use k8s_openapi::api::resource::v1::{DeviceClass, DeviceSelector};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, name_cell};

/// The columns of DeviceClasses.
pub const COLUMNS: &[Column] = &[NAME, AGE];
const MAX_SELECTORS: usize = 32;

/// The strategy of DeviceClasses.
pub struct DeviceClassStrategy;

/// Checks device selectors: each is one expression.
pub fn selectors(selectors: Option<&Vec<DeviceSelector>>, at: &Path, errors: &mut FieldErrors) {
    let selectors = selectors.map(Vec::as_slice).unwrap_or_default();
    if selectors.len() > MAX_SELECTORS {
        errors.push(FieldError::too_many(at, selectors.len(), MAX_SELECTORS));
    }
    for (i, selector) in selectors.iter().enumerate() {
        let at = at.index(i).child("cel");
        match &selector.cel {
            None => errors.push(FieldError::required(&at, "")),
            Some(cel) if cel.expression.is_empty() => {
                errors.push(FieldError::required(&at.child("expression"), ""));
            }
            Some(_) => {}
        }
    }
}

impl Strategy for DeviceClassStrategy {
    type Object = DeviceClass;

    fn validate(&self, class: &DeviceClass, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        selectors(class.spec.selectors.as_ref(), &at.child("selectors"), errors);
        for (i, config) in class.spec.config.iter().flatten().enumerate() {
            if config.opaque.is_none() {
                let message = "exactly one of the config types must be set";
                errors.push(FieldError::required(&at.child("config").index(i), message));
            }
        }
    }

    fn cells(&self, class: &DeviceClass, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&class.metadata), age_cell(&class.metadata, now)]
    }
}
