//! Two upgraded connections joined byte for byte.

use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::upgrade;
use axum::body::Body;

/// Answers a client with what a backend said: a backend that switched protocols is joined to the client by a task of
/// `tasks` that ends with either side or with `stop`; any other answer is passed on.
pub(crate) fn join(
    client: Option<OnUpgrade>,
    mut backend: Response<Incoming>,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Response<Body> {
    let switched = backend.status() == StatusCode::SWITCHING_PROTOCOLS;
    if let (true, Some(client)) = (switched, client) {
        let backend_side = hyper::upgrade::on(&mut backend);
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = copy(client, backend_side) => {}
            }
        });
    }
    let (mut head, body) = backend.into_parts();
    head.headers = upgrade::forwardable(&head.headers, switched);
    let body = if switched { Body::empty() } else { Body::new(body) };
    head.extensions = http::Extensions::new();
    head.version = http::Version::HTTP_11;
    Response::from_parts(head, body)
}

/// Copies both ways. The end of one direction is passed on and the other goes on, as half-closed streams need.
async fn copy(client: OnUpgrade, backend: OnUpgrade) {
    let (client, backend) = match tokio::try_join!(client, backend) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "upgrade failed"),
    };
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    match tokio::io::copy_bidirectional(&mut client, &mut backend).await {
        Ok((up, down)) => tracing::debug!(up, down, "tunnel ended"),
        Err(error) => tracing::debug!(%error, "tunnel broke"),
    }
}
