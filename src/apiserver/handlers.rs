//! Verbs on resources: from a request to a call of the registry, and from its answer to HTTP.
//!
//! Nothing here knows a kind. The row of the catalog says what exists; the registry does the rest.

mod options;
mod read;
mod watch;
mod write;

use std::sync::Arc;

use axum::body::Body;
use http::header::WARNING;
use http::{HeaderMap, HeaderValue, Method, Response};
use hyper::upgrade::OnUpgrade;

use super::negotiate::{self, Format, Offer, Shape};
use super::pipeline::Call;
use super::request_info::{RequestInfo, Target};
use super::respond::Rendering;
use super::{ApiServer, usage};
use crate::api::error::ApiError;
use crate::api::protobuf;
use crate::registry::resource::{Storage, SubresourceRole};
use crate::registry::{IncludeObject, Reply, Representation, RequestContext, Resource};

/// A call whose target is known to exist.
pub(super) struct ResourceCall<'a> {
    pub(super) info: &'a RequestInfo,
    pub(super) headers: &'a HeaderMap,
    pub(super) target: &'a Target,
    pub(super) row: &'a Resource,
    pub(super) offer: Offer,
    pub(super) context: RequestContext,
    pub(super) rendering: Rendering,
    /// The connection, for watches over a WebSocket.
    pub(super) upgrade: Option<OnUpgrade>,
}

impl ResourceCall<'_> {
    /// The subresource in the registry's form.
    fn subresource(&self) -> Option<&str> {
        Some(self.target.subresource.as_str()).filter(|name| !name.is_empty())
    }

    /// The namespace in the registry's form: none for a cluster-wide kind, though the path of a namespace names one.
    fn namespace(&self) -> &str {
        if self.row.namespaced() { &self.target.namespace } else { "" }
    }

    fn respond(&self, reply: Reply) -> Response<Body> {
        let mut response = self.rendering.respond(reply.code, reply.body);
        for warning in self.context.take_warnings() {
            if let Ok(value) = HeaderValue::from_str(&warning_header(&warning)) {
                response.headers_mut().append(WARNING, value);
            }
        }
        response
    }
}

impl ApiServer {
    /// Answers a request for a resource.
    pub(super) async fn resource(self: &Arc<Self>, call: Call) -> Result<Response<Body>, ApiError> {
        let Some(target) = call.info.target.clone() else {
            return Err(ApiError::generic_not_found(&call.info.path));
        };
        if target.group == usage::GROUP && self.config.usage {
            return Box::pin(self.usage(call, &target)).await;
        }
        let row = self
            .registry
            .find_row(&target.group, &target.version, &target.resource)
            .filter(|row| place_exists(row, &target, &call.info.verb))
            .ok_or_else(|| ApiError::generic_not_found(&call.info.path))?;
        let connect = check_verb(&row, &target, &call)?;
        if connect {
            return Box::pin(self.connect(call, &row)).await;
        }
        let Call { info, head, body, user, upgrade } = call;
        let headers = &head.headers;
        let offer = offer(&row, headers);
        let (format, shape) = negotiate::accept(headers, offer)?;
        let mut context = options::context(user, &info, headers)?;
        context.representation = representation(&shape, &info);
        context.protobuf_events = format == Format::Protobuf;
        if let Some(warning) = row.deprecation {
            context.warn(warning);
        }
        let rendering = Rendering::new(format, &info, headers);
        let resource_call = ResourceCall {
            info: &info,
            headers,
            target: &target,
            row: &row,
            offer,
            context,
            rendering,
            upgrade,
        };
        if matches!(row.storage, Storage::Virtual) {
            // What a review tells rests on cached objects.
            self.objects.catch_up().await;
        }
        // Boxed, so that a read does not carry the state of the largest write from place to place.
        match info.verb.as_str() {
            "get" => self.get(&resource_call).await,
            "list" => Box::pin(self.list(&resource_call)).await,
            "watch" => Box::pin(self.watch(&resource_call)).await,
            "create" => Box::pin(self.create(&resource_call, body)).await,
            "update" => Box::pin(self.update(&resource_call, body)).await,
            "patch" => Box::pin(self.patch(&resource_call, body)).await,
            "delete" => Box::pin(self.delete(&resource_call, body)).await,
            "deletecollection" => Box::pin(self.delete_collection(&resource_call, body)).await,
            _ => Err(method_not_allowed(&row, &info.verb)),
        }
    }
}

/// What a kind's objects can be written in. The table of messages is not asked unless somebody speaks of protobuf.
fn offer(row: &Resource, headers: &HeaderMap) -> Offer {
    if matches!(row.storage, Storage::Virtual) {
        // What is never stored has no columns and no metadata to show.
        return Offer::Plain;
    }
    if negotiate::mentions_protobuf(headers) && !protobuf::is_known(&row.api_version(), &row.kind) {
        Offer::CustomObjects
    } else {
        Offer::Objects
    }
}

/// Whether the path has the form that the scope of the kind demands.
fn place_exists(row: &Resource, target: &Target, verb: &str) -> bool {
    let is_namespace = row.group.is_empty() && row.plural == "namespaces";
    if row.namespaced() {
        // Across namespaces one can only list and watch (and, for reviews of a namespace, nothing at all).
        !target.namespace.is_empty() || matches!(verb, "list" | "watch" | "deletecollection" | "create")
    } else {
        target.namespace.is_empty() || is_namespace
    }
}

fn method_not_allowed(row: &Resource, verb: &str) -> ApiError {
    ApiError::method_not_supported(&row.group_resource(), verb)
}

/// Checks that the row has the subresource and the verb; tells whether the handler connects to a node.
fn check_verb(row: &Resource, target: &Target, call: &Call) -> Result<bool, ApiError> {
    let not_found = || ApiError::generic_not_found(&call.info.path);
    let verb = call.info.verb.as_str();
    if target.subresource.is_empty() {
        let across = row.namespaced() && target.namespace.is_empty();
        let known = row.verbs.iter().any(|own| own.as_str() == verb);
        let misplaced = (across && matches!(verb, "create" | "deletecollection"))
            || (verb == "create" && !target.name.is_empty());
        let put_on_collection = target.name.is_empty() && matches!(verb, "update" | "patch");
        return if known && !misplaced && !put_on_collection {
            Ok(false)
        } else {
            Err(method_not_allowed(row, verb))
        };
    }
    let subresource = row.subresource(&target.subresource).ok_or_else(not_found)?;
    if subresource.role == SubresourceRole::Connect {
        return if connect_allowed(&target.subresource, &call.head.method) {
            Ok(true)
        } else {
            Err(method_not_allowed(row, verb))
        };
    }
    if target.rest.is_some() {
        return Err(not_found());
    }
    if subresource.verbs.contains(&verb) { Ok(false) } else { Err(method_not_allowed(row, verb)) }
}

fn connect_allowed(subresource: &str, method: &Method) -> bool {
    match subresource {
        "proxy" => true,
        "log" => super::pipeline::is_read(method),
        _ => matches!(*method, Method::GET | Method::POST),
    }
}

fn representation(shape: &Shape, info: &RequestInfo) -> Representation {
    match shape {
        Shape::Table => Representation::Table(match info.param("includeObject") {
            "None" => IncludeObject::None,
            "Object" => IncludeObject::Object,
            _ => IncludeObject::Metadata,
        }),
        Shape::Metadata => Representation::Metadata,
        Shape::Object | Shape::AggregatedDiscovery(_) => Representation::Object,
    }
}

/// A `Warning` header: code 299, no agent, quoted text without control characters.
fn warning_header(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c if c.is_ascii() => quoted.push(c),
            // Header values are ASCII; upstream's clients show what arrives.
            _ => quoted.push('?'),
        }
    }
    format!("299 - \"{quoted}\"")
}

#[cfg(test)]
mod tests;
