//! From JSON to protobuf, without a tree between: values are written as they are read, and the fields of a message are
//! put in the order of their numbers when it ends, with zeros for those that upstream's types always have.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::scalar;
use super::table::{Field, MessageId, Place, Shape, Slot, Table, Type};
use super::wire;

/// A written value and the field it belongs to.
#[derive(Clone, Copy)]
struct Segment {
    place: Place,
    start: usize,
    end: usize,
}

/// What is written so far. Messages end in reverse order of their beginning, so that one buffer and one list of
/// segments serve all.
pub(super) struct Encoder {
    table: &'static Table,
    out: Vec<u8>,
    segments: Vec<Segment>,
    scratch: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            table: Table::builtin(),
            out: Vec::with_capacity(capacity),
            segments: Vec::with_capacity(64),
            scratch: Vec::new(),
        }
    }

    /// Writes one object; `None` in the answer means that its type came too late in the text.
    pub(super) fn object(
        mut self,
        json: &[u8],
        known: Option<MessageId>,
    ) -> Result<Result<Encoded, MissingType>, serde_json::Error> {
        let mut head = Head { message: known, ..Head::default() };
        let mut decoder = serde_json::Deserializer::from_slice(json);
        let visitor = TopVisitor { encoder: &mut self, head: &mut head };
        let outcome = decoder.deserialize_map(visitor).and_then(|()| decoder.end());
        match (outcome, head.late, head.message) {
            (Err(_), true, _) | (Ok(()), _, None) => Ok(Err(MissingType)),
            (Err(error), false, _) => Err(error),
            (Ok(()), _, Some(_)) => {
                Ok(Ok(Encoded { api_version: head.api_version, kind: head.kind, message: self.out }))
            }
        }
    }

    /// Ends the message that began at `out` and `segments`: brings its fields into order.
    fn finish(&mut self, id: MessageId, out: usize, segments: usize) {
        let own = &mut self.segments[segments..];
        if !own.is_sorted_by_key(|segment| segment.place) {
            own.sort_by_key(|segment| segment.place);
        }
        self.scratch.clear();
        let message = self.table.message(id);
        let mut ends = [segments; MAX_SLOTS + 1];
        for (i, segment) in self.segments.iter().enumerate().skip(segments) {
            ends[usize::from(segment.place.slot) + 1] = i + 1;
        }
        for slot in 1..ends.len() {
            ends[slot] = ends[slot].max(ends[slot - 1]);
        }
        let content = Content { table: self.table, segments: &self.segments, out: &self.out, ends: &ends };
        content.write(message.slots.as_slice(), 0, &mut self.scratch);
        self.out.truncate(out);
        self.out.extend_from_slice(&self.scratch);
        self.segments.truncate(segments);
    }
}

/// More inlined messages than any object has.
const MAX_SLOTS: usize = 4;

struct Content<'a> {
    table: &'static Table,
    segments: &'a [Segment],
    out: &'a [u8],
    /// Where the segments of a slot end, after one entry for where the first begin.
    ends: &'a [usize; MAX_SLOTS + 1],
}

impl Content<'_> {
    fn write(&self, slots: &[Slot], slot: usize, to: &mut Vec<u8>) {
        let message = self.table.message(slots[slot].message);
        let mut rest = &self.segments[self.ends[slot]..self.ends[slot + 1]];
        for (i, field) in message.fields.iter().enumerate() {
            if field.shape == Shape::Inline {
                let is_inner =
                    |inner: &Slot| usize::from(inner.parent) == slot && usize::from(inner.field) == i;
                let Some(inner) = slots.iter().skip(1).position(is_inner) else { continue };
                wire::key(to, field.number, wire::BYTES);
                let at = to.len();
                self.write(slots, inner + 1, to);
                prefix_length(to, at);
                continue;
            }
            let count = rest.iter().take_while(|segment| usize::from(segment.place.field) == i).count();
            let (own, after) = rest.split_at(count);
            rest = after;
            for segment in own {
                self.value(field, &self.out[segment.start..segment.end], to);
            }
            if own.is_empty() && field.always_written() {
                self.absent(field, to);
            }
        }
    }

    fn value(&self, field: &Field, value: &[u8], to: &mut Vec<u8>) {
        let wire_type = if field.shape == Shape::Map { wire::BYTES } else { field.kind.wire_type() };
        wire::key(to, field.number, wire_type);
        if wire_type == wire::BYTES {
            wire::bytes(to, value);
        } else {
            to.extend_from_slice(value);
        }
    }

    fn absent(&self, field: &Field, to: &mut Vec<u8>) {
        match field.kind {
            Type::Message(inner) => self.value(field, &self.table.message(inner).zero, to),
            Type::Quantity => self.value(field, scalar::ZERO_QUANTITY, to),
            Type::IntOrString => self.value(field, scalar::ZERO_INT_OR_STRING, to),
            Type::Bool | Type::Int32 | Type::Int64 => self.value(field, &[0], to),
            Type::Double => self.value(field, &[0; 8], to),
            _ => self.value(field, &[], to),
        }
    }
}

/// Puts the length of what follows `at` before it.
fn prefix_length(to: &mut Vec<u8>, at: usize) {
    let end = to.len();
    wire::varint(to, (end - at) as u64);
    let header = to.len() - end;
    to[at..].rotate_right(header);
}

/// An encoded object, without envelope.
pub(super) struct Encoded {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) message: Vec<u8>,
}

/// The type was not known when the first field came, or is none of the table.
pub(super) struct MissingType;

#[derive(Default)]
struct Head {
    api_version: String,
    kind: String,
    message: Option<MessageId>,
    late: bool,
}

struct TopVisitor<'a> {
    encoder: &'a mut Encoder,
    head: &'a mut Head,
}

impl<'de> Visitor<'de> for TopVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { encoder, head } = self;
        while let Some(key) = map.next_key_seed(TopKey { message: head.message, table: encoder.table })? {
            match key {
                TopName::ApiVersion => head.api_version = map.next_value()?,
                TopName::Kind => head.kind = map.next_value()?,
                TopName::Field(_) | TopName::Unknown if head.message.is_none() => {
                    head.late = true;
                    return Err(A::Error::custom("the type comes after the fields"));
                }
                TopName::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
                TopName::Field(place) => {
                    let Some(message) = head.message else { continue };
                    map.next_value_seed(FieldSeed { encoder, message, place })?;
                }
            }
            if head.message.is_none() {
                head.message = encoder.table.kind(&head.api_version, &head.kind);
            }
        }
        if let Some(message) = head.message {
            encoder.finish(message, 0, 0);
        }
        Ok(())
    }
}

enum TopName {
    ApiVersion,
    Kind,
    Field(Place),
    Unknown,
}

struct TopKey {
    table: &'static Table,
    message: Option<MessageId>,
}

impl<'de> DeserializeSeed<'de> for TopKey {
    type Value = TopName;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<TopName, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for TopKey {
    type Value = TopName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<TopName, E> {
        Ok(match key {
            "apiVersion" => TopName::ApiVersion,
            "kind" => TopName::Kind,
            key => match self.message.and_then(|message| self.table.message(message).place(key)) {
                Some(place) => TopName::Field(place),
                None => TopName::Unknown,
            },
        })
    }
}

/// A key of an object: where its field is.
struct Key(&'static Table, MessageId);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<Place>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Place>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<Place>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<Place>, E> {
        Ok(self.0.message(self.1).place(key))
    }
}

/// The value of a field: one segment, or one for each item or entry.
struct FieldSeed<'a> {
    encoder: &'a mut Encoder,
    message: MessageId,
    place: Place,
}

impl FieldSeed<'_> {
    fn field(&self) -> &'static Field {
        let table = self.encoder.table;
        let slot = table.message(self.message).slots[usize::from(self.place.slot)];
        &table.message(slot.message).fields[usize::from(self.place.field)]
    }
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let field = self.field();
        match field.shape {
            Shape::One | Shape::Inline => {
                let start = self.encoder.out.len();
                if (ValueSeed { encoder: self.encoder, kind: field.kind }).deserialize(deserializer)? {
                    let end = self.encoder.out.len();
                    self.encoder.segments.push(Segment { place: self.place, start, end });
                }
                Ok(())
            }
            Shape::List | Shape::Map => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value of {}", self.field().name)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let kind = self.field().kind;
        loop {
            let start = self.encoder.out.len();
            let Some(_present) = seq.next_element_seed(ValueSeed { encoder: &mut *self.encoder, kind })?
            else {
                return Ok(());
            };
            let end = self.encoder.out.len();
            self.encoder.segments.push(Segment { place: self.place, start, end });
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let kind = self.field().kind;
        let first = self.encoder.segments.len();
        while let Some(start) = map.next_key_seed(EntryKey(&mut *self.encoder))? {
            let at = self.encoder.out.len();
            if map.next_value_seed(ValueSeed { encoder: &mut *self.encoder, kind })? {
                let out = &mut self.encoder.out;
                if kind.wire_type() == wire::BYTES {
                    prefix_length(out, at);
                }
                let end = out.len();
                wire::key(out, 2, kind.wire_type());
                let header = out.len() - end;
                out[at..].rotate_right(header);
            }
            let end = self.encoder.out.len();
            self.encoder.segments.push(Segment { place: self.place, start, end });
        }
        let (out, entries) = (&self.encoder.out, &mut self.encoder.segments[first..]);
        // An entry begins with its key, and that with its length.
        let key = |segment: &Segment| {
            let mut reader = wire::Reader::new("", &out[segment.start..segment.end]);
            reader.part().ok().flatten().map_or(&[][..], |part| part.bytes)
        };
        if !entries.is_sorted_by(|a, b| key(a) <= key(b)) {
            entries.sort_by(|a, b| key(a).cmp(key(b)));
        }
        Ok(())
    }
}

/// The key of an entry, written as its first field. The answer is where the entry begins.
struct EntryKey<'a>(&'a mut Encoder);

impl<'de> DeserializeSeed<'de> for EntryKey<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for EntryKey<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<usize, E> {
        let start = self.0.out.len();
        wire::field(&mut self.0.out, 1, key.as_bytes());
        Ok(start)
    }
}

/// One value, written without key and length; whether there is one.
struct ValueSeed<'a> {
    encoder: &'a mut Encoder,
    kind: Type,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        if self.kind != Type::Raw {
            return deserializer.deserialize_any(self);
        }
        let raw: &'de RawValue = serde::Deserialize::deserialize(deserializer)?;
        if raw.get() == "null" {
            return Ok(false);
        }
        wire::field(&mut self.encoder.out, 1, raw.get().as_bytes());
        Ok(true)
    }
}

impl ValueSeed<'_> {
    /// A schema below a union, as field `number` of it.
    fn schema<'de, A: MapAccess<'de>>(self, map: A, number: u32) -> Result<bool, A::Error> {
        let Some(schema) = self.encoder.table.named(SCHEMA) else {
            return Err(A::Error::custom("no schema in the table"));
        };
        let at = self.encoder.out.len();
        write_message(&mut *self.encoder, schema, map)?;
        let out = &mut self.encoder.out;
        prefix_length(out, at);
        let end = out.len();
        wire::key(out, number, wire::BYTES);
        let header = out.len() - end;
        out[at..].rotate_right(header);
        Ok(true)
    }

    fn mismatch<E: serde::de::Error>(&self, found: &str) -> E {
        E::custom(format!("{found} where {:?} is expected", self.kind))
    }
}

/// The one recursive schema.
pub(super) const SCHEMA: &str = "apiextensions.v1/JSONSchemaProps";

fn write_message<'de, A: MapAccess<'de>>(
    encoder: &mut Encoder,
    message: MessageId,
    mut map: A,
) -> Result<(), A::Error> {
    let (out, segments) = (encoder.out.len(), encoder.segments.len());
    while let Some(place) = map.next_key_seed(Key(encoder.table, message))? {
        match place {
            Some(place) => map.next_value_seed(FieldSeed { encoder: &mut *encoder, message, place })?,
            None => {
                map.next_value::<IgnoredAny>()?;
            }
        }
    }
    encoder.finish(message, out, segments);
    Ok(())
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<bool, E> {
        match self.kind {
            Type::Bool => self.encoder.out.push(u8::from(value)),
            Type::SchemaOrBool => wire::number(&mut self.encoder.out, 1, u64::from(value)),
            _ => return Err(self.mismatch("a boolean")),
        }
        Ok(true)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<bool, E> {
        let out = &mut self.encoder.out;
        match self.kind {
            Type::Int32 | Type::Int64 => wire::varint(out, value as u64),
            Type::Double => out.extend_from_slice(&(value as f64).to_le_bytes()),
            Type::IntOrString => scalar::int(out, value),
            // A number is a quantity too.
            Type::Quantity => wire::field(out, 1, value.to_string().as_bytes()),
            _ => return Err(self.mismatch("a number")),
        }
        Ok(true)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<bool, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<bool, E> {
        match self.kind {
            Type::Double => self.encoder.out.extend_from_slice(&value.to_le_bytes()),
            _ if value.fract() == 0.0 && value.abs() < 9e15 => return self.visit_i64(value as i64),
            Type::Quantity => wire::field(&mut self.encoder.out, 1, value.to_string().as_bytes()),
            _ => return Err(self.mismatch("a fraction")),
        }
        Ok(true)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<bool, E> {
        let out = &mut self.encoder.out;
        match self.kind {
            Type::String => out.extend_from_slice(text.as_bytes()),
            Type::Bytes => STANDARD.decode_vec(text, out).map_err(E::custom)?,
            Type::Quantity => wire::field(out, 1, text.as_bytes()),
            Type::IntOrString => scalar::string(out, text),
            Type::Time => scalar::time(out, text, false).map_err(E::custom)?,
            Type::MicroTime => scalar::time(out, text, true).map_err(E::custom)?,
            _ => return Err(self.mismatch("a string")),
        }
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        match self.kind {
            Type::Strings | Type::SchemaOrStrings => {
                let number = if self.kind == Type::Strings { 1 } else { 2 };
                while let Some(text) = seq.next_element::<std::borrow::Cow<'de, str>>()? {
                    wire::field(&mut self.encoder.out, number, text.as_bytes());
                }
            }
            Type::SchemaOrArray => while seq.next_element_seed(SchemaItem(&mut *self.encoder))?.is_some() {},
            _ => return Err(self.mismatch("a list")),
        }
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        match self.kind {
            Type::Message(message) => {
                write_message(self.encoder, message, map)?;
                Ok(true)
            }
            Type::SchemaOrBool => {
                // A schema allows what it describes.
                wire::number(&mut self.encoder.out, 1, 1);
                self.schema(map, 2)
            }
            Type::SchemaOrArray | Type::SchemaOrStrings => self.schema(map, 1),
            _ => Err(self.mismatch("an object")),
        }
    }
}

/// One schema of a list of them.
struct SchemaItem<'a>(&'a mut Encoder);

impl<'de> DeserializeSeed<'de> for SchemaItem<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for SchemaItem<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a schema")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        ValueSeed { encoder: self.0, kind: Type::SchemaOrArray }.schema(map, 2).map(|_| ())
    }
}
