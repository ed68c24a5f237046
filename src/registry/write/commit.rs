//! Steps that all writes share: mutating admission, and the form that is stored.

use bytes::Bytes;
use serde_json::Value;

use super::{Target, encode};
use crate::api::error::ApiError;
use crate::registry::admission::{Operation, Request};
use crate::registry::context::RequestContext;
use crate::registry::object::Object;
use crate::registry::render;
use crate::registry::resource::{Resource, Storage};
use crate::registry::service::Registry;

impl Registry {
    /// Runs the mutating admission plugins, then fills in defaults for what they added.
    pub(in crate::registry) async fn admit(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
        operation: Operation,
    ) -> Result<(), ApiError> {
        let request = Request::new(self, cx, target, operation).about(object);
        if self.admission().admit(&request, object, old).await? {
            target.resource.behaviour.default(object);
        }
        Ok(())
    }

    /// An object in the form of another row that shares its storage.
    pub(in crate::registry) async fn between(
        &self,
        from: &Resource,
        to: &Resource,
        value: Value,
    ) -> Result<Value, ApiError> {
        let stored = match &from.storage {
            Storage::Shared(conversion) => conversion.to_stored(value),
            Storage::Custom(convert) => convert.to_stored(value).await?,
            _ => value,
        };
        let mut own = match &to.storage {
            Storage::Shared(conversion) => conversion.restored(stored),
            Storage::Custom(convert) => render::sole(convert.restored(vec![stored]).await?)?,
            _ => stored,
        };
        own["apiVersion"] = to.api_version().as_ref().into();
        own["kind"] = to.kind.as_ref().into();
        Ok(own)
    }

    /// The bytes to store: the row's own, or `value` converted to the form of the row that keeps them.
    pub(in crate::registry) async fn stored_form(
        &self,
        resource: &Resource,
        own: &Bytes,
        value: impl FnOnce() -> Result<Value, serde_json::Error>,
    ) -> Result<Bytes, ApiError> {
        let value = || value().map_err(ApiError::internal);
        match &resource.storage {
            Storage::Shared(conversion) => {
                encode::canonical(&conversion.to_stored(value()?)).map_err(ApiError::internal)
            }
            Storage::Custom(convert) => {
                encode::canonical(&convert.to_stored(value()?).await?).map_err(ApiError::internal)
            }
            Storage::Own | Storage::Virtual | Storage::Computed(_) | Storage::Action { .. } => {
                Ok(own.clone())
            }
        }
    }
}
