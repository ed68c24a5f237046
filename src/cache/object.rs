//! An object as the cache holds it: its JSON and what selectors need.

use std::sync::Arc;

use bytes::Bytes;

use super::fields::FieldSet;
use super::parse::replace_revision;
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
    pub(super) uid: Box<str>,
    pub(super) revision: Revision,
    pub(super) labels: Box<[(Box<str>, Box<str>)]>,
    pub(super) names: Arc<FieldSet>,
    pub(super) fields: Box<[Box<str>]>,
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
        &self.uid
    }

    /// The resourceVersion.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The labels, sorted by key.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(k, v)| (&**k, &**v))
    }

    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let i = self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.labels[i].1)
    }

    /// The value of a selectable field (`metadata.name`, `spec.nodeName`, …); `None` when the resource has no such
    /// selectable field, empty when the object does not set it.
    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            _ => Some(&self.fields[self.names.position(name)?]),
        }
    }

    /// The same object with another resourceVersion, as it is shown when it goes.
    pub(super) fn with_revision(&self, revision: Revision) -> Self {
        let json = replace_revision(&self.json, self.revision_at as usize, self.revision, revision);
        Self {
            key: self.key.clone(),
            uid: self.uid.clone(),
            revision,
            labels: self.labels.clone(),
            names: self.names.clone(),
            fields: self.fields.clone(),
            json,
            ..*self
        }
    }

    /// The JSON with `metadata.resourceVersion`.
    pub fn json(&self) -> &Bytes {
        &self.json
    }
}
