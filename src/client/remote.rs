//! A client of API servers on other hosts: TLS pinned to the cluster's CA, HTTP/2, several servers with failover.
//!
//! All requests share one connection. It is made on the first request, checked by pings while watches are open, and
//! replaced when it breaks. The server that worked last is tried first, then the others in turn. A request that was
//! surely not processed (or that only reads) is sent again; for any other the caller sees the error.

mod connection;

use connection::{Connection, Endpoint};
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use kube::client::Body;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::Mutex;
use tower::Service;
use tracing::{debug, info};

/// Who the client is.
#[derive(Clone, Default)]
pub enum Identity {
    /// Nobody; only for what needs no identity.
    #[default]
    Anonymous,
    /// A client certificate and its key, both PEM.
    Certificate {
        /// The certificate, followed by intermediates if any.
        cert_pem: Vec<u8>,
        /// The private key.
        key_pem: Vec<u8>,
    },
    /// A bearer token.
    Token(String),
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Certificate { .. } => "Certificate",
            Self::Token(_) => "Token",
        })
    }
}

/// How to reach the API.
#[derive(Debug, Clone)]
pub struct RemoteConfig {
    /// `https://host:port` of each server; at least one.
    pub servers: Vec<String>,
    /// The certificates of the cluster's CA, PEM. Nothing else is trusted.
    pub ca_pem: Vec<u8>,
    /// Who the client is.
    pub identity: Identity,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Limit for making a connection, TLS included.
    pub connect_timeout: Duration,
    /// Limit for the start of a response.
    pub response_timeout: Duration,
    /// A connection with requests in progress that is silent for this long is asked whether it lives, and given the
    /// same time again to answer.
    pub ping_interval: Duration,
}

impl RemoteConfig {
    /// A configuration with the usual time limits.
    pub fn new(servers: Vec<String>, ca_pem: Vec<u8>, identity: Identity) -> Self {
        Self {
            servers,
            ca_pem,
            identity,
            user_agent: concat!("kube-lite/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(10),
        }
    }
}

/// Why a remote client could not be made or a request not be sent.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No server is given.
    #[error("no server URL given")]
    NoServer,
    /// A server is not given as `https://host:port`.
    #[error("server URL {0:?} is not of the form https://host:port")]
    Server(String),
    /// The CA bundle cannot be used.
    #[error("read CA certificates")]
    Ca(#[source] PemError),
    /// The client certificate or key cannot be used.
    #[error("read client certificate and key")]
    ClientCertificate(#[source] PemError),
    /// The token has characters that a header cannot carry.
    #[error("token is not a valid header value")]
    Token,
    /// None of the servers could be reached; the source is the failure of the last one tried.
    #[error("connect to {server}")]
    Connect {
        /// The server tried last.
        server: String,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke during a request.
    #[error("send request to {server}")]
    Send {
        /// The server.
        server: String,
        /// What went wrong.
        #[source]
        source: hyper::Error,
    },
    /// No response within the time limit.
    #[error("no response from {server} within {limit:?}")]
    Timeout {
        /// The server.
        server: String,
        /// The limit.
        limit: Duration,
    },
}

/// Why PEM data could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// It is not PEM, or has not the expected content.
    #[error("not valid PEM: {0}")]
    Pem(String),
    /// TLS refuses it.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Makes a client of the servers in `config`. It connects when the first request is sent. Must be called inside a
/// tokio runtime.
pub fn remote(config: RemoteConfig) -> Result<kube::Client, RemoteError> {
    Ok(kube::Client::new(RemoteService::new(config)?, "default"))
}

/// The transport of [`remote`], for requests that `kube::Client` has no words for.
#[derive(Clone)]
pub struct RemoteService {
    inner: Arc<Inner>,
}

impl fmt::Debug for RemoteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteService").field("endpoints", &self.inner.endpoints).finish()
    }
}

struct Inner {
    endpoints: Vec<Endpoint>,
    tls: Arc<ClientConfig>,
    authorization: Option<HeaderValue>,
    user_agent: HeaderValue,
    connect_timeout: Duration,
    response_timeout: Duration,
    ping_interval: Duration,
    /// The endpoint that worked last.
    preferred: AtomicUsize,
    /// The connection in use. The lock is held while connecting, so that waiting requests share the new one.
    current: Mutex<Option<Connection>>,
}

impl RemoteService {
    /// Checks `config`; connects to nobody yet.
    pub fn new(config: RemoteConfig) -> Result<Self, RemoteError> {
        if config.servers.is_empty() {
            return Err(RemoteError::NoServer);
        }
        let endpoints =
            config.servers.iter().map(|url| Endpoint::parse(url)).collect::<Result<Vec<_>, _>>()?;
        let authorization = match &config.identity {
            Identity::Token(token) => {
                let mut value =
                    HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| RemoteError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
            _ => None,
        };
        let user_agent = HeaderValue::from_str(&config.user_agent)
            .unwrap_or_else(|_| HeaderValue::from_static("kube-lite"));
        let inner = Inner {
            endpoints,
            tls: Arc::new(tls_config(&config)?),
            authorization,
            user_agent,
            connect_timeout: config.connect_timeout,
            response_timeout: config.response_timeout,
            ping_interval: config.ping_interval,
            preferred: AtomicUsize::new(0),
            current: Mutex::new(None),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Service<Request<Body>> for RemoteService {
    type Response = Response<Incoming>;
    type Error = RemoteError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, RemoteError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), RemoteError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = self.inner.clone();
        Box::pin(async move { inner.send(request).await })
    }
}

impl Inner {
    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, RemoteError> {
        let (mut parts, mut body) = request.into_parts();
        if let Some(authorization) = &self.authorization {
            parts.headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        parts.headers.entry(header::USER_AGENT).or_insert_with(|| self.user_agent.clone());
        let mut attempts_left = 2;
        loop {
            attempts_left -= 1;
            let mut connection = self.connection().await?;
            let copy = if parts.method == Method::GET { body.try_clone() } else { None };
            let request = Request::from_parts(connection.address(parts.clone()), body);
            let response = connection.sender.try_send_request(request);
            let Ok(answer) = tokio::time::timeout(self.response_timeout, response).await else {
                let server = connection.server().to_owned();
                return Err(RemoteError::Timeout { server, limit: self.response_timeout });
            };
            let mut failure = match answer {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            self.discard(&connection).await;
            let unsent = failure.take_message().map(|request| request.into_body());
            match unsent.or(copy) {
                Some(again) if attempts_left > 0 => body = again,
                _ => {
                    let server = connection.server().to_owned();
                    return Err(RemoteError::Send { server, source: failure.into_error() });
                }
            }
            debug!(server = connection.server(), "connection broke, sending the request again");
        }
    }

    /// The connection in use, or a new one to the first server that can be reached.
    async fn connection(&self) -> Result<Connection, RemoteError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| connection.is_usable()) {
            return Ok(connection.clone());
        }
        *current = None;
        let preferred = self.preferred.load(Relaxed);
        let mut last = RemoteError::NoServer;
        for turn in 0..self.endpoints.len() {
            let index = (preferred + turn) % self.endpoints.len();
            let endpoint = &self.endpoints[index];
            let attempt = Connection::open(endpoint, self.tls.clone(), self.ping_interval);
            match tokio::time::timeout(self.connect_timeout, attempt).await {
                Ok(Ok(connection)) => {
                    if index != preferred {
                        info!(server = endpoint.url(), "switched to another server");
                    }
                    self.preferred.store(index, Relaxed);
                    return Ok(current.insert(connection).clone());
                }
                Ok(Err(source)) => last = RemoteError::Connect { server: endpoint.url().to_owned(), source },
                Err(_elapsed) => {
                    let source = std::io::ErrorKind::TimedOut.into();
                    last = RemoteError::Connect { server: endpoint.url().to_owned(), source };
                }
            }
        }
        Err(last)
    }

    /// Stops using `broken`, unless it has been replaced already. The next connection goes to the next server if this
    /// one cannot be reached.
    async fn discard(&self, broken: &Connection) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|connection| connection.is_same(broken)) {
            *current = None;
        }
    }
}

fn tls_config(config: &RemoteConfig) -> Result<ClientConfig, RemoteError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&config.ca_pem).map_err(RemoteError::Ca)? {
        roots.add(certificate).map_err(|failure| RemoteError::Ca(failure.into()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|failure| RemoteError::Ca(failure.into()))?
        .with_root_certificates(roots);
    let mut tls = match &config.identity {
        Identity::Certificate { cert_pem, key_pem } => {
            let chain = certificates(cert_pem).map_err(RemoteError::ClientCertificate)?;
            let key = PrivateKeyDer::from_pem_slice(key_pem)
                .map_err(|failure| RemoteError::ClientCertificate(PemError::Pem(failure.to_string())))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|failure| RemoteError::ClientCertificate(failure.into()))?
        }
        Identity::Anonymous | Identity::Token(_) => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|failure| PemError::Pem(failure.to_string()))?;
    if certificates.is_empty() {
        return Err(PemError::Pem("no certificate found".to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests;
