//! The kubelet's HTTPS server: logs, exec, attach and port forwarding for the API server, and figures for monitors.
//!
//! Paths are upstream's. Clients identify themselves with a certificate or a token; the API server and administrators may do
//! everything, others what a SubjectAccessReview on `nodes/<subresource>` allows.

mod authenticate;
mod authorize;
mod checkpoint;
mod containers;
mod figures;
mod info;
mod local_volumes;
mod logs;
mod routes;
mod streams;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::Pod;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::probes::counts::Counts;
use super::stats::Rates;
use super::volumes::figures::VolumeFigures;
use super::{KubeletConfig, ServerConfig};
use crate::client::Informer;
use crate::cri::Runtime;
use crate::host::Host;
use authenticate::Tokens;
use authorize::Caller;
use routes::Route;

/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the system refused an accept, so that it does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The certificates cannot be used.
    #[error("certificates of the kubelet's server")]
    Tls(#[from] tls::TlsError),
    /// The port cannot be listened on.
    #[error("listen for the kubelet on {address}: is another kubelet running?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// What the server answers from.
#[derive(Clone)]
pub struct Sources {
    /// The containers.
    pub runtime: Arc<dyn Runtime>,
    /// The pods of this node.
    pub pods: Informer<Pod>,
    /// Who is asked about callers that are neither the API server nor administrators.
    pub client: kube::Client,
    /// Name of this node.
    pub node_name: String,
    /// What the kubelet was told.
    pub config: Arc<KubeletConfig>,
    /// Where pods live.
    pub root_dir: PathBuf,
    /// The machine.
    pub host: Host,
    /// Tries of probes.
    pub probes: Arc<Counts>,
    /// Processor use of containers.
    pub rates: Arc<Rates>,
    /// How full the volumes are.
    pub volumes: Arc<VolumeFigures>,
    /// When the kubelet started, in nanoseconds since 1970.
    pub started: i64,
}

/// A server that has its port.
pub struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
}

struct Shared {
    sources: Sources,
    stop: CancellationToken,
    tasks: TaskTracker,
    tokens: Tokens,
}

impl Server {
    /// Binds the port.
    ///
    /// # Errors
    /// The certificates are unusable, or the port is taken.
    pub async fn bind(
        config: &ServerConfig,
        sources: Sources,
        stop: CancellationToken,
    ) -> Result<Self, ServerError> {
        let acceptor = TlsAcceptor::from(Arc::new(tls::config(config)?));
        let listener = TcpListener::bind(config.address)
            .await
            .map_err(|source| ServerError::Listen { address: config.address, source })?;
        let shared = Arc::new(Shared { sources, stop, tasks: TaskTracker::new(), tokens: Tokens::default() });
        Ok(Self { listener, acceptor, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the signal that it was bound with; open streams are cut off then.
    pub async fn run(self) {
        let Server { listener, acceptor, shared } = self;
        info!(address = ?listener.local_addr().ok(), "kubelet listens");
        while let Some(accepted) = shared.stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => {
                    let (acceptor, shared) = (acceptor.clone(), shared.clone());
                    shared.tasks.clone().spawn(async move {
                        let stop = shared.stop.clone();
                        let served = stop.run_until_cancelled(connection(stream, acceptor, shared)).await;
                        if let Some(Err(error)) = served {
                            debug!(%error, "connection to the kubelet ended");
                        }
                    });
                }
                Err(error) => {
                    debug!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        shared.tasks.close();
        shared.tasks.wait().await;
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    let caller = Caller::of(stream.get_ref().1.peer_certificates());
    let service = service_fn(move |request| {
        let (shared, caller) = (shared.clone(), caller.clone());
        async move { Ok::<_, Infallible>(answer(request, &caller, &shared).await) }
    });
    // Upgrades need HTTP/1.1, which is all that TLS offers here.
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}

async fn answer(request: Request<Incoming>, caller: &Caller, shared: &Arc<Shared>) -> Response<Body> {
    let Some(route) = Route::of(request.uri().path()) else {
        return refusal(StatusCode::NOT_FOUND, "404 page not found");
    };
    let caller = shared.tokens.caller(caller, request.headers(), &shared.sources.client).await;
    if let Err(refused) = authorize::check(&caller, &route, request.method(), &shared.sources).await {
        return refused;
    }
    let debugging = matches!(
        route,
        Route::Log { .. } | Route::Stream { .. } | Route::Run { .. } | Route::Checkpoint { .. }
    );
    if debugging && !shared.sources.config.debugging_handlers {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.");
    }
    match route {
        Route::Health => text("ok"),
        Route::Pods => info::pods(&shared.sources),
        Route::RunningPods => info::running_pods(&shared.sources).await,
        Route::Metrics => info::metrics(&shared.sources).await,
        Route::Summary => figures::summary(&shared.sources).await,
        Route::ResourceMetrics => figures::resource(&shared.sources).await,
        Route::Probes => text(shared.sources.probes.text()),
        Route::Cadvisor => figures::cadvisor(&shared.sources).await,
        Route::Configz => info::configz(&shared.sources),
        Route::Log { namespace, pod, container } => {
            logs::answer(&request, &shared.sources, (&namespace, &pod, &container), &shared.tasks).await
        }
        Route::Stream { kind, namespace, pod, container } => {
            streams::answer(request, shared, kind, (&namespace, &pod, &container)).await
        }
        Route::Checkpoint { namespace, pod, container } => {
            checkpoint::answer(&request, &shared.sources, (&namespace, &pod, &container)).await
        }
        Route::LocalVolume { directory } => local_volumes::answer(request.method(), &directory).await,
        Route::Run { namespace, pod, container } => {
            streams::run(&request, &shared.sources, (&namespace, &pod, &container)).await
        }
    }
}

fn text(text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            let kind = http::HeaderValue::from_static("application/json");
            response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refusal(code: StatusCode, why: &str) -> Response<Body> {
    let mut response = text(format!("{why}\n"));
    *response.status_mut() = code;
    response
}

/// Sources over fakes, with these pods; the API knows nothing.
#[cfg(test)]
fn test_sources(
    runtime: &crate::cri::fake::FakeRuntime,
    host: &crate::host::fake::FakeHost,
    root: &std::path::Path,
    pods: Vec<Pod>,
) -> Sources {
    let (informer, writer) = Informer::detached();
    writer.replace(pods, 1);
    let absent = tower::service_fn(|_: Request<kube::client::Body>| async {
        let mut answer = Response::new(http_body_util::Full::<bytes::Bytes>::from("{}"));
        *answer.status_mut() = StatusCode::NOT_FOUND;
        Ok::<_, Infallible>(answer)
    });
    let client = kube::Client::new(absent, "default");
    let volumes = VolumeFigures::new(client.clone(), Default::default(), host.host(), root.to_owned());
    Sources {
        runtime: Arc::new(runtime.clone()),
        pods: informer,
        volumes: Arc::new(volumes),
        client,
        node_name: "n1".to_owned(),
        config: Arc::new(super::pods::fixture::config()),
        root_dir: root.to_owned(),
        host: host.host(),
        probes: Arc::default(),
        rates: Arc::default(),
        started: 0,
    }
}
