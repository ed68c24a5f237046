//! Where an informer's objects come from: typed objects or only their metadata, over the API.

use super::Selection;
use crate::client::Key;
use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Client, Error, Resource, Result,
    api::{DynamicObject, ListParams, ObjectList, PartialObjectMeta, WatchEvent, WatchParams},
    core::Request,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::{
    fmt::{self, Debug},
    future::Future,
    marker::PhantomData,
};

/// Objects asked for in one list request.
const PAGE_SIZE: u32 = 500;

/// One page of a list.
#[derive(Debug)]
pub struct Page<K> {
    /// The objects of the page.
    pub items: Vec<K>,
    /// The resourceVersion of the whole list, from which a watch misses nothing.
    pub revision: String,
    /// The token of the next page, if there is one.
    pub more: Option<String>,
}

/// Something that can be listed and watched.
pub trait Source: Send + Sync + 'static {
    /// The type of the objects.
    type Object: Resource + Send + Sync + 'static;

    /// One page of the list of all objects.
    fn list(&self, more: Option<&str>) -> impl Future<Output = Result<Page<Self::Object>>> + Send;

    /// The changes after `revision`.
    fn watch(
        &self,
        revision: &str,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<WatchEvent<Self::Object>>>>> + Send;
}

/// What is kept equal to a [`Source`]. All calls come from one task, in order.
pub trait Sink<K>: Send + Sync + 'static {
    /// `object` was added or changed.
    fn apply(&self, object: K);

    /// The object under `key` is gone; `last` is its final state where the server sent one.
    fn delete(&self, key: &Key, last: Option<K>);

    /// `objects` are all there are as of `revision`; the list is complete.
    fn replace(&self, objects: Vec<K>, revision: u64);

    /// There was no other change up to `revision`.
    fn bookmark(&self, revision: u64);
}

/// Whole objects of one kind.
pub struct ApiSource<K> {
    client: Client,
    path: String,
    selection: Selection,
    kind: PhantomData<fn() -> K>,
}

impl<K> Debug for ApiSource<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiSource").field("path", &self.path).field("selection", &self.selection).finish()
    }
}

impl<K: Resource<DynamicType = ()>> ApiSource<K> {
    /// The selected objects.
    pub fn new(client: Client, selection: Selection) -> Self {
        let path = K::url_path(&(), selection.namespace.as_deref());
        Self { client, path, selection, kind: PhantomData }
    }
}

/// An object as it came: what reads lists and streams exists once, and not once for every kind. Events must have their
/// type first, as every API server writes them.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
struct Raw(Box<RawValue>);

impl Raw {
    fn decode<K: DeserializeOwned>(&self) -> Result<K> {
        serde_json::from_str(self.0.get()).map_err(Error::SerdeError)
    }
}

fn typed<K: DeserializeOwned>(event: WatchEvent<Raw>) -> Result<WatchEvent<K>> {
    Ok(match event {
        WatchEvent::Added(object) => WatchEvent::Added(object.decode()?),
        WatchEvent::Modified(object) => WatchEvent::Modified(object.decode()?),
        WatchEvent::Deleted(object) => WatchEvent::Deleted(object.decode()?),
        WatchEvent::Bookmark(bookmark) => WatchEvent::Bookmark(bookmark),
        WatchEvent::Error(status) => WatchEvent::Error(status),
    })
}

fn list_params(selection: &Selection, more: Option<&str>) -> ListParams {
    ListParams {
        label_selector: selection.labels.clone(),
        field_selector: selection.fields.clone(),
        limit: Some(PAGE_SIZE),
        continue_token: more.map(str::to_owned),
        ..ListParams::default()
    }
}

fn page<K: Clone>(list: ObjectList<K>) -> Page<K> {
    Page {
        items: list.items,
        revision: list.metadata.resource_version.unwrap_or_default(),
        more: list.metadata.continue_.filter(|token| !token.is_empty()),
    }
}

impl<K> Source for ApiSource<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    type Object = K;

    async fn list(&self, more: Option<&str>) -> Result<Page<K>> {
        let request = Request::new(&self.path).list(&list_params(&self.selection, more));
        let list = self.client.request::<ObjectList<Raw>>(request.map_err(Error::BuildRequest)?).await?;
        let Page { items, revision, more } = page(list);
        let items = items.iter().map(Raw::decode).collect::<Result<_>>()?;
        Ok(Page { items, revision, more })
    }

    async fn watch(&self, revision: &str) -> Result<BoxStream<'static, Result<WatchEvent<K>>>> {
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            ..WatchParams::default()
        };
        let request = Request::new(&self.path).watch(&params, revision).map_err(Error::BuildRequest)?;
        let events = self.client.request_events::<Raw>(request).await?;
        Ok(events.map(|event| event.and_then(typed)).boxed())
    }
}

/// Only the metadata of the objects of an [`Api`], of any kind.
#[derive(Debug)]
pub struct MetadataSource {
    api: Api<DynamicObject>,
}

impl MetadataSource {
    /// The metadata of all objects of `api`.
    pub fn new(api: Api<DynamicObject>) -> Self {
        Self { api }
    }
}

impl Source for MetadataSource {
    type Object = PartialObjectMeta<DynamicObject>;

    async fn list(&self, more: Option<&str>) -> Result<Page<Self::Object>> {
        self.api.list_metadata(&list_params(&Selection::default(), more)).await.map(page)
    }

    async fn watch(&self, revision: &str) -> Result<BoxStream<'static, Result<WatchEvent<Self::Object>>>> {
        self.api.watch_metadata(&WatchParams::default(), revision).await.map(StreamExt::boxed)
    }
}
