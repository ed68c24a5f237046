//! Patches: each kind of patch makes a proposal from the present object, which then takes the path of an update.

use serde_json::Value;

use super::Target;
use super::body::{self, Incoming};
use super::load::Current;
use super::ownership::patched;
use super::update::Proposal;
use crate::api::error::{ApiError, GroupKind};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::meta;
use crate::registry::context::{Body, FieldValidation, RequestContext};
use crate::registry::service::{PatchKind, Registry, Reply};

impl Registry {
    pub(in crate::registry) async fn patch_object(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        kind: PatchKind,
        body: &Body,
    ) -> Result<Reply, ApiError> {
        let patch = parse(kind, body, &target.resource.kind)?;
        if kind == PatchKind::Apply {
            return self.apply_object(cx, target, patch).await;
        }
        let text = String::from_utf8_lossy(&body.bytes).into_owned();
        let propose = |now: &Current| {
            let value = patched(target.resource, kind, present(now), &patch.value)?;
            proposal(target, value, Some(text.clone()))
        };
        let reply = self.modify(cx, target, &propose).await?;
        reply.ok_or_else(|| ApiError::not_found(&target.resource.group_resource(), target.name))
    }

    async fn apply_object(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        applied: Incoming,
    ) -> Result<Reply, ApiError> {
        if cx.field_manager.is_empty() {
            let error = FieldError::required(&Path::new("fieldManager"), "is required for apply patch");
            let options = GroupKind::new("meta.k8s.io", "PatchOptions");
            return Err(ApiError::invalid(&options, "", FieldErrors(vec![error])));
        }
        let mut applied = applied;
        body::check_type(target.resource, &mut applied.value)?;
        if meta::name(&applied.value).is_empty() {
            meta::set_name(&mut applied.value, target.name);
        }
        body::check_name(target, &applied.value)?;
        body::check_namespace(target, &mut applied.value)?;
        check_duplicates(cx, &applied)?;
        let propose = |now: &Current| {
            let value = self.merge_applied(cx, target, Some(&present(now)), &applied.value)?;
            proposal(target, value, None)
        };
        if let Some(reply) = self.modify(cx, target, &propose).await? {
            return Ok(reply);
        }
        if target.subresource.is_some() {
            return Err(ApiError::not_found(&target.resource.group_resource(), target.name));
        }
        let uid = meta::uid(&applied.value);
        if !uid.is_empty() {
            let message = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(ApiError::conflict(&target.resource.group_resource(), target.name, message));
        }
        let value = self.merge_applied(cx, target, None, &applied.value)?;
        self.create_incoming(cx, target, Incoming { value, duplicates: Vec::new() }).await
    }
}

/// Treats keys that an applied configuration has twice as the request asks.
fn check_duplicates(cx: &RequestContext, applied: &Incoming) -> Result<(), ApiError> {
    for complaint in &applied.duplicates {
        let complaint = format!("error converting YAML to JSON: {complaint}");
        match cx.field_validation {
            FieldValidation::Strict => {
                return Err(ApiError::bad_request(format!("error strict decoding YAML: {complaint}")));
            }
            FieldValidation::Warn => cx.warn(complaint),
            FieldValidation::Ignore => {}
        }
    }
    Ok(())
}

fn parse(kind: PatchKind, body: &Body, object_kind: &str) -> Result<Incoming, ApiError> {
    let yaml;
    let body = if kind == PatchKind::Apply {
        yaml = Body { bytes: body.bytes.clone(), format: crate::registry::BodyFormat::Yaml };
        &yaml
    } else {
        body
    };
    if kind == PatchKind::Json {
        let value = serde_json::from_slice(&body.bytes)
            .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
        return Ok(Incoming { value, duplicates: Vec::new() });
    }
    body::parse(body, ("", object_kind))
}

/// The object as patches see it: with its resourceVersion.
fn present(now: &Current) -> Value {
    let mut value = now.value.clone();
    meta::set_resource_version(&mut value, &now.revision.to_string());
    value
}

fn proposal(target: &Target<'_>, mut value: Value, patch: Option<String>) -> Result<Proposal, ApiError> {
    body::check_type(target.resource, &mut value)?;
    body::check_name(target, &value)?;
    body::check_namespace(target, &mut value)?;
    Ok(Proposal { incoming: Incoming { value, duplicates: Vec::new() }, patch })
}
