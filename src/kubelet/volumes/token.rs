//! Service account tokens of pods: requested from the API, renewed when 80 % of their life has passed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};

use super::payload::TokenKey;
use crate::kubelet::spec;

/// A token is renewed at this age even when it lives longer.
const OLDEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug)]
struct Issued {
    token: String,
    renew_at: Timestamp,
    expires: Timestamp,
}

/// Tokens that were issued to this node's pods.
#[derive(Debug, Default)]
pub struct Tokens {
    issued: Mutex<HashMap<(String, TokenKey), Issued>>,
}

/// When a token that was issued at `issued` and ends at `expires` should be renewed.
pub fn renew_at(issued: Timestamp, expires: Timestamp) -> Timestamp {
    let life = Duration::try_from(expires.duration_since(issued)).unwrap_or_default();
    issued.checked_add((life * 4 / 5).min(OLDEST)).unwrap_or(expires)
}

impl Tokens {
    /// The pod's token, from memory while it is fresh.
    pub async fn get(
        &self,
        client: &Client,
        pod: &Pod,
        key: &TokenKey,
        now: Timestamp,
    ) -> Result<String, kube::Error> {
        Ok(self.issue(client, pod, key, now).await?.0)
    }

    /// The same, with the time at which the token ends.
    pub async fn issue(
        &self,
        client: &Client,
        pod: &Pod,
        key: &TokenKey,
        now: Timestamp,
    ) -> Result<(String, Timestamp), kube::Error> {
        let slot = (spec::uid(pod).to_owned(), key.clone());
        if let Some(fresh) = self.cached(&slot).filter(|i| i.renew_at > now) {
            return Ok((fresh.token, fresh.expires));
        }
        let answer = request(client, pod, key).await?;
        let status = answer.status.unwrap_or_default();
        let expires = status.expiration_timestamp.map_or(now, |t| t.0);
        let (token, renew_at) = (status.token.unwrap_or_default(), renew_at(now, expires));
        let issued = Issued { token, renew_at, expires };
        let token = issued.token.clone();
        self.issued.lock().unwrap_or_else(PoisonError::into_inner).insert(slot, issued);
        Ok((token, expires))
    }

    fn cached(&self, slot: &(String, TokenKey)) -> Option<Issued> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner).get(slot).cloned()
    }

    /// When the first of the pod's tokens needs renewal.
    pub fn next_renewal(&self, uid: &str) -> Option<Timestamp> {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.iter().filter(|((owner, _), _)| owner == uid).map(|(_, i)| i.renew_at).min()
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner).retain(|(owner, _), _| owner != uid);
    }
}

async fn request(client: &Client, pod: &Pod, key: &TokenKey) -> Result<TokenRequest, kube::Error> {
    let account = spec::pod_spec(pod).service_account_name.as_deref().unwrap_or("default");
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), spec::namespace(pod));
    let body = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(key.audience.clone().into_iter().collect()),
            expiration_seconds: Some(key.seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(spec::name(pod).to_owned()),
                uid: Some(spec::uid(pod).to_owned()),
            }),
        }),
        ..TokenRequest::default()
    };
    api.create_subresource("token", account, &PostParams::default(), &body).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    #[test]
    fn renewal_comes_at_four_fifths_or_after_a_day() {
        assert_eq!(renew_at(at(0), at(3600)), at(2880));
        assert_eq!(renew_at(at(0), at(365 * 24 * 3600)), at(24 * 3600));
    }

    #[test]
    fn pods_forget_their_own_tokens_only() {
        let tokens = Tokens::default();
        for (uid, renew) in [("a", 5), ("a", 3), ("b", 1)] {
            let key = TokenKey { audience: None, seconds: renew };
            let issued = Issued { token: "t".into(), renew_at: at(renew), expires: at(renew) };
            tokens.issued.lock().unwrap().insert((uid.into(), key), issued);
        }
        assert_eq!(tokens.next_renewal("a"), Some(at(3)));
        tokens.forget("a");
        assert_eq!((tokens.next_renewal("a"), tokens.next_renewal("b")), (None, Some(at(1))));
    }
}
