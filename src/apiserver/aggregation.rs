//! Aggregation: groups and versions that another server answers, as APIServices say.
//!
//! A request for one is authenticated, authorized and flow-controlled like any other and then passed on over TLS, with
//! the identity of who asks in headers, and with the client certificate by which those servers know that the headers
//! are this server's word. A loop ([`keeper`]) looks whether the other servers answer, says so in the status of their
//! APIServices, and learns what they serve for discovery and OpenAPI.
//!
//! Upstream's aggregator reaches the Service by its cluster IP; this server, which may be on a host without a node,
//! connects to one of the Service's ready endpoints.

mod availability;
mod connect;
mod delegates;
mod identity;
mod keeper;
mod learned;
mod registered;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use futures::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use super::ApiServer;
use super::pipeline::Call;
use super::streaming::{tunnel, upgrade};
use crate::api::error::ApiError;
use crate::cache::Snapshot;
use crate::pki::ClusterPki;
pub(super) use connect::ClientError;
use connect::{Connections, Place, Trust};
use delegates::{Delegate, Delegates};
pub(super) use learned::{Learned, RemoteVersion};
pub(super) use registered::{CUSTOM_PRIORITY, context as own_context};

/// What is known of other servers.
pub(super) struct Aggregation {
    /// The delegates of one state of the cached APIServices.
    known: Mutex<(Option<Snapshot>, Arc<Delegates>)>,
    learned: Mutex<Arc<Learned>>,
    connections: Connections,
    authentication: registered::Authentication,
}

impl Aggregation {
    pub(super) fn new(pki: &ClusterPki) -> Result<Self, connect::ClientError> {
        Ok(Self {
            known: Mutex::default(),
            learned: Mutex::default(),
            connections: Connections::new(pki.proxy_client())?,
            authentication: registered::Authentication::of(pki),
        })
    }

    /// What other servers serve, as far as it is known.
    pub(super) fn learned(&self) -> Arc<Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what was learned; the version changes only if it differs.
    fn learn(&self, versions: BTreeMap<(String, String), Arc<RemoteVersion>>) {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        if learned.versions != versions {
            *learned = Arc::new(Learned { version: learned.version + 1, versions });
        }
    }
}

/// Group and version of a path below `/apis/`.
fn group_version(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.strip_prefix("/apis/")?.splitn(3, '/');
    let (group, version) = (parts.next()?, parts.next()?);
    (!version.is_empty()).then_some((group, version))
}

impl ApiServer {
    /// Every APIService as it is cached now: which are answered elsewhere.
    fn delegates(&self) -> Arc<Delegates> {
        let cached = self.registry.catalog().of::<APIService>().and_then(|row| self.registry.cached(row));
        let Some(now) = cached.map(|cache| cache.current()) else { return Arc::default() };
        let mut known = self.aggregation.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.as_ref().is_none_or(|old| !old.holds_the_same_as(&now)) {
            *known = (Some(now.clone()), Arc::new(Delegates::of(&now)));
        }
        known.1.clone()
    }

    /// The other server that answers a path, if one does.
    pub(super) fn delegate(&self, path: &str) -> Option<Arc<Delegate>> {
        let path = match path.strip_prefix("/openapi/v3") {
            Some(below) if below.starts_with("/apis/") => below,
            _ => path,
        };
        let (group, version) = group_version(path)?;
        self.delegates().find(group, version)
    }

    /// Passes a request on and its answer back. Failures are answered in upstream's plain words, with 503.
    pub(super) async fn forward(
        self: &Arc<Self>,
        call: Call,
        delegate: &Delegate,
    ) -> Result<Response<Body>, ApiError> {
        if !delegate.available {
            return Ok(refused("service unavailable"));
        }
        let long_running = call.info.is_long_running();
        let upgrading = upgrade::requested(&call.head.headers) && call.upgrade.is_some();
        let mut headers = upgrade::forwardable(&call.head.headers, upgrading);
        identity::set(&mut headers, &call.user);
        forwarded_for(&mut headers, &call.head);
        let path = call.head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let mut request = Request::builder()
            .method(call.head.method)
            .uri(path)
            .body(call.body)
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        *request.headers_mut() = headers;
        let response = match self.ask(delegate, &delegate.trust, request, upgrading).await {
            Ok(response) => response,
            Err(Failure::Unresolved(why)) => {
                tracing::debug!(service = delegate.name, why, "no endpoint of an aggregated API");
                return Ok(refused("service unavailable"));
            }
            Err(Failure::Unreachable(why)) => {
                return Ok(refused(&format!("error trying to reach service: {why}")));
            }
        };
        let response = tunnel::join(call.upgrade, response, &self.tunnels, self.stop.clone());
        Ok(if long_running { until_stopped(response, self.stop.clone()) } else { response })
    }

    /// Sends a request to one of the endpoints of another server.
    async fn ask(
        &self,
        delegate: &Delegate,
        trust: &Trust,
        request: Request<Body>,
        upgrading: bool,
    ) -> Result<Response<Incoming>, Failure> {
        let (host, port) = self
            .service_address(&delegate.namespace, &delegate.service, delegate.port)
            .map_err(Failure::Unresolved)?;
        let place = Place { host, port, name: delegate.host() };
        let connections = &self.aggregation.connections;
        let answer = connections.send(&place, trust, request, upgrading, &self.tunnels).await;
        answer.map_err(Failure::Unreachable)
    }
}

/// Why another server did not answer.
#[derive(Debug)]
enum Failure {
    /// Its Service leads nowhere.
    Unresolved(String),
    /// It could not be connected to, or broke off.
    Unreachable(String),
}

/// 503 in plain text, as upstream's aggregator answers.
fn refused(why: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{why}\n")));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// A stream of another server ends when this one stops.
fn until_stopped(response: Response<Body>, stop: tokio_util::sync::CancellationToken) -> Response<Body> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    response.map(|body| {
        Body::from_stream(body.into_data_stream().take_until(async move { stop.cancelled().await }))
    })
}

/// Says where the request came from, as upstream's proxy does.
fn forwarded_for(headers: &mut HeaderMap, head: &http::request::Parts) {
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-forwarded-proto", "https");
    set("x-forwarded-uri", head.uri.path());
    let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
    if let Some(host) = host {
        set("x-forwarded-host", host);
    }
    if let Some(peer) = head.extensions.get::<SocketAddr>() {
        let before = head.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
        let list = before.map_or_else(|| peer.ip().to_string(), |before| format!("{before}, {}", peer.ip()));
        set("x-forwarded-for", &list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_a_group_and_version_are_delegated() {
        let cases = [
            ("/apis/a.example/v1", Some(("a.example", "v1"))),
            ("/apis/a.example/v1/things/x", Some(("a.example", "v1"))),
            ("/apis/a.example", None),
            ("/apis/a.example/", None),
            ("/apis", None),
            ("/api/v1/pods", None),
        ];
        for (path, expected) in cases {
            assert_eq!(group_version(path), expected, "{path}");
        }
    }
}
