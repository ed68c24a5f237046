//! What a custom resource does on the pipeline: prune, default and validate by its schema.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::columns::Columns;
use super::embedded;
use super::object::{RawObject, raw, raw_mut};
use super::rules::Rules;
use super::scale::ScalePaths;
use crate::api::error::ApiError;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::structural::{Checked, Structural, validate};
use crate::registry::allocators::{Allocators, Reservation};
use crate::registry::context::RequestContext;
use crate::registry::decode::{Decoded, TypeError};
use crate::registry::object::Object;
use crate::registry::options::DeleteOptions;
use crate::registry::strategy::Behaviour;

/// The behaviour of one version of a custom resource.
pub struct Custom {
    /// The schema of the version.
    pub schema: Arc<Structural>,
    /// Whether status is written apart.
    pub status: bool,
    /// The rules of the schema.
    pub rules: Rules,
    /// Columns of printed tables.
    pub columns: Columns,
    /// Where the replica counts are.
    pub scale: Option<ScalePaths>,
    /// What clients are told about a deprecated version.
    pub warning: Option<String>,
}

impl Custom {
    fn check(&self, object: &RawObject, old: Option<&RawObject>, errors: &mut FieldErrors) {
        let value = object.value();
        let old = old.map(RawObject::value);
        self.check_scale(&value, errors);
        validate(Checked { schema: &self.schema, value: &value, old: old.as_ref() }, "", errors);
        embedded::validate(&self.schema, &value, None, errors);
        self.rules.run(&self.schema, &value, old.as_ref(), errors);
    }

    fn check_scale(&self, value: &Value, errors: &mut FieldErrors) {
        let Some(scale) = &self.scale else { return };
        for (path, text) in [(&scale.spec, &scale.spec_text), (&scale.status, &scale.status_text)] {
            let count = super::scale::at(value, path).and_then(Value::as_i64);
            if let Some(count) = count.filter(|count| *count < 0) {
                let at = Path::new(text.clone());
                errors.push(FieldError::invalid(&at, count, "should be a non-negative integer"));
            }
        }
    }
}

impl Behaviour for Custom {
    fn decode(&self, mut value: Value) -> Result<Decoded, TypeError> {
        let mut unknown = embedded::coerce(&self.schema, &mut value)?;
        unknown.extend(self.schema.prune(&mut value));
        let (object, of_metadata) = RawObject::decode(value)?;
        unknown.extend(of_metadata);
        Ok(Decoded { object: Box::new(object), unknown })
    }

    fn decode_bytes(&self, bytes: &[u8]) -> Result<Box<dyn Object>, serde_json::Error> {
        let (object, _) =
            RawObject::decode(serde_json::from_slice(bytes)?).map_err(serde::de::Error::custom)?;
        Ok(Box::new(object))
    }

    fn default(&self, obj: &mut dyn Object) {
        let object = raw_mut(obj);
        let mut value = Value::Object(std::mem::take(&mut object.rest));
        // What a webhook added is pruned like what a client sent.
        self.schema.prune(&mut value);
        self.schema.fill_defaults(&mut value);
        if let Value::Object(mut map) = value {
            map.remove("metadata");
            object.rest = map;
        }
    }

    fn prepare_for_create(&self, _: &RequestContext, _: &mut dyn Object) {}

    fn prepare_for_update(&self, _: &RequestContext, _: &mut dyn Object, _: &dyn Object) {}

    fn validate(&self, obj: &dyn Object, errors: &mut FieldErrors) {
        self.check(raw(obj), None, errors);
    }

    fn prepare_for_part(&self, _: &str, _: &mut dyn Object, _: &dyn Object) {}

    fn validate_part(&self, _: &str, _: &dyn Object, _: &dyn Object, _: &mut FieldErrors) {}

    fn validate_update(&self, _: &dyn Object, _: &dyn Object, _: &mut FieldErrors) {}

    fn validate_replacement(&self, obj: &dyn Object, old: &dyn Object, errors: &mut FieldErrors) {
        self.check(raw(obj), Some(raw(old)), errors);
    }

    fn prepare_for_status_update(&self, _: &RequestContext, obj: &mut dyn Object, old: &dyn Object) {
        let (object, old) = (raw_mut(obj), raw(old));
        let managed = object.meta.managed_fields.take();
        object.meta = old.meta.clone();
        object.meta.managed_fields = managed;
    }

    fn validate_status_update(&self, obj: &dyn Object, old: &dyn Object, errors: &mut FieldErrors) {
        self.check(raw(obj), Some(raw(old)), errors);
    }

    fn warnings(&self, _: &dyn Object, _: Option<&dyn Object>) -> Vec<String> {
        self.warning.clone().into_iter().collect()
    }

    fn allocate(
        &self,
        _: &Allocators,
        _: &mut dyn Object,
        _: Option<&dyn Object>,
        _: &mut Reservation,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    fn release(&self, _: &Allocators, _: &dyn Object) {}

    fn graceful_delete(&self, _: &dyn Object, _: &mut DeleteOptions) -> bool {
        false
    }

    fn counts_as_spec_change(&self, obj: &dyn Object, old: &dyn Object) -> bool {
        !self.status && raw(obj).get("status") != raw(old).get("status")
    }

    fn hold(&self, _: &mut dyn Object) -> bool {
        false
    }

    fn may_vanish(&self, _: &dyn Object) -> bool {
        true
    }

    fn cells(&self, obj: &dyn Object, now: Timestamp) -> Vec<Value> {
        self.columns.cells(&raw(obj).value(), now)
    }
}
