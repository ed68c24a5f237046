//! The table of kinds and the one path every request takes: decode, default, admit, validate, store.
//!
//! A kind is one [`Resource`] row plus, where it behaves, one [`Strategy`]. Everything that must know the kinds
//! (routes, discovery, OpenAPI, storage keys, printed tables) iterates [`Catalog`]. [`Registry`] executes verbs on rows;
//! it knows nothing of HTTP, and no kind has a handler of its own.

pub mod bootstrap;
pub mod catalog;
pub mod context;
pub mod hooks;
pub mod options;
pub mod resource;
pub mod service;

pub use catalog::Catalog;
pub use context::{
    Body, BodyFormat, FieldValidation, IncludeObject, Representation, RequestContext, UserInfo,
};
pub use hooks::{
    BindCheck, Hooks, IssuedToken, ReviewHandler, TokenBinding, TokenIssuer, TokenOrder, WebhookClient,
    WebhookError, WebhookTarget,
};
pub use options::{
    DeleteOptions, GetOptions, ListOptions, Preconditions, Propagation, VersionMatch, WatchOptions,
};
pub use resource::{Resource, Scope, Subresource, SubresourceRole, Verb};
pub use service::{PatchKind, Registry, RegistryConfig, RegistryError, Reply, WatchBody};

pub mod admission;
pub mod allocators;
pub mod computed;
pub mod convert;
pub mod custom;
pub mod decode;
mod errors;
pub mod groups;
pub mod object;
pub(crate) mod read;
mod render;
pub mod strategy;
mod subresources;
pub mod table;
mod validation;
mod write;
pub use strategy::Strategy;

#[cfg(test)]
mod tests;
