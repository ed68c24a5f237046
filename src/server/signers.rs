//! Which authority of the cluster stands behind which signer of CertificateSigningRequests: what serves is signed by the
//! authority that clients trust, who asks is signed by the one that the API server trusts.

use std::sync::Arc;

use time::OffsetDateTime;

use crate::controllers::certificates::request::{KUBELET_SERVING, LEGACY};
use crate::controllers::certificates::{Order, Refusal, Signer};
use crate::pki::{ClusterPki, Grant};

/// The authorities.
#[derive(Debug)]
pub(super) struct Signers(pub(super) Arc<ClusterPki>);

impl Signer for Signers {
    fn sign(&self, order: &Order<'_>) -> Result<String, Refusal> {
        let authority = match order.signer {
            KUBELET_SERVING | LEGACY => self.0.server_ca(),
            _ => self.0.client_ca(),
        };
        let Order { organizations, usages, lifetime, .. } = *order;
        let grant = Grant { organizations, usages, lifetime };
        let signed = authority.grant(order.request_pem, &grant, OffsetDateTime::now_utc());
        signed.map_err(|failure| Refusal(crate::client::error::chain(&failure)))
    }
}
