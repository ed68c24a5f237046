//! Approves the client certificates of kubelets whose requesters have the right to them.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio_util::sync::CancellationToken;

use super::request::{self, KUBELET_CLIENT, Requested};
use super::{has, is_issued};
use crate::client::{Controller, Key, Next, error};
use crate::controllers::Context;

/// Why a request could not be approved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The right of the requester could not be asked for.
    #[error("review the requester's access")]
    Review(#[source] kube::Error),
    /// The approval could not be written.
    #[error("update approval")]
    Approve(#[source] kube::Error),
}

/// A reason to approve: the right that it takes, and what the approval says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ground {
    pub(super) subresource: &'static str,
    pub(super) message: &'static str,
}

const SELF: Ground = Ground {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const OTHER: Ground = Ground {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

/// On what grounds the request may be approved, the first one first.
pub(super) fn grounds(csr: &CertificateSigningRequest) -> Vec<Ground> {
    let spec = &csr.spec;
    if spec.signer_name != KUBELET_CLIENT || is_issued(csr) || has(csr, "Approved") || has(csr, "Denied") {
        return Vec::new();
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    let requested = Requested::parse(&spec.request.0);
    let Some(requested) = requested.filter(|asked| request::check(KUBELET_CLIENT, asked, usages).is_ok())
    else {
        return Vec::new();
    };
    let own = spec.username.as_ref() == Some(&requested.common_name);
    own.then_some(SELF).into_iter().chain([OTHER]).collect()
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, clock, .. } = context;
    let requests = informers.get::<CertificateSigningRequest>();
    let controller = Controller::new("csr-approving").for_each(&requests);
    let reconcile = move |key: Key| {
        let (client, request, now) = (client.clone(), requests.get(&key), clock.now());
        async move {
            let Some(request) = request else { return Ok(Next::Done) };
            for ground in grounds(&request) {
                if is_allowed(&client, &request, &ground).await? {
                    approve(&client, &request, &ground, now).await?;
                    break;
                }
            }
            // Without the right it waits for somebody to approve it.
            Ok::<_, Error>(Next::Done)
        }
    };
    controller.run(reconcile, stop).await;
}

async fn is_allowed(
    client: &Client,
    csr: &CertificateSigningRequest,
    ground: &Ground,
) -> Result<bool, Error> {
    let spec = &csr.spec;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                verb: Some("create".to_owned()),
                subresource: Some(ground.subresource.to_owned()),
                version: Some("*".to_owned()),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await.map_err(Error::Review)?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

async fn approve(
    client: &Client,
    csr: &CertificateSigningRequest,
    ground: &Ground,
    now: Timestamp,
) -> Result<(), Error> {
    let mut approved = csr.clone();
    let conditions = approved.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("AutoApproved".to_owned()),
        message: Some(ground.message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let name = csr.metadata.name.as_deref().unwrap_or_default();
    let parameters = PostParams::default();
    match api.replace_subresource("approval", name, &parameters, &approved).await {
        Err(failure) if !error::is_not_found(&failure) => Err(Error::Approve(failure)),
        _ => Ok(()),
    }
}
