//! Service-account tokens: issued for an order of the registry, verified against signature, time and the objects they
//! are bound to.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jsonwebtoken::{Header, Validation};

use super::claims::{Audience, Claims, Kubernetes, Reference};
use super::{AUTHENTICATED, unix_now};
use crate::api::error::ApiError;
use crate::pki::{ClusterPki, ServiceKey};
use crate::registry::{IssuedToken, TokenBinding, TokenIssuer, TokenOrder, UserInfo};

/// Prefix of a service account's user name.
pub const USER_PREFIX: &str = "system:serviceaccount:";
/// How far clocks may differ.
const LEEWAY_SECONDS: i64 = 60;
/// The lifetime that kubelets ask for on behalf of pods. Such a token lives for [`EXTENDED_SECONDS`], because clients that
/// never read the file again would break; what it claims in `warnafter` is the time asked for. As upstream.
const POD_TOKEN_SECONDS: i64 = 60 * 60 + 7;
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;
/// Shortest lifetime that is granted.
const SHORTEST_SECONDS: i64 = 10 * 60;
/// Longest lifetime that is granted.
const LONGEST_SECONDS: i64 = (1 << 32) - 1;
/// Tokens whose signature is remembered as good, so that it is checked once and not with every request.
const REMEMBERED: usize = 4096;

/// What tokens are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// A service account.
    ServiceAccount,
    /// A pod.
    Pod,
    /// A secret.
    Secret,
    /// A node.
    Node,
}

/// Tells whether the objects behind a token still exist.
pub trait BoundObjects: Send + Sync {
    /// Uid of the named object (the namespace of a node is ignored); `None` when it is gone, or was to be gone by now.
    fn uid(&self, kind: Bound, namespace: &str, name: &str) -> Option<String>;

    /// A token that stands in a Secret is used. Whether it may be: the cleaner of such tokens may have marked it.
    fn uses_secret(&self, namespace: &str, name: &str) -> bool;
}

/// Issues and verifies service-account tokens.
pub struct ServiceAccountTokens {
    pki: Arc<ClusterPki>,
    issuer: String,
    validation: Validation,
    objects: Arc<dyn BoundObjects>,
    verified: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

impl fmt::Debug for ServiceAccountTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccountTokens").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl ServiceAccountTokens {
    /// Tokens of the cluster with this domain.
    pub fn new(pki: Arc<ClusterPki>, cluster_domain: &str, objects: Arc<dyn BoundObjects>) -> Self {
        let issuer = format!("https://kubernetes.default.svc.{cluster_domain}");
        let mut validation = Validation::new(pki.service_key().algorithm().into());
        validation.set_issuer(&[&issuer]);
        validation.validate_aud = false; // TokenReview asks for audiences of its own; see `authenticate_for`.
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS.unsigned_abs(); // For `nbf`; `in_time` is strict about `exp`.
        Self { pki, issuer, validation, objects, verified: Mutex::default() }
    }

    /// Issuer of the tokens, and the API server's own audience.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The signing key, whose public half is published.
    pub fn key(&self) -> &ServiceKey {
        self.pki.service_key()
    }

    /// The user behind a token that is good for the API server.
    pub fn authenticate(&self, token: &str) -> Option<Arc<UserInfo>> {
        self.authenticate_for(token, std::slice::from_ref(&self.issuer)).map(|(user, _)| Arc::new(user))
    }

    /// The user behind a token, and which of `audiences` it is good for; `None` when there is none of either.
    pub fn authenticate_for(&self, token: &str, audiences: &[String]) -> Option<(UserInfo, Vec<String>)> {
        let claims = self.verify(token)?;
        let matching: Vec<_> =
            claims.aud.as_slice().iter().filter(|audience| audiences.contains(audience)).cloned().collect();
        if matching.is_empty() || !self.objects_exist(&claims) {
            return None;
        }
        let k = &claims.kubernetes;
        if k.secret.as_ref().is_some_and(|secret| !self.objects.uses_secret(&k.namespace, &secret.name)) {
            return None;
        }
        Some((user_of(&claims), matching))
    }

    /// Checks signature, issuer and times.
    fn verify(&self, token: &str) -> Option<Arc<Claims>> {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        let key: [u8; 32] = digest.as_ref().try_into().ok()?;
        let now = unix_now();
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(claims) = known {
            return in_time(&claims, now).then_some(claims);
        }
        let key_matches =
            jsonwebtoken::decode_header(token).ok()?.kid.is_none_or(|kid| kid == self.key().key_id());
        if !key_matches {
            return None;
        }
        let decoded =
            jsonwebtoken::decode::<Claims>(token, self.key().decoding_key(), &self.validation).ok()?;
        let claims = Arc::new(decoded.claims);
        let subject =
            format!("{USER_PREFIX}{}:{}", claims.kubernetes.namespace, claims.kubernetes.serviceaccount.name);
        if claims.sub != subject || !in_time(&claims, now) {
            return None;
        }
        self.remember(key, claims.clone(), now);
        Some(claims)
    }

    fn remember(&self, key: [u8; 32], claims: Arc<Claims>, now: i64) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED {
            verified.retain(|_, claims| in_time(claims, now));
        }
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(key, claims);
    }

    fn objects_exist(&self, claims: &Claims) -> bool {
        let k = &claims.kubernetes;
        let same = |kind, reference: &Reference| {
            self.objects.uid(kind, &k.namespace, &reference.name).is_some_and(|uid| uid == reference.uid)
        };
        // A pod's node is only recorded: the token dies with the pod. A token bound to a node alone dies with the node.
        let node = if k.pod.is_some() { None } else { k.node.as_ref() };
        same(Bound::ServiceAccount, &k.serviceaccount)
            && k.pod.as_ref().is_none_or(|pod| same(Bound::Pod, pod))
            && k.secret.as_ref().is_none_or(|secret| same(Bound::Secret, secret))
            && node.is_none_or(|node| same(Bound::Node, node))
    }

    fn sign(&self, order: &TokenOrder, now: i64) -> Result<IssuedToken, ApiError> {
        let audiences =
            if order.audiences.is_empty() { vec![self.issuer.clone()] } else { order.audiences.clone() };
        let asked = order.expiration_seconds.clamp(SHORTEST_SECONDS, LONGEST_SECONDS);
        let pod_bound = order.bound_to.as_ref().is_some_and(|bound| bound.kind == "Pod");
        let extended = pod_bound && asked == POD_TOKEN_SECONDS && audiences.contains(&self.issuer);
        let claims = Claims {
            aud: Audience::Many(audiences.clone()),
            exp: now + if extended { EXTENDED_SECONDS } else { asked },
            iat: now,
            nbf: now,
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: kubernetes_claim(order, extended.then_some(now + asked)),
            sub: format!("{USER_PREFIX}{}:{}", order.namespace, order.service_account),
        };
        let mut header = Header::new(self.key().algorithm().into());
        header.typ = None;
        header.kid = Some(self.key().key_id().to_owned());
        let token =
            jsonwebtoken::encode(&header, &claims, self.key().encoding_key()).map_err(ApiError::internal)?;
        let expires = k8s_openapi::jiff::Timestamp::from_second(now + asked).map_err(ApiError::internal)?;
        Ok(IssuedToken { token, audiences, expires })
    }
}

#[async_trait]
impl TokenIssuer for ServiceAccountTokens {
    async fn issue(&self, order: TokenOrder) -> Result<IssuedToken, ApiError> {
        self.sign(&order, unix_now())
    }
}

fn in_time(claims: &Claims, now: i64) -> bool {
    now < claims.exp && claims.nbf <= now + LEEWAY_SECONDS
}

fn kubernetes_claim(order: &TokenOrder, warnafter: Option<i64>) -> Kubernetes {
    let reference =
        |binding: &TokenBinding| Reference { name: binding.name.clone(), uid: binding.uid.clone() };
    let bound = |kind: &str| order.bound_to.as_ref().filter(|bound| bound.kind == kind).map(reference);
    Kubernetes {
        namespace: order.namespace.clone(),
        node: order.node.as_ref().map(reference).or_else(|| bound("Node")),
        pod: bound("Pod"),
        secret: bound("Secret"),
        serviceaccount: Reference { name: order.service_account.clone(), uid: order.uid.clone() },
        warnafter,
    }
}

/// The user that a token's claims name.
fn user_of(claims: &Claims) -> UserInfo {
    let k = &claims.kubernetes;
    let mut extra = BTreeMap::new();
    let mut note = |key: &str, value: String| {
        extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    note("credential-id", format!("JTI={}", claims.jti));
    for (kind, reference) in [("pod", &k.pod), ("node", &k.node)] {
        if let Some(reference) = reference {
            note(&format!("{kind}-name"), reference.name.clone());
            note(&format!("{kind}-uid"), reference.uid.clone());
        }
    }
    UserInfo {
        name: claims.sub.clone(),
        uid: k.serviceaccount.uid.clone(),
        groups: groups_of(&k.namespace),
        extra,
    }
}

/// The groups of every service account in a namespace.
pub fn groups_of(namespace: &str) -> Vec<String> {
    vec![
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        AUTHENTICATED.to_owned(),
    ]
}

/// Namespace and name of the service account that a user name stands for.
pub fn parse_user_name(name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = name.strip_prefix(USER_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

#[cfg(test)]
mod tests;
