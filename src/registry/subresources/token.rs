//! `serviceaccounts/token`: checks an order for a token; the signing is the caller's.

use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus,
};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::error::{ApiError, GroupKind};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::admission::{Operation, Request};
use crate::registry::context::{Body, RequestContext};
use crate::registry::decode;
use crate::registry::hooks::{TokenBinding, TokenOrder};
use crate::registry::service::{Registry, Reply};
use crate::registry::write::Target;
use crate::registry::write::body;

const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

impl Registry {
    pub(in crate::registry) async fn issue_token(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        body: &Body,
    ) -> Result<Reply, ApiError> {
        let incoming = body::parse(body, ("authentication.k8s.io/v1", "TokenRequest"))?;
        let (mut request, _) = decode::decode_any::<TokenRequest>(incoming.value)
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        let issuer = self.hooks().and_then(|hooks| hooks.tokens.clone());
        let issuer =
            issuer.ok_or_else(|| ApiError::service_unavailable("token signing is not configured"))?;
        let account: ServiceAccount = self.read_latest(target.namespace, target.name).await?;
        let admission = Request::new(self, cx, target, Operation::Create);
        self.admission().validate(&admission, Some(&request), None).await?;
        let spec = request.spec.get_or_insert_default();
        validate(target.name, spec)?;
        let (bound_to, node) = self.binding(target, spec.bound_object_ref.as_ref()).await?;
        let order = TokenOrder {
            namespace: target.namespace.to_owned(),
            service_account: target.name.to_owned(),
            uid: account.metadata.uid.unwrap_or_default(),
            audiences: spec.audiences.clone().unwrap_or_default(),
            expiration_seconds: spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS),
            bound_to,
            node,
        };
        spec.expiration_seconds = Some(order.expiration_seconds);
        let issued = issuer.issue(order).await?;
        spec.audiences = Some(issued.audiences);
        request.metadata.name = Some(target.name.to_owned());
        request.metadata.namespace = Some(target.namespace.to_owned());
        request.metadata.creation_timestamp = Some(crate::registry::write::system::now());
        request.status = Some(TokenRequestStatus {
            token: Some(issued.token),
            expiration_timestamp: Some(Time(issued.expires)),
        });
        let body = serde_json::to_vec(&request).map_err(ApiError::internal)?;
        Ok(Reply { code: 201, body: body.into() })
    }

    async fn binding(
        &self,
        target: &Target<'_>,
        reference: Option<&BoundObjectReference>,
    ) -> Result<(Option<TokenBinding>, Option<TokenBinding>), ApiError> {
        let Some(reference) = reference else { return Ok((None, None)) };
        let kind = reference.kind.as_deref().unwrap_or_default();
        let name = reference.name.as_deref().unwrap_or_default();
        let mut node = None;
        let uid = match kind {
            "Pod" => {
                let pod: Pod = self.read_latest(target.namespace, name).await?;
                let spec = pod.spec.unwrap_or_default();
                if spec.service_account_name.as_deref() != Some(target.name) {
                    return Err(ApiError::bad_request(format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                        target.name
                    )));
                }
                node = self.node_binding(spec.node_name.as_deref().unwrap_or_default())?;
                pod.metadata.uid
            }
            "Secret" => self.read_latest::<Secret>(target.namespace, name).await?.metadata.uid,
            "Node" => self.read_latest::<Node>("", name).await?.metadata.uid,
            other => {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token to object of type {} {other:?}",
                    reference.api_version.as_deref().unwrap_or_default()
                )));
            }
        }
        .unwrap_or_default();
        if reference.uid.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != uid) {
            let wanted = reference.uid.as_deref().unwrap_or_default();
            let message = format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
            );
            let resource = crate::api::error::GroupResource::new("", format!("{}s", kind.to_lowercase()));
            return Err(ApiError::conflict(&resource, name, message));
        }
        Ok((Some(TokenBinding { kind: kind.to_owned(), name: name.to_owned(), uid }), node))
    }

    fn node_binding(&self, name: &str) -> Result<Option<TokenBinding>, ApiError> {
        if name.is_empty() {
            return Ok(None);
        }
        let uid = self.read_one::<Node>("", name)?.and_then(|node| node.metadata.uid).unwrap_or_default();
        Ok(Some(TokenBinding { kind: "Node".into(), name: name.to_owned(), uid }))
    }
}

fn validate(name: &str, spec: &TokenRequestSpec) -> Result<(), ApiError> {
    let at = Path::new("spec").child("expirationSeconds");
    let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    let problem = if seconds < MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let errors = FieldErrors(vec![FieldError::invalid(&at, seconds, problem)]);
    Err(ApiError::invalid(&GroupKind::new("authentication.k8s.io", "TokenRequest"), name, errors))
}
