//! `pods/binding`: the scheduler says where a pod runs.

use k8s_openapi::api::core::v1::Binding;
use serde_json::{Map, Value, json};

use crate::api::error::{ApiError, GroupKind};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::meta;
use crate::registry::admission::topology_labels;
use crate::registry::context::{Body, RequestContext};
use crate::registry::decode;
use crate::registry::service::{Registry, Reply};
use crate::registry::write::Target;
use crate::registry::write::body::{self, Incoming};
use crate::registry::write::load::Current;
use crate::registry::write::system;
use crate::registry::write::update::Proposal;

impl Registry {
    pub(in crate::registry) async fn bind_pod(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        body: &Body,
    ) -> Result<Reply, ApiError> {
        let incoming = body::parse(body, ("v1", "Binding"))?;
        let (binding, _) = decode::decode_any::<Binding>(incoming.value)
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        validate(target, &binding)?;
        let mut binding = binding;
        if binding.target.kind.as_deref() == Some("Node") {
            let node = binding.target.name.clone().unwrap_or_default();
            topology_labels::add(self, &node, &mut binding.metadata.labels)?;
        }
        let propose = |now: &Current| {
            let value = assign(target, now, &binding)?;
            Ok(Proposal { incoming: Incoming { value, duplicates: Vec::new() }, patch: None })
        };
        match self.modify(cx, target, &propose).await? {
            Some(_) => success(201),
            None => Err(ApiError::not_found(&target.resource.group_resource(), target.name)),
        }
    }
}

/// A `Status` that says nothing but success.
pub(super) fn success(code: u16) -> Result<Reply, ApiError> {
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code});
    Ok(Reply { code, body: status.to_string().into() })
}

fn validate(target: &Target<'_>, binding: &Binding) -> Result<(), ApiError> {
    let named = binding.metadata.name.as_deref().unwrap_or(target.name);
    if named != target.name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    let at = Path::new("target");
    let mut errors = FieldErrors::new();
    let kind = binding.target.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&at.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.target.name.as_deref().is_none_or(str::is_empty) {
        errors.push(FieldError::required(&at.child("name"), ""));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(&GroupKind::new("", "Binding"), target.name, errors))
    }
}

fn assign(target: &Target<'_>, now: &Current, binding: &Binding) -> Result<Value, ApiError> {
    let conflict = |why: String| Err(ApiError::conflict(&target.resource.group_resource(), target.name, why));
    let mut pod = now.value.clone();
    if binding.metadata.uid.as_deref().is_some_and(|uid| !uid.is_empty() && uid != meta::uid(&pod)) {
        let uid = binding.metadata.uid.as_deref().unwrap_or_default();
        return conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(&pod)
        ));
    }
    if meta::deletion_timestamp(&pod).is_some() {
        return conflict(format!("pod {} is being deleted, cannot be assigned to a host", target.name));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return conflict(format!("pod {} is already assigned to node {node:?}", target.name));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {} has non-empty .spec.schedulingGates", target.name));
    }
    pod["spec"]["nodeName"] = binding.target.name.clone().into();
    for (key, value) in binding.metadata.annotations.iter().flatten() {
        meta::set_annotation(&mut pod, key, value);
    }
    for (key, value) in binding.metadata.labels.iter().flatten() {
        meta::set_label(&mut pod, key, value);
    }
    mark_scheduled(&mut pod);
    // What the scheduler intended has come to pass.
    if let Some(status) = pod["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    Ok(pod)
}

fn mark_scheduled(pod: &mut Value) {
    let now = meta::rfc3339(system::now().0);
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now, "lastProbeTime": null});
    if !pod["status"].is_object() {
        pod["status"] = Value::Object(Map::new());
    }
    match pod["status"]["conditions"].as_array_mut() {
        Some(conditions) => {
            conditions.retain(|c| c["type"] != "PodScheduled");
            conditions.push(condition);
        }
        None => pod["status"]["conditions"] = json!([condition]),
    }
}
