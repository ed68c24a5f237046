//! The handshakes on both sides of a translated session: WebSocket with the client, SPDY with the kubelet.

use std::io;

use axum::body::Body;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::translate::{self, Streams};
use super::{upgrade, websocket};
use crate::api::error::ApiError;

/// Subprotocol of exec and attach towards the kubelet.
const BACKEND_CHANNELS: HeaderValue = HeaderValue::from_static("v4.channel.k8s.io");
/// Subprotocol of port forwarding towards the kubelet.
const BACKEND_PORT_FORWARD: HeaderValue = HeaderValue::from_static("portforward.k8s.io");

/// What a WebSocket client wants that has to be translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// Exec or attach.
    Channels(Streams),
    /// Port forwarding.
    PortForward,
}

impl Session {
    /// The session of a request, if it is one to translate. `streams` is set for exec and attach.
    pub(crate) fn wanted(headers: &HeaderMap, streams: Option<Streams>) -> Option<Self> {
        if !upgrade::is_websocket(headers) {
            return None;
        }
        let offered = upgrade::websocket_protocols(headers);
        match streams {
            Some(streams) => offered.contains(&translate::CHANNELS).then_some(Self::Channels(streams)),
            None => offered.contains(&translate::PORT_FORWARD).then_some(Self::PortForward),
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::Channels(_) => translate::CHANNELS,
            Self::PortForward => translate::PORT_FORWARD,
        }
    }

    /// The headers of the upgrade that the kubelet is asked for.
    pub(crate) fn backend_headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        let protocol = match self {
            Self::Channels(_) => BACKEND_CHANNELS,
            Self::PortForward => BACKEND_PORT_FORWARD,
        };
        headers.insert("x-stream-protocol-version", protocol);
        headers
    }

    async fn run(self, client: TokioIo<Upgraded>, backend: TokioIo<Upgraded>) -> io::Result<()> {
        match self {
            Self::Channels(streams) => translate::channels(client, backend, streams).await,
            Self::PortForward => translate::unwrapped(client, backend).await,
        }
    }
}

/// The answer to the client's handshake; 400 when it is no proper one.
pub(crate) fn accept(headers: &HeaderMap, session: Session) -> Result<Response<Body>, ApiError> {
    handshake(headers, Some(session.protocol()))
}

/// The answer to a WebSocket handshake, naming a subprotocol.
pub(crate) fn handshake(headers: &HeaderMap, protocol: Option<&str>) -> Result<Response<Body>, ApiError> {
    let text =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let key = text("sec-websocket-key");
    if key.is_empty() || text("sec-websocket-version") != "13" {
        return Err(ApiError::bad_request("not a WebSocket handshake of version 13"));
    }
    let accepted = HeaderValue::from_str(&websocket::accept_key(key)).map_err(ApiError::internal)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let own = response.headers_mut();
    own.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    own.insert(UPGRADE, HeaderValue::from_static("websocket"));
    own.insert("sec-websocket-accept", accepted);
    if let Some(protocol) = protocol {
        let protocol = HeaderValue::from_str(protocol).map_err(ApiError::internal)?;
        own.insert("sec-websocket-protocol", protocol);
    }
    Ok(response)
}

/// Translates between the two connections in a task of `tasks`, until either ends or `stop`.
pub(crate) fn spawn(
    session: Session,
    client: OnUpgrade,
    mut backend: Response<Incoming>,
    tasks: &TaskTracker,
    stop: CancellationToken,
) {
    let backend = hyper::upgrade::on(&mut backend);
    tasks.spawn(async move {
        let both = async {
            let (client, backend) = tokio::try_join!(client, backend).map_err(io::Error::other)?;
            session.run(TokioIo::new(client), TokioIo::new(backend)).await
        };
        tokio::select! {
            () = stop.cancelled() => {}
            result = both => if let Err(error) = result {
                tracing::debug!(%error, "translated stream broke");
            },
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(protocol: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocol),
        ] {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    const STREAMS: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };

    #[test]
    fn only_what_the_runtime_does_not_speak_is_translated() {
        let exec = |protocol: &str| Session::wanted(&headers(protocol), Some(STREAMS));
        assert_eq!(exec("v5.channel.k8s.io"), Some(Session::Channels(STREAMS)));
        assert_eq!(exec("v4.channel.k8s.io"), None);
        assert_eq!(Session::wanted(&headers(translate::PORT_FORWARD), None), Some(Session::PortForward));
        assert_eq!(Session::wanted(&headers("portforward.k8s.io"), None), None);
        let mut spdy = headers("v5.channel.k8s.io");
        spdy.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        assert_eq!(Session::wanted(&spdy, Some(STREAMS)), None);
    }

    #[test]
    fn handshake_is_answered_as_the_rfc_says() {
        let session = Session::Channels(STREAMS);
        let response = accept(&headers("v5.channel.k8s.io"), session).unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        let mut wrong = headers("v5.channel.k8s.io");
        wrong.remove("sec-websocket-key");
        assert_eq!(accept(&wrong, session).unwrap_err().code(), 400);
    }
}
