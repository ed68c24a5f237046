//! Who makes a request: client certificates, service-account tokens, or nobody.

pub mod claims;
pub mod impersonation;
pub mod service_account;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap};

use super::tls::Peer;
use crate::api::error::ApiError;
use crate::registry::UserInfo;
pub use service_account::ServiceAccountTokens;

/// Group of everybody who proved an identity.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of everybody who did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Name of who did not.
pub const ANONYMOUS: &str = "system:anonymous";
/// Group that may do everything.
pub const MASTERS: &str = "system:masters";

/// Identity of a caller in the same process; only [`super::in_process::Service`] makes it.
#[derive(Clone, Debug)]
pub struct InProcessUser(pub Arc<UserInfo>);

/// Adds `system:authenticated` unless the groups already say whether the user is.
pub fn add_authenticated(groups: &mut Vec<String>) {
    if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
}

/// Seconds since the epoch.
pub fn unix_now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

/// Finds out who makes a request; 401 when the credentials are wrong, or missing where nobody may be anonymous.
///
/// As upstream, a valid certificate counts before a token, a wrong token is an error even where none is needed, and who
/// shows nothing that is understood is `system:anonymous` (`--anonymous-auth`), to whom the roles grant health and version.
pub fn authenticate(
    tokens: &ServiceAccountTokens,
    extensions: &Extensions,
    headers: &HeaderMap,
    anonymous: bool,
) -> Result<Arc<UserInfo>, ApiError> {
    if let Some(InProcessUser(user)) = extensions.get() {
        return Ok(user.clone());
    }
    let peer = extensions.get::<Peer>().unwrap_or(&Peer::Anonymous);
    if let Peer::Certificate(certificate) = peer
        && unix_now() < certificate.not_after
    {
        return Ok(certificate.user.clone());
    }
    if let Some(token) = bearer_token(headers) {
        return tokens.authenticate(token).ok_or_else(|| ApiError::unauthorized(""));
    }
    if matches!(peer, Peer::Anonymous) && anonymous {
        return Ok(Arc::new(UserInfo {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..UserInfo::default()
        }));
    }
    Err(ApiError::unauthorized(""))
}

/// The token of an `Authorization: Bearer` header.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests;
