//! One HTTP/2 connection over TLS to one server.

use super::RemoteError;
use http::{
    Uri,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::Body;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{io, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::debug;

/// Flow-control windows: many watches share a connection, and none may starve the others.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Where a server is.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    url: String,
    authority: Authority,
    host: String,
    port: u16,
    server_name: ServerName<'static>,
}

impl Endpoint {
    pub(super) fn parse(url: &str) -> Result<Self, RemoteError> {
        let invalid = || RemoteError::Server(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        if uri.scheme() != Some(&Scheme::HTTPS) || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(invalid());
        }
        let authority = uri.authority().cloned().ok_or_else(invalid)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let server_name = ServerName::try_from(host.clone()).map_err(|_| invalid())?;
        let port = authority.port_u16().unwrap_or(443);
        Ok(Self { url: url.to_owned(), authority, host, port, server_name })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

/// A live connection; clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<Body>,
    endpoint: Arc<Endpoint>,
}

impl Connection {
    pub(super) async fn open(
        endpoint: &Endpoint,
        tls: Arc<ClientConfig>,
        ping: Duration,
    ) -> io::Result<Self> {
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        tcp.set_nodelay(true)?;
        let stream = TlsConnector::from(tls).connect(endpoint.server_name.clone(), tcp).await?;
        let (sender, driver) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(ping)
            .keep_alive_timeout(ping)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // The driver belongs to the senders and response bodies: it ends with the last of them.
        tokio::spawn(async move {
            if let Err(failure) = driver.await {
                debug!(error = %failure, "connection to the API server ended");
            }
        });
        Ok(Self { sender, endpoint: Arc::new(endpoint.clone()) })
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.endpoint, &other.endpoint)
    }

    pub(super) fn server(&self) -> &str {
        self.endpoint.url()
    }

    /// Directs a request to this server.
    pub(super) fn address(&self, mut parts: Parts) -> Parts {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(self.endpoint.authority.clone());
        uri.path_and_query =
            Some(parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
        parts.version = http::Version::HTTP_2;
        // All three parts are present, so this cannot fail; if it did, the server would refuse the request.
        if let Ok(uri) = Uri::from_parts(uri) {
            parts.uri = uri;
        }
        parts
    }
}
