//! The client's side of SPDY/3.1 as the streaming servers of container runtimes speak it: frames as bytes. No I/O.
//!
//! Of the protocol only what those servers use is here: streams that the client opens, data both ways, resets, pings.
//! They ignore flow control, and so does this. Header blocks are a zlib stream per direction; the one sent here consists
//! of stored blocks, which every inflater reads and which need neither the protocol's dictionary nor a compressor. What
//! the server says in its header blocks is never needed, so that they are not inflated.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
const FLAG_FIN: u8 = 1;
const HEAD: usize = 8;
/// Largest frame that is accepted; servers send data in pieces of 32 KiB.
const MAX_FRAME: usize = 4 << 20;
/// Largest payload of a data frame that is sent.
pub(crate) const MAX_DATA: usize = 1 << 20;

/// What a server did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpdyError {
    /// Another protocol, or another version of it.
    #[error("not a SPDY/3 frame")]
    Version,
    /// A frame is longer than any sensible one.
    #[error("frame of {0} bytes is too long")]
    TooLong(usize),
    /// A control frame is shorter than its fields.
    #[error("frame is too short")]
    TooShort,
}

/// A frame of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The server accepts a stream; `fin` if it will send nothing on it.
    Reply { stream: u32, fin: bool },
    /// Data of a stream; `fin` if it is the last.
    Data { stream: u32, fin: bool, data: Bytes },
    /// The server has ended a stream in both directions.
    Reset { stream: u32 },
    /// To be sent back as it is, if the number is even: it is the server's.
    Ping(u32),
    /// The server will end the connection.
    GoAway,
    /// Anything that does not matter here.
    Other,
}

/// Makes the frames of one connection.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    header_stream_begun: bool,
}

impl Encoder {
    /// Appends a frame that opens a stream. `stream` is odd and greater than all before.
    pub(crate) fn open(&mut self, out: &mut BytesMut, stream: u32, headers: &[(&str, &str)]) {
        let block = self.header_block(headers);
        control(out, SYN_STREAM, 0, 10 + block.len());
        out.put_u32(stream);
        out.put_u32(0);
        out.put_u16(0);
        out.put_slice(&block);
    }

    /// Names and values, as the next piece of the connection's zlib stream.
    fn header_block(&mut self, headers: &[(&str, &str)]) -> BytesMut {
        let mut plain = BytesMut::new();
        plain.put_u32(u32::try_from(headers.len()).unwrap_or(0));
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(u32::try_from(text.len()).unwrap_or(0));
            plain.put_slice(text.as_bytes());
        }
        let mut block = BytesMut::new();
        if !std::mem::replace(&mut self.header_stream_begun, true) {
            block.put_slice(&[0x78, 0x01]);
        }
        for piece in plain.chunks(usize::from(u16::MAX)) {
            stored(&mut block, piece);
        }
        // An empty block tells the reader that it has everything up to here.
        stored(&mut block, &[]);
        block
    }
}

/// A deflate block that holds its content as it is; it is never the stream's last.
fn stored(out: &mut BytesMut, content: &[u8]) {
    let len = u16::try_from(content.len()).unwrap_or(u16::MAX);
    out.put_u8(0);
    out.put_u16_le(len);
    out.put_u16_le(!len);
    out.put_slice(content);
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, len: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_flags_and_len(out, flags, len);
}

fn put_flags_and_len(out: &mut BytesMut, flags: u8, len: usize) {
    debug_assert!(len < 1 << 24, "a frame's length has 24 bits");
    out.put_u32((u32::from(flags) << 24) | (u32::try_from(len).unwrap_or(0) & 0x00ff_ffff));
}

/// Appends data of a stream, at most [`MAX_DATA`] bytes; `fin` ends what the client sends on it.
pub(crate) fn data(out: &mut BytesMut, stream: u32, fin: bool, payload: &[u8]) {
    out.put_u32(stream & 0x7fff_ffff);
    put_flags_and_len(out, if fin { FLAG_FIN } else { 0 }, payload.len());
    out.put_slice(payload);
}

/// Appends the answer to a ping.
pub(crate) fn ping(out: &mut BytesMut, id: u32) {
    control(out, PING, 0, 4);
    out.put_u32(id);
}

/// Turns received bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// Received and not yet decoded; fill it and call [`Self::next`].
    pub(crate) buffer: BytesMut,
}

impl Decoder {
    /// The next frame; `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        let Some(head) = self.buffer.first_chunk::<HEAD>() else { return Ok(None) };
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let (flags, len) = (head[4], u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize);
        if len > MAX_FRAME {
            return Err(SpdyError::TooLong(len));
        }
        if self.buffer.len() < HEAD + len {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let body = self.buffer.split_to(len).freeze();
        let fin = flags & FLAG_FIN != 0;
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { stream: first, fin, data: body }));
        }
        if (first >> 16) & 0x7fff != u32::from(VERSION) {
            return Err(SpdyError::Version);
        }
        let number = || {
            body.first_chunk::<4>().map(|b| u32::from_be_bytes(*b) & 0x7fff_ffff).ok_or(SpdyError::TooShort)
        };
        Ok(Some(match (first & 0xffff) as u16 {
            SYN_REPLY => Frame::Reply { stream: number()?, fin },
            RST_STREAM => Frame::Reset { stream: number()? },
            PING => Frame::Ping(number()?),
            GO_AWAY => Frame::GoAway,
            _ => Frame::Other,
        }))
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};
    use proptest::prelude::*;

    use super::*;

    fn all(decoder: &mut Decoder) -> Result<Vec<Frame>, SpdyError> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Frame>, SpdyError> {
        all(&mut Decoder { buffer: BytesMut::from(bytes) })
    }

    #[test]
    fn headers_of_all_streams_are_one_zlib_stream() {
        let mut encoder = Encoder::default();
        let mut inflater = Decompress::new(true);
        for (stream, value) in [(1, "error"), (3, "stdin")] {
            let mut out = BytesMut::new();
            encoder.open(&mut out, stream, &[("streamtype", value)]);
            assert_eq!(out[..4], [0x80, 3, 0, 1]);
            let len = u32::from_be_bytes([0, out[5], out[6], out[7]]) as usize;
            assert_eq!(out.len(), HEAD + len);
            assert_eq!(out[8..12], u32::to_be_bytes(stream));
            let mut plain = Vec::with_capacity(256);
            inflater.decompress_vec(&out[HEAD + 10..], &mut plain, FlushDecompress::Sync).unwrap();
            let expected =
                [&[0, 0, 0, 1, 0, 0, 0, 10][..], b"streamtype", &[0, 0, 0, 5], value.as_bytes()].concat();
            assert_eq!(plain, expected);
        }
    }

    #[test]
    fn frames_of_a_server_are_read() {
        let mut bytes = BytesMut::new();
        control(&mut bytes, SYN_REPLY, FLAG_FIN, 7);
        bytes.put_slice(&[0, 0, 0, 5, 1, 2, 3]);
        data(&mut bytes, 5, false, b"out");
        data(&mut bytes, 5, true, b"");
        control(&mut bytes, RST_STREAM, 0, 8);
        bytes.put_slice(&[0, 0, 0, 7, 0, 0, 0, 1]);
        ping(&mut bytes, 2);
        control(&mut bytes, 9, 0, 8);
        bytes.put_slice(&[0; 8]);
        control(&mut bytes, GO_AWAY, 0, 8);
        bytes.put_slice(&[0; 8]);
        assert_eq!(
            decode(&bytes).unwrap(),
            [
                Frame::Reply { stream: 5, fin: true },
                Frame::Data { stream: 5, fin: false, data: Bytes::from_static(b"out") },
                Frame::Data { stream: 5, fin: true, data: Bytes::new() },
                Frame::Reset { stream: 7 },
                Frame::Ping(2),
                Frame::Other,
                Frame::GoAway,
            ]
        );
    }

    #[test]
    fn wrong_frames_are_refused() {
        assert_eq!(decode(&[0x80, 2, 0, 6, 0, 0, 0, 0]).unwrap_err(), SpdyError::Version);
        assert_eq!(decode(&[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0]).unwrap_err(), SpdyError::TooShort);
        assert_eq!(decode(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]).unwrap_err(), SpdyError::TooLong(0x00ff_ffff));
    }

    proptest! {
        #[test]
        fn data_survives_any_splitting(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 0..5),
            cut in 1_usize..5000,
        ) {
            let mut bytes = BytesMut::new();
            payloads.iter().for_each(|payload| data(&mut bytes, 3, false, payload));
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for chunk in bytes.chunks(cut) {
                decoder.buffer.extend_from_slice(chunk);
                for frame in all(&mut decoder).unwrap() {
                    let Frame::Data { stream: 3, fin: false, data } = frame else { panic!("{frame:?}") };
                    got.push(data.to_vec());
                }
            }
            prop_assert_eq!(got, payloads);
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _outcome = decode(&bytes);
        }
    }
}
