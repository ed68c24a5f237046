//! Paths that name no resource.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

use super::negotiate::{self, Offer};
use super::pipeline::{Call, is_read};
use super::respond::Rendering;
use super::{ApiServer, oidc};
use crate::api::error::{ApiError, GroupResource};
use crate::telemetry;

/// Paths that everybody may read whatever the roles say, because probes must work before there are any.
const ALWAYS_ALLOWED: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Whether a path is answered without asking the authorizers.
pub(super) fn always_allowed(path: &str) -> bool {
    ALWAYS_ALLOWED
        .iter()
        .any(|own| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

impl ApiServer {
    /// Hands an authorized request to what answers it.
    pub(super) async fn dispatch(self: &Arc<Self>, call: Call) -> Result<Response<Body>, ApiError> {
        if let Some(delegate) = self.delegate(&call.info.path) {
            return Box::pin(self.forward(call, &delegate)).await;
        }
        if call.info.target.is_some() {
            return Box::pin(self.resource(call)).await;
        }
        let (info, headers) = (&call.info, &call.head.headers);
        if !is_read(&call.head.method) {
            return Err(ApiError::method_not_supported(
                &GroupResource::new("", info.path.as_str()),
                &info.verb,
            ));
        }
        if let Some(response) = self.checks.answer(info) {
            return Ok(response);
        }
        if let Some(answer) = self.discovery.answer(info, headers, &self.aggregation.learned()) {
            return answer;
        }
        let hash = Some(info.param("hash")).filter(|hash| !hash.is_empty());
        if let Some(response) = Box::pin(self.openapi().answer_path(&info.path, hash, headers)).await {
            return Ok(response.map(Body::from));
        }
        if let Some(answer) = oidc::answer(&self.tokens, &info.path) {
            return answer;
        }
        match info.path.as_str() {
            "/version" | "/version/" => {
                let (format, _) = negotiate::accept(headers, Offer::Plain)?;
                let body = serde_json::to_vec(&telemetry::version::info()).map_err(ApiError::internal)?;
                Ok(Rendering { pretty: true, ..Rendering::new(format, info, headers) }
                    .respond(200, Bytes::from(body)))
            }
            "/metrics" => Ok(metrics()),
            "/" => {
                let (format, _) = negotiate::accept(headers, Offer::Plain)?;
                let body = serde_json::json!({"paths": self.paths()}).to_string();
                Ok(Rendering { pretty: true, ..Rendering::new(format, info, headers) }
                    .respond(200, Bytes::from(body)))
            }
            path => Err(ApiError::generic_not_found(path)),
        }
    }

    /// The paths that `/` lists.
    fn paths(&self) -> Vec<String> {
        let fixed = [
            "/.well-known/openid-configuration",
            "/api",
            "/apis",
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openid/v1/jwks",
            "/readyz",
            "/version",
        ];
        let (_, rows) = self.registry.rows();
        let groups = rows.iter().map(|row| match row.group.is_empty() {
            true => format!("/api/{}", row.version),
            false => format!("/apis/{}/{}", row.group, row.version),
        });
        let learned = self.aggregation.learned();
        let others = learned.versions.values().map(|one| format!("/apis/{}/{}", one.group, one.version));
        let mut paths: Vec<String> =
            fixed.into_iter().map(str::to_owned).chain(groups).chain(others).collect();
        paths.sort();
        paths.dedup();
        paths
    }
}

fn metrics() -> Response<Body> {
    let mut response = Response::new(Body::from(telemetry::metrics::render()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
