//! Carrying out claims: patches that adopt and release, for any kind of owner and object.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tracing::debug;

use super::ownership::{self, Claim};
use crate::client::error;

/// Kinds that can own and be owned here.
pub trait Object:
    Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// The API of the namespace that the object lives in.
pub fn api_beside<K: Object>(client: &Client, meta: &ObjectMeta) -> Api<K> {
    Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default())
}

/// Sorts out `candidates`, adopts and releases, and returns the objects that `owner` controls in the end.
///
/// `matches` says whether the owner's selector selects an object; `finalizer` comes and goes with the ownership.
pub async fn claim<O: Object, K: Object>(
    client: &Client,
    owner: &O,
    finalizer: Option<&str>,
    candidates: Vec<Arc<K>>,
    matches: impl Fn(&K) -> bool,
) -> kube::Result<Vec<Arc<K>>> {
    let api: Api<K> = api_beside(client, owner.meta());
    let mut owned = Vec::with_capacity(candidates.len());
    let mut may_adopt = None;
    for object in candidates {
        match ownership::claim(owner.meta(), object.meta(), matches(&object)) {
            Claim::Owned => owned.push(object),
            Claim::Ignore => {}
            Claim::Release => release(&api, owner.meta(), finalizer, object.meta()).await?,
            Claim::Adopt => {
                if may_adopt.is_none() {
                    may_adopt = Some(is_still_there(client, owner).await?);
                }
                if may_adopt == Some(true) {
                    owned.extend(adopt(&api, owner, finalizer, object.meta()).await?.map(Arc::new));
                }
            }
        }
    }
    Ok(owned)
}

/// Asks the server, because a stale copy of a deleted owner must not adopt.
async fn is_still_there<O: Object>(client: &Client, owner: &O) -> kube::Result<bool> {
    let api: Api<O> = api_beside(client, owner.meta());
    let live = api.get_opt(owner.meta().name.as_deref().unwrap_or_default()).await?;
    Ok(live
        .is_some_and(|live| live.meta().uid == owner.meta().uid && live.meta().deletion_timestamp.is_none()))
}

async fn adopt<O: Object, K: Object>(
    api: &Api<K>,
    owner: &O,
    finalizer: Option<&str>,
    object: &ObjectMeta,
) -> kube::Result<Option<K>> {
    let reference = ownership::controller_reference(&O::api_version(&()), &O::kind(&()), owner.meta());
    let mut patch = ownership::adopt_patch(&reference, object.uid.as_deref().unwrap_or_default());
    if let Some(finalizer) = finalizer {
        patch["metadata"]["finalizers"] = vec![finalizer].into();
    }
    send(api, object, patch).await
}

async fn release<K: Object>(
    api: &Api<K>,
    owner: &ObjectMeta,
    finalizer: Option<&str>,
    object: &ObjectMeta,
) -> kube::Result<()> {
    let uid = |meta: &ObjectMeta| meta.uid.clone().unwrap_or_default();
    let mut patch = ownership::release_patch(&uid(owner), &uid(object));
    if let Some(finalizer) = finalizer {
        patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = vec![finalizer].into();
    }
    send(api, object, patch).await.map(drop)
}

/// Sends the patch; `None` when the object is gone or is another one by now.
async fn send<K: Object>(
    api: &Api<K>,
    object: &ObjectMeta,
    patch: serde_json::Value,
) -> kube::Result<Option<K>> {
    let name = object.name.as_deref().unwrap_or_default();
    match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(patched) => Ok(Some(patched)),
        Err(failure) if error::is_not_found(&failure) || error::code(&failure) == Some(422) => {
            debug!(name, "the object to adopt or release is gone");
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}
