//! VolumeAttributesClasses.

use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::classes::{driver_name, parameters};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, column, name_cell};

/// The columns of VolumeAttributesClasses.
pub const COLUMNS: &[Column] =
    &[NAME, column("DriverName", "string", "The driver that knows the attributes."), AGE];

/// The strategy of VolumeAttributesClasses.
pub struct AttributesClassStrategy;

impl Strategy for AttributesClassStrategy {
    type Object = VolumeAttributesClass;

    fn validate(&self, class: &VolumeAttributesClass, errors: &mut FieldErrors) {
        driver_name(&class.driver_name, &Path::new("driverName"), errors);
        if class.parameters.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
            let message = "must contain at least one key/value pair";
            errors.push(FieldError::required(&Path::new("parameters"), message));
        }
        parameters(class.parameters.as_ref(), &Path::new("parameters"), errors);
    }

    fn validate_update(
        &self,
        new: &VolumeAttributesClass,
        old: &VolumeAttributesClass,
        errors: &mut FieldErrors,
    ) {
        if new.driver_name != old.driver_name {
            let message = "updates to driverName are forbidden.";
            errors.push(FieldError::forbidden(&Path::new("driverName"), message));
        }
        if new.parameters != old.parameters {
            let message = "updates to parameters are forbidden.";
            errors.push(FieldError::forbidden(&Path::new("parameters"), message));
        }
    }

    fn cells(&self, class: &VolumeAttributesClass, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&class.metadata), class.driver_name.clone().into(), age_cell(&class.metadata, now)]
    }
}
