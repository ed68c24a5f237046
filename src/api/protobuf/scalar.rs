//! Values that are scalars in JSON and messages on the wire: times, quantities, integers or strings.

use k8s_openapi::jiff::{Timestamp, fmt::temporal::DateTimePrinter};

use super::DecodeError;
use super::wire::{self, Reader};

/// The quantity zero.
pub(super) const ZERO_QUANTITY: &[u8] = b"\x0a\x010";
/// The integer zero as an integer or string.
pub(super) const ZERO_INT_OR_STRING: &[u8] = b"\x08\0\x10\0\x1a\0";

/// Seconds and nanoseconds of an RFC 3339 time; below a second only with `micro`, and no finer than a microsecond.
pub(super) fn time(out: &mut Vec<u8>, text: &str, micro: bool) -> Result<(), String> {
    let time: Timestamp = text.parse().map_err(|error| format!("time {text:?}: {error}"))?;
    let (mut seconds, mut nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        // Before 1970 the fraction points backwards here, and forwards on the wire.
        (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
    }
    wire::number(out, 1, seconds as u64);
    wire::number(out, 2, if micro { (nanos / 1000 * 1000) as u64 } else { 0 });
    Ok(())
}

/// An integer as an integer or string.
pub(super) fn int(out: &mut Vec<u8>, value: i64) {
    wire::number(out, 1, 0);
    wire::number(out, 2, value as u64);
    wire::field(out, 3, b"");
}

/// A string as an integer or string.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    wire::number(out, 1, 1);
    wire::number(out, 2, 0);
    wire::field(out, 3, text.as_bytes());
}

/// An integer or string, in JSON.
pub(super) fn int_or_string(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (mut is_string, mut int, mut text) = (false, 0_i32, &[][..]);
    let mut reader = Reader::new("IntOrString", bytes);
    while let Some(part) = reader.part()? {
        match (part.number, part.wire_type) {
            (1, wire::VARINT) => is_string = part.value == 1,
            (2, wire::VARINT) => int = part.value as i32,
            (3, wire::BYTES) => text = part.bytes,
            (number @ 1..=3, wire_type) => {
                let field = ["Type", "IntVal", "StrVal"][number as usize - 1];
                return Err(DecodeError::WireType { field: field.into(), wire_type });
            }
            _ => {}
        }
    }
    if is_string {
        super::decode::text("StrVal", text, out)
    } else {
        out.extend_from_slice(int.to_string().as_bytes());
        Ok(())
    }
}

/// The one string of a message such as a quantity; empty when it is absent.
pub(super) fn only_bytes<'a>(
    message: &'static str,
    field: &str,
    bytes: &'a [u8],
) -> Result<&'a [u8], DecodeError> {
    let mut found = &[][..];
    let mut reader = Reader::new(message, bytes);
    while let Some(part) = reader.part()? {
        match (part.number, part.wire_type) {
            (1, wire::BYTES) => found = part.bytes,
            (1, wire_type) => return Err(DecodeError::WireType { field: field.to_owned(), wire_type }),
            _ => {}
        }
    }
    Ok(found)
}

/// A time, in JSON. The zero time, which is an empty message, is not written; whether one was.
pub(super) fn read_time(bytes: &[u8], micro: bool, out: &mut Vec<u8>) -> Result<bool, DecodeError> {
    if bytes.is_empty() {
        return Ok(false);
    }
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    let mut reader = Reader::new("Timestamp", bytes);
    while let Some(part) = reader.part()? {
        match (part.number, part.wire_type) {
            (1, wire::VARINT) => seconds = part.value as i64,
            (2, wire::VARINT) => nanos = part.value as i32,
            (number @ 1..=2, wire_type) => {
                let field = ["Seconds", "Nanos"][number as usize - 1];
                return Err(DecodeError::WireType { field: field.into(), wire_type });
            }
            _ => {}
        }
    }
    let nanos = if micro { nanos.clamp(0, 999_999_999) } else { 0 };
    let time = Timestamp::new(seconds, nanos).map_err(|_| DecodeError::Time { seconds })?;
    let precision = if micro { 6 } else { 0 };
    let printer = DateTimePrinter::new().precision(Some(precision));
    out.push(b'"');
    out.extend_from_slice(printer.timestamp_to_string(&time).as_bytes());
    out.push(b'"');
    Ok(true)
}
