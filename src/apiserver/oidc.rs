//! What others need to verify service-account tokens: the issuer's discovery document and its keys.

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use serde_json::json;

use super::authentication::ServiceAccountTokens;
use crate::api::error::ApiError;

/// How long clients may keep the documents.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// Answers `/.well-known/openid-configuration` and `/openid/v1/jwks`; `None` for another path.
pub(super) fn answer(tokens: &ServiceAccountTokens, path: &str) -> Option<Result<Response<Body>, ApiError>> {
    let (content_type, document) = match path {
        "/.well-known/openid-configuration" => ("application/json", configuration(tokens)),
        "/openid/v1/jwks" => ("application/jwk-set+json", json!({"keys": [tokens.key().jwk()]})),
        _ => return None,
    };
    let mut response = Response::new(Body::from(document.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, CACHE);
    Some(Ok(response))
}

fn configuration(tokens: &ServiceAccountTokens) -> serde_json::Value {
    let algorithm = match tokens.key().algorithm() {
        crate::pki::SigningAlgorithm::Es256 => "ES256",
        crate::pki::SigningAlgorithm::Rs256 => "RS256",
    };
    json!({
        "issuer": tokens.issuer(),
        "jwks_uri": format!("{}/openid/v1/jwks", tokens.issuer()),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [algorithm],
    })
}
