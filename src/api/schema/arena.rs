//! The tables that hold schemas: nodes, fields and names, which refer to each other by number.

use std::collections::HashMap;
use std::ops::Range;

/// How a list merges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// By value; every value is there once.
    Set,
    /// By the items' key fields.
    Map,
}

/// The type of a value that has no parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the wire formats")]
pub enum Scalar {
    String,
    Boolean,
    Int32,
    Int64,
    Float,
    Bytes,
    Time,
    Quantity,
    IntOrString,
}

/// What strategic merge patch does with a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Strategy {
    /// Lists are merged, by key or by value, instead of replaced.
    pub merge: bool,
    /// Objects are replaced instead of merged.
    pub replace: bool,
    /// Objects keep only the keys that `$retainKeys` names.
    pub retain_keys: bool,
}

impl Strategy {
    pub(super) fn parse(text: &str) -> Self {
        let has = |word| text.split(',').any(|part| part == word);
        Self { merge: has("merge"), replace: has("replace"), retain_keys: has("retainKeys") }
    }
}

pub(super) type NodeId = u32;

/// An interned name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(u32);

/// A stretch of the table of fields or keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Any,
    Scalar(Scalar),
    /// Fields that are not known are described by `rest`, if they may be there.
    Struct {
        fields: Span,
        atomic: bool,
        rest: Option<NodeId>,
    },
    Map {
        value: NodeId,
        atomic: bool,
    },
    List {
        item: NodeId,
        list_type: ListType,
        keys: Span,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: Name,
    pub(super) node: NodeId,
    pub(super) strategy: Strategy,
    pub(super) required: bool,
    pub(super) merge_key: Option<Name>,
    pub(super) default: Option<Name>,
}

/// By group and version: kinds, sorted, and the names of their definitions.
type Kinds = HashMap<(Box<str>, Box<str>), Vec<(Box<str>, Name)>>;

/// Finished tables.
#[derive(Debug)]
pub(super) struct Arena {
    names: Box<[Box<str>]>,
    nodes: Box<[Shape]>,
    fields: Box<[Field]>,
    keys: Box<[Name]>,
    definitions: HashMap<Box<str>, NodeId>,
    kinds: Kinds,
}

impl Arena {
    pub(super) fn name(&self, name: Name) -> &str {
        &self.names[name.0 as usize]
    }

    pub(super) fn shape(&self, node: NodeId) -> Shape {
        self.nodes[node as usize]
    }

    pub(super) fn fields(&self, span: Span) -> &[Field] {
        &self.fields[span.range()]
    }

    pub(super) fn field(&self, span: Span, name: &str) -> Option<&Field> {
        let fields = self.fields(span);
        fields.binary_search_by(|field| self.name(field.name).cmp(name)).ok().map(|i| &fields[i])
    }

    pub(super) fn keys(&self, span: Span) -> &[Name] {
        &self.keys[span.range()]
    }

    pub(super) fn definition(&self, name: &str) -> Option<NodeId> {
        self.definitions.get(name).copied()
    }

    pub(super) fn definition_name(&self, group: &str, version: &str, kind: &str) -> Option<&str> {
        // Keyed by owned pairs, of which there are few: group and version are scanned, the kind is looked up.
        let kinds = self.kinds.iter().find(|((g, v), _)| **g == *group && **v == *version)?.1;
        let i = kinds.binary_search_by(|(known, _)| (**known).cmp(kind)).ok()?;
        Some(self.name(kinds[i].1))
    }

    pub(super) fn kind(&self, group: &str, version: &str, kind: &str) -> Option<NodeId> {
        self.definition(self.definition_name(group, version, kind)?)
    }
}

/// Tables in the making.
#[derive(Debug, Default)]
pub(super) struct Builder {
    names: Vec<Box<str>>,
    known: HashMap<Box<str>, Name>,
    nodes: Vec<Shape>,
    fields: Vec<Field>,
    keys: Vec<Name>,
    definitions: HashMap<Box<str>, NodeId>,
    kinds: Kinds,
    scalars: HashMap<Scalar, NodeId>,
    any: Option<NodeId>,
}

impl Builder {
    pub(super) fn name(&mut self, text: &str) -> Name {
        if let Some(name) = self.known.get(text) {
            return *name;
        }
        let name = Name(index(self.names.len()));
        self.names.push(text.into());
        self.known.insert(text.into(), name);
        name
    }

    pub(super) fn node(&mut self, shape: Shape) -> NodeId {
        self.nodes.push(shape);
        index(self.nodes.len() - 1)
    }

    pub(super) fn scalar(&mut self, scalar: Scalar) -> NodeId {
        if let Some(node) = self.scalars.get(&scalar) {
            return *node;
        }
        let node = self.node(Shape::Scalar(scalar));
        self.scalars.insert(scalar, node);
        node
    }

    pub(super) fn any(&mut self) -> NodeId {
        match self.any {
            Some(node) => node,
            None => {
                let node = self.node(Shape::Any);
                self.any = Some(node);
                node
            }
        }
    }

    pub(super) fn shape(&self, node: NodeId) -> Shape {
        self.nodes[node as usize]
    }

    pub(super) fn set_shape(&mut self, node: NodeId, shape: Shape) {
        self.nodes[node as usize] = shape;
    }

    /// Adds the fields of one object.
    pub(super) fn fields(&mut self, mut fields: Vec<Field>) -> Span {
        fields.sort_by(|a, b| self.names[a.name.0 as usize].cmp(&self.names[b.name.0 as usize]));
        let span = Span { start: index(self.fields.len()), len: index(fields.len()) };
        self.fields.append(&mut fields);
        span
    }

    /// Replaces the field `i` of an object, in the order of names.
    pub(super) fn set_field(&mut self, span: Span, i: usize, field: Field) {
        self.fields[span.range()][i] = field;
    }

    pub(super) fn keys(&mut self, keys: &[String]) -> Span {
        let span = Span { start: index(self.keys.len()), len: index(keys.len()) };
        for key in keys {
            let name = self.name(key);
            self.keys.push(name);
        }
        span
    }

    pub(super) fn define(&mut self, name: &str, node: NodeId) {
        self.definitions.insert(name.into(), node);
    }

    pub(super) fn defined(&self, name: &str) -> Option<NodeId> {
        self.definitions.get(name).copied()
    }

    pub(super) fn name_kind(&mut self, group: &str, version: &str, kind: &str, definition: &str) {
        let name = self.name(definition);
        self.kinds.entry((group.into(), version.into())).or_default().push((kind.into(), name));
    }

    pub(super) fn finish(mut self) -> Arena {
        self.kinds.values_mut().for_each(|kinds| kinds.sort_by(|a, b| a.0.cmp(&b.0)));
        self.definitions.shrink_to_fit();
        Arena {
            names: self.names.into(),
            nodes: self.nodes.into(),
            fields: self.fields.into(),
            keys: self.keys.into(),
            definitions: self.definitions,
            kinds: self.kinds,
        }
    }
}

/// A table's index. Tables have some thousand entries; one that did not fit 32 bits would not fit memory.
fn index(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
