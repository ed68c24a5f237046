//! Connections to other API servers: HTTP/2 ones are shared and kept, HTTP/1.1 ones (which upgrades need) are not.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::TaskTracker;

use crate::pki::Identity;

/// How long connecting may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent connection in use is asked whether it lives, and how long it may take to answer.
const PING: Duration = Duration::from_secs(30);

/// The certificate of this server cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("client-auth-proxy certificate")]
pub struct ClientError(#[source] rustls::pki_types::pem::Error);

/// Which certificates of another server are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Trust {
    /// Any certificate.
    pub(super) insecure: bool,
    /// Those that these authorities signed, PEM.
    pub(super) authorities: Vec<u8>,
}

/// An address of another server and the name in its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) name: String,
}

impl Place {
    fn address(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

type Sender = http2::SendRequest<Body>;

/// The connections that are open, and with which certificate others are made.
pub(super) struct Connections {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// None when the server has stopped.
    open: Mutex<Option<HashMap<(Place, Trust), Sender>>>,
}

impl Connections {
    pub(super) fn new(identity: &Identity) -> Result<Self, ClientError> {
        let (chain, key) = identity.to_rustls().map_err(ClientError)?;
        Ok(Self { chain, key, open: Mutex::new(Some(HashMap::new())) })
    }

    /// Closes those that nobody uses and keeps none from now on.
    pub(super) fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn kept(&self, key: &(Place, Trust)) -> Option<Sender> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_mut()?;
        open.retain(|_, sender| !sender.is_closed());
        open.get(key).cloned()
    }

    fn keep(&self, key: (Place, Trust), sender: Sender) {
        if let Some(open) = self.open.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            open.insert(key, sender);
        }
    }

    /// Sends a request whose URI is a path; connections are driven by `tasks`.
    ///
    /// A kept connection that turns out to be closed is replaced, as long as the request has not left.
    pub(super) async fn send(
        &self,
        place: &Place,
        trust: &Trust,
        mut request: Request<Body>,
        upgrading: bool,
        tasks: &TaskTracker,
    ) -> Result<Response<Incoming>, String> {
        let key = (place.clone(), trust.clone());
        if !upgrading && let Some(mut sender) = self.kept(&key) {
            match sender.try_send_request(for_http2(request, place)?).await {
                Ok(response) => return Ok(response),
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failure.into_error().to_string()),
                },
            }
        }
        let connect = self.connect(place, trust, upgrading);
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
        let stream = stream.map_err(|_| format!("dial tcp {}: i/o timeout", place.address()))??;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
            drive(tasks, connection);
            self.keep(key, sender.clone());
            return sender.send_request(for_http2(request, place)?).await.map_err(|error| error.to_string());
        }
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        drive(tasks, connection.with_upgrades());
        sender.send_request(for_http1(request, place)?).await.map_err(|error| error.to_string())
    }

    async fn connect(
        &self,
        place: &Place,
        trust: &Trust,
        upgrading: bool,
    ) -> Result<TlsStream<TcpStream>, String> {
        let mut config = self.config(trust).map_err(|error| error.to_string())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if !upgrading {
            config.alpn_protocols.insert(0, b"h2".to_vec());
        }
        let dial = |error: std::io::Error| format!("dial tcp {}: {error}", place.address());
        let tcp = TcpStream::connect((place.host.as_str(), place.port)).await.map_err(dial)?;
        tcp.set_nodelay(true).map_err(dial)?;
        let name = ServerName::try_from(place.name.clone()).map_err(|error| error.to_string())?;
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .map_err(|error| format!("tls: failed to verify certificate: x509: {error}"))
    }

    fn config(&self, trust: &Trust) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = if trust.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        } else {
            builder.with_root_certificates(crate::pki::roots(&trust.authorities)?)
        };
        Ok(builder.with_client_auth_cert(self.chain.clone(), self.key.clone_key())?)
    }
}

fn drive<C>(tasks: &TaskTracker, connection: C)
where
    C: Future<Output = Result<(), hyper::Error>> + Send + 'static,
{
    tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to an aggregated API ended");
        }
    });
}

/// The request with the whole URL, and no `Host`.
fn for_http2(mut request: Request<Body>, place: &Place) -> Result<Request<Body>, String> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let uri = Uri::builder().scheme("https").authority(place.name.as_str()).path_and_query(path);
    *request.uri_mut() = uri.build().map_err(|error| error.to_string())?;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(HOST);
    Ok(request)
}

/// The request with a path, and `Host`.
fn for_http1(mut request: Request<Body>, place: &Place) -> Result<Request<Body>, String> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    *request.version_mut() = Version::HTTP_11;
    let host = HeaderValue::from_str(&place.name).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

/// Takes every certificate: what `insecureSkipTLSVerify` asks for.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
