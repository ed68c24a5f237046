//! Definitions on the pipeline: defaults, the status they start with, and how they go.
//!
//! Their schemas are kept as trees: a number stays as it was written, and nothing of a default is lost.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::validate;
use crate::api::error::ApiError;
use crate::api::field::FieldErrors;
use crate::api::meta;
use crate::registry::allocators::{Allocators, Reservation};
use crate::registry::context::RequestContext;
use crate::registry::custom::keeper::CLEANUP;
use crate::registry::custom::names;
use crate::registry::custom::object::RawObject;
use crate::registry::decode::{Decoded, TypeError, decode_any};
use crate::registry::object::Object;
use crate::registry::options::DeleteOptions;
use crate::registry::strategy::Behaviour;
use crate::registry::table::plain_cells;

/// The behaviour of definitions.
pub(super) struct Definitions;

fn raw(object: &dyn Object) -> &RawObject {
    object.downcast_ref().expect("the pipeline hands a row only objects that the row decoded")
}

fn raw_mut(object: &mut dyn Object) -> &mut RawObject {
    object.downcast_mut().expect("the pipeline hands a row only objects that the row decoded")
}

impl Behaviour for Definitions {
    fn decode(&self, value: Value) -> Result<Decoded, TypeError> {
        let (typed, unknown) = decode_any::<CustomResourceDefinition>(value)?;
        let mut value = serde_json::to_value(typed).map_err(serde::de::Error::custom)?;
        whole_numbers(&mut value);
        let (object, _) = RawObject::decode(value)?;
        Ok(Decoded { object: Box::new(object), unknown })
    }

    fn decode_bytes(&self, bytes: &[u8]) -> Result<Box<dyn Object>, serde_json::Error> {
        let (object, _) =
            RawObject::decode(serde_json::from_slice(bytes)?).map_err(serde::de::Error::custom)?;
        Ok(Box::new(object))
    }

    fn default(&self, obj: &mut dyn Object) {
        let Some(spec) = raw_mut(obj).rest.get_mut("spec").and_then(Value::as_object_mut) else { return };
        default_names(spec);
        let conversion = spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
        if let Some(service) = conversion.pointer_mut("/webhook/clientConfig/service")
            && let Value::Object(service) = service
        {
            service.entry("port").or_insert_with(|| 443.into());
        }
        // False is the only value that v1 allows, and is left out.
        if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
            spec.remove("preserveUnknownFields");
        }
        let scope = spec.get("scope").and_then(Value::as_str).unwrap_or_default();
        if scope.is_empty() {
            spec.remove("scope");
        }
    }

    fn prepare_for_create(&self, _: &RequestContext, obj: &mut dyn Object) {
        let object = raw_mut(obj);
        let stored = stored_version(object).map_or_else(Vec::new, |name| vec![name]);
        let status = json!({
            "conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored,
        });
        object.rest.insert("status".into(), status);
    }

    fn prepare_for_update(&self, _: &RequestContext, obj: &mut dyn Object, _: &dyn Object) {
        let object = raw_mut(obj);
        let Some(name) = stored_version(object) else { return };
        let status = object.rest.entry("status").or_insert_with(|| json!({}));
        let known = status.get("storedVersions").and_then(Value::as_array).cloned().unwrap_or_default();
        if !known.iter().any(|version| version == name.as_str()) {
            let all: Vec<Value> = known.into_iter().chain([name.into()]).collect();
            status["storedVersions"] = all.into();
        }
    }

    fn validate(&self, obj: &dyn Object, errors: &mut FieldErrors) {
        validate::new(&raw(obj).value(), errors);
    }

    fn prepare_for_part(&self, _: &str, _: &mut dyn Object, _: &dyn Object) {}

    fn validate_part(&self, _: &str, _: &dyn Object, _: &dyn Object, _: &mut FieldErrors) {}

    fn validate_update(&self, _: &dyn Object, _: &dyn Object, _: &mut FieldErrors) {}

    fn validate_replacement(&self, obj: &dyn Object, old: &dyn Object, errors: &mut FieldErrors) {
        validate::changed(&raw(obj).value(), &raw(old).value(), errors);
    }

    fn prepare_for_status_update(&self, _: &RequestContext, _: &mut dyn Object, _: &dyn Object) {}

    fn validate_status_update(&self, obj: &dyn Object, _: &dyn Object, errors: &mut FieldErrors) {
        validate::status(&raw(obj).value(), errors);
    }

    fn warnings(&self, _: &dyn Object, _: Option<&dyn Object>) -> Vec<String> {
        Vec::new()
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

    fn counts_as_spec_change(&self, _: &dyn Object, _: &dyn Object) -> bool {
        false
    }

    /// A definition goes when its objects have gone.
    fn hold(&self, obj: &mut dyn Object) -> bool {
        let object = raw_mut(obj);
        if object.meta.deletion_timestamp.is_none() {
            let finalizers = object.meta.finalizers.get_or_insert_default();
            if !finalizers.iter().any(|known| known == CLEANUP) {
                finalizers.push(CLEANUP.to_owned());
            }
            let message =
                "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
            let condition = ("Terminating", "True", "InstanceDeletionPending", message.to_owned());
            let status = object.rest.entry("status").or_insert_with(|| json!({}));
            names::set_condition(status, condition, &meta::now_rfc3339());
        }
        object.meta.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty())
    }

    fn may_vanish(&self, _: &dyn Object) -> bool {
        true
    }

    fn cells(&self, obj: &dyn Object, now: Timestamp) -> Vec<Value> {
        plain_cells(obj.meta(), now)
    }
}

fn stored_version(object: &RawObject) -> Option<String> {
    let versions = object.get("spec")?.get("versions")?.as_array()?;
    let stored = versions.iter().find(|version| version.get("storage") == Some(&Value::Bool(true)))?;
    stored.get("name")?.as_str().map(str::to_owned)
}

fn default_names(spec: &mut Map<String, Value>) {
    let Some(Value::Object(names)) = spec.get_mut("names") else { return };
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind.is_empty() {
        return;
    }
    for (field, default) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        if names.get(field).and_then(Value::as_str).unwrap_or_default().is_empty() {
            names.insert(field.into(), default.into());
        }
    }
}

/// The typed form has limits as floats; a whole number is written as one.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        Value::Array(list) => list.iter_mut().for_each(whole_numbers),
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15) {
                #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
                let whole = float as i64;
                *value = whole.into();
            }
        }
        _ => {}
    }
}
