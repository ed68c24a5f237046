//! Sessions between a WebSocket client and a SPDY server, both played by the test. Their connections hold back what was
//! not flushed, as TLS does.

use tokio::io::{BufStream, DuplexStream, duplex};

use super::*;

const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };

/// A client's frame; the mask is zero, which masks nothing.
fn message(opcode: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload].concat()
}

/// A server's short, unmasked frame.
async fn received(client: &mut DuplexStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    client.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; usize::from(head[1])];
    client.read_exact(&mut payload).await.unwrap();
    (head[0] & 0x0f, payload)
}

/// The next frame at the backend, with the ids of opened streams in place of their frames.
async fn frame(backend: &mut DuplexStream, decoder: &mut spdy::Decoder) -> Frame {
    loop {
        if let Some(frame) = decoder.next().unwrap() {
            return frame;
        }
        assert_ne!(backend.read_buf(&mut decoder.buffer).await.unwrap(), 0, "end of connection");
    }
}

struct Session {
    client: DuplexStream,
    backend: DuplexStream,
    decoder: spdy::Decoder,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

async fn session(streams: Streams) -> Session {
    let (client, ours) = duplex(1 << 16);
    let (theirs, backend) = duplex(1 << 16);
    let task = tokio::spawn(channels(BufStream::new(ours), BufStream::new(theirs), streams));
    let mut session = Session { client, backend, decoder: spdy::Decoder::default(), task };
    for _ in streams.table() {
        let opened = frame(&mut session.backend, &mut session.decoder).await;
        assert_eq!(opened, Frame::Other, "a stream is opened");
    }
    session
}

#[test]
fn streams_are_opened_in_the_order_of_the_protocol() {
    assert_eq!(
        ALL.table(),
        [(1, ERROR, "error"), (3, STDIN, "stdin"), (5, STDOUT, "stdout"), (7, STDERR, "stderr")]
    );
    let tty = Streams { tty: true, ..ALL };
    assert_eq!(
        tty.table(),
        [(1, ERROR, "error"), (3, STDIN, "stdin"), (5, STDOUT, "stdout"), (7, RESIZE, "resize")]
    );
    let output = Streams { stdin: false, stderr: false, ..ALL };
    assert_eq!(output.table(), [(1, ERROR, "error"), (3, STDOUT, "stdout")]);
}

#[tokio::test]
async fn stdin_reaches_its_stream_and_its_end_is_passed_on() {
    let mut s = session(ALL).await;
    s.client.write_all(&message(2, b"\x00hello")).await.unwrap();
    s.client.write_all(&message(2, &[CLOSE_SIGNAL, STDIN])).await.unwrap();
    let data = |fin, data: &'static [u8]| Frame::Data { stream: 3, fin, data: Bytes::from_static(data) };
    assert_eq!(frame(&mut s.backend, &mut s.decoder).await, data(false, b"hello"));
    assert_eq!(frame(&mut s.backend, &mut s.decoder).await, data(true, b""));
}

#[tokio::test]
async fn output_and_exit_status_reach_the_client_and_end_the_session() {
    let mut s = session(ALL).await;
    let mut out = BytesMut::new();
    spdy::data(&mut out, 5, false, b"out");
    spdy::data(&mut out, 7, false, b"err");
    spdy::data(&mut out, 5, true, b"");
    spdy::data(&mut out, 7, true, b"");
    spdy::data(&mut out, 1, true, br#"{"status":"Success"}"#);
    s.backend.write_all(&out).await.unwrap();
    assert_eq!(received(&mut s.client).await, (2, b"\x01out".to_vec()));
    assert_eq!(received(&mut s.client).await, (2, b"\x02err".to_vec()));
    assert_eq!(received(&mut s.client).await, (2, b"\x03{\"status\":\"Success\"}".to_vec()));
    assert_eq!(received(&mut s.client).await, (8, NORMAL_CLOSURE.to_vec()));
    s.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn terminal_size_goes_to_its_stream_and_output_channels_cannot_be_written() {
    let mut s = session(Streams { tty: true, ..ALL }).await;
    s.client.write_all(&message(2, b"\x01nonsense")).await.unwrap();
    s.client.write_all(&message(2, b"\x63nonsense")).await.unwrap();
    s.client.write_all(&message(2, b"\x04{\"Width\":80}")).await.unwrap();
    let expected = Frame::Data { stream: 7, fin: false, data: Bytes::from_static(b"{\"Width\":80}") };
    assert_eq!(frame(&mut s.backend, &mut s.decoder).await, expected);
}

#[tokio::test]
async fn pings_of_both_sides_are_answered() {
    let mut s = session(ALL).await;
    s.client.write_all(&message(9, b"are you there")).await.unwrap();
    assert_eq!(received(&mut s.client).await, (10, b"are you there".to_vec()));
    let mut out = BytesMut::new();
    spdy::ping(&mut out, 2);
    s.backend.write_all(&out).await.unwrap();
    assert_eq!(frame(&mut s.backend, &mut s.decoder).await, Frame::Ping(2));
}

#[tokio::test]
async fn full_pipe_in_one_direction_does_not_stop_the_other() {
    let s = session(ALL).await;
    let (mut client_in, mut client_out) = tokio::io::split(s.client);
    let (mut backend_in, mut backend_out) = tokio::io::split(s.backend);
    // Nobody reads stdin at the backend, so that the client's writes get stuck.
    let stuck = tokio::spawn(async move {
        for _ in 0..4000 {
            client_out.write_all(&message(2, &[STDIN; 100])).await.unwrap();
        }
    });
    let writer = tokio::spawn(async move {
        let mut out = BytesMut::new();
        spdy::data(&mut out, 5, false, &[b'x'; 100]);
        for _ in 0..4000 {
            backend_out.write_all(&out).await.unwrap();
        }
        backend_out
    });
    let mut all = vec![0; 4000 * 103];
    client_in.read_exact(&mut all).await.unwrap();
    let _backend_out = writer.await.unwrap();
    assert!(!stuck.is_finished());
    let mut rest = vec![0; 4000 * 107];
    backend_in.read_exact(&mut rest).await.unwrap();
    stuck.await.unwrap();
}

#[tokio::test]
async fn broken_frames_end_the_session() {
    let mut s = session(ALL).await;
    s.client.write_all(&[0x82, 0x01, b'x']).await.unwrap();
    assert_eq!(s.task.await.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn port_forwarding_is_unwrapped_both_ways() {
    let (mut client, ours) = duplex(1 << 16);
    let (theirs, mut backend) = duplex(1 << 16);
    let task = tokio::spawn(unwrapped(BufStream::new(ours), BufStream::new(theirs)));
    client.write_all(&message(2, b"ab")).await.unwrap();
    client.write_all(&message(2, b"cd")).await.unwrap();
    let mut got = [0; 4];
    backend.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"abcd");
    backend.write_all(b"efg").await.unwrap();
    assert_eq!(received(&mut client).await, (2, b"efg".to_vec()));
    drop(backend);
    assert_eq!(received(&mut client).await, (8, NORMAL_CLOSURE.to_vec()));
    task.await.unwrap().unwrap();
}
