//! A one-way stream (logs, events of a watch) for WebSocket clients: the bytes as messages, in binary, as text or in
//! base64.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::upgrade;
use super::websocket::{Decoder, Message, Opcode, encode};

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";
/// Status 1000 of RFC 6455: the stream has come to its end.
const NORMAL_CLOSURE: [u8; 2] = 1000u16.to_be_bytes();

/// How the bytes are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// Binary messages; the client named the subprotocol, or none.
    Binary(Option<&'static str>),
    /// Text messages in base64.
    Base64,
    /// Text messages.
    Text,
}

impl Wrapping {
    /// The wrapping of a request, if it is one for a WebSocket; `None` inside when no subprotocol fits.
    pub(crate) fn wanted(headers: &HeaderMap) -> Option<Option<Self>> {
        if !upgrade::is_websocket(headers) {
            return None;
        }
        let offered = upgrade::websocket_protocols(headers);
        if offered.is_empty() {
            return Some(Some(Self::Binary(None)));
        }
        Some(offered.iter().find_map(|protocol| match *protocol {
            BINARY => Some(Self::Binary(Some(BINARY))),
            BASE64 => Some(Self::Base64),
            _ => None,
        }))
    }

    /// The subprotocol that the answer names.
    pub(crate) fn protocol(self) -> Option<&'static str> {
        match self {
            Self::Binary(name) => name,
            Self::Base64 => Some(BASE64),
            Self::Text => None,
        }
    }

    fn wrap(self, out: &mut BytesMut, data: &[u8]) {
        match self {
            Self::Binary(_) => encode(out, Opcode::Binary, &[data]),
            Self::Base64 => encode(out, Opcode::Text, &[STANDARD.encode(data).as_bytes()]),
            Self::Text => encode(out, Opcode::Text, &[data]),
        }
    }
}

/// The data of a body.
pub(crate) fn pieces(body: Incoming) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    futures::stream::unfold(body, |mut body| async move {
        let frame = body.frame().await?;
        let data = frame.map(|f| f.into_data().unwrap_or_default()).map_err(io::Error::other);
        Some((data, body))
    })
}

/// Sends every piece to the client in a task of `tasks`, until they end, the client goes, or `stop`.
pub(crate) fn spawn(
    wrapping: Wrapping,
    client: OnUpgrade,
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    tasks: &TaskTracker,
    stop: CancellationToken,
) {
    tasks.spawn(async move {
        let work = async {
            let client: Upgraded = client.await.map_err(io::Error::other)?;
            send(wrapping, TokioIo::new(client), Box::pin(pieces)).await
        };
        tokio::select! {
            () = stop.cancelled() => {}
            result = work => if let Err(error) = result {
                tracing::debug!(%error, "stream of a WebSocket client broke");
            },
        }
    });
}

async fn send(
    wrapping: Wrapping,
    client: impl AsyncRead + AsyncWrite,
    mut data: impl futures::Stream<Item = io::Result<Bytes>> + Unpin,
) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(client);
    let mut decoder = Decoder::default();
    loop {
        let mut out = BytesMut::new();
        tokio::select! {
            piece = futures::StreamExt::next(&mut data) => match piece {
                Some(piece) => wrapping.wrap(&mut out, &piece?),
                None => {
                    encode(&mut out, Opcode::Close, &[&NORMAL_CLOSURE]);
                    write.write_all(&out).await?;
                    return write.shutdown().await;
                }
            },
            received = read.read_buf(&mut decoder.buffer) => {
                if received? == 0 {
                    return Ok(());
                }
                // A client has nothing to say here but that it goes, or is still there.
                while let Some(message) = decoder.next().map_err(io::Error::other)? {
                    match message {
                        Message::Close => return Ok(()),
                        Message::Ping(payload) => encode(&mut out, Opcode::Pong, &[&payload]),
                        _ => {}
                    }
                }
            }
        }
        write.write_all(&out).await?;
        // TLS keeps what its socket did not take.
        write.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(protocols: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("connection", "Upgrade".parse().unwrap());
        headers.insert("upgrade", "websocket".parse().unwrap());
        if let Some(protocols) = protocols {
            headers.insert("sec-websocket-protocol", protocols.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_subprotocol_decides_the_wrapping() {
        assert_eq!(Wrapping::wanted(&HeaderMap::new()), None);
        for (offered, want) in [
            (None, Some(Wrapping::Binary(None))),
            (Some("x, binary.k8s.io"), Some(Wrapping::Binary(Some(BINARY)))),
            (Some("base64.binary.k8s.io"), Some(Wrapping::Base64)),
            (Some("v4.channel.k8s.io"), None),
        ] {
            assert_eq!(Wrapping::wanted(&headers(offered)), Some(want), "{offered:?}");
        }
    }

    #[tokio::test]
    async fn every_piece_is_a_message_and_the_end_is_a_close() {
        let (client, server) = tokio::io::duplex(1024);
        let pieces = futures::stream::iter(["one\n", "two\n"].map(|text| Ok(Bytes::from(text))));
        send(Wrapping::Binary(None), server, pieces).await.unwrap();
        let mut received = Vec::new();
        tokio::io::BufReader::new(client).read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"\x82\x04one\n\x82\x04two\n\x88\x02\x03\xe8");
        let mut text = BytesMut::new();
        Wrapping::Base64.wrap(&mut text, b"one");
        assert_eq!(&text[..], b"\x81\x04b25l");
    }
}
