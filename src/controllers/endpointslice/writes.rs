//! Writing slices, and not taking the cache at its word until it shows what was written.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};

use crate::client::{Informer, Key, error};

/// How long to wait at most for the cache to show one's own writes.
pub const STALE_RETRY: Duration = Duration::from_secs(1);

/// Why slices could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A slice could not be created.
    #[error("create EndpointSlice")]
    Create(#[source] kube::Error),
    /// A slice could not be updated.
    #[error("update EndpointSlice")]
    Update(#[source] kube::Error),
    /// A slice could not be deleted.
    #[error("delete EndpointSlice")]
    Delete(#[source] kube::Error),
}

/// The writes of one controller, by the object that the slices are for.
pub struct Writes {
    client: Client,
    slices: Informer<EndpointSlice>,
    /// The newest revision written for each object.
    newest: Mutex<HashMap<Key, u64>>,
}

impl Writes {
    /// Nothing is written yet.
    pub fn new(client: Client, slices: Informer<EndpointSlice>) -> Self {
        Self { client, slices, newest: Mutex::default() }
    }

    /// Whether the cache does not yet show what was written for `key`.
    pub fn is_cache_behind(&self, key: &Key) -> bool {
        let newest = self.newest().get(key).copied().unwrap_or(0);
        self.slices.revision() < newest
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, key: &Key) {
        self.newest().remove(key);
    }

    /// Creates, updates and deletes slices in the namespace of `key`; a namespace that is being deleted gets no new ones.
    pub async fn carry_out(
        &self,
        key: &Key,
        create: Vec<EndpointSlice>,
        update: Vec<EndpointSlice>,
        delete: Vec<Arc<EndpointSlice>>,
    ) -> Result<(), Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), key.namespace());
        let parameters = PostParams::default();
        for slice in create {
            match api.create(&parameters, &slice).await {
                Ok(slice) => self.note(key, &slice),
                Err(failure) if error::is_namespace_terminating(&failure) => return Ok(()),
                Err(failure) => return Err(Error::Create(failure)),
            }
        }
        for slice in update {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            let slice = api.replace(name, &parameters, &slice).await.map_err(Error::Update)?;
            self.note(key, &slice);
        }
        for slice in delete {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            match api.delete(name, &DeleteParams::default()).await {
                Err(failure) if !error::is_not_found(&failure) => return Err(Error::Delete(failure)),
                _ => {}
            }
        }
        Ok(())
    }

    fn note(&self, key: &Key, slice: &EndpointSlice) {
        let version = slice.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        let mut newest = self.newest();
        let known = newest.entry(key.clone()).or_default();
        *known = version.unwrap_or(0).max(*known);
    }

    fn newest(&self) -> MutexGuard<'_, HashMap<Key, u64>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
