//! The listener: accepts TLS connections, serves HTTP/1.1 and HTTP/2 on them, drains them at the end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::ApiServer;
use super::tls::Tls;

/// Connections served at a time; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 8192;
/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// Requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 1000;
/// Size of all headers of a request.
const MAX_HEADERS: u32 = 128 * 1024;
/// Flow-control windows of HTTP/2: large enough for lists, small enough for thousands of connections.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How often a silent HTTP/2 connection is probed, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(15);
/// Pause after the system refused an accept (out of file descriptors), so that it does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long requests may take to end once the server stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves `listener` until `stop`, then lets running requests end for at most [`DRAIN_TIMEOUT`].
///
/// Watches end when the server's own stop signal comes, which should be the same one.
pub async fn serve(listener: TcpListener, tls: Tls, server: Arc<ApiServer>, stop: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls.config());
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let abort = CancellationToken::new();
    info!(address = ?listener.local_addr().ok(), "API server listens");
    while let Some((stream, place)) = accept(&listener, &places, &stop).await {
        let connection = Connection {
            tls: tls.clone(),
            acceptor: acceptor.clone(),
            server: server.clone(),
            stop: stop.clone(),
            _place: place,
        };
        let abort = abort.clone();
        connections.spawn(async move {
            tokio::select! {
                () = connection.serve(stream) => {}
                () = abort.cancelled() => {}
            }
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        warn!(connections = connections.len(), "requests did not end in time and are cut off");
        abort.cancel();
        connections.wait().await;
    }
}

/// The next connection; `None` when the server stops.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        tokio::select! {
            () = stop.cancelled() => return None,
            accepted = next => match accepted {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    debug!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

struct Connection {
    tls: Tls,
    acceptor: TlsAcceptor,
    server: Arc<ApiServer>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "set TCP_NODELAY");
        }
        let address = stream.peer_addr().ok();
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(?address, %error, "TLS handshake failed"),
            Err(_) => return debug!(?address, "TLS handshake timed out"),
        };
        let peer = self.tls.judge(stream.get_ref().1.peer_certificates());
        let service = service_fn(|request: Request<Incoming>| {
            let (server, peer) = (self.server.clone(), peer.clone());
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer);
                if let Some(address) = address {
                    request.extensions_mut().insert(address);
                }
                Ok::<_, Infallible>(server.handle(request).await)
            }
        });
        let builder = http_builder();
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        run_until_stopped(connection, &self.stop, address).await;
    }
}

async fn run_until_stopped<C, E>(
    connection: C,
    stop: &CancellationToken,
    address: Option<std::net::SocketAddr>,
) where
    C: Future<Output = Result<(), E>> + GracefulShutdown,
    E: std::fmt::Display,
{
    tokio::pin!(connection);
    let mut stopping = false;
    let mut gathered = false;
    let result = loop {
        tokio::select! {
            result = gather(connection.as_mut(), &mut gathered) => break result,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().shut_down();
            }
        }
    };
    if let Err(error) = result {
        debug!(?address, %error, "connection ended");
    }
}

/// Polls a connection once for all that the tasks beside it have for it, instead of once for each of them: a watch event
/// wakes the stream of every watcher, and each of them the connection, which would then encrypt and write one event at a
/// time. The turn that is given up costs nothing where no other task is ready.
async fn gather<C: Future>(mut connection: Pin<&mut C>, gathered: &mut bool) -> C::Output {
    std::future::poll_fn(|context| {
        *gathered = !*gathered;
        if *gathered && std::pin::pin!(tokio::task::yield_now()).poll(context).is_pending() {
            return Poll::Pending;
        }
        connection.as_mut().poll(context)
    })
    .await
}

/// A connection that can be told to take no further request.
trait GracefulShutdown {
    fn shut_down(self: Pin<&mut Self>);
}

impl<I, S, E> GracefulShutdown for auto::UpgradeableConnection<'_, I, S, E>
where
    S: hyper::service::Service<Request<Incoming>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: 'static,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, Body>,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

fn http_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADERS as usize * 2)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_do_not_carry_the_state_of_every_handler_from_place_to_place() {
        fn size<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let handle = size(|server: &'static Arc<ApiServer>, request: Request<Body>| server.handle(request));
        assert!(handle <= 12 << 10, "{handle} bytes");
    }
}
