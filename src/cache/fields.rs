//! Selectable fields: which scalars of an object field selectors may ask for, and where they are.

use std::borrow::Cow;

/// One selectable field of a resource. `metadata.name` and `metadata.namespace` need none, every resource has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectableField {
    /// The name in a field selector, such as `spec.nodeName`.
    pub name: Cow<'static, str>,
    /// Where the value is, as dot-separated paths; the first that is present and not empty counts.
    pub paths: Vec<Cow<'static, str>>,
    /// The value when none is present.
    pub default: Cow<'static, str>,
}

impl SelectableField {
    /// A field whose name is its path.
    pub fn at(path: impl Into<Cow<'static, str>>) -> Self {
        let name = path.into();
        Self { paths: vec![name.clone()], name, default: Cow::Borrowed("") }
    }

    /// The same with a value for objects that do not set it (`false` for flags).
    pub fn or(mut self, default: impl Into<Cow<'static, str>>) -> Self {
        self.default = default.into();
        self
    }

    /// The same, looked for under `path` as well.
    pub fn also_at(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.paths.push(path.into());
        self
    }
}

/// The selectable fields of one resource, as a tree of the paths to them.
#[derive(Debug)]
pub(crate) struct FieldSet {
    fields: Vec<SelectableField>,
    root: Node,
}

/// One step of the paths.
#[derive(Debug, Default)]
pub(super) struct Node {
    children: Vec<(Box<str>, Node)>,
    /// Fields that end here: index of the field, rank of the path within it.
    fields: Vec<(usize, usize)>,
}

impl FieldSet {
    pub(crate) fn new(fields: Vec<SelectableField>) -> Self {
        let mut root = Node::default();
        for (index, field) in fields.iter().enumerate() {
            for (rank, path) in field.paths.iter().enumerate() {
                let end = path.split('.').fold(&mut root, Node::grow);
                end.fields.push((index, rank));
            }
        }
        Self { fields, root }
    }

    /// Index of the field called `name`.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| f.name == name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &SelectableField> {
        self.fields.iter()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }
}

impl Node {
    pub(super) fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|(n, _)| **n == *name).map(|(_, node)| node)
    }

    pub(super) fn fields(&self) -> &[(usize, usize)] {
        &self.fields
    }

    fn grow(&mut self, name: &str) -> &mut Node {
        let at = match self.children.iter().position(|(n, _)| **n == *name) {
            Some(at) => at,
            None => {
                self.children.push((name.into(), Node::default()));
                self.children.len() - 1
            }
        };
        &mut self.children[at].1
    }
}
