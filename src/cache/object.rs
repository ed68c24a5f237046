//! An object as the cache holds it: its JSON and what selectors need.

use std::sync::Arc;

use bytes::Bytes;

use super::fields::FieldSet;
use super::parse::replace_revision;
use super::texts::Texts;
use crate::store::Revision;

/// One object at one revision. Immutable and shared.
#[derive(Debug)]
pub struct Object {
    /// `namespace/name`, or `name` for cluster-scoped kinds.
    pub(super) key: Arc<str>,
    /// Length of the namespace within `key`, 0 if there is none.
    pub(super) namespace_len: u32,
    /// Where the digits of the resourceVersion begin in `json`.
    pub(super) revision_at: u32,
    pub(super) revision: Revision,
    pub(super) names: Arc<FieldSet>,
    /// The uid, the selectable fields in the order of `names`, then the labels, sorted: keys and values in turn.
    pub(super) texts: Texts,
    pub(super) json: Bytes,
}

impl Object {
    /// The key below the prefix of the resource: `namespace/name`, or `name` for cluster-scoped kinds.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The namespace, empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        &self.key[..self.namespace_len as usize]
    }

    /// The name.
    pub fn name(&self) -> &str {
        match self.namespace_len {
            0 => &self.key,
            n => &self.key[n as usize + 1..],
        }
    }

    /// The uid.
    pub fn uid(&self) -> &str {
        self.texts.iter().next().unwrap_or_default()
    }

    /// The resourceVersion.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The labels, sorted by key.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut texts = self.texts.iter().skip(1 + self.names.len());
        std::iter::from_fn(move || Some((texts.next()?, texts.next()?)))
    }

    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().find(|(own, _)| *own == key).map(|(_, value)| value)
    }

    /// The value of a selectable field (`metadata.name`, `spec.nodeName`, …); `None` when the resource has no such
    /// selectable field, empty when the object does not set it.
    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            _ => self.field_at(self.names.position(name)?),
        }
    }

    /// The value of a selectable field by its place in the [`FieldSet`].
    pub(super) fn field_at(&self, place: usize) -> Option<&str> {
        self.texts.iter().nth(1 + place)
    }

    /// The same object with another resourceVersion, as it is shown when it goes.
    pub(super) fn with_revision(&self, revision: Revision) -> Self {
        let json = replace_revision(&self.json, self.revision_at as usize, self.revision, revision);
        Self {
            key: self.key.clone(),
            revision,
            names: self.names.clone(),
            texts: self.texts.clone(),
            json,
            ..*self
        }
    }

    /// The JSON with `metadata.resourceVersion`.
    pub fn json(&self) -> &Bytes {
        &self.json
    }
}
