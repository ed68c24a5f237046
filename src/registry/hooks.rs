//! What the registry needs from its caller: token signing, reviews and the authorizer's view of privileges.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde_json::Value;

use crate::api::error::ApiError;
use crate::registry::context::{RequestContext, UserInfo};
use crate::registry::resource::Resource;

/// An object a token is bound to: the token dies with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBinding {
    /// `Pod`, `Secret` or `Node`.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// A checked request for a service account token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOrder {
    /// Namespace of the service account.
    pub namespace: String,
    /// Name of the service account.
    pub service_account: String,
    /// Uid of the service account.
    pub uid: String,
    /// Audiences asked for; empty means the API server's own.
    pub audiences: Vec<String>,
    /// Lifetime asked for.
    pub expiration_seconds: i64,
    /// The object the token is bound to, and for a pod that runs the node it runs on.
    pub bound_to: Option<TokenBinding>,
    /// Node of the bound pod.
    pub node: Option<TokenBinding>,
}

/// A signed token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    /// The JWT.
    pub token: String,
    /// The audiences it is good for.
    pub audiences: Vec<String>,
    /// When it ends.
    pub expires: k8s_openapi::jiff::Timestamp,
}

/// Signs service account tokens (`serviceaccounts/token`).
#[async_trait]
pub trait TokenIssuer: Send + Sync {
    /// Signs one token.
    async fn issue(&self, order: TokenOrder) -> Result<IssuedToken, ApiError>;
}

/// Answers virtual creates: `TokenReview`, `SelfSubjectReview` and the `*SubjectAccessReview`s.
#[async_trait]
pub trait ReviewHandler: Send + Sync {
    /// Fills in the status of `object`, which is decoded and pruned; the result is sent to the client and not stored.
    async fn review(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        namespace: &str,
        object: Value,
    ) -> Result<Value, ApiError>;
}

/// The authorizer's answers that RBAC's escalation checks and the like need.
pub trait BindCheck: Send + Sync {
    /// Whether `user` may do `verb` on the named object; `group`/`plural` name the resource.
    fn allowed(
        &self,
        user: &UserInfo,
        verb: &str,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> bool;

    /// The rules of `rules` that `user` does not hold in `namespace` (empty: cluster-wide).
    fn missing_rules(&self, user: &UserInfo, namespace: &str, rules: &[PolicyRule]) -> Vec<PolicyRule>;

    /// The rules that a role reference stands for, read in `namespace`.
    fn rules_of(&self, namespace: &str, role: &RoleRef) -> Vec<PolicyRule>;
}

/// Where a webhook is: the `clientConfig` of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookTarget {
    /// Its URL, unless it is a Service.
    pub url: Option<String>,
    /// The Service: namespace, name, path and port.
    pub service: Option<(String, String, String, u16)>,
    /// The authorities that sign its certificate, PEM; the system's when empty.
    pub ca_bundle: Vec<u8>,
}

impl WebhookTarget {
    /// Reads a `clientConfig`.
    pub fn of(config: &Value) -> Self {
        use base64::Engine as _;
        let text =
            |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let ca = text(config, "caBundle");
        let port =
            |service: &Value| service.get("port").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok());
        Self {
            url: config.get("url").and_then(Value::as_str).map(str::to_owned),
            service: config.get("service").filter(|service| service.is_object()).map(|service| {
                let port = port(service).unwrap_or(443);
                (text(service, "namespace"), text(service, "name"), text(service, "path"), port)
            }),
            ca_bundle: base64::engine::general_purpose::STANDARD.decode(ca).unwrap_or_default(),
        }
    }
}

/// A webhook that could not be called, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WebhookError(pub String);

/// Calls webhooks.
#[async_trait]
pub trait WebhookClient: Send + Sync {
    /// Sends a review and reads the answer.
    ///
    /// # Errors
    /// The webhook is not reached, does not answer in time, or answers with anything but a JSON object and 200.
    async fn call(
        &self,
        target: &WebhookTarget,
        timeout: std::time::Duration,
        review: &Value,
    ) -> Result<Value, WebhookError>;
}

/// The hooks of one registry. What is missing is answered with 404 (token, reviews) or not checked (bind).
#[derive(Clone, Default)]
pub struct Hooks {
    /// Signs tokens.
    pub tokens: Option<Arc<dyn TokenIssuer>>,
    /// Answers reviews.
    pub reviews: Option<Arc<dyn ReviewHandler>>,
    /// Knows who may do what.
    pub bind: Option<Arc<dyn BindCheck>>,
    /// Calls webhooks.
    pub webhooks: Option<Arc<dyn WebhookClient>>,
}
