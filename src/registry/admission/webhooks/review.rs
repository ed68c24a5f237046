//! `AdmissionReview`s: what webhooks are asked.

use serde_json::{Value, json};

use super::matching::{Form, Subject, operation};
use crate::registry::admission::{Operation, Request};
use crate::registry::resource::Resource;

fn kind_of(resource: &Resource, subresource: &str) -> Value {
    let body = resource.subresource(subresource).and_then(|sub| sub.body);
    let (group, version, kind) = body.unwrap_or((&resource.group, &resource.version, &resource.kind));
    json!({"group": group, "version": version, "kind": kind})
}

fn resource_of(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "resource": resource.plural})
}

/// The request of a review, without the objects.
pub fn request(request: &Request<'_>, subject: &Subject, form: &Form, uid: &Value) -> Value {
    let shown = form.other.as_deref().unwrap_or(request.resource);
    let mut asked = json!({
        "uid": uid,
        "kind": kind_of(shown, request.subresource),
        "resource": resource_of(shown),
        "requestKind": kind_of(request.resource, request.subresource),
        "requestResource": resource_of(request.resource),
        "operation": operation(request.operation),
        "userInfo": user(request),
        "dryRun": request.cx.dry_run,
    });
    if !request.subresource.is_empty() {
        asked["subResource"] = request.subresource.into();
        asked["requestSubResource"] = request.subresource.into();
    }
    let name = subject.name(request);
    if !name.is_empty() {
        asked["name"] = name.into();
    }
    let is_namespace = request.resource.group.is_empty() && request.resource.plural == "namespaces";
    let namespace = if is_namespace { name } else { request.namespace };
    if !namespace.is_empty() {
        asked["namespace"] = namespace.into();
    }
    if let Some(options) = options(request) {
        asked["options"] = options;
    }
    asked
}

fn user(request: &Request<'_>) -> Value {
    let user = &request.cx.user;
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn options(request: &Request<'_>) -> Option<Value> {
    let kind = match request.operation {
        Operation::Create => "CreateOptions",
        Operation::Update if request.cx.is_applied() => "PatchOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return None,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if request.cx.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if !request.cx.field_manager.is_empty() && request.operation != Operation::Delete {
        options["fieldManager"] = request.cx.field_manager.as_str().into();
    }
    Some(options)
}
