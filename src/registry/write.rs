//! The write pipeline: decode, default, admit, prepare, validate, own fields, encode, compare and set.

pub(super) mod body;
pub(super) mod commit;
pub(super) mod create;
pub(super) mod delete;
pub(super) mod delete_collection;
pub(super) mod encode;
pub(super) mod finalizers;
pub(super) mod load;
pub(super) mod ownership;
pub(super) mod patch;
pub(super) mod reserve;
pub(super) mod system;
pub(super) mod update;

use crate::registry::resource::{Resource, Subresource};

/// What a write is about.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub resource: &'a Resource,
    pub subresource: Option<&'a Subresource>,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl Target<'_> {
    /// Name of the subresource, or nothing.
    pub fn part(&self) -> &'static str {
        self.subresource.map_or("", |s| s.name)
    }

    /// The store's key.
    pub fn key(&self) -> String {
        self.resource.key(self.namespace, self.name)
    }
}
