//! WebSocket clients connected to a SPDY streaming server.
//!
//! Current clients speak `v5.channel.k8s.io` for exec and attach (one byte names the channel of a message, and a close
//! signal ends stdin) and SPDY inside WebSocket messages for port forwarding. Container runtimes speak SPDY/3.1. Each
//! direction is one loop that owns one reader and one writer, so that a full pipe in one direction never stops the other.
//! A loop flushes before it waits: TLS keeps what its socket did not take, until the next write or flush.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::spdy::{self, Frame};
use super::websocket::{self, Message, Opcode};

/// The WebSocket subprotocol of exec and attach that is translated.
pub(crate) const CHANNELS: &str = "v5.channel.k8s.io";
/// The WebSocket subprotocol of port forwarding that is unwrapped.
pub(crate) const PORT_FORWARD: &str = "SPDY/3.1+portforward.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Channel of the message that ends another channel.
const CLOSE_SIGNAL: u8 = 255;
/// Status code of a normal end.
const NORMAL_CLOSURE: [u8; 2] = 1000_u16.to_be_bytes();
/// Pings that wait for their answer; more are not answered, which keep-alives bear.
const PINGS: usize = 4;
/// Largest piece of a tunnel that becomes one message.
const PIECE: usize = 32 * 1024;

/// Which streams a session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
}

impl Streams {
    /// The streams of a session as (stream id, channel, type), in the order in which they are opened.
    fn table(self) -> Vec<(u32, u8, &'static str)> {
        let wanted = [
            (true, ERROR, "error"),
            (self.stdin, STDIN, "stdin"),
            (self.stdout, STDOUT, "stdout"),
            (self.stderr && !self.tty, STDERR, "stderr"),
            (self.tty, RESIZE, "resize"),
        ];
        let open = wanted.into_iter().filter(|(wanted, ..)| *wanted);
        (0..).zip(open).map(|(at, (_, channel, kind))| (2 * at + 1, channel, kind)).collect()
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Runs an exec or attach session until it is over.
pub(crate) async fn channels<C, B>(client: C, backend: B, streams: Streams) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let table = streams.table();
    let (client_in, client_out) = tokio::io::split(client);
    let (backend_in, mut backend_out) = tokio::io::split(backend);
    let mut opening = BytesMut::new();
    let mut encoder = spdy::Encoder::default();
    for (stream, _, kind) in &table {
        encoder.open(&mut opening, *stream, &[("streamtype", kind)]);
    }
    backend_out.write_all(&opening).await?;
    backend_out.flush().await?;
    let (pings, backend_pings) = mpsc::channel(PINGS);
    let (client_pings, pongs) = mpsc::channel(PINGS);
    let upward = to_backend(client_in, backend_out, &table, backend_pings, client_pings);
    let downward = to_client(backend_in, client_out, &table, pings, pongs);
    tokio::select! {
        // What the backend has still to say comes before the news that the client is gone.
        biased;
        result = downward => result,
        result = upward => result,
    }
}

/// Client to backend: messages become data of the stream of their channel. Ends when the client is gone.
async fn to_backend(
    mut client: impl AsyncRead + Unpin,
    mut backend: impl AsyncWrite + Unpin,
    table: &[(u32, u8, &'static str)],
    mut backend_pings: mpsc::Receiver<u32>,
    client_pings: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut decoder = websocket::Decoder::default();
    let mut out = BytesMut::new();
    loop {
        while let Some(message) = decoder.next().map_err(broken)? {
            match message {
                Message::Data(message) => data_to_backend(&message, table, &mut out),
                // A full queue means that answers are under way already.
                Message::Ping(payload) => drop(client_pings.try_send(payload)),
                Message::Pong => {}
                Message::Close => return Ok(()),
            }
            if !out.is_empty() {
                backend.write_all(&out).await?;
                out.clear();
            }
        }
        backend.flush().await?;
        tokio::select! {
            read = client.read_buf(&mut decoder.buffer) => {
                if read? == 0 {
                    return Ok(());
                }
            }
            Some(id) = backend_pings.recv() => {
                spdy::ping(&mut out, id);
                backend.write_all(&out).await?;
                out.clear();
            }
        }
    }
}

/// One message of a client, as frames. What names no channel that the client may write to is ignored.
fn data_to_backend(message: &Bytes, table: &[(u32, u8, &'static str)], out: &mut BytesMut) {
    let stream_of = |channel: u8| {
        table
            .iter()
            .find(|(_, own, _)| *own == channel && matches!(channel, STDIN | RESIZE))
            .map(|(id, ..)| *id)
    };
    match message.split_first() {
        Some((&CLOSE_SIGNAL, [channel, ..])) => {
            if let Some(stream) = stream_of(*channel) {
                spdy::data(out, stream, true, &[]);
            }
        }
        Some((channel, payload)) if !payload.is_empty() => {
            if let Some(stream) = stream_of(*channel) {
                payload.chunks(spdy::MAX_DATA).for_each(|piece| spdy::data(out, stream, false, piece));
            }
        }
        _ => {}
    }
}

/// Backend to client: data of a stream becomes messages of its channel. Ends when the error stream has, with everything
/// else that the backend has sent before.
async fn to_client(
    mut backend: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
    table: &[(u32, u8, &'static str)],
    backend_pings: mpsc::Sender<u32>,
    mut client_pings: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let mut decoder = spdy::Decoder::default();
    let mut open: Vec<u32> = table
        .iter()
        .filter(|(_, channel, _)| !matches!(*channel, STDIN | RESIZE))
        .map(|(id, ..)| *id)
        .collect();
    let mut out = BytesMut::new();
    'session: loop {
        while let Some(frame) = decoder.next().map_err(broken)? {
            let ended = match frame {
                Frame::Data { stream, fin, data } => {
                    let channel = table.iter().find(|(id, ..)| *id == stream).map(|(_, channel, _)| *channel);
                    if let (Some(channel), false) = (channel, data.is_empty()) {
                        websocket::encode(&mut out, Opcode::Binary, &[&[channel], &data]);
                    }
                    fin.then_some(stream)
                }
                Frame::Reply { stream, fin } => fin.then_some(stream),
                Frame::Reset { stream } => Some(stream),
                Frame::Ping(id) => {
                    if backend_pings.try_send(id).is_err() {
                        tracing::trace!("ping of a backend is not answered");
                    }
                    None
                }
                Frame::GoAway | Frame::Other => None,
            };
            open.retain(|stream| Some(*stream) != ended);
            if !out.is_empty() {
                client.write_all(&out).await?;
                out.clear();
            }
            if open.is_empty() {
                break 'session;
            }
        }
        client.flush().await?;
        tokio::select! {
            read = backend.read_buf(&mut decoder.buffer) => {
                if read? == 0 {
                    break;
                }
            }
            Some(payload) = client_pings.recv() => {
                websocket::encode(&mut out, Opcode::Pong, &[&payload]);
                client.write_all(&out).await?;
                out.clear();
            }
        }
    }
    websocket::encode(&mut out, Opcode::Close, &[&NORMAL_CLOSURE]);
    client.write_all(&out).await?;
    client.shutdown().await
}

/// Runs a port forwarding: the bytes inside the client's messages are the backend's connection, and the other way round.
pub(crate) async fn unwrapped<C, B>(client: C, backend: B) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (mut client_in, mut client_out) = tokio::io::split(client);
    let (mut backend_in, mut backend_out) = tokio::io::split(backend);
    let (pings, mut pongs) = mpsc::channel::<Bytes>(PINGS);
    let upward = async {
        let mut decoder = websocket::Decoder::default();
        loop {
            while let Some(message) = decoder.next().map_err(broken)? {
                match message {
                    Message::Data(mut message) => {
                        while message.has_remaining() {
                            backend_out.write_buf(&mut message).await?;
                        }
                    }
                    Message::Ping(payload) => drop(pings.try_send(payload)),
                    Message::Pong => {}
                    Message::Close => return io::Result::Ok(()),
                }
            }
            backend_out.flush().await?;
            if client_in.read_buf(&mut decoder.buffer).await? == 0 {
                return Ok(());
            }
        }
    };
    let downward = async {
        let (mut piece, mut out) = (BytesMut::with_capacity(PIECE), BytesMut::new());
        loop {
            tokio::select! {
                read = backend_in.read_buf(&mut piece) => {
                    let opcode = if read? == 0 { Opcode::Close } else { Opcode::Binary };
                    let payload = if opcode == Opcode::Close { &NORMAL_CLOSURE[..] } else { &piece[..] };
                    websocket::encode(&mut out, opcode, &[payload]);
                    client_out.write_all(&out).await?;
                    if opcode == Opcode::Close {
                        return client_out.shutdown().await;
                    }
                    piece.clear();
                }
                Some(payload) = pongs.recv() => {
                    websocket::encode(&mut out, Opcode::Pong, &[&payload]);
                    client_out.write_all(&out).await?;
                }
            }
            client_out.flush().await?;
            out.clear();
        }
    };
    tokio::select! {
        result = upward => result,
        result = downward => result,
    }
}

#[cfg(test)]
mod tests;
