//! DeviceClasses.

use k8s_openapi::api::resource::v1::{DeviceClass, DeviceSelector};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::checks;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::groups::core::pods::validate::is_extended;
use crate::registry::strategy::Strategy;
use crate::registry::table::{AGE, Column, NAME, age_cell, name_cell};
use crate::registry::validation::required;

/// The columns of DeviceClasses.
pub const COLUMNS: &[Column] = &[NAME, AGE];
/// The longest expression.
const MAX_EXPRESSION: usize = 10 * 1024;

/// The strategy of DeviceClasses.
pub struct DeviceClassStrategy;

/// Checks device selectors: each is one expression.
pub fn selectors(selectors: Option<&Vec<DeviceSelector>>, at: &Path, errors: &mut FieldErrors) {
    checks::list(selectors, checks::MOST, at, errors, |selector, at, errors| {
        let at = at.child("cel");
        let Some(cel) = &selector.cel else { return errors.push(FieldError::required(&at, "")) };
        let at = at.child("expression");
        required(&cel.expression, &at, errors);
        if cel.expression.len() > MAX_EXPRESSION {
            errors.push(FieldError::too_long(&at, MAX_EXPRESSION));
        }
    });
}

fn spec(class: &DeviceClass, old: Option<&DeviceClass>, errors: &mut FieldErrors) {
    let at = Path::new("spec");
    selectors(class.spec.selectors.as_ref(), &at.child("selectors"), errors);
    let stored = old.is_some_and(|old| old.spec.config == class.spec.config);
    let config = class.spec.config.as_ref();
    checks::list(config, checks::MOST, &at.child("config"), errors, |config, at, errors| {
        checks::configuration(config.opaque.as_ref(), stored, at, errors);
    });
    if let Some(name) = class.spec.extended_resource_name.as_deref().filter(|name| !is_extended(name)) {
        let message = "must be a valid extended resource name";
        errors.push(FieldError::invalid(&at.child("extendedResourceName"), name, message));
    }
}

impl Strategy for DeviceClassStrategy {
    type Object = DeviceClass;

    fn validate_create(&self, class: &DeviceClass, errors: &mut FieldErrors) {
        spec(class, None, errors);
    }

    fn validate_update(&self, new: &DeviceClass, old: &DeviceClass, errors: &mut FieldErrors) {
        spec(new, Some(old), errors);
    }

    fn cells(&self, class: &DeviceClass, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&class.metadata), age_cell(&class.metadata, now)]
    }
}
