//! Where an informer's objects come from: typed objects or only their metadata, over the API.

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Resource, Result,
    api::{DynamicObject, ListParams, ObjectList, PartialObjectMeta, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, future::Future};

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

/// Whole objects from an [`Api`].
#[derive(Debug)]
pub struct ApiSource<K> {
    api: Api<K>,
    labels: Option<String>,
    fields: Option<String>,
}

impl<K> ApiSource<K> {
    /// The objects of `api` that match the selectors.
    pub fn new(api: Api<K>, labels: Option<String>, fields: Option<String>) -> Self {
        Self { api, labels, fields }
    }
}

fn list_params(labels: &Option<String>, fields: &Option<String>, more: Option<&str>) -> ListParams {
    ListParams {
        label_selector: labels.clone(),
        field_selector: fields.clone(),
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
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    type Object = K;

    async fn list(&self, more: Option<&str>) -> Result<Page<K>> {
        self.api.list(&list_params(&self.labels, &self.fields, more)).await.map(page)
    }

    async fn watch(&self, revision: &str) -> Result<BoxStream<'static, Result<WatchEvent<K>>>> {
        let params = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            ..WatchParams::default()
        };
        self.api.watch(&params, revision).await.map(StreamExt::boxed)
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
        self.api.list_metadata(&list_params(&None, &None, more)).await.map(page)
    }

    async fn watch(&self, revision: &str) -> Result<BoxStream<'static, Result<WatchEvent<Self::Object>>>> {
        self.api.watch_metadata(&WatchParams::default(), revision).await.map(StreamExt::boxed)
    }
}
