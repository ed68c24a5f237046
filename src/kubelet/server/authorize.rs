//! Who calls, and whether they may.

use axum::body::Body;
use http::{Method, Response, StatusCode};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use rustls::pki_types::CertificateDer;
use tracing::warn;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::routes::Route;
use super::{Sources, refusal};

/// Members may do everything.
const ADMINISTRATORS: &str = "system:masters";

/// A client: the user and the groups of its certificate, or nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) user: Option<String>,
    pub(super) groups: Vec<String>,
}

impl Caller {
    /// Who a verified chain says it is: the subject's common name is the user, its organizations are the groups.
    pub(super) fn of(chain: Option<&[CertificateDer<'_>]>) -> Self {
        let Some(leaf) = chain.and_then(<[_]>::first) else { return Caller::default() };
        let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return Caller::default() };
        let subject = certificate.subject();
        let user = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let groups = subject.iter_organization().filter_map(|name| name.as_str().ok());
        Caller { user: user.map(str::to_owned), groups: groups.map(str::to_owned).collect() }
    }
}

/// Lets the request through, or says with which answer it is refused.
pub(super) async fn check(
    caller: &Caller,
    route: &Route,
    method: &Method,
    sources: &Sources,
) -> Result<(), Response<Body>> {
    if *route == Route::Health {
        return Ok(());
    }
    let Some(user) = &caller.user else { return Err(refusal(StatusCode::UNAUTHORIZED, "Unauthorized")) };
    if caller.groups.iter().any(|group| group == ADMINISTRATORS) {
        return Ok(());
    }
    let subresource = route.subresource();
    let forbidden = || {
        let node = &sources.node_name;
        let why = format!(
            "Forbidden (user={user}, verb={}, resource=nodes, subresource={subresource}, node={node})",
            verb(method)
        );
        refusal(StatusCode::FORBIDDEN, &why)
    };
    match review(caller, user, subresource, verb(method), sources).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(forbidden()),
        Err(error) => {
            warn!(%user, error = &error as &dyn std::error::Error, "asking for a caller's rights failed");
            Err(refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the API server cannot be asked for the caller's rights",
            ))
        }
    }
}

async fn review(
    caller: &Caller,
    user: &str,
    subresource: &str,
    verb: &str,
    sources: &Sources,
) -> Result<bool, kube::Error> {
    let attributes = ResourceAttributes {
        verb: Some(verb.to_owned()),
        resource: Some("nodes".to_owned()),
        subresource: Some(subresource.to_owned()),
        name: Some(sources.node_name.clone()),
        version: Some("v1".to_owned()),
        ..Default::default()
    };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            groups: Some(caller.groups.clone()),
            resource_attributes: Some(attributes),
            ..Default::default()
        },
        ..Default::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(sources.client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_tells_user_and_groups() {
        let dir = tempfile::tempdir().unwrap();
        let pki = crate::pki::ClusterPki::load_or_create(dir.path(), &[]).unwrap();
        let (chain, _) = pki.admin().to_rustls().unwrap();
        let caller = Caller::of(Some(&chain));
        assert_eq!(caller.user.as_deref(), Some("system:admin"));
        assert_eq!(caller.groups, [ADMINISTRATORS]);
        assert_eq!(Caller::of(None), Caller::default());
    }

    #[test]
    fn methods_are_verbs() {
        assert_eq!(verb(&Method::GET), "get");
        assert_eq!(verb(&Method::POST), "create");
    }
}
