//! The present state of the object that a write is about.

use serde_json::Value;

use super::Target;
use crate::api::error::ApiError;
use crate::api::meta;
use crate::registry::errors;
use crate::registry::object::Object;
use crate::registry::render;
use crate::registry::resource::{Resource, Storage};
use crate::registry::service::Registry;
use crate::store::{Entry, Revision};

/// An object as it is now.
pub struct Current {
    /// The tree in the row's own form, without resourceVersion.
    pub value: Value,
    /// The typed object, without resourceVersion.
    pub object: Box<dyn Object>,
    /// Its revision.
    pub revision: Revision,
    /// Whether it comes from the store rather than from the cache, which may lag behind.
    pub live: bool,
}

/// Decodes stored or cached bytes.
pub async fn decode(
    resource: &Resource,
    bytes: &[u8],
    revision: Revision,
    live: bool,
) -> Result<Current, ApiError> {
    let broken = |error: serde_json::Error| {
        tracing::error!(resource = %resource.plural, %revision, %error, "stored object cannot be decoded");
        ApiError::internal("the stored object cannot be decoded")
    };
    let mut value: Value = serde_json::from_slice(bytes).map_err(broken)?;
    meta::set(&mut value, "resourceVersion", None);
    if let Storage::Shared(conversion) = &resource.storage {
        value = conversion.restored(value);
        let object = resource.behaviour.decode(value.clone()).map_err(ApiError::internal)?.object;
        return Ok(Current { value, object, revision, live });
    }
    if let Storage::Custom(convert) = &resource.storage {
        let value = render::sole(convert.restored(vec![value]).await?)?;
        let object = resource.behaviour.decode(value.clone()).map_err(ApiError::internal)?.object;
        return Ok(Current { value, object, revision, live });
    }
    let mut object = resource.behaviour.decode_bytes(bytes).map_err(broken)?;
    object.meta_mut().resource_version = None;
    Ok(Current { value, object, revision, live })
}

impl Registry {
    /// The object from the cache or, when the cache does not have it, from the store.
    pub(in crate::registry) async fn load(&self, target: &Target<'_>) -> Result<Option<Current>, ApiError> {
        let cache = self.cache_of(target.resource)?;
        match cache.get(target.namespace, target.name) {
            Some(object) => decode(target.resource, object.json(), object.revision(), false).await.map(Some),
            None => self.load_live(target).await,
        }
    }

    /// The object from the store.
    pub(in crate::registry) async fn load_live(
        &self,
        target: &Target<'_>,
    ) -> Result<Option<Current>, ApiError> {
        let entry = self.store().get(&target.key(), None).await.map_err(|e| errors::store(target, e))?;
        match entry {
            Some(entry) => from_entry(target.resource, &entry).await.map(Some),
            None => Ok(None),
        }
    }
}

/// Decodes an entry of the store.
pub async fn from_entry(resource: &Resource, entry: &Entry) -> Result<Current, ApiError> {
    decode(resource, &entry.value, entry.mod_revision, true).await
}
