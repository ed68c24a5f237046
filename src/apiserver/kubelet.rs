//! Connections from the API server to kubelets: which address, with which certificate, trusting whom.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Node;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use crate::api::error::ApiError;
use crate::pki::{ClusterPki, unverified_client};

/// How long connecting to a kubelet (or a pod) may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Port of a kubelet that does not tell its own.
const DEFAULT_PORT: u16 = 10250;

/// Why kubelets cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum KubeletClientError {
    /// The certificate or key cannot be used.
    #[error("client-kube-apiserver certificate")]
    Certificate(#[source] rustls::Error),
    /// The certificate or key cannot be read.
    #[error("client-kube-apiserver certificate")]
    Pem(#[source] rustls::pki_types::pem::Error),
}

/// Opens connections to kubelets.
pub(super) struct KubeletClient {
    connector: TlsConnector,
}

/// Where a node's kubelet listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KubeletAddress {
    pub(super) host: String,
    pub(super) port: u16,
}

impl KubeletAddress {
    /// The address that a Node tells: internal before external IP, then names; `None` before the kubelet has told any.
    pub(super) fn of(node: &Node) -> Option<Self> {
        let status = node.status.as_ref()?;
        let addresses = status.addresses.as_deref().unwrap_or_default();
        let host = ["InternalIP", "ExternalIP", "InternalDNS", "ExternalDNS", "Hostname"]
            .iter()
            .find_map(|kind| addresses.iter().find(|address| address.type_ == *kind))?;
        let endpoint = status.daemon_endpoints.as_ref().and_then(|d| d.kubelet_endpoint.as_ref());
        let port = endpoint.and_then(|endpoint| u16::try_from(endpoint.port).ok()).filter(|port| *port != 0);
        Some(Self { host: host.address.clone(), port: port.unwrap_or(DEFAULT_PORT) })
    }

    pub(super) fn authority(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

impl KubeletClient {
    pub(super) fn new(pki: &ClusterPki) -> Result<Self, KubeletClientError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(pki.server_ca().certificates());
        let (chain, key) = pki.apiserver_kubelet_client().to_rustls().map_err(KubeletClientError::Pem)?;
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(KubeletClientError::Certificate)?
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)
                .map_err(KubeletClientError::Certificate)?;
        // Upgrades need HTTP/1.1.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Sends a request to a kubelet over a connection of its own, which `tasks` drives.
    pub(super) async fn send(
        &self,
        address: &KubeletAddress,
        request: Request<Body>,
        tasks: &TaskTracker,
    ) -> Result<Response<Incoming>, ApiError> {
        let authority = address.authority();
        let failed = |error: &dyn std::fmt::Display| dial_failed(&authority, error);
        let name = ServerName::try_from(address.host.clone()).map_err(|error| failed(&error))?;
        let connect = async {
            let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
            tcp.set_nodelay(true)?;
            self.connector.connect(name, tcp).await
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| failed(&"i/o timeout"))?
            .map_err(|error| failed(&error))?;
        send_over(stream, request, &authority, tasks).await
    }
}

/// Sends a request to a port of a pod. With `tls` whatever certificate it has is taken, as upstream does.
pub(super) async fn send_to_pod(
    address: &KubeletAddress,
    tls: bool,
    request: Request<Body>,
    tasks: &TaskTracker,
) -> Result<Response<Incoming>, ApiError> {
    let authority = address.authority();
    let failed = |error: &dyn std::fmt::Display| {
        ApiError::service_unavailable(format!("error trying to reach service: dial tcp {authority}: {error}"))
    };
    let connect = async {
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
        tcp.set_nodelay(true)?;
        if !tls {
            return Ok(Either::Left(tcp));
        }
        let name = ServerName::try_from(address.host.clone()).map_err(std::io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(unverified_client()));
        Ok::<_, std::io::Error>(Either::Right(connector.connect(name, tcp).await?))
    };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
        .await
        .map_err(|_| failed(&"i/o timeout"))?
        .map_err(|error| failed(&error))?;
    match stream {
        Either::Left(plain) => send_over(plain, request, &authority, tasks).await,
        Either::Right(encrypted) => send_over(encrypted, request, &authority, tasks).await,
    }
}

async fn send_over<S>(
    stream: S,
    request: Request<Body>,
    authority: &str,
    tasks: &TaskTracker,
) -> Result<Response<Incoming>, ApiError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| dial_failed(authority, &error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a backend ended");
        }
    });
    sender.send_request(request).await.map_err(failed)
}

/// 500 in upstream's words, which clients show to people as they are.
fn dial_failed(authority: &str, error: &dyn std::fmt::Display) -> ApiError {
    ApiError::internal(format!("error dialing backend: dial tcp {authority}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(status: serde_json::Value) -> Node {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "n"}, "status": status})).unwrap()
    }

    #[test]
    fn kubelet_is_reached_at_the_internal_address_and_its_own_port() {
        let cases = [
            (
                serde_json::json!({
                    "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.7"}],
                    "daemonEndpoints": {"kubeletEndpoint": {"Port": 10255}},
                }),
                Some("192.0.2.7:10255"),
            ),
            (
                serde_json::json!({"addresses": [{"type": "InternalIP", "address": "fd00::1"}]}),
                Some("[fd00::1]:10250"),
            ),
            (serde_json::json!({"addresses": [{"type": "Hostname", "address": "n"}]}), Some("n:10250")),
            (serde_json::json!({}), None),
        ];
        for (status, expected) in cases {
            let address = KubeletAddress::of(&node(status.clone()));
            assert_eq!(address.map(|a| a.authority()).as_deref(), expected, "{status}");
        }
    }
}
