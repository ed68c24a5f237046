//! Calls of webhooks: admission and conversion, over TLS with the authorities that their configuration
//! names, or those of the host.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::ApiServer;
use crate::registry::{WebhookClient, WebhookError, WebhookTarget};

/// The most that a webhook may answer.
const MOST: usize = 10 * 1024 * 1024;

/// Calls webhooks for one API server, which knows the endpoints of Services.
#[derive(Default)]
pub(super) struct Webhooks {
    server: OnceLock<Weak<ApiServer>>,
}

/// Where a webhook is, as it is dialled and as it is named.
struct Place {
    /// Host and port in the URL.
    authority: String,
    /// The name in the certificate.
    name: String,
    path: String,
    /// Where to connect to, or why that cannot be said.
    dial: Result<(String, u16), String>,
}

impl Webhooks {
    /// Connects the server whose Services are meant; the first call counts.
    pub(super) fn connect(&self, server: &Arc<ApiServer>) {
        let _first = self.server.set(Arc::downgrade(server));
    }

    fn place(&self, target: &WebhookTarget) -> Result<Place, String> {
        if let Some((namespace, name, path, port)) = &target.service {
            let host = format!("{name}.{namespace}.svc");
            let slash = if path.starts_with('/') { "" } else { "/" };
            let server = self.server.get().and_then(Weak::upgrade).ok_or("the server is stopping")?;
            return Ok(Place {
                authority: format!("{host}:{port}"),
                name: host,
                path: format!("{slash}{path}"),
                dial: server.service_address(namespace, name, *port),
            });
        }
        let url = target.url.as_deref().ok_or("webhook configuration must have either service or URL")?;
        let uri: Uri = url.parse().map_err(|error| format!("parse {url:?}: {error}"))?;
        let host = uri.host().ok_or("URL without a host")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(443);
        Ok(Place {
            authority: uri.authority().map_or_else(|| host.to_owned(), ToString::to_string),
            name: bare.clone(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            dial: Ok((bare, port)),
        })
    }
}

#[async_trait]
impl WebhookClient for Webhooks {
    async fn call(
        &self,
        target: &WebhookTarget,
        timeout: Duration,
        review: &Value,
    ) -> Result<Value, WebhookError> {
        let error = |message: String| WebhookError(format!("failed to call webhook: {message}"));
        let place = self.place(target).map_err(|why| error(why.clone()))?;
        let seconds = timeout.as_secs();
        let separator = if place.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{separator}timeout={seconds}s", place.path);
        let url = format!("https://{}{path}", place.authority);
        let answer = tokio::time::timeout(timeout, post(target, &place, &path, review)).await;
        match answer {
            Err(_) => Err(error(format!("Post {url:?}: context deadline exceeded"))),
            Ok(Err(why)) => Err(error(format!("Post {url:?}: {why}"))),
            Ok(Ok((200, body))) => serde_json::from_slice(&body)
                .map_err(|why| WebhookError(format!("failed to decode webhook response: {why}"))),
            Ok(Ok((code, body))) => {
                let body = String::from_utf8_lossy(&body).chars().take(500).collect::<String>();
                Err(error(format!(
                    "the server responded with the status code {code} but did not return more information: {body}"
                )))
            }
        }
    }
}

fn connector(ca_bundle: &[u8]) -> Result<TlsConnector, String> {
    let roots = crate::pki::roots(ca_bundle).map_err(|error| error.to_string())?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Sends the review over a connection of its own; the code and the body of the answer.
async fn post(
    target: &WebhookTarget,
    place: &Place,
    path: &str,
    review: &Value,
) -> Result<(u16, bytes::Bytes), String> {
    let (host, port) = place.dial.as_ref().map_err(Clone::clone)?;
    let connector = connector(&target.ca_bundle)?;
    let dial = |error: &dyn std::fmt::Display| format!("dial tcp {host}:{port}: {error}");
    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| dial(&error))?;
    let name = ServerName::try_from(place.name.clone()).map_err(|error| error.to_string())?;
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| format!("tls: failed to verify certificate: x509: {error}"))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, &place.authority)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, */*")
        .header(USER_AGENT, "kube-apiserver-admission")
        .body(Body::from(review.to_string()))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = response.status().as_u16();
        let body =
            Limited::new(response.into_body(), MOST).collect().await.map_err(|error| error.to_string())?;
        Ok((code, body.to_bytes()))
    };
    // The connection is driven here, and ends with the exchange.
    tokio::select! {
        answer = exchange => answer,
        ended = connection => match ended {
            Ok(()) => Err("EOF".to_owned()),
            Err(error) => Err(error.to_string()),
        },
    }
}
