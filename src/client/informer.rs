//! Shared informers: for each kind one list, one watch and one decoded copy per process.
//!
//! [`Informers`] is the hub; [`Informers::get`] starts the reflector of a kind on first use and hands out the same
//! [`Informer`] ever after. Consumers look objects up by key or index, and learn of changes through a handler (called
//! in place, for controllers that turn changes into keys) or a bounded subscription.
//! In-memory copies carry no `managedFields`.

mod hub;
mod reflector;
mod source;
mod store;

pub use hub::{Informers, Selection};
pub use reflector::reflect;
pub use source::{ApiSource, MetadataSource, Page, Sink, Source};
pub use store::{HandlerGuard, Informer, Subscription, Writer};

use std::sync::Arc;

/// Custom index functions that several components use under one name.
pub mod index {
    /// Index of objects by the uid of each of their owners; every informer has it.
    pub const OWNER: &str = "owner-uid";
    /// Index of pods by `spec.nodeName`, for [`super::Informer::add_index`] with [`pod_node`].
    pub const NODE: &str = "node-name";

    /// The node of a pod: for [`NODE`].
    pub fn pod_node(pod: &k8s_openapi::api::core::v1::Pod) -> Vec<String> {
        pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).into_iter().collect()
    }
}

/// What happened to one object.
#[derive(Debug)]
pub enum Change<K> {
    /// It is new.
    Added(Arc<K>),
    /// It changed.
    Updated {
        /// As it was.
        old: Arc<K>,
        /// As it is. It may even be another object under the same name: compare the uids.
        new: Arc<K>,
    },
    /// It is gone; this is its last known state.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The present state, or the last one when it is gone.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => object,
        }
    }

    /// The state before the change, if there was one.
    pub fn before(&self) -> Option<&Arc<K>> {
        match self {
            Self::Added(_) => None,
            Self::Updated { old, .. } | Self::Deleted(old) => Some(old),
        }
    }

    /// The state after the change, if there is one.
    pub fn after(&self) -> Option<&Arc<K>> {
        match self {
            Self::Added(new) | Self::Updated { new, .. } => Some(new),
            Self::Deleted(_) => None,
        }
    }
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(object) => Self::Added(object.clone()),
            Self::Updated { old, new } => Self::Updated { old: old.clone(), new: new.clone() },
            Self::Deleted(object) => Self::Deleted(object.clone()),
        }
    }
}

/// What a [`Subscription`] yields.
#[derive(Debug)]
pub enum Event<K> {
    /// Look at all objects again: the informer has just become complete, or the subscriber was too slow and missed
    /// changes.
    Resync,
    /// One object changed.
    Change(Change<K>),
}

impl<K> Clone for Event<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Resync => Self::Resync,
            Self::Change(change) => Self::Change(change.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
