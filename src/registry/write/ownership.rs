//! Where the pipeline meets patches and field ownership.

use serde_json::{Map, Value};

use super::Target;
use crate::api::error::ApiError;
use crate::api::managed_fields::{self, Options};
use crate::api::meta;
use crate::api::patch::{json_patch, merge_patch, strategic_merge_patch};
use crate::api::protobuf;
use crate::registry::context::RequestContext;
use crate::registry::object::Object;
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
        PatchKind::Strategic => match resource.schema() {
            Some(schema) => strategic_merge_patch(&mut value, patch.clone(), schema)?,
            None => merge_patch(&mut value, patch.clone())?,
        },
    }
    Ok(value)
}

impl Registry {
    /// Merges an applied configuration into the present object, and settles who owns which field.
    pub(in crate::registry) fn merge_applied(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        live: Option<&Value>,
        applied: &Value,
    ) -> Result<Value, ApiError> {
        cx.note_applied();
        let now = meta::now_rfc3339();
        let version = target.resource.api_version();
        let initial = initial(target);
        match options(cx, target, &version, &now, &initial) {
            Some(options) => managed_fields::apply(live, applied, &options),
            None => match live {
                Some(live) => patched(target.resource, PatchKind::Merge, live.clone(), applied),
                None => Ok(applied.clone()),
            },
        }
    }

    /// Records in the object's `managedFields` what this request writes. The status is left to the status subresource,
    /// and so is to nobody what admission and the kind's strategy change afterwards: nobody asked for it.
    pub(in crate::registry) fn track(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        old: Option<&Value>,
        object: &mut dyn Object,
    ) -> Result<(), ApiError> {
        // The server's own binding is nobody's wish about fields.
        if cx.is_applied() || target.part() == "binding" {
            return Ok(());
        }
        let now = meta::now_rfc3339();
        let version = target.resource.api_version();
        let initial = initial(target);
        let Some(options) = options(cx, target, &version, &now, &initial) else { return Ok(()) };
        let mut value = object.to_value().map_err(ApiError::internal)?;
        managed_fields::track_update(old, &mut value, &options);
        let entries = value.pointer_mut("/metadata/managedFields").map(Value::take);
        let entries = entries.map(serde_json::from_value).transpose().map_err(ApiError::internal)?;
        object.meta_mut().managed_fields = entries;
        Ok(())
    }
}

/// What an object of the kind has though nobody says anything.
fn initial(target: &Target<'_>) -> Value {
    let mut initial = Value::Object(Map::new());
    protobuf::complete(&mut initial, &target.resource.api_version(), &target.resource.kind);
    initial
}

/// How the writer is told by; `None` for a kind without a schema.
fn options<'a>(
    cx: &'a RequestContext,
    target: &Target<'a>,
    api_version: &'a str,
    now: &'a str,
    initial: &'a Value,
) -> Option<Options<'a>> {
    let resource = target.resource;
    let schema = resource.schema()?;
    let ignored: &[&[&str]] = match target.part() {
        "status" => &[&["spec"]],
        _ if resource.has_status() && !resource.keeps_status => &[&["status"]],
        _ => &[],
    };
    Some(Options {
        manager: cx.manager(),
        api_version,
        subresource: target.part(),
        now,
        schema,
        initial,
        ignored,
        force: cx.force,
    })
}
