//! From protobuf to JSON. Unknown fields are skipped; what is zero on the wire and cannot be told from absent is left
//! out, as upstream's JSON does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::DecodeError;
use super::encode::SCHEMA;
use super::scalar;
use super::table::{Field, MessageId, Shape, Table, Type};
use super::wire::{self, Part, Reader};

/// Messages in messages; JSON's limit on nesting comes first for all but recursive schemas.
const MAX_DEPTH: usize = 100;

/// Text as a JSON string.
pub(super) fn text(field: &str, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8 { field: field.to_owned() })?;
    serde_json::to_writer(out, text).map_err(|_| DecodeError::Utf8 { field: field.to_owned() })
}

/// A field's name as upstream's generated code has it in errors.
fn go_name(field: &str) -> String {
    let mut chars = field.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The fields of a message on the wire, each with its index in the table, in the table's order.
type Parts<'a> = Vec<(u16, Part<'a>)>;

/// Writes messages as JSON.
pub(super) struct Decoder<'o> {
    table: &'static Table,
    out: &'o mut Vec<u8>,
}

impl<'o> Decoder<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { table: Table::builtin(), out }
    }

    /// Writes the fields of a message, each with a comma before it if anything is in the object.
    pub(super) fn fields(&mut self, id: MessageId, bytes: &[u8], depth: usize) -> Result<(), DecodeError> {
        let message = self.table.message(id);
        let mut reader = Reader::new(message.name, bytes);
        let mut parts: Parts<'_> = Vec::new();
        while let Some(part) = reader.part()? {
            let Some((index, field)) = message.by_number(part.number) else { continue };
            check(field, &part)?;
            parts.push((index, part));
        }
        parts.sort_by_key(|(index, _)| *index);
        for same in parts.chunk_by(|a, b| a.0 == b.0) {
            self.field(&message.fields[usize::from(same[0].0)], same, depth)?;
        }
        Ok(())
    }

    fn name(&mut self, name: &str) -> Result<(), DecodeError> {
        if !matches!(self.out.last(), Some(b'{') | None) {
            self.out.push(b',');
        }
        text(name, name.as_bytes(), self.out)?;
        self.out.push(b':');
        Ok(())
    }

    fn field(&mut self, field: &Field, parts: &[(u16, Part<'_>)], depth: usize) -> Result<(), DecodeError> {
        let before = self.out.len();
        match field.shape {
            Shape::Inline => {
                let Type::Message(message) = field.kind else { return Ok(()) };
                return self.fields(message, &merged(parts), below(depth)?);
            }
            Shape::One => {
                let Some((_, last)) = parts.last() else { return Ok(()) };
                if !field.pointer && !field.required && is_zero(field.kind, last) {
                    return Ok(());
                }
                self.name(field.name)?;
                let merged = if parts.len() > 1 && matches!(field.kind, Type::Message(_)) {
                    merged(parts)
                } else {
                    last.bytes.into()
                };
                let whole = Part { bytes: &merged, ..*last };
                if !self.value(field, &whole, depth)? {
                    self.out.truncate(before);
                }
            }
            Shape::List => {
                self.name(field.name)?;
                self.out.push(b'[');
                for (_, part) in parts {
                    self.items(field, part, depth)?;
                }
                self.out.push(b']');
            }
            Shape::Map => {
                self.name(field.name)?;
                self.map(field, parts, depth)?;
            }
        }
        Ok(())
    }

    /// One item of a list, or several packed ones.
    fn items(&mut self, field: &Field, part: &Part<'_>, depth: usize) -> Result<(), DecodeError> {
        let packed = part.wire_type == wire::BYTES && field.kind.wire_type() != wire::BYTES;
        let mut reader = Reader::new(field.name, part.bytes);
        loop {
            let mut one = *part;
            if packed {
                if reader.is_empty() {
                    return Ok(());
                }
                one = Part { value: reader.varint()?, bytes: &[], ..*part };
            }
            if self.out.last() != Some(&b'[') {
                self.out.push(b',');
            }
            if !self.value(field, &one, depth)? {
                self.out.extend_from_slice(b"null");
            }
            if !packed {
                return Ok(());
            }
        }
    }

    fn map(&mut self, field: &Field, parts: &[(u16, Part<'_>)], depth: usize) -> Result<(), DecodeError> {
        let mut entries = std::collections::BTreeMap::new();
        for (_, part) in parts {
            let mut reader = Reader::new(field.name, part.bytes);
            let mut key = &[][..];
            let mut value = Part { number: 2, wire_type: field.kind.wire_type(), value: 0, bytes: &[] };
            while let Some(part) = reader.part()? {
                match part.number {
                    1 if part.wire_type == wire::BYTES => key = part.bytes,
                    2 if part.wire_type == field.kind.wire_type() => value = part,
                    1 | 2 => {
                        return Err(DecodeError::WireType {
                            field: go_name(field.name),
                            wire_type: part.wire_type,
                        });
                    }
                    _ => {}
                }
            }
            entries.insert(key, value);
        }
        self.out.push(b'{');
        for (key, value) in entries {
            let name =
                std::str::from_utf8(key).map_err(|_| DecodeError::Utf8 { field: go_name(field.name) })?;
            self.name(name)?;
            if !self.value(field, &value, depth)? {
                self.out.extend_from_slice(b"null");
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn object(&mut self, message: MessageId, bytes: &[u8], depth: usize) -> Result<(), DecodeError> {
        self.out.push(b'{');
        self.fields(message, bytes, below(depth)?)?;
        self.out.push(b'}');
        Ok(())
    }

    fn schema(&mut self, bytes: &[u8], depth: usize) -> Result<(), DecodeError> {
        match self.table.named(SCHEMA) {
            Some(schema) => self.object(schema, bytes, depth),
            None => Ok(()),
        }
    }

    /// One value; whether there is one.
    fn value(&mut self, field: &Field, part: &Part<'_>, depth: usize) -> Result<bool, DecodeError> {
        let name = || go_name(field.name);
        match field.kind {
            Type::String => text(&name(), part.bytes, self.out)?,
            Type::Bytes => text(&name(), STANDARD.encode(part.bytes).as_bytes(), self.out)?,
            Type::Bool => self.out.extend_from_slice(if part.value == 0 { b"false" } else { b"true" }),
            Type::Int32 => self.out.extend_from_slice((part.value as i32).to_string().as_bytes()),
            Type::Int64 => self.out.extend_from_slice((part.value as i64).to_string().as_bytes()),
            Type::Double => self.double(&name(), f64::from_bits(part.value))?,
            Type::Time => return scalar::read_time(part.bytes, false, self.out),
            Type::MicroTime => return scalar::read_time(part.bytes, true, self.out),
            Type::Quantity => {
                let quantity = scalar::only_bytes("Quantity", "String_", part.bytes)?;
                text(&name(), if quantity.is_empty() { b"0" } else { quantity }, self.out)?;
            }
            Type::IntOrString => scalar::int_or_string(part.bytes, self.out)?,
            Type::Raw => return self.raw(&name(), scalar::only_bytes("RawExtension", "Raw", part.bytes)?),
            Type::Strings => self.strings(field.name, part.bytes, 1)?,
            Type::Message(message) => self.object(message, part.bytes, depth)?,
            Type::SchemaOrBool | Type::SchemaOrArray | Type::SchemaOrStrings => {
                self.union(field, part.bytes, below(depth)?)?;
            }
        }
        Ok(true)
    }

    fn double(&mut self, field: &str, value: f64) -> Result<(), DecodeError> {
        if !value.is_finite() {
            return Err(DecodeError::NotFinite { field: field.to_owned() });
        }
        let digits = if value.fract() == 0.0 && value.abs() < 1e15 {
            format!("{value:.0}")
        } else {
            serde_json::Number::from_f64(value).map(|number| number.to_string()).unwrap_or_default()
        };
        self.out.extend_from_slice(digits.as_bytes());
        Ok(())
    }

    /// JSON as it is.
    fn raw(&mut self, field: &str, json: &[u8]) -> Result<bool, DecodeError> {
        if json.is_empty() {
            return Ok(false);
        }
        let wrong = || DecodeError::NotJson { field: field.to_owned() };
        let raw: &RawValue = serde_json::from_slice(json).map_err(|_| wrong())?;
        self.out.extend_from_slice(raw.get().as_bytes());
        Ok(raw.get() != "null")
    }

    fn strings(&mut self, field: &'static str, bytes: &[u8], number: u32) -> Result<(), DecodeError> {
        self.out.push(b'[');
        let mut reader = Reader::new(field, bytes);
        while let Some(part) = reader.part()? {
            if part.number == number {
                if self.out.last() != Some(&b'[') {
                    self.out.push(b',');
                }
                text(field, part.bytes, self.out)?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// A schema, or what may stand in its place.
    fn union(&mut self, field: &Field, bytes: &[u8], depth: usize) -> Result<(), DecodeError> {
        let schema_number = if field.kind == Type::SchemaOrBool { 2 } else { 1 };
        let (mut allows, mut schema, mut list) = (false, None, Vec::new());
        let mut reader = Reader::new(field.name, bytes);
        while let Some(part) = reader.part()? {
            match (part.number, part.wire_type) {
                (number, wire::BYTES) if number == schema_number => schema = Some(part.bytes),
                (1, wire::VARINT) if schema_number == 2 => allows = part.value != 0,
                (2, wire::BYTES) => list.push(part.bytes),
                (1 | 2, wire_type) => {
                    return Err(DecodeError::WireType { field: go_name(field.name), wire_type });
                }
                _ => {}
            }
        }
        match (schema, field.kind) {
            (Some(schema), _) => self.schema(schema, depth),
            (None, Type::SchemaOrBool) => {
                self.out.extend_from_slice(if allows { b"true" } else { b"false" });
                Ok(())
            }
            (None, Type::SchemaOrStrings) => self.strings(field.name, bytes, 2),
            (None, _) => {
                self.out.push(b'[');
                for item in list {
                    if self.out.last() != Some(&b'[') {
                        self.out.push(b',');
                    }
                    self.schema(item, depth)?;
                }
                self.out.push(b']');
                Ok(())
            }
        }
    }
}

/// Whether a value is what an absent field has, and is therefore no value in JSON.
fn is_zero(kind: Type, part: &Part<'_>) -> bool {
    match kind {
        Type::Bool => part.value == 0,
        Type::Int32 => part.value as i32 == 0,
        Type::Int64 | Type::Double => part.value == 0,
        Type::String | Type::Bytes | Type::Time | Type::MicroTime => part.bytes.is_empty(),
        _ => false,
    }
}

fn check(field: &Field, part: &Part<'_>) -> Result<(), DecodeError> {
    let wanted = if field.shape == Shape::Map { wire::BYTES } else { field.kind.wire_type() };
    let packed = field.shape == Shape::List && wanted == wire::VARINT && part.wire_type == wire::BYTES;
    if part.wire_type == wanted || packed {
        return Ok(());
    }
    Err(DecodeError::WireType { field: go_name(field.name), wire_type: part.wire_type })
}

/// A message that comes in several pieces, as one.
fn merged<'a>(parts: &[(u16, Part<'a>)]) -> std::borrow::Cow<'a, [u8]> {
    match parts {
        [(_, one)] => one.bytes.into(),
        many => many.iter().flat_map(|(_, part)| part.bytes).copied().collect::<Vec<_>>().into(),
    }
}

fn below(depth: usize) -> Result<usize, DecodeError> {
    if depth >= MAX_DEPTH { Err(DecodeError::Depth) } else { Ok(depth + 1) }
}
