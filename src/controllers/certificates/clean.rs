//! Deletes requests that nobody needs any more, after upstream's times.

use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DeleteParams, Preconditions};
use tokio_util::sync::CancellationToken;
use x509_parser::pem::Pem;

use super::is_issued;
use crate::client::{Controller, Key, Next, error};
use crate::controllers::Context;

/// An answered request is kept this long.
const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
/// A request that nobody answers is kept this long.
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// Why a request could not be deleted.
#[derive(Debug, thiserror::Error)]
#[error("delete CertificateSigningRequest")]
pub struct Error(#[source] kube::Error);

/// When the request may go; `None` if it stays for now.
pub fn expires_at(csr: &CertificateSigningRequest) -> Option<Timestamp> {
    let conditions = || csr.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ends = Vec::new();
    for condition in conditions() {
        let kept = match condition.type_.as_str() {
            "Approved" => is_issued(csr),
            "Denied" | "Failed" => true,
            _ => false,
        };
        let since = condition.last_update_time.as_ref().filter(|_| kept && condition.status == "True");
        ends.extend(since.map(|since| since.0 + ANSWERED));
    }
    if conditions().next().is_none() && !is_issued(csr) {
        ends.extend(csr.metadata.creation_timestamp.as_ref().map(|created| created.0 + PENDING));
    }
    ends.extend(certificate_end(csr));
    ends.into_iter().min()
}

/// When the issued certificate expires.
fn certificate_end(csr: &CertificateSigningRequest) -> Option<Timestamp> {
    let pem = csr.status.as_ref()?.certificate.as_ref()?;
    let pem = Pem::iter_from_buffer(&pem.0).next()?.ok()?;
    let certificate = pem.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let Context { client, informers, clock, .. } = context;
    let requests = informers.get::<CertificateSigningRequest>();
    let controller = Controller::new("csr-cleaner").for_each(&requests);
    let reconcile = move |key: Key| {
        let (client, request, now) = (client.clone(), requests.get(&key), clock.now());
        async move {
            let Some(request) = request else { return Ok(Next::Done) };
            let Some(end) = expires_at(&request) else { return Ok(Next::Done) };
            let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
            if !left.is_zero() {
                return Ok(Next::After(left));
            }
            let preconditions = Preconditions { uid: request.metadata.uid.clone(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let api: Api<CertificateSigningRequest> = Api::all(client);
            match api.delete(key.name(), &parameters).await {
                Err(failure) if !error::is_not_found(&failure) => Err(Error(failure)),
                _ => Ok(Next::Done),
            }
        }
    };
    controller.run(reconcile, stop).await;
}
