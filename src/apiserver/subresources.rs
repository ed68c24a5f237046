//! Subresources that the API server does not answer itself: it connects to the kubelet of the node, or to a pod.

mod container;
mod location;
mod proxy;

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::de::DeserializeOwned;

use super::ApiServer;
use super::authorization::Attributes;
use super::kubelet::KubeletAddress;
use super::pipeline::Call;
use super::request_info::Target;
use super::streaming::bridge::{self, Session};
use super::streaming::output::{self, Wrapping};
use super::streaming::{tunnel, upgrade};
use crate::api::error::{ApiError, GroupResource};
use crate::api::json;
use crate::cache::Consistency;
use crate::registry::{RequestContext, Resource};

/// How much of a backend's error text is passed on.
const ERROR_TEXT: usize = 50_000;

impl ApiServer {
    /// Answers a request for a subresource that connects.
    pub(super) async fn connect(
        self: &Arc<Self>,
        mut call: Call,
        row: &Resource,
    ) -> Result<Response<Body>, ApiError> {
        let target = call.info.target.clone().unwrap_or_default();
        if target.subresource != "log" {
            let context = RequestContext::for_user(call.user.clone());
            let place = (target.namespace.as_str(), target.name.as_str());
            let query = &call.info.query;
            let changed =
                self.registry.admit_connect(&context, row, &target.subresource, place, query).await?;
            if let Some(query) = changed {
                call.info.query = query;
            }
        }
        match (row.plural.as_ref(), target.subresource.as_str()) {
            ("pods", "log") => self.pod_log(call, &target).await,
            ("pods", "exec" | "attach" | "portforward") => self.pod_stream(call, &target).await,
            ("nodes", "proxy") => self.node_proxy(call, &target).await,
            ("pods", "proxy") => self.pod_proxy(call, &target).await,
            ("services", "proxy") => self.service_proxy(call, &target).await,
            _ => Err(ApiError::generic_not_found(&call.info.path)),
        }
    }

    /// An object as it is now, decoded.
    async fn latest<K: k8s_openapi::Resource + DeserializeOwned>(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<K, ApiError> {
        let not_found = || ApiError::not_found(&GroupResource::new(K::GROUP, plural), name);
        let row = self.registry.catalog().of::<K>().ok_or_else(not_found)?;
        let cache = self.registry.cached(row).ok_or_else(not_found)?;
        let object = cache.get_at(namespace, name, Consistency::Latest).await.map_err(ApiError::internal)?;
        json::typed(object.ok_or_else(not_found)?.json()).map_err(ApiError::internal)
    }

    /// Where the kubelet of a pod's node listens.
    async fn kubelet_of(&self, node: &str) -> Result<KubeletAddress, ApiError> {
        let node_object: Node = self.latest("nodes", "", node).await?;
        KubeletAddress::of(&node_object)
            .ok_or_else(|| ApiError::internal(format!("no preferred addresses found for node {node:?}")))
    }

    /// Logs of a container, streamed from the kubelet.
    async fn pod_log(&self, call: Call, target: &Target) -> Result<Response<Body>, ApiError> {
        let pod: Pod = self.latest("pods", &target.namespace, &target.name).await?;
        let container = container::choose(&pod, call.info.param("container"))?;
        let query = location::log_query(&call.info.query)?;
        let Some(node) = container::node_of(&pod) else { return Ok(plain_text(Body::empty())) };
        let path = location::path(&["containerLogs", &target.namespace, &target.name, &container], &query);
        let address = self.kubelet_of(node).await?;
        let request = backend_request(Method::GET, &path, &address, Body::empty())?;
        let response = self.kubelets.send(&address, request, &self.tunnels).await?;
        let response = checked(response, target).await?;
        let Some(wrapping) = Wrapping::wanted(&call.head.headers) else {
            return Ok(plain_text(Body::new(response.into_body())));
        };
        let wrapping =
            wrapping.ok_or_else(|| ApiError::bad_request("requested protocol(s) are not supported"))?;
        let client = call.upgrade.ok_or_else(|| ApiError::bad_request("Upgrade request required"))?;
        let answer = bridge::handshake(&call.head.headers, wrapping.protocol())?;
        output::spawn(
            wrapping,
            client,
            output::pieces(response.into_body()),
            &self.tunnels,
            self.stop.clone(),
        );
        Ok(answer)
    }

    /// Exec, attach and port forwarding: the upgrade is passed on to the kubelet and its connection joined to the client's.
    async fn pod_stream(&self, call: Call, target: &Target) -> Result<Response<Body>, ApiError> {
        if call.head.method == Method::GET {
            // Streams of WebSocket clients begin with a GET; what they can do is no less than with a POST.
            let attributes = Attributes { verb: "create", ..Attributes::of(&call.info) };
            self.permit(&call.user, &attributes).await?;
        }
        if !upgrade::requested(&call.head.headers) || call.upgrade.is_none() {
            return Err(ApiError::bad_request("Upgrade request required"));
        }
        let pod: Pod = self.latest("pods", &target.namespace, &target.name).await?;
        let node = container::node_of(&pod).ok_or_else(|| {
            ApiError::bad_request(format!("pod {} does not have a host assigned", target.name))
        })?;
        let (path, streams) = match target.subresource.as_str() {
            "portforward" => {
                let query = location::port_query(&call.info.query);
                (location::path(&["portForward", &target.namespace, &target.name], &query), None)
            }
            action => {
                let container = container::choose(&pod, call.info.param("container"))?;
                let query = location::stream_query(action, &call.info.query)?;
                let path = location::path(&[action, &target.namespace, &target.name, &container], &query);
                (path, Some(location::streams(&query)))
            }
        };
        let address = self.kubelet_of(node).await?;
        match Session::wanted(&call.head.headers, streams) {
            Some(session) => self.translated(call, target, &address, &path, session).await,
            None => self.tunnelled(call, &address, &path).await,
        }
    }

    /// A stream whose bytes are passed on as they are.
    async fn tunnelled(
        &self,
        call: Call,
        address: &KubeletAddress,
        path: &str,
    ) -> Result<Response<Body>, ApiError> {
        let headers = &call.head.headers;
        if upgrade::is_websocket(headers) && !upgrade::runtime_understands(headers) {
            // Clients take this as the sign to fall back to SPDY.
            return Err(ApiError::bad_request(format!(
                "unable to upgrade: none of the WebSocket subprotocols {} is supported",
                upgrade::websocket_protocols(headers).join(", ")
            )));
        }
        let mut request = backend_request(call.head.method.clone(), path, address, Body::empty())?;
        request.headers_mut().extend(upgrade::forwardable(headers, true));
        request.headers_mut().insert(HOST, host(address)?);
        let response = self.kubelets.send(address, request, &self.tunnels).await?;
        Ok(tunnel::join(call.upgrade, response, &self.tunnels, self.stop.clone()))
    }

    /// A stream of a WebSocket client that the runtime does not understand.
    async fn translated(
        &self,
        call: Call,
        target: &Target,
        address: &KubeletAddress,
        path: &str,
        session: Session,
    ) -> Result<Response<Body>, ApiError> {
        let answer = bridge::accept(&call.head.headers, session)?;
        let client = call.upgrade.ok_or_else(|| ApiError::bad_request("Upgrade request required"))?;
        let mut request = backend_request(Method::POST, path, address, Body::empty())?;
        request.headers_mut().extend(session.backend_headers());
        let response = self.kubelets.send(address, request, &self.tunnels).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            checked(response, target).await?;
            return Err(ApiError::internal("the kubelet did not switch protocols"));
        }
        bridge::spawn(session, client, response, &self.tunnels, self.stop.clone());
        Ok(answer)
    }
}

fn host(address: &KubeletAddress) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(&address.authority()).map_err(ApiError::internal)
}

pub(super) fn backend_request(
    method: Method,
    path: &str,
    address: &KubeletAddress,
    body: Body,
) -> Result<Request<Body>, ApiError> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host(address)?)
        .body(body)
        .map_err(|error| ApiError::bad_request(error.to_string()))
}

fn plain_text(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// A backend's answer if it is a success, else its text as a `Status`.
async fn checked(response: Response<Incoming>, target: &Target) -> Result<Response<Incoming>, ApiError> {
    let code = response.status();
    if code.is_success() {
        return Ok(response);
    }
    let text = Limited::new(response.into_body(), ERROR_TEXT).collect().await;
    let text = text.map_or_else(|_| Bytes::new(), |collected| collected.to_bytes());
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    Err(match code.as_u16() {
        400 => ApiError::bad_request(text),
        404 => {
            let status = k8s_openapi::apimachinery::pkg::apis::meta::v1::Status {
                code: Some(404),
                message: Some(format!(
                    "the server could not find the requested resource ( {} {})",
                    target.resource, target.name
                )),
                reason: Some("NotFound".to_owned()),
                status: Some("Failure".to_owned()),
                ..Default::default()
            };
            ApiError::from(status)
        }
        503 => ApiError::service_unavailable(text),
        _ => ApiError::internal(text),
    })
}
