//! The server's side of WebSocket (RFC 6455): the handshake's answer, and frames as bytes in and out. No I/O.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Appended to the client's key before it is hashed, to show that the server means WebSocket.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Largest message that is accepted; clients send stdin in pieces of 32 KiB.
const MAX_MESSAGE: usize = 1 << 20;
/// Largest payload of a control frame.
const MAX_CONTROL: usize = 125;

/// What a client did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WebSocketError {
    /// Frames of a client must be masked.
    #[error("frame without a mask")]
    Unmasked,
    /// Extensions were not agreed on.
    #[error("reserved bits are set")]
    Reserved,
    /// Not an opcode, or one that does not fit here.
    #[error("unexpected opcode {0}")]
    Opcode(u8),
    /// Control frames are short and whole.
    #[error("control frame is too long or fragmented")]
    Control,
    /// More than a message may have.
    #[error("message is too long")]
    TooLong,
}

/// A message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Text or binary: the streaming protocols do not tell them apart.
    Data(Bytes),
    /// To be answered with a pong.
    Ping(Bytes),
    /// An answer to a ping.
    Pong,
    /// The client is done.
    Close,
}

/// What the server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Text = 1,
    Binary = 2,
    Close = 8,
    Pong = 10,
}

/// The value of `Sec-WebSocket-Accept` for a client's key.
pub(crate) fn accept_key(key: &str) -> String {
    let text = format!("{key}{GUID}");
    STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// Appends a frame whose payload is `parts` one after the other.
pub(crate) fn encode(out: &mut BytesMut, opcode: Opcode, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.put_u8(0x80 | opcode as u8);
    match u16::try_from(len) {
        Ok(short) if len <= MAX_CONTROL => out.put_u8(short as u8),
        Ok(medium) => {
            out.put_u8(126);
            out.put_u16(medium);
        }
        Err(_) => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
    parts.iter().for_each(|part| out.put_slice(part));
}

/// Turns received bytes into messages.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// Received and not yet decoded; fill it and call [`Self::next`].
    pub(crate) buffer: BytesMut,
    /// The beginning of a fragmented message.
    fragments: Option<BytesMut>,
}

impl Decoder {
    /// The next message; `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, WebSocketError> {
        while let Some((first, payload)) = self.frame()? {
            let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
            if opcode >= 8 {
                return match opcode {
                    8 => Ok(Some(Message::Close)),
                    9 => Ok(Some(Message::Ping(payload.freeze()))),
                    10 => Ok(Some(Message::Pong)),
                    other => Err(WebSocketError::Opcode(other)),
                };
            }
            let message = match (opcode, self.fragments.take()) {
                (0, Some(mut begun)) => {
                    if begun.len() + payload.len() > MAX_MESSAGE {
                        return Err(WebSocketError::TooLong);
                    }
                    begun.unsplit(payload);
                    begun
                }
                (1 | 2, None) => payload,
                (other, _) => return Err(WebSocketError::Opcode(other)),
            };
            if fin {
                return Ok(Some(Message::Data(message.freeze())));
            }
            self.fragments = Some(message);
        }
        Ok(None)
    }

    /// The next frame's first byte and its unmasked payload.
    fn frame(&mut self) -> Result<Option<(u8, BytesMut)>, WebSocketError> {
        let [first, second, rest @ ..] = &self.buffer[..] else { return Ok(None) };
        let (first, second) = (*first, *second);
        if first & 0x70 != 0 {
            return Err(WebSocketError::Reserved);
        }
        if second & 0x80 == 0 {
            return Err(WebSocketError::Unmasked);
        }
        let (len, len_size) = match second & 0x7f {
            126 => match rest.first_chunk::<2>() {
                Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(bytes) => (u64::from_be_bytes(*bytes), 8),
                None => return Ok(None),
            },
            short => (u64::from(short), 0),
        };
        let len =
            usize::try_from(len).ok().filter(|len| *len <= MAX_MESSAGE).ok_or(WebSocketError::TooLong)?;
        if first & 0x08 != 0 && (len > MAX_CONTROL || first & 0x80 == 0) {
            return Err(WebSocketError::Control);
        }
        let head = 2 + len_size;
        let Some(mask) = self.buffer.get(head..).and_then(|rest| rest.first_chunk::<4>()).copied() else {
            return Ok(None);
        };
        if self.buffer.len() < head + 4 + len {
            return Ok(None);
        }
        self.buffer.advance(head + 4);
        let mut payload = self.buffer.split_to(len);
        payload.iter_mut().zip(mask.into_iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(Some((first, payload)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        encode(&mut out, Opcode::Binary, &[payload]);
        let head_len = out.len() - payload.len();
        out[0] = first;
        out[1] |= 0x80;
        let mask = [1, 2, 3, 4_u8];
        let mut frame = out[..head_len].to_vec();
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Message>, WebSocketError> {
        let mut decoder = Decoder::default();
        decoder.buffer.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(message) = decoder.next()? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[test]
    fn key_is_accepted_as_in_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn messages_are_put_together_around_control_frames() {
        let bytes =
            [frame(0x02, b"ab"), frame(0x89, b"p"), frame(0x00, b"c"), frame(0x80, b"d"), frame(0x88, b"")];
        let expected = [
            Message::Ping(Bytes::from_static(b"p")),
            Message::Data(Bytes::from_static(b"abcd")),
            Message::Close,
        ];
        assert_eq!(decode(&bytes.concat()).unwrap(), expected);
    }

    #[test]
    fn wrong_frames_are_refused() {
        let cases = [
            (vec![0x82, 0x00], WebSocketError::Unmasked),
            (frame(0xc2, b""), WebSocketError::Reserved),
            (frame(0x83, b""), WebSocketError::Opcode(3)),
            (frame(0x8b, b""), WebSocketError::Opcode(11)),
            (frame(0x80, b"x"), WebSocketError::Opcode(0)),
            ([frame(0x02, b"x"), frame(0x82, b"y")].concat(), WebSocketError::Opcode(2)),
            (frame(0x09, b""), WebSocketError::Control),
            (frame(0x89, &[0; 126]), WebSocketError::Control),
            (vec![0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0], WebSocketError::TooLong),
            ([frame(0x02, &vec![0; MAX_MESSAGE]), frame(0x80, b"x")].concat(), WebSocketError::TooLong),
        ];
        for (bytes, expected) in cases {
            assert_eq!(decode(&bytes).unwrap_err(), expected, "{:?}", &bytes[..bytes.len().min(12)]);
        }
    }

    proptest! {
        #[test]
        fn messages_survive_any_splitting(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70_000), 0..4),
            cut in 1_usize..5000,
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|payload| frame(0x82, payload)).collect();
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for chunk in bytes.chunks(cut) {
                decoder.buffer.extend_from_slice(chunk);
                while let Some(Message::Data(data)) = decoder.next().unwrap() {
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
