//! Where the pipeline meets patches and field ownership.

use serde_json::Value;

use super::Target;
use crate::api::error::ApiError;
use crate::api::patch::{json_patch, merge_patch, strategic_merge_patch};
use crate::api::schema::Schemas;
use crate::registry::context::RequestContext;
use crate::registry::resource::Resource;
use crate::registry::service::{PatchKind, Registry};

/// Applies a JSON, merge or strategic merge patch.
pub fn patched(
    resource: &Resource,
    kind: PatchKind,
    mut value: Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    match kind {
        PatchKind::Json => json_patch(&mut value, patch.clone())?,
        PatchKind::Merge | PatchKind::Apply => merge_patch(&mut value, patch.clone())?,
        PatchKind::Strategic => {
            match Schemas::builtin().for_gvk(&resource.group, &resource.version, &resource.kind) {
                Some(schema) => strategic_merge_patch(&mut value, patch.clone(), schema)?,
                None => merge_patch(&mut value, patch.clone())?,
            }
        }
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
        patched(target.resource, PatchKind::Strategic, live.clone(), applied)
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
