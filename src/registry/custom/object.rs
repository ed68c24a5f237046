//! An object without a Rust type: typed metadata, and the rest as it is.

use std::any::Any;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use crate::registry::decode::{TypeError, decode_any};
use crate::registry::object::Object;
use crate::registry::write::encode::canonical;

/// The object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawObject {
    /// Its metadata.
    pub meta: ObjectMeta,
    /// Everything but the metadata.
    pub rest: Map<String, Value>,
}

impl RawObject {
    /// Takes an object apart; also the paths of metadata's unknown fields.
    ///
    /// # Errors
    /// The metadata is none, or it is no object at all.
    pub fn decode(value: Value) -> Result<(Self, Vec<String>), TypeError> {
        let Value::Object(mut rest) = value else {
            return Err(serde::de::Error::custom("the object is no object"));
        };
        let metadata = rest.remove("metadata").unwrap_or_else(|| Value::Object(Map::new()));
        let (meta, unknown) = decode_any::<ObjectMeta>(metadata)?;
        let unknown = unknown.into_iter().map(|path| format!("metadata.{path}")).collect();
        Ok((Self { meta, rest }, unknown))
    }

    /// The object as one tree.
    pub fn value(&self) -> Value {
        let mut map = self.rest.clone();
        map.insert("metadata".into(), serde_json::to_value(&self.meta).unwrap_or_default());
        Value::Object(map)
    }

    /// A top-level field.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.rest.get(field)
    }
}

impl Object for RawObject {
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }

    fn to_value(&self) -> Result<Value, serde_json::Error> {
        Ok(self.value())
    }

    fn to_json(&self) -> Result<Bytes, serde_json::Error> {
        canonical(&self.value())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn assign(&mut self, other: Box<dyn Object>) {
        if let Ok(other) = other.into_any().downcast::<Self>() {
            *self = *other;
        }
    }
}

/// The object, which its row decoded.
pub(super) fn raw(object: &dyn Object) -> &RawObject {
    object.downcast_ref().expect("the pipeline hands a row only objects that the row decoded")
}

/// The object, which its row decoded.
pub(super) fn raw_mut(object: &mut dyn Object) -> &mut RawObject {
    object.downcast_mut().expect("the pipeline hands a row only objects that the row decoded")
}
