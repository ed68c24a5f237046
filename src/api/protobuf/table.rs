//! The table of messages: `fields.txt`, read once when first needed. Names stay in the binary's text.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::complete::is_always_written;
use super::{scalar, wire};

static FIELDS: &str = include_str!("fields.txt");

/// Kinds that every group and version has, because clients send them with the group they talk to.
const EVERYWHERE: [&str; 8] = [
    "CreateOptions",
    "DeleteOptions",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
    "PatchOptions",
    "Status",
    "UpdateOptions",
    "WatchEvent",
];

/// Index of a message.
pub(super) type MessageId = u16;

/// What one value of a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// Any JSON, as text in a message.
    Raw,
    /// A list of strings in a message of its own.
    Strings,
    /// A schema, or `true` or `false`.
    SchemaOrBool,
    /// A schema or a list of them.
    SchemaOrArray,
    /// A schema or a list of strings.
    SchemaOrStrings,
    Message(MessageId),
}

impl Type {
    /// How values are delimited on the wire.
    pub(super) fn wire_type(self) -> u8 {
        match self {
            Self::Bool | Self::Int32 | Self::Int64 => wire::VARINT,
            Self::Double => wire::FIXED64,
            _ => wire::BYTES,
        }
    }
}

/// How often a field's value may occur, and how that looks in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    List,
    Map,
    /// The fields of the message are the object's own in JSON.
    Inline,
}

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) shape: Shape,
    pub(super) kind: Type,
    /// Absent and zero differ.
    pub(super) pointer: bool,
    /// Always there in JSON, zero or empty or not.
    pub(super) required: bool,
}

impl Field {
    /// Whether the field is written though the object has no value.
    pub(super) fn always_written(&self) -> bool {
        match self.shape {
            Shape::One => !self.pointer && self.kind != Type::Bytes,
            Shape::Inline => true,
            Shape::List | Shape::Map => false,
        }
    }
}

/// Where a name of an object leads: a slot of its message, and a field of the message there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) slot: u8,
    pub(super) field: u16,
}

/// The message itself (slot 0), or one whose fields are the object's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) parent: u8,
    /// Which field of the parent it is.
    pub(super) field: u16,
    pub(super) message: MessageId,
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) name: &'static str,
    /// By number.
    pub(super) fields: Vec<Field>,
    /// Outer before inner.
    pub(super) slots: Vec<Slot>,
    /// Names of the object's fields, sorted.
    names: Vec<(&'static str, Place)>,
    /// What an object without any value is on the wire.
    pub(super) zero: Vec<u8>,
    /// Whether there is anything in it that is always in the JSON.
    pub(super) completes: bool,
}

impl Message {
    pub(super) fn place(&self, name: &str) -> Option<Place> {
        self.names.binary_search_by(|(own, _)| (*own).cmp(name)).ok().map(|i| self.names[i].1)
    }

    pub(super) fn by_number(&self, number: u32) -> Option<(u16, &Field)> {
        let i = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        Some((u16::try_from(i).ok()?, &self.fields[i]))
    }

    /// The names of the object's fields, for tests of completeness.
    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().map(|(name, _)| *name)
    }
}

/// All messages.
#[derive(Debug)]
pub(super) struct Table {
    messages: Vec<Message>,
    by_name: HashMap<&'static str, MessageId>,
    /// `apiVersion` and the short name of the package.
    groups: Vec<(&'static str, &'static str)>,
    /// Short name and name of the package.
    #[cfg(test)]
    pub(super) packages: Vec<(&'static str, &'static str)>,
}

impl Table {
    /// The table of the built-in kinds.
    pub(super) fn builtin() -> &'static Self {
        static BUILTIN: OnceLock<Table> = OnceLock::new();
        BUILTIN.get_or_init(|| Self::parse(FIELDS).expect("the embedded table is checked by tests"))
    }

    pub(super) fn message(&self, id: MessageId) -> &Message {
        &self.messages[usize::from(id)]
    }

    /// The message of a kind.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<MessageId> {
        let in_group = self
            .groups
            .iter()
            .filter(|(group, _)| *group == api_version)
            .find_map(|(_, package)| self.named(&format!("{package}/{kind}")));
        let everywhere = || EVERYWHERE.contains(&kind) || api_version == "meta.k8s.io/v1";
        in_group.or_else(|| if everywhere() { self.named(&format!("meta.v1/{kind}")) } else { None })
    }

    /// The message of a schema, such as `apiextensions.v1/JSONSchemaProps`.
    pub(super) fn named(&self, name: &str) -> Option<MessageId> {
        self.by_name.get(name).copied()
    }

    fn parse(text: &'static str) -> Option<Self> {
        let mut groups = Vec::new();
        #[cfg(test)]
        let mut packages = Vec::new();
        let mut by_name = HashMap::new();
        let mut bodies: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(prefix) = line.strip_prefix("prefix ") {
                let mut words = prefix.split(' ');
                let (short, _package) = (words.next()?, words.next()?);
                #[cfg(test)]
                packages.push((short, _package));
                if let Some(group) = words.next() {
                    groups.push((group, short));
                }
            } else if line.starts_with(' ') {
                bodies.last_mut()?.1.push(line.trim_start());
            } else {
                by_name.insert(line, MessageId::try_from(bodies.len()).ok()?);
                bodies.push((line, Vec::new()));
            }
        }
        let messages =
            bodies.iter().map(|(name, lines)| message(name, lines, &by_name)).collect::<Option<_>>()?;
        let mut table = Self {
            messages,
            by_name,
            groups,
            #[cfg(test)]
            packages,
        };
        for id in 0..MessageId::try_from(table.messages.len()).ok()? {
            table.link(id)?;
        }
        for id in 0..MessageId::try_from(table.messages.len()).ok()? {
            let zero = table.zero(id);
            table.messages[usize::from(id)].zero = zero;
        }
        while table.spread_completion() {}
        Some(table)
    }

    /// Marks the messages that contain something that is always in the JSON; the result says whether there were new ones.
    fn spread_completion(&mut self) -> bool {
        let completes = |field: &Field| match field.kind {
            _ if is_always_written(field) || field.required && field.shape == Shape::List => true,
            Type::Message(inner) => self.message(inner).completes,
            _ => false,
        };
        let found: Vec<bool> =
            self.messages.iter().map(|m| !m.completes && m.fields.iter().any(completes)).collect();
        for (message, found) in self.messages.iter_mut().zip(&found) {
            message.completes |= found;
        }
        found.contains(&true)
    }

    /// Finds the slots and names of a message.
    fn link(&mut self, id: MessageId) -> Option<()> {
        let mut slots = vec![Slot { parent: 0, field: 0, message: id }];
        let mut names = Vec::new();
        let mut next = 0;
        while let Some(slot) = slots.get(next).copied() {
            for (i, field) in self.message(slot.message).fields.iter().enumerate() {
                let place = Place { slot: u8::try_from(next).ok()?, field: u16::try_from(i).ok()? };
                match (field.shape, field.kind) {
                    (Shape::Inline, Type::Message(message)) => {
                        slots.push(Slot { parent: place.slot, field: place.field, message });
                    }
                    _ => names.push((field.name, place)),
                }
            }
            next += 1;
        }
        names.sort_by_key(|(name, _)| *name);
        let message = &mut self.messages[usize::from(id)];
        (message.slots, message.names) = (slots, names);
        Some(())
    }

    fn zero(&self, id: MessageId) -> Vec<u8> {
        let mut out = Vec::new();
        for field in self.message(id).fields.iter().filter(|field| field.always_written()) {
            wire::key(&mut out, field.number, field.kind.wire_type());
            match field.kind {
                Type::Bool | Type::Int32 | Type::Int64 => out.push(0),
                Type::Double => out.extend_from_slice(&0_f64.to_le_bytes()),
                Type::Quantity => wire::bytes(&mut out, scalar::ZERO_QUANTITY),
                Type::IntOrString => wire::bytes(&mut out, scalar::ZERO_INT_OR_STRING),
                Type::Message(inner) => wire::bytes(&mut out, &self.zero(inner)),
                _ => out.push(0),
            }
        }
        out
    }
}

fn message(
    full: &'static str,
    lines: &[&'static str],
    by_name: &HashMap<&'static str, MessageId>,
) -> Option<Message> {
    let (package, name) = full.split_once('/')?;
    let fields: Vec<Field> = lines.iter().map(|line| field(package, line, by_name)).collect::<Option<_>>()?;
    let sorted = fields.is_sorted_by_key(|field| field.number);
    sorted.then_some(Message {
        name,
        fields,
        slots: Vec::new(),
        names: Vec::new(),
        zero: Vec::new(),
        completes: false,
    })
}

fn field(package: &str, line: &'static str, by_name: &HashMap<&'static str, MessageId>) -> Option<Field> {
    let mut words = line.split(' ');
    let (number, name, mut kind) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let mut shape = Shape::One;
    match kind {
        "map" => (shape, kind) = (Shape::Map, words.next()?),
        "inline" => (shape, kind) = (Shape::Inline, words.next()?),
        _ => {
            if let Some(item) = kind.strip_prefix("[]") {
                (shape, kind) = (Shape::List, item);
            }
        }
    }
    let pointer = kind.starts_with('*');
    let kind = match kind.trim_start_matches('*') {
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        "Time" => Type::Time,
        "MicroTime" => Type::MicroTime,
        "Quantity" => Type::Quantity,
        "IntOrString" => Type::IntOrString,
        "Raw" => Type::Raw,
        "Strings" => Type::Strings,
        "JSONSchemaPropsOrBool" => Type::SchemaOrBool,
        "JSONSchemaPropsOrArray" => Type::SchemaOrArray,
        "JSONSchemaPropsOrStringArray" => Type::SchemaOrStrings,
        message if message.contains('/') => Type::Message(*by_name.get(message)?),
        message => Type::Message(*by_name.get(format!("{package}/{message}").as_str())?),
    };
    Some(Field { name, number, shape, kind, pointer, required: words.next() == Some("!") })
}
