//! Signs approved requests of the four built-in signers.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, PostParams};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::request::{self, CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, Requested};
use super::{Order, Signer, has, is_issued};
use crate::client::{Controller, Key, Next, error};
use crate::controllers::Context;

/// The lifetime of a certificate, unless its request asks for a shorter one.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// The shortest lifetime.
const SHORTEST: Duration = Duration::from_secs(600);

/// Why a request could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The answer could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing: it is not for these signers, not approved, or has been answered.
    None,
    /// It is signed.
    Certificate(String),
    /// It fails for this reason and with this message.
    Failed(&'static str, String),
}

/// How long the certificate is to last.
pub(super) fn lifetime(seconds: Option<i32>) -> Duration {
    let asked = seconds.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    asked.map_or(LIFETIME, |asked| asked.clamp(SHORTEST, LIFETIME))
}

/// Decides, and signs if the request is granted.
pub(super) fn answer(csr: &CertificateSigningRequest, signer: &dyn Signer) -> Answer {
    let spec = &csr.spec;
    let ours = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY].contains(&spec.signer_name.as_str());
    if !ours || !has(csr, "Approved") || has(csr, "Denied") || has(csr, "Failed") || is_issued(csr) {
        return Answer::None;
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    let (Some(requested), Ok(pem)) =
        (Requested::parse(&spec.request.0), std::str::from_utf8(&spec.request.0))
    else {
        return Answer::Failed("SignerValidationFailure", "unable to parse the request".to_owned());
    };
    if let Err(why) = request::check(&spec.signer_name, &requested, usages) {
        return Answer::Failed("SignerValidationFailure", why);
    }
    let order = Order {
        signer: &spec.signer_name,
        request_pem: pem,
        organizations: &requested.organizations,
        usages,
        lifetime: lifetime(spec.expiration_seconds),
    };
    match signer.sign(&order) {
        Ok(certificate) => Answer::Certificate(certificate),
        Err(refusal) => Answer::Failed("SigningError", refusal.to_string()),
    }
}

/// Runs until `stop`. Without a signer in the settings there is nothing to do.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, clock, config, .. } = context;
    let Some(signer) = config.signer.clone() else {
        warn!("no signer is configured, certificate requests are not signed");
        return stop.cancelled().await;
    };
    let requests = informers.get::<CertificateSigningRequest>();
    let controller = Controller::new("csr-signing").for_each(&requests);
    let reconcile = move |key: Key| {
        let (client, signer, request, now) =
            (client.clone(), signer.clone(), requests.get(&key), clock.now());
        async move {
            let Some(request) = request else { return Ok(Next::Done) };
            let mut answered = request.as_ref().clone();
            let status = answered.status.get_or_insert_default();
            match answer(&request, signer.as_ref()) {
                Answer::None => return Ok(Next::Done),
                Answer::Certificate(pem) => status.certificate = Some(ByteString(pem.into_bytes())),
                Answer::Failed(reason, message) => {
                    let failed = CertificateSigningRequestCondition {
                        type_: "Failed".to_owned(),
                        status: "True".to_owned(),
                        reason: Some(reason.to_owned()),
                        message: Some(message),
                        last_update_time: Some(Time(now)),
                        last_transition_time: Some(Time(now)),
                    };
                    status.conditions.get_or_insert_default().push(failed);
                }
            }
            let api: Api<CertificateSigningRequest> = Api::all(client);
            match api.replace_status(key.name(), &PostParams::default(), &answered).await {
                Err(failure) if !error::is_not_found(&failure) => Err(Error::Status(failure)),
                _ => Ok(Next::Done),
            }
        }
    };
    controller.run(reconcile, stop).await;
}
