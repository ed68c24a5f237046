//! Owners that find what they own by a label selector: what their controllers share between event and decision.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ReplicationController;
use kube::Client;
use kube::api::PostParams;
use serde::Serialize;

use super::claims::{self, Object};
use super::{ORPHANS, ownership};
use crate::api::selector::{LabelSelector, SelectorError};
use crate::client::{Change, Informer, Key, error};

/// Why the objects of an owner could not be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The selector cannot be used.
    #[error("read selector")]
    Selector(#[source] SelectorError),
    /// An object could not be adopted or released.
    #[error("claim objects")]
    Claim(#[source] kube::Error),
}

/// A kind whose objects own what their selector selects.
pub trait Selects: Object {
    /// The selector of the object's spec.
    ///
    /// # Errors
    /// The selector cannot be used.
    fn selector(&self) -> Result<LabelSelector, SelectorError>;

    /// A finalizer that the objects it owns carry: adoption adds it, release removes it.
    const FINALIZER: Option<&'static str> = None;
}

macro_rules! selects {
    ($($kind:ty),*) => {$(
        impl Selects for $kind {
            fn selector(&self) -> Result<LabelSelector, SelectorError> {
                LabelSelector::from_meta(self.spec.as_ref().map(|spec| &spec.selector))
            }
        }
    )*};
}

selects!(DaemonSet, Deployment, ReplicaSet, StatefulSet);

impl Selects for Job {
    const FINALIZER: Option<&'static str> = Some(crate::controllers::job::view::FINALIZER);

    fn selector(&self) -> Result<LabelSelector, SelectorError> {
        LabelSelector::from_meta(self.spec.as_ref().and_then(|spec| spec.selector.as_ref()))
    }
}

impl Selects for ReplicationController {
    fn selector(&self) -> Result<LabelSelector, SelectorError> {
        let labels = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        Ok(labels.map_or_else(LabelSelector::nothing, LabelSelector::from_map))
    }
}

/// The owners that might adopt the object that changed, if nobody controls it.
pub fn possible_owners<O: Selects, K: Object>(owners: &Informer<O>, change: &Change<K>) -> Vec<Key> {
    let Some(object) = change.after().map(|object| object.meta()) else { return Vec::new() };
    if ownership::controller_of(object).is_some() || object.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let interested =
        |owner: &O| owner.selector().is_ok_and(|selector| selector.matches_labels(object.labels.as_ref()));
    let all = owners.in_namespace(object.namespace.as_deref().unwrap_or_default());
    all.iter().filter(|owner| interested(owner)).map(|owner| Key::of(owner.as_ref())).collect()
}

/// The objects that `owner` controls, after adoptions and releases. `adoptable` says which orphans are worth it.
///
/// `objects` must have the index [`ORPHANS`].
pub async fn claim<O: Selects, K: Object>(
    client: &Client,
    owner: &O,
    objects: &Informer<K>,
    adoptable: impl Fn(&K) -> bool,
) -> Result<Vec<Arc<K>>, Error> {
    let selector = owner.selector().map_err(Error::Selector)?;
    let meta = owner.meta();
    let mut candidates = objects.owned_by(meta.uid.as_deref().unwrap_or_default());
    let orphans = objects.by_index(ORPHANS, meta.namespace.as_deref().unwrap_or_default());
    candidates.extend(orphans.into_iter().filter(|orphan| adoptable(orphan)));
    let matches = |object: &K| selector.matches_labels(object.meta().labels.as_ref());
    claims::claim(client, owner, O::FINALIZER, candidates, matches).await.map_err(Error::Claim)
}

/// Writes the status of `object`, which is gone if the server does not know it: then there is nothing to write.
pub async fn write_status<K: Object + Serialize>(client: &Client, object: &K) -> kube::Result<()> {
    let api = claims::api_beside::<K>(client, object.meta());
    let name = object.meta().name.as_deref().unwrap_or_default();
    match api.replace_status(name, &PostParams::default(), object).await {
        Err(failure) if !error::is_not_found(&failure) => Err(failure),
        _ => Ok(()),
    }
}
