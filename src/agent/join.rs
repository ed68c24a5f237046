//! How a host joins: it trusts the server by the hash in the token, and gets certificates for its own keys.
//!
//! The steps and the token are those of k3s: `/cacerts` is read from a server that is not yet trusted and compared with
//! the token's hash; only then is the secret sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use super::trust;
use crate::apiserver::join::NodeSettings;
use crate::pki::token::{JoinToken, TokenError, random_password};
use crate::pki::{SigningRequest, files};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any certificate or configuration is.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// A host that the cluster has accepted.
pub(super) struct Joined {
    /// The authority behind the servers' certificates.
    pub(super) server_ca: String,
    /// `system:node:<name>`.
    pub(super) client: crate::pki::Identity,
    /// The kubelet's serving certificate.
    pub(super) serving: crate::pki::Identity,
    /// What the cluster is like.
    pub(super) settings: NodeSettings,
}

/// Who asks to join, and with what.
pub(super) struct Applicant<'a> {
    pub(super) server_url: &'a str,
    pub(super) token: &'a str,
    pub(super) node_name: &'a str,
    pub(super) node_ips: String,
    pub(super) agent_dir: PathBuf,
    pub(super) password_file: &'a Path,
}

impl Applicant<'_> {
    /// Joins once. A refusal says why; what the host has then is kept for the next try.
    pub(super) async fn join(&self) -> anyhow::Result<Joined> {
        let token = JoinToken::parse(self.token).context("--token")?;
        let server = Server::parse(self.server_url)?;
        let server_ca = server.get(&trust::anybody(), "/cacerts", &[]).await?;
        token.verify_ca(&server_ca).with_context(|| format!("the server at {}", self.server_url))?;
        if !token.pins_authority() {
            warn!(
                "the token does not pin the cluster's authority: the server is believed to be the right one"
            );
        }
        let tls = trust::authority(&server_ca)?;
        let headers = self.headers(&token)?;
        let settings = server.get(&tls, "/v1-kube-lite/config", &headers).await?;
        let settings = serde_json::from_str(&settings).context("the server's /v1-kube-lite/config")?;
        let client = self.certificate(&server, &tls, &headers, "client-kubelet").await?;
        let serving = self.certificate(&server, &tls, &headers, "serving-kubelet").await?;
        info!(server = self.server_url, node = self.node_name, "joined the cluster");
        Ok(Joined { server_ca, client, serving, settings })
    }

    fn headers(&self, token: &JoinToken) -> anyhow::Result<Vec<(&'static str, String)>> {
        let credentials = BASE64.encode(format!("{}:{}", token.user(), token.password()));
        Ok(vec![
            ("authorization", format!("Basic {credentials}")),
            ("kube-lite-node-name", self.node_name.to_owned()),
            ("kube-lite-node-password", node_password(self.password_file)?),
            ("kube-lite-node-ip", self.node_ips.clone()),
        ])
    }

    async fn certificate(
        &self,
        server: &Server,
        tls: &TlsConnector,
        headers: &[(&'static str, String)],
        name: &str,
    ) -> anyhow::Result<crate::pki::Identity> {
        let key_file = self.agent_dir.join(format!("{name}.key"));
        let request = SigningRequest::new(files::read_private(&key_file)?.as_deref())?;
        files::write_private(&key_file, request.key_pem.as_bytes())?;
        let path = format!("/v1-kube-lite/{name}.crt");
        let cert_pem = server.send(tls, Method::POST, &path, headers, request.csr_pem).await?;
        files::write_private(&self.agent_dir.join(format!("{name}.crt")), cert_pem.as_bytes())?;
        Ok(crate::pki::Identity { cert_pem, key_pem: request.key_pem })
    }
}

/// The secret that keeps a node's name to the host that joined with it first.
fn node_password(file: &Path) -> anyhow::Result<String> {
    if let Some(password) = files::read_private(file)? {
        return Ok(password.trim().to_owned());
    }
    if let Some(directory) = file.parent() {
        files::make_private_dir(directory)?;
    }
    let password = random_password();
    files::write_private(file, password.as_bytes())?;
    Ok(password)
}

/// A refusal that another try does not change.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {status}: {why}")]
struct Refused {
    what: String,
    status: StatusCode,
    why: String,
}

/// Whether it is of no use to try again: the token is wrong, or another host has the name.
pub(super) fn is_final(problem: &anyhow::Error) -> bool {
    problem.chain().any(|cause| cause.is::<Refused>() || cause.is::<TokenError>())
}

/// Where a server listens.
struct Server {
    host: String,
    port: u16,
}

impl Server {
    fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("--server {url:?}"))?;
        let host = uri.host().with_context(|| format!("--server {url:?} names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Server { host, port: uri.port_u16().unwrap_or(443) })
    }

    async fn get(
        &self,
        tls: &TlsConnector,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> anyhow::Result<String> {
        self.send(tls, Method::GET, path, headers, String::new()).await
    }

    async fn send(
        &self,
        tls: &TlsConnector,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: String,
    ) -> anyhow::Result<String> {
        let answer = tokio::time::timeout(PATIENCE, self.exchange(tls, method, path, headers, body)).await;
        let what = || format!("{path} of https://{}:{}", self.host, self.port);
        let (status, text) = answer.with_context(what)?.with_context(what)?;
        match status {
            StatusCode::OK | StatusCode::CREATED => Ok(text),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Refused { what: what(), status, why: message(&text) }.into())
            }
            _ => bail!("{}: {status}: {}", what(), message(&text)),
        }
    }

    async fn exchange(
        &self,
        tls: &TlsConnector,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: String,
    ) -> anyhow::Result<(StatusCode, String)> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let name = ServerName::try_from(self.host.clone())?;
        let stream = tls.connect(name, tcp).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.host);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let exchange = async move {
            let answer = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            anyhow::Ok((status, String::from_utf8(body.to_vec())?))
        };
        // The connection must be driven while the answer is awaited; its own end is no error once that is there.
        let drive = async {
            let ended = connection.await;
            std::future::pending::<()>().await;
            drop(ended);
        };
        tokio::select! {
            answer = exchange => answer,
            () = drive => bail!("the connection ended"),
        }
    }
}

/// The message of a `Status`, or the first line of whatever came.
fn message(body: &str) -> String {
    let status: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let message = status.as_ref().and_then(|status| status.get("message")?.as_str());
    message.or_else(|| body.lines().next()).unwrap_or("no reason was given").to_owned()
}

/// The connector type, so that tests and callers share one.
pub(super) fn connector(config: rustls::ClientConfig) -> TlsConnector {
    TlsConnector::from(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_urls_name_host_and_port() {
        let parts = |url: &str| Server::parse(url).map(|server| (server.host, server.port)).unwrap();
        assert_eq!(parts("https://server:6443"), ("server".to_owned(), 6443));
        assert_eq!(parts("https://10.0.0.1"), ("10.0.0.1".to_owned(), 443));
        assert_eq!(parts("https://[fd00::1]:6443"), ("fd00::1".to_owned(), 6443));
        assert!(Server::parse("no url").is_err());
    }

    #[test]
    fn node_password_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node/password");
        let first = node_password(&file).unwrap();
        assert_eq!(first.len(), 32);
        assert_eq!(node_password(&file).unwrap(), first);
    }

    #[test]
    fn refusals_give_the_servers_reason() {
        assert_eq!(message(r#"{"kind":"Status","message":"wrong token"}"#), "wrong token");
        assert_eq!(message("plain\ntext"), "plain");
        assert_eq!(message(""), "no reason was given");
    }
}
