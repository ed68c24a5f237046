//! Custom resources: rows made at run time from CustomResourceDefinitions, on the pipeline of every other kind.
//!
//! A [`keeper`] loop follows the definitions: it settles their names and conditions, makes rows of the versions that
//! are served, and removes the objects of definitions that go. Each row's [`behaviour::Custom`] prunes, defaults and
//! validates by the schema of its version; [`versions::Versions`] converts between the stored version and its own.

pub mod behaviour;
pub mod columns;
mod embedded;
pub mod keeper;
pub mod names;
pub mod object;
pub mod openapi;
pub mod rows;
pub mod rules;
pub mod scale;
pub mod versions;

use std::sync::Arc;

use serde_json::Value;

use crate::api::schema::Schemas;
use crate::cache::{ResourceCache, SelectableField};
use crate::registry::catalog::Catalog;

/// What is known of a row only at run time.
pub struct Dynamic {
    /// The shape of objects, for patches and field ownership.
    pub schemas: Schemas,
    /// Columns of printed tables.
    pub columns: columns::Columns,
    /// What field selectors may name.
    pub fields: Vec<SelectableField>,
    /// Where the replica counts are.
    pub scale: Option<scale::ScalePaths>,
    /// The definition of the kind in OpenAPI documents.
    pub definition: Value,
    /// The definition goes, and takes no new objects.
    pub terminating: bool,
    /// The objects, which all versions share.
    pub cache: Arc<ResourceCache>,
}

/// The rows of custom resources at one time.
#[derive(Clone, Default)]
pub struct CustomRows {
    /// Changes whenever the rows do.
    pub version: u64,
    /// The rows.
    pub catalog: Catalog,
}

#[cfg(test)]
mod tests;
