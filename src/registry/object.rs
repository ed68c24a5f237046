//! Typed objects behind one trait, so that the pipeline handles every kind alike.

use std::any::Any;

use bytes::Bytes;
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::protobuf;

/// What a Rust type must offer to be a kind of the registry: every top-level type of `k8s-openapi` does.
pub trait Kind:
    k8s_openapi::Resource
    + Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Clone
    + PartialEq
    + Default
    + Send
    + Sync
    + 'static
{
}

impl<T> Kind for T where
    T: k8s_openapi::Resource
        + Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + PartialEq
        + Default
        + Send
        + Sync
        + 'static
{
}

/// A decoded object of some kind.
pub trait Object: Any + Send + Sync {
    /// The object's metadata.
    fn meta(&self) -> &ObjectMeta;
    /// The object's metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// The object as a JSON tree, with `apiVersion` and `kind`, and with all that upstream's encoder always writes.
    fn to_value(&self) -> Result<Value, serde_json::Error>;
    /// The object as JSON, with `apiVersion`, `kind` and `metadata` first.
    fn to_json(&self) -> Result<Bytes, serde_json::Error>;
    /// For downcasting.
    fn as_any(&self) -> &dyn Any;
    /// For downcasting.
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// For downcasting by value.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    /// Becomes `other`, if that is of the same type.
    fn assign(&mut self, other: Box<dyn Object>);
}

impl<T: Kind> Object for T {
    fn meta(&self) -> &ObjectMeta {
        Metadata::metadata(self)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        Metadata::metadata_mut(self)
    }

    fn to_value(&self) -> Result<Value, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        protobuf::complete(&mut value, T::API_VERSION, T::KIND);
        Ok(value)
    }

    fn to_json(&self) -> Result<Bytes, serde_json::Error> {
        // The tree is needed: what upstream's encoder always writes, the Rust types leave out.
        super::write::encode::canonical(&self.to_value()?)
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

impl dyn Object {
    /// The object as `T`, if it is one.
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        self.as_any().downcast_ref()
    }

    /// The object as `T`, to change, if it is one.
    pub fn downcast_mut<T: 'static>(&mut self) -> Option<&mut T> {
        self.as_any_mut().downcast_mut()
    }
}
