//! Where the pipeline meets patches and field ownership.

use serde_json::Value;

use super::Target;
use crate::api::error::ApiError;
use crate::registry::context::RequestContext;
use crate::registry::resource::Resource;
use crate::registry::service::{PatchKind, Registry};

/// Applies a JSON, merge or strategic merge patch.
pub fn patched(
    _resource: &Resource,
    kind: PatchKind,
    mut value: Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    if kind == PatchKind::Json {
        let patch: json_patch::Patch = serde_json::from_value(patch.clone())
            .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
        json_patch::patch(&mut value, &patch).map_err(|error| ApiError::unprocessable(error.to_string()))?;
    } else {
        json_patch::merge(&mut value, patch);
    }
    Ok(value)
}

impl Registry {
    /// Merges an applied configuration into the present object.
    pub(in crate::registry) fn merge_applied(
        &self,
        _cx: &RequestContext,
        target: &Target<'_>,
        live: Option<&Value>,
        applied: &Value,
    ) -> Result<Value, ApiError> {
        let Some(live) = live else { return Ok(applied.clone()) };
        patched(target.resource, PatchKind::Merge, live.clone(), applied)
    }

    /// Records in `managedFields` what this request writes. The status is left to the status subresource.
    pub(in crate::registry) fn track(
        &self,
        _cx: &RequestContext,
        target: &Target<'_>,
        mut old: Option<&mut Value>,
        new: &mut Value,
    ) -> Result<(), ApiError> {
        let resource = target.resource;
        let hidden = resource.has_status() && target.part() != "status" && !resource.keeps_status;
        let take = |value: &mut Value| match value {
            Value::Object(map) if hidden => map.remove("status"),
            _ => None,
        };
        let new_status = take(new);
        let old_status = old.as_deref_mut().and_then(take);
        put_back(new, new_status);
        if let Some(old) = old {
            put_back(old, old_status);
        }
        Ok(())
    }
}

fn put_back(value: &mut Value, status: Option<Value>) {
    if let (Value::Object(map), Some(status)) = (value, status) {
        map.insert("status".into(), status);
    }
}
