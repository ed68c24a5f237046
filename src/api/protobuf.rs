//! Kubernetes' protobuf, in and out, for every kind of the table in `fields.txt`. Objects are JSON everywhere else; here
//! they are translated, without types and without a tree between.
//!
//! An object on the wire is the four bytes `k8s\0` and an envelope with `apiVersion`, `kind` and the object's own
//! message. Details that upstream's generated code has and clients see: fields stand in the order of their numbers,
//! values that are not pointers upstream are always written, and zero ones among them mean absent.

mod complete;
mod decode;
mod encode;
mod scalar;
mod table;
mod wire;

use serde::Deserialize;

pub use complete::{ZERO_TIME, complete};

use encode::{Encoded, Encoder, MissingType};
use table::Table;

/// The media type of objects.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// The media type of watches.
pub const WATCH_MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// What every object begins with.
const MAGIC: &[u8; 4] = b"k8s\0";

/// Why an object cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The text is no JSON object of the kind that it says.
    #[error("encode as protobuf")]
    Json(#[from] serde_json::Error),
    /// The kind has no message.
    #[error("object of {api_version}, kind {kind:?}, does not implement the protobuf marshalling interface")]
    Unknown {
        /// The object's `apiVersion`.
        api_version: String,
        /// The object's `kind`.
        kind: String,
    },
}

/// Why bytes cannot be read; in the words that clients of the Go implementation know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There is nothing.
    #[error("empty data")]
    Empty,
    /// There is nothing behind the first four bytes.
    #[error("empty body")]
    EmptyBody,
    /// The first four bytes are others.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// The kind has no message.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    Unknown {
        /// The `apiVersion` of the envelope.
        api_version: String,
        /// The `kind` of the envelope.
        kind: String,
    },
    /// A length goes beyond the end.
    #[error("unexpected EOF")]
    Truncated,
    /// A number has more than 64 bits.
    #[error("proto: integer overflow")]
    Overflow,
    /// A length has its highest bit set.
    #[error("proto: negative length found during unmarshaling")]
    NegativeLength,
    /// A group ends that has not begun.
    #[error("proto: {message}: wiretype end group for non-group")]
    EndGroup {
        /// The message around it.
        message: String,
    },
    /// A field number or wire type that cannot be.
    #[error("proto: {message}: illegal tag {tag} (wire type {wire_type})")]
    IllegalTag {
        /// The message around it.
        message: String,
        /// The field's number.
        tag: u64,
        /// The wire type.
        wire_type: u8,
    },
    /// A field of another type.
    #[error("proto: wrong wireType = {wire_type} for field {field}")]
    WireType {
        /// The field, as upstream's code calls it.
        field: String,
        /// The wire type.
        wire_type: u8,
    },
    /// Text that is not UTF-8.
    #[error("proto: field {field} contains invalid UTF-8")]
    Utf8 {
        /// The field, as upstream's code calls it.
        field: String,
    },
    /// A field that must hold JSON does not.
    #[error("proto: field {field} does not contain valid JSON")]
    NotJson {
        /// The field, as upstream's code calls it.
        field: String,
    },
    /// Not a number, or infinity.
    #[error("proto: field {field} is not a finite number")]
    NotFinite {
        /// The field, as upstream's code calls it.
        field: String,
    },
    /// A time that no calendar has.
    #[error("proto: timestamp of {seconds} seconds is out of range")]
    Time {
        /// Seconds since 1970.
        seconds: i64,
    },
    /// Messages are nested too deeply.
    #[error("proto: exceeded max depth")]
    Depth,
}

/// Whether objects of a kind can be written as protobuf.
pub fn is_known(api_version: &str, kind: &str) -> bool {
    Table::builtin().kind(api_version, kind).is_some()
}

/// The object in protobuf, with its envelope. Its `apiVersion` and `kind` are best its first fields.
pub fn encode(json: &[u8]) -> Result<Vec<u8>, EncodeError> {
    match Encoder::new(json.len()).object(json, None)? {
        Ok(encoded) => Ok(envelope(&encoded)),
        Err(MissingType) => {
            #[derive(Default, Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            struct TypeMeta {
                api_version: String,
                kind: String,
            }
            let TypeMeta { api_version, kind } = serde_json::from_slice(json)?;
            // The document at `/api` has a kind only.
            let group = if api_version.is_empty() { "v1" } else { &api_version };
            let known = Table::builtin().kind(group, &kind);
            match Encoder::new(json.len()).object(json, known)? {
                Ok(encoded) if known.is_some() => Ok(envelope(&encoded)),
                _ => Err(EncodeError::Unknown { api_version, kind }),
            }
        }
    }
}

fn envelope(encoded: &Encoded) -> Vec<u8> {
    let mut type_meta = Vec::with_capacity(64);
    wire::field(&mut type_meta, 1, encoded.api_version.as_bytes());
    wire::field(&mut type_meta, 2, encoded.kind.as_bytes());
    let mut out = Vec::with_capacity(encoded.message.len() + type_meta.len() + 24);
    out.extend_from_slice(MAGIC);
    wire::field(&mut out, 1, &type_meta);
    wire::field(&mut out, 2, &encoded.message);
    // Content encoding and type, which upstream writes though they are empty.
    wire::field(&mut out, 3, b"");
    wire::field(&mut out, 4, b"");
    out
}

/// One event of a watch: its length in four bytes, and the event with the object in its envelope.
pub fn watch_frame(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 8);
    wire::field(&mut raw, 1, object);
    let mut out = vec![0; 4];
    wire::field(&mut out, 1, event_type.as_bytes());
    wire::field(&mut out, 2, &raw);
    let len = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

/// `apiVersion` and `kind` of an envelope; `None` if it is none.
pub fn type_of(bytes: &[u8]) -> Option<(String, String)> {
    let envelope = Envelope::read(bytes).ok()?;
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    Some((text(envelope.api_version)?, text(envelope.kind)?))
}

/// The object as JSON. `expected` is the `apiVersion` and `kind` of an object whose envelope names none.
pub fn decode(bytes: &[u8], expected: (&str, &str)) -> Result<Vec<u8>, DecodeError> {
    let Envelope { api_version, kind, raw } = Envelope::read(bytes)?;
    let api_version = named(api_version, expected.0, "APIVersion")?;
    let kind = named(kind, expected.1, "Kind")?;
    let message = Table::builtin()
        .kind(api_version, kind)
        .ok_or_else(|| DecodeError::Unknown { api_version: api_version.to_owned(), kind: kind.to_owned() })?;
    let mut out = Vec::with_capacity(raw.len() * 2 + 64);
    out.extend_from_slice(b"{\"apiVersion\":");
    decode::text("APIVersion", api_version.as_bytes(), &mut out)?;
    out.extend_from_slice(b",\"kind\":");
    decode::text("Kind", kind.as_bytes(), &mut out)?;
    decode::Decoder::new(&mut out).fields(message, raw, 0)?;
    out.push(b'}');
    Ok(out)
}

/// The parts of an object on the wire.
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a [u8],
    kind: &'a [u8],
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        let body = bytes.strip_prefix(MAGIC).ok_or(DecodeError::Magic)?;
        if body.is_empty() {
            return Err(DecodeError::EmptyBody);
        }
        let mut envelope = Self::default();
        let mut reader = wire::Reader::new("Unknown", body);
        while let Some(part) = reader.part()? {
            match (part.number, part.wire_type) {
                (1, wire::BYTES) => {
                    let mut reader = wire::Reader::new("TypeMeta", part.bytes);
                    while let Some(part) = reader.part()? {
                        match (part.number, part.wire_type) {
                            (1, wire::BYTES) => envelope.api_version = part.bytes,
                            (2, wire::BYTES) => envelope.kind = part.bytes,
                            _ => {}
                        }
                    }
                }
                (2, wire::BYTES) => envelope.raw = part.bytes,
                (number @ 1..=4, wire_type) if wire_type != wire::BYTES => {
                    let field = ["TypeMeta", "Raw", "ContentEncoding", "ContentType"][number as usize - 1];
                    return Err(DecodeError::WireType { field: field.into(), wire_type });
                }
                _ => {}
            }
        }
        Ok(envelope)
    }
}

fn named<'a>(bytes: &'a [u8], expected: &'a str, field: &str) -> Result<&'a str, DecodeError> {
    if bytes.is_empty() {
        return Ok(expected);
    }
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8 { field: field.to_owned() })
}

#[cfg(test)]
mod tests;
