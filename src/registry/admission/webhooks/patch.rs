//! The patches that mutating webhooks answer with.

use serde_json::Value;

use super::config::Webhook;
use super::matching::{self, Form};
use crate::api::error::ApiError;
use crate::api::patch::json_patch;
use crate::registry::admission::Request;
use crate::registry::object::Object;

/// Applies a patch to the object; whether that changed it.
pub async fn apply(
    request: &Request<'_>,
    webhook: &Webhook,
    form: &Form,
    patch: &[u8],
    object: &mut dyn Object,
) -> Result<bool, ApiError> {
    let failed =
        |why: String| ApiError::internal(format!("failed calling webhook {:?}: {why}", webhook.name));
    let patch: Value = serde_json::from_slice(patch).map_err(|error| failed(error.to_string()))?;
    if patch.as_array().is_some_and(Vec::is_empty) {
        return Ok(false);
    }
    let before = object.to_value().map_err(ApiError::internal)?;
    let shown = matching::converted(request, form, Some(&before)).await?;
    let mut value = shown.unwrap_or_default();
    json_patch(&mut value, patch).map_err(|error| ApiError::internal(error.message()))?;
    if let Some(other) = &form.other {
        value = request.registry.between(other, request.resource, value).await?;
    }
    if value == before {
        return Ok(false);
    }
    let decoded = request.resource.behaviour.decode(value).map_err(|error| failed(error.to_string()))?;
    object.assign(decoded.object);
    Ok(true)
}
