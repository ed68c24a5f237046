//! Clients without a certificate: a bearer token is shown to the API server, whose word counts for two minutes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::{Api, PostParams};
use tokio::time::Instant;
use tracing::warn;

use super::authorize::Caller;
use crate::kubelet::images::archive::sha256;

/// How long an answer is believed.
const BELIEVED: Duration = Duration::from_secs(120);

/// Whose tokens were shown lately, by digest.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<String, (Instant, Caller)>>);

impl Tokens {
    /// Who a client is: what its certificate says, else what its token says.
    pub(super) async fn caller(
        &self,
        certified: &Caller,
        headers: &HeaderMap,
        client: &kube::Client,
    ) -> Caller {
        let Some(token) = bearer(headers).filter(|_| certified.user.is_none()) else {
            return certified.clone();
        };
        let digest = sha256(token.as_bytes());
        let now = Instant::now();
        if let Some(known) = self.known(&digest, now) {
            return known;
        }
        match review(client, token).await {
            Ok(caller) => {
                let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                known.retain(|_, (at, _)| now - *at < BELIEVED);
                known.insert(digest, (now, caller.clone()));
                caller
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "asking whose a token is failed");
                Caller::default()
            }
        }
    }

    fn known(&self, digest: &str, now: Instant) -> Option<Caller> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).filter(|(at, _)| now - *at < BELIEVED).map(|(_, caller)| caller.clone())
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("Bearer") && !token.is_empty()).then_some(token)
}

/// Nobody, when the API server does not know the token.
async fn review(client: &kube::Client, token: &str) -> Result<Caller, kube::Error> {
    let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let asked = TokenReview { spec, ..TokenReview::default() };
    let status = reviews.create(&PostParams::default(), &asked).await?.status.unwrap_or_default();
    let user = status.user.filter(|_| status.authenticated == Some(true)).unwrap_or_default();
    Ok(Caller {
        user: user.username.filter(|name| !name.is_empty()),
        groups: user.groups.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response};
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_token_is_shown_to_the_api_server_now_and_then() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let api = tower::service_fn(move |request: Request<kube::client::Body>| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let review: Value = serde_json::from_slice(&body).unwrap();
                let status = match review["spec"]["token"].as_str() {
                    Some("good") => {
                        json!({"authenticated": true, "user": {"username": "sa", "groups": ["g"]}})
                    }
                    _ => json!({"authenticated": false}),
                };
                let answer = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
                    "spec": {}, "status": status});
                Ok::<_, Infallible>(Response::new(http_body_util::Full::<bytes::Bytes>::from(
                    answer.to_string(),
                )))
            }
        });
        let client = kube::Client::new(api, "default");
        let tokens = Tokens::default();
        let ask = async |certified: &Caller, header: &str| {
            let headers: HeaderMap = [(AUTHORIZATION, header.parse().unwrap())].into_iter().collect();
            tokens.caller(certified, &headers, &client).await
        };
        let nobody = Caller::default();
        let sa = Caller { user: Some("sa".into()), groups: vec!["g".into()] };
        let certified = Caller { user: Some("system:apiserver".into()), groups: Vec::new() };
        assert_eq!(ask(&nobody, "Bearer good").await, sa);
        assert_eq!(ask(&nobody, "bearer good").await, sa);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(ask(&nobody, "Bearer bad").await, nobody);
        assert_eq!(ask(&nobody, "Basic good").await, nobody);
        assert_eq!(ask(&certified, "Bearer bad").await, certified, "a certificate comes first");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        tokio::time::advance(BELIEVED).await;
        assert_eq!(ask(&nobody, "Bearer good").await, sa);
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }
}
