//! Serves gRPC on a unix socket.

use std::convert::Infallible;
use std::io;
use std::path::Path;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// A router with one generated service: `with(router, "v1beta1.Registration", RegistrationServer::new(..))`.
pub fn with<S>(router: Router, name: &str, service: S) -> Router
where
    S: tower::Service<http::Request<axum::body::Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Response: axum::response::IntoResponse,
    S::Future: Send + 'static,
{
    router.route_service(&format!("/{name}/{{call}}"), service)
}

/// Listens at `path`, in the place of whoever listened there before.
///
/// # Errors
/// The directory cannot be made, or the socket not be bound.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Answers calls until `stop`, which also ends open connections.
pub async fn serve(listener: UnixListener, router: Router, stop: CancellationToken) {
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else { continue };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            let service = service_fn(move |request: http::Request<Incoming>| {
                router.clone().oneshot(request.map(axum::body::Body::new))
            });
            let connection =
                http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
            if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
                tracing::debug!(%error, "connection of a plugin ended");
            }
        });
    }
    connections.close();
    connections.wait().await;
}
