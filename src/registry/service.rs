//! [`Registry`]: the verbs over rows, and what they share.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::api::error::ApiError;
use crate::cache::{Cache, ResourceCache};
use crate::registry::catalog::Catalog;
use crate::registry::context::{Body, RequestContext};
use crate::registry::hooks::Hooks;
use crate::registry::options::{DeleteOptions, GetOptions, ListOptions, WatchOptions};
use crate::registry::resource::Resource;
use crate::store::Store;

/// What the registry must know about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Addresses of Services, as `address/prefix`.
    pub service_cidr: String,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// Addresses at which clients inside the cluster reach the API server.
    pub advertise: std::net::IpAddr,
    /// Port of the API server.
    pub secure_port: u16,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            service_cidr: "10.43.0.0/16".into(),
            node_ports: (30000, 32767),
            advertise: std::net::IpAddr::from([127, 0, 0, 1]),
            secure_port: 6443,
        }
    }
}

/// An answer: the status code and a JSON body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status code.
    pub code: u16,
    /// JSON.
    pub body: Bytes,
}

impl Reply {
    /// 200 with `body`.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self { code: 200, body: body.into() }
    }
}

/// A running watch: each item is one event as a line of JSON. An error ends the stream as an `ERROR` event.
pub type WatchBody = BoxStream<'static, Bytes>;

/// How the body of a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`.
    Json,
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/apply-patch+yaml`.
    Apply,
}

/// The one path of every request below HTTP.
pub struct Registry {
    catalog: Catalog,
    config: RegistryConfig,
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    hooks: OnceLock<Hooks>,
}

impl Registry {
    /// A registry of the built-in kinds over a store and its cache.
    pub fn new(store: Arc<dyn Store>, cache: Arc<Cache>, config: RegistryConfig) -> Arc<Self> {
        Arc::new(Self { catalog: Catalog::builtin(), config, store, cache, hooks: OnceLock::new() })
    }

    /// The table of kinds.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What the registry was built with.
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// The watch cache of a row, for authentication and authorization, which read without waiting.
    pub fn cached(&self, _resource: &Resource) -> Option<Arc<ResourceCache>> {
        None
    }

    /// Connects the caller's parts; the first call counts.
    pub fn set_hooks(&self, hooks: Hooks) {
        let _first = self.hooks.set(hooks);
    }

    /// Reads one object or subresource.
    pub async fn get(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        subresource: Option<&str>,
        namespace: &str,
        name: &str,
        options: &GetOptions,
    ) -> Result<Reply, ApiError> {
        let _ = (cx, subresource, namespace, options);
        Err(ApiError::not_found(&resource.group_resource(), name))
    }

    /// Lists; an empty `namespace` is every namespace. `name` (from the URL of a watch of one object) is a field selector.
    pub async fn list(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Reply, ApiError> {
        let _ = (cx, namespace, options);
        Err(ApiError::not_found(&resource.group_resource(), ""))
    }

    /// Watches; an empty `namespace` is every namespace.
    pub async fn watch(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        namespace: &str,
        options: &WatchOptions,
    ) -> Result<WatchBody, ApiError> {
        let _ = (cx, namespace, options);
        Err(ApiError::not_found(&resource.group_resource(), ""))
    }

    /// Creates an object, or (with `subresource`) acts on the named one: `binding`, `eviction`, `token`.
    pub async fn create(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        subresource: Option<&str>,
        namespace: &str,
        name: &str,
        body: Body,
    ) -> Result<Reply, ApiError> {
        let _ = (cx, subresource, namespace, body);
        Err(ApiError::not_found(&resource.group_resource(), name))
    }

    /// Replaces an object or subresource.
    pub async fn update(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        subresource: Option<&str>,
        namespace: &str,
        name: &str,
        body: Body,
    ) -> Result<Reply, ApiError> {
        let _ = (cx, subresource, namespace, body);
        Err(ApiError::not_found(&resource.group_resource(), name))
    }

    /// Patches an object or subresource.
    #[allow(
        clippy::too_many_arguments,
        reason = "the target of a request is four values, and every verb takes them"
    )]
    pub async fn patch(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        subresource: Option<&str>,
        namespace: &str,
        name: &str,
        kind: PatchKind,
        body: Body,
    ) -> Result<Reply, ApiError> {
        let _ = (cx, subresource, namespace, kind, body);
        Err(ApiError::not_found(&resource.group_resource(), name))
    }

    /// Deletes one object.
    pub async fn delete(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        namespace: &str,
        name: &str,
        options: DeleteOptions,
    ) -> Result<Reply, ApiError> {
        let _ = (cx, namespace, options);
        Err(ApiError::not_found(&resource.group_resource(), name))
    }

    /// Deletes every object that `list` selects.
    pub async fn delete_collection(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        namespace: &str,
        options: DeleteOptions,
        list: &ListOptions,
    ) -> Result<Reply, ApiError> {
        let _ = (cx, namespace, options, list);
        Err(ApiError::not_found(&resource.group_resource(), ""))
    }
}
