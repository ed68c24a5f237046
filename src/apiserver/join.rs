//! How a host becomes a node: the authority to trust, certificates for the node's identity, and the cluster's settings.
//!
//! A joining host shows the join token as the password of HTTP basic authentication, and a password of its own for the
//! name that it wants: the first host to ask for a name sets it, so that no other host with the token can take over the
//! name. The password's hash is kept in Secret `kube-system/<node>.node-password.kube-lite`.

mod node_password;

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, request};
use serde::{Deserialize, Serialize};

use super::authorization::node;
use super::request_info::RequestInfo;
use super::{ApiServerConfig, body, respond};
use crate::api::error::{ApiError, GroupResource};
use crate::api::names;
use crate::pki::token::JoinSecrets;
use crate::pki::{ClusterPki, LeafSpec, PkiError};
use crate::registry::Registry;

/// Prefix of the join endpoints.
const PREFIX: &str = "/v1-kube-lite/";
/// Headers of a joining host.
const NODE_NAME: &str = "kube-lite-node-name";
const NODE_PASSWORD: &str = "kube-lite-node-password";
/// Addresses and further names of a joining host, comma-separated, for its serving certificate.
const NODE_ADDRESSES: &str = "kube-lite-node-ip";

/// What an agent must know of the cluster: the answer of `GET /v1-kube-lite/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSettings {
    /// Addresses of pods.
    pub cluster_cidr: String,
    /// Addresses of Services.
    pub service_cidr: String,
    /// Address of the cluster DNS.
    pub cluster_dns: IpAddr,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// Authority behind client certificates: whom the kubelet's own server trusts.
    pub client_ca: String,
}

/// The join endpoints.
pub(super) struct Join {
    pki: Arc<ClusterPki>,
    registry: Arc<Registry>,
    secrets: JoinSecrets,
    settings: NodeSettings,
}

impl Join {
    pub(super) fn new(
        pki: Arc<ClusterPki>,
        registry: Arc<Registry>,
        secrets: JoinSecrets,
        config: &ApiServerConfig,
    ) -> Self {
        let settings = NodeSettings {
            cluster_cidr: config.cluster_cidr.clone(),
            service_cidr: config.service_cidr.clone(),
            cluster_dns: config.cluster_dns,
            cluster_domain: config.cluster_domain.clone(),
            client_ca: pki.client_ca().cert_pem().to_owned(),
        };
        Self { pki, registry, secrets, settings }
    }

    /// Whether a path is answered here, with credentials of its own kind.
    pub(super) fn owns(&self, path: &str) -> bool {
        path == "/cacerts" || path.starts_with(PREFIX)
    }

    pub(super) async fn answer(
        &self,
        info: &RequestInfo,
        head: &request::Parts,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        let reads = super::pipeline::is_read(&head.method);
        if info.path == "/cacerts" && reads {
            // Not secret: the client compares it with the hash in its token.
            return Ok(respond::text(StatusCode::OK, self.pki.server_ca().cert_pem().to_owned()));
        }
        self.admit(&head.headers)?;
        let endpoint = info.path.strip_prefix(PREFIX).unwrap_or_default();
        match (endpoint, reads, head.method == Method::POST) {
            ("config", true, _) => {
                let json = serde_json::to_vec(&self.settings).map_err(ApiError::internal)?;
                let mut response = Response::new(Body::from(json));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Ok(response)
            }
            ("client-ca.crt", true, _) => {
                Ok(respond::text(StatusCode::OK, self.pki.client_ca().cert_pem().to_owned()))
            }
            ("client-kubelet.crt" | "serving-kubelet.crt" | "client-kube-proxy.crt", _, true) => {
                let csr = body::read(body).await?;
                self.certificate(endpoint, &head.headers, &csr).await
            }
            ("config" | "client-kubelet.crt" | "serving-kubelet.crt" | "client-kube-proxy.crt", ..) => {
                let verb = head.method.as_str().to_lowercase();
                Err(ApiError::method_not_supported(&GroupResource::new("", endpoint), &verb))
            }
            _ => Err(ApiError::generic_not_found(&info.path)),
        }
    }

    /// Checks the join token.
    fn admit(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let credentials = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Basic "))
            .and_then(|encoded| STANDARD.decode(encoded.trim()).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let admitted = credentials
            .as_deref()
            .and_then(|text| text.split_once(':'))
            .is_some_and(|(user, password)| self.secrets.admits_node(user, password));
        if admitted {
            Ok(())
        } else {
            Err(ApiError::unauthorized("the join token is not valid for this cluster"))
        }
    }

    async fn certificate(
        &self,
        kind: &str,
        headers: &HeaderMap,
        csr: &Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let name = text(NODE_NAME);
        let problems = names::is_dns1123_subdomain(name);
        if let Some(problem) = problems.first() {
            return Err(ApiError::bad_request(format!("header {NODE_NAME}: {name:?}: {problem}")));
        }
        node_password::ensure(&self.registry, name, text(NODE_PASSWORD)).await?;
        let spec = match kind {
            "client-kubelet.crt" => LeafSpec::client(&format!("{}{name}", node::USER_PREFIX), &[node::GROUP]),
            "client-kube-proxy.crt" => LeafSpec::client("system:kube-proxy", &[]),
            _ => {
                let addresses =
                    text(NODE_ADDRESSES).split(',').map(str::trim).filter(|name| !name.is_empty());
                let names = [name, "localhost", "127.0.0.1"].into_iter().chain(addresses).map(str::to_owned);
                LeafSpec::server(&format!("{}{name}", node::USER_PREFIX), names)
                    .map_err(|error| ApiError::bad_request(format!("header {NODE_ADDRESSES}: {error}")))?
            }
        };
        let csr = std::str::from_utf8(csr).map_err(|_| ApiError::bad_request("the request is not PEM"))?;
        match self.pki.sign_csr(csr, &spec) {
            Ok(certificate) => Ok(respond::text(StatusCode::OK, certificate)),
            Err(PkiError::Csr(error)) => Err(ApiError::bad_request(error.to_string())),
            Err(error) => {
                tracing::error!(
                    node = name,
                    error = &error as &dyn std::error::Error,
                    "certificate not issued"
                );
                Err(ApiError::internal("the certificate could not be issued"))
            }
        }
    }
}
