//! The wire format: keys, varints and lengths, written and read.

use super::DecodeError;

pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;
const GROUP: u8 = 3;
const END_GROUP: u8 = 4;
const FIXED32: u8 = 5;

pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn key(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

/// A length and the bytes.
pub(super) fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A field of bytes.
pub(super) fn field(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    key(out, number, BYTES);
    bytes(out, content);
}

/// A field of an integer.
pub(super) fn number(out: &mut Vec<u8>, number: u32, value: u64) {
    key(out, number, VARINT);
    varint(out, value);
}

/// One field as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) number: u32,
    pub(super) wire_type: u8,
    /// The value of a varint or of fixed bytes.
    pub(super) value: u64,
    pub(super) bytes: &'a [u8],
}

/// Reads the fields of a message; groups are skipped.
pub(super) struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// `message` is named in errors.
    pub(super) fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self { message, rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for (i, byte) in self.rest.iter().enumerate() {
            if i == 10 {
                return Err(DecodeError::Overflow);
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() >= 10 { DecodeError::Overflow } else { DecodeError::Truncated })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next field; `None` at the end.
    pub(super) fn part(&mut self) -> Result<Option<Part<'a>>, DecodeError> {
        while !self.rest.is_empty() {
            let key = self.varint()?;
            let wire_type = key as u8 & 7;
            let number = u32::try_from(key >> 3).unwrap_or(0);
            if wire_type == END_GROUP {
                return Err(DecodeError::EndGroup { message: self.message.to_owned() });
            }
            if number == 0 || number > i32::MAX as u32 {
                return Err(DecodeError::IllegalTag {
                    message: self.message.to_owned(),
                    tag: key >> 3,
                    wire_type,
                });
            }
            let mut part = Part { number, wire_type, value: 0, bytes: &[] };
            match wire_type {
                VARINT => part.value = self.varint()?,
                FIXED64 => {
                    let bytes = self.take(8)?;
                    part.value = bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
                }
                FIXED32 => part.bytes = self.take(4)?,
                BYTES => {
                    let len = self.varint()?;
                    if len > i64::MAX as u64 {
                        return Err(DecodeError::NegativeLength);
                    }
                    part.bytes = self.take(usize::try_from(len).map_err(|_| DecodeError::Truncated)?)?;
                }
                GROUP => {
                    self.skip_group()?;
                    continue;
                }
                _ => {
                    return Err(DecodeError::IllegalTag {
                        message: self.message.to_owned(),
                        tag: key >> 3,
                        wire_type,
                    });
                }
            }
            return Ok(Some(part));
        }
        Ok(None)
    }

    /// Skips to the end of the group whose start has been read; groups nest.
    fn skip_group(&mut self) -> Result<(), DecodeError> {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.varint()? as u8 & 7 {
                VARINT => {
                    self.varint()?;
                }
                FIXED64 => {
                    self.take(8)?;
                }
                FIXED32 => {
                    self.take(4)?;
                }
                BYTES => {
                    let len = self.varint()?;
                    self.take(usize::try_from(len).map_err(|_| DecodeError::Truncated)?)?;
                }
                GROUP => depth += 1,
                END_GROUP => depth -= 1,
                _ => return Err(DecodeError::Truncated),
            }
        }
        Ok(())
    }
}
