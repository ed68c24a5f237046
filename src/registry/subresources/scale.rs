//! `scale`: one replica count for every kind that has one.

use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::{Value, json};

use crate::api::error::{ApiError, GroupKind};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::json;
use crate::api::meta;
use crate::api::selector::LabelSelector;
use crate::cache::Consistency;
use crate::registry::context::{Body, RequestContext};
use crate::registry::custom::scale as custom_scale;
use crate::registry::decode;
use crate::registry::render;
use crate::registry::resource::Resource;
use crate::registry::service::{PatchKind, Registry, Reply};
use crate::registry::validation::NEGATIVE;
use crate::registry::write::Target;
use crate::registry::write::body::{self, Incoming};
use crate::registry::write::load::Current;
use crate::registry::write::ownership::patched;
use crate::registry::write::update::Proposal;

impl Registry {
    pub(in crate::registry) async fn get_scale(&self, target: &Target<'_>) -> Result<Reply, ApiError> {
        let object = self.read_object(target, Consistency::Latest).await?;
        let own = render::own_form(target.resource, object.json()).await?;
        let value: Value = serde_json::from_slice(&own).map_err(ApiError::internal)?;
        Ok(Reply::ok(scale_of(target.resource, &value).to_string()))
    }

    pub(in crate::registry) async fn put_scale(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        body: &Body,
    ) -> Result<Reply, ApiError> {
        let incoming = body::parse(body, ("autoscaling/v1", "Scale"))?;
        body::check_name(target, &incoming.value)?;
        let propose = |now: &Current| rescale(target, now, incoming.value.clone());
        self.write_scale(cx, target, &propose).await
    }

    pub(in crate::registry) async fn patch_scale(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        kind: PatchKind,
        body: &Body,
    ) -> Result<Reply, ApiError> {
        let patch: Value = match kind {
            PatchKind::Json => serde_json::from_slice(&body.bytes)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?,
            PatchKind::Apply => return self.apply_scale(cx, target, body).await,
            PatchKind::Merge | PatchKind::Strategic => body::parse(body, ("autoscaling/v1", "Scale"))?.value,
        };
        let propose = |now: &Current| {
            let mut object = now.value.clone();
            meta::set_resource_version(&mut object, &now.revision.to_string());
            let scale = scale_of(target.resource, &object);
            let kind = if kind == PatchKind::Json { kind } else { PatchKind::Merge };
            rescale(target, now, patched(target.resource, kind, scale, &patch)?)
        };
        self.write_scale(cx, target, &propose).await
    }

    /// Applies a `Scale`: that is to apply the replica count to the object itself, whose field it is.
    async fn apply_scale(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        body: &Body,
    ) -> Result<Reply, ApiError> {
        let incoming = body::parse(&Body::yaml(body.bytes.clone()), ("autoscaling/v1", "Scale"))?;
        let (scale, _) = decode::decode_any::<Scale>(incoming.value)
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        let replicas = scale.spec.and_then(|spec| spec.replicas);
        check_replicas(target, replicas.unwrap_or(0))?;
        let resource = target.resource;
        let mut applied = json!({
            "apiVersion": resource.api_version(), "kind": resource.kind,
            "metadata": {"name": target.name, "namespace": target.namespace}, "spec": {},
        });
        for (field, value) in
            [("resourceVersion", scale.metadata.resource_version), ("uid", scale.metadata.uid)]
        {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                applied["metadata"][field] = value.into();
            }
        }
        if let Some(replicas) = replicas {
            match custom(resource) {
                Some(paths) => custom_scale::put(&mut applied, &paths.spec, replicas.into()),
                None => applied["spec"]["replicas"] = replicas.into(),
            }
        }
        let propose = |now: &Current| {
            let mut live = now.value.clone();
            meta::set_resource_version(&mut live, &now.revision.to_string());
            let value = self.merge_applied(cx, target, Some(&live), &applied)?;
            Ok(Proposal { incoming: Incoming { value, duplicates: Vec::new() }, patch: None })
        };
        self.write_scale(cx, target, &propose).await
    }

    async fn write_scale(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        propose: crate::registry::write::update::Propose<'_>,
    ) -> Result<Reply, ApiError> {
        let Some(reply) = self.modify(cx, target, propose).await? else {
            return Err(ApiError::not_found(&target.resource.group_resource(), target.name));
        };
        let value: Value = serde_json::from_slice(&reply.body).map_err(ApiError::internal)?;
        Ok(Reply::ok(scale_of(target.resource, &value).to_string()))
    }
}

/// The object with the replica count and the lock of a `Scale`.
fn rescale(target: &Target<'_>, now: &Current, scale: Value) -> Result<Proposal, ApiError> {
    let (scale, _) =
        decode::decode_any::<Scale>(scale).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
    check_replicas(target, replicas)?;
    let mut value = now.value.clone();
    match custom(target.resource) {
        Some(paths) => custom_scale::put(&mut value, &paths.spec, replicas.into()),
        None => value["spec"]["replicas"] = replicas.into(),
    }
    let version = scale.metadata.resource_version.unwrap_or_default();
    meta::set(&mut value, "resourceVersion", (!version.is_empty()).then(|| version.into()));
    if let Some(uid) = scale.metadata.uid.filter(|uid| !uid.is_empty()) {
        meta::set_uid(&mut value, &uid);
    }
    Ok(Proposal { incoming: Incoming { value, duplicates: Vec::new() }, patch: None })
}

fn check_replicas(target: &Target<'_>, replicas: i32) -> Result<(), ApiError> {
    if replicas < 0 {
        let error = FieldError::invalid(&Path::new("spec").child("replicas"), replicas, NEGATIVE);
        return Err(ApiError::invalid(
            &GroupKind::new("autoscaling", "Scale"),
            target.name,
            FieldErrors(vec![error]),
        ));
    }
    Ok(())
}

/// Where a custom resource has its counts.
fn custom(resource: &Resource) -> Option<&custom_scale::ScalePaths> {
    resource.dynamic.as_ref().and_then(|dynamic| dynamic.scale.as_ref())
}

/// The `Scale` of an object.
fn scale_of(resource: &Resource, object: &Value) -> Value {
    let Some(paths) = custom(resource) else {
        return scale_with(
            object,
            object["spec"]["replicas"].as_i64(),
            object["status"]["replicas"].as_i64(),
            &selector_text(&object["spec"]["selector"]),
        );
    };
    let count = |path: &[String]| custom_scale::at(object, path).and_then(Value::as_i64);
    let selector =
        paths.selector.as_ref().and_then(|path| custom_scale::at(object, path)).and_then(Value::as_str);
    scale_with(object, count(&paths.spec), count(&paths.status), selector.unwrap_or_default())
}

fn scale_with(object: &Value, wanted: Option<i64>, there: Option<i64>, selector: &str) -> Value {
    let mut metadata = json!({"name": meta::name(object), "namespace": meta::namespace(object)});
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.get("metadata").and_then(|m| m.get(field)) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": there.unwrap_or(0)});
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": wanted.unwrap_or(0)},
        "status": status,
    })
}

/// A selector in its text form; replication controllers have a plain map.
fn selector_text(selector: &Value) -> String {
    let is_map = selector.as_object().is_some_and(|map| map.values().all(Value::is_string));
    let selector = if is_map { json!({"matchLabels": selector}) } else { selector.clone() };
    let parsed = json::typed_value(&selector).ok();
    parsed.and_then(|s| LabelSelector::from_meta(Some(&s)).ok()).map(|s| s.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_counts_and_the_selector_as_text() {
        let object = json!({"metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "5"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"x": "y"}}}, "status": {"replicas": 2}});
        assert_eq!(
            scale_of(&Resource::plain::<k8s_openapi::api::apps::v1::ReplicaSet>(), &object),
            json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
                "metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "5"},
                "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "x=y"}})
        );
        assert_eq!(selector_text(&json!({"app": "web"})), "app=web");
    }
}
