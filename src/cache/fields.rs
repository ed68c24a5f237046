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

/// The selectable fields of one resource.
#[derive(Debug)]
pub(super) struct FieldSet {
    fields: Vec<SelectableField>,
}

impl FieldSet {
    pub(super) fn new(fields: Vec<SelectableField>) -> Self {
        Self { fields }
    }

    /// Index of the field called `name`.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| f.name == name)
    }
}
