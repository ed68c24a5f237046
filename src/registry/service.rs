//! [`Registry`]: the verbs over rows, and what they share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::api::error::{ApiError, GroupResource};
use crate::api::json;
use crate::cache::{Cache, Consistency, Object, ResourceCache, ResourceSpec, Snapshot};
use crate::registry::admission::{Chain, Operation, Request};
use crate::registry::allocators::Allocators;
use crate::registry::allocators::claims::Claims;
use crate::registry::allocators::cluster_ips::{ClusterIps, IpError};
use crate::registry::allocators::node_ports::NodePorts;
use crate::registry::catalog::Catalog;
use crate::registry::computed;
use crate::registry::context::{Body, RequestContext};
use crate::registry::custom::CustomRows;
use crate::registry::hooks::{BindCheck, Hooks};
use crate::registry::object::Kind;
use crate::registry::options::{DeleteOptions, GetOptions, ListOptions, WatchOptions};
use crate::registry::resource::{Resource, Storage, SubresourceRole, Verb};
use crate::registry::write::{Target, body};
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
    /// There is a default storage class for volumes on nodes' disks.
    pub local_storage: bool,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            service_cidr: "10.43.0.0/16".into(),
            node_ports: (30000, 32767),
            advertise: std::net::IpAddr::from([127, 0, 0, 1]),
            secure_port: 6443,
            local_storage: true,
        }
    }
}

/// Why a registry cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The Services' address range is not usable.
    #[error("address range of Services")]
    ServiceCidr(#[from] IpError),
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
    caches: HashMap<String, Arc<ResourceCache>>,
    hooks: Arc<OnceLock<Hooks>>,
    pub(in crate::registry) custom: RwLock<Arc<CustomRows>>,
    /// What the present rows of custom resources were made of.
    pub(in crate::registry) custom_sources: Mutex<Vec<serde_json::Value>>,
    admission: Chain,
    allocators: Allocators,
}

impl Registry {
    /// A registry of the built-in kinds over a store and its cache. Registers every kind with the cache, so it comes
    /// before [`Cache::run`]; [`Registry::ready`] comes after.
    pub fn new(
        store: Arc<dyn Store>,
        cache: Arc<Cache>,
        config: RegistryConfig,
    ) -> Result<Arc<Self>, RegistryError> {
        let catalog = Catalog::builtin();
        let mut caches = HashMap::new();
        for row in catalog.iter().filter(|row| matches!(row.storage, Storage::Own)) {
            caches.insert(row.storage_prefix.to_string(), cache.register(spec(row)));
        }
        let ips = ClusterIps::new(&config.service_cidr)?;
        let ports = NodePorts::new(config.node_ports.0, config.node_ports.1);
        let claims = store.is_shared().then(|| Claims::new(store.clone()));
        Ok(Arc::new(Self {
            catalog,
            config,
            store,
            cache,
            caches,
            hooks: Arc::default(),
            custom: RwLock::default(),
            custom_sources: Mutex::default(),
            admission: Chain::builtin(),
            allocators: Allocators::new(ips, ports, claims),
        }))
    }

    /// Waits until the cache is loaded, then fills the pools of addresses and ports from the stored Services.
    pub async fn ready(&self) -> Result<(), ApiError> {
        self.cache.ready().await.map_err(ApiError::internal)?;
        self.sync_custom_rows();
        self.fill_pools().await
    }

    /// The rows of custom resources as they are now.
    pub fn custom_rows(&self) -> Arc<CustomRows> {
        self.custom.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The row behind a URL, built in or custom.
    pub fn find_row(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let builtin = self.catalog.by_plural(group, version, plural).cloned();
        builtin.or_else(|| self.custom_rows().catalog.by_plural(group, version, plural).cloned())
    }

    /// Every row as of now, built in and custom, and a number that changes when they do.
    pub fn rows(&self) -> (u64, Vec<Arc<Resource>>) {
        let custom = self.custom_rows();
        (custom.version, self.catalog.iter().chain(custom.catalog.iter()).cloned().collect())
    }

    /// The table of built-in kinds.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What the registry was built with.
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The watch cache.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Whether the store works, as far as its latest operations tell.
    ///
    /// # Errors
    /// What failed, for an operator.
    pub fn storage_health(&self) -> Result<(), String> {
        self.store().known_health().map_err(|error| error.to_string())
    }

    /// The cache of one row.
    pub fn cache_of<'a>(&'a self, resource: &'a Resource) -> Result<&'a Arc<ResourceCache>, ApiError> {
        if let Some(dynamic) = &resource.dynamic {
            return Ok(&dynamic.cache);
        }
        self.caches
            .get(resource.storage_prefix.as_ref())
            .ok_or_else(|| ApiError::not_found(&resource.group_resource(), ""))
    }

    /// The watch cache of a row, for authentication and authorization, which read without waiting.
    pub fn cached(&self, resource: &Resource) -> Option<Arc<ResourceCache>> {
        self.cache_of(resource).ok().cloned()
    }

    /// Connects the caller's parts; the first call counts.
    pub fn set_hooks(&self, hooks: Hooks) {
        let _first = self.hooks.set(hooks);
    }

    pub(in crate::registry) fn hooks(&self) -> Option<&Hooks> {
        self.hooks.get()
    }

    pub(in crate::registry) fn shared_hooks(&self) -> &Arc<OnceLock<Hooks>> {
        &self.hooks
    }

    pub(in crate::registry) fn bind_check(&self) -> Option<&Arc<dyn BindCheck>> {
        self.hooks().and_then(|hooks| hooks.bind.as_ref())
    }

    pub(in crate::registry) fn admission(&self) -> &Chain {
        &self.admission
    }

    pub(in crate::registry) fn allocators(&self) -> &Allocators {
        &self.allocators
    }

    fn row(&self, resource: &Resource) -> Result<Arc<Resource>, ApiError> {
        let row = self.find_row(&resource.group, &resource.version, &resource.plural);
        row.ok_or_else(|| ApiError::not_found(&resource.group_resource(), ""))
    }

    /// Decodes one object from the cache as it is now.
    pub fn read_one<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<K>, ApiError> {
        let Some(row) = self.catalog.of::<K>() else { return Ok(None) };
        let object = self.cache_of(row)?.get(namespace, name);
        object.map(|object| json::typed(object.json()).map_err(ApiError::internal)).transpose()
    }

    /// Decodes every object of a kind from the cache as it is now; an empty namespace is all of them.
    pub fn read_all<K: Kind>(&self, namespace: &str) -> Result<Vec<K>, ApiError> {
        let Some(row) = self.catalog.of::<K>() else { return Ok(Vec::new()) };
        decode_all(&self.cache_of(row)?.current(), namespace)
    }

    /// Decodes every object of a kind, as fresh as the store is; an empty namespace is all of them.
    pub async fn read_all_latest<K: Kind>(&self, namespace: &str) -> Result<Vec<K>, ApiError> {
        let snapshot = self.snapshot_of::<K>().await?;
        snapshot.map_or_else(|| Ok(Vec::new()), |snapshot| decode_all(&snapshot, namespace))
    }

    /// All objects of a kind, as fresh as the store is; `None` for a kind that is not served.
    pub async fn snapshot_of<K: Kind>(&self) -> Result<Option<Snapshot>, ApiError> {
        let Some(row) = self.catalog.of::<K>() else { return Ok(None) };
        let snapshot = self.cache_of(row)?.snapshot(Consistency::Latest).await;
        snapshot.map(Some).map_err(|error| crate::registry::errors::cache(row, error))
    }

    /// Decodes one object if there is one: from the cache as it is or, where that has none, as fresh as the store is.
    pub async fn find<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<K>, ApiError> {
        if let Some(found) = self.read_one(namespace, name)? {
            return Ok(Some(found));
        }
        match self.read_latest(namespace, name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code() == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Decodes one object, as fresh as the store is; 404 when there is none.
    pub async fn read_latest<K: Kind>(&self, namespace: &str, name: &str) -> Result<K, ApiError> {
        let object = self.object_latest::<K>(namespace, name).await?;
        json::typed(object.json()).map_err(ApiError::internal)
    }

    /// One object, as fresh as the store is; 404 when there is none.
    pub async fn object_latest<K: Kind>(&self, namespace: &str, name: &str) -> Result<Arc<Object>, ApiError> {
        let not_found = || {
            let (group, plural) = (K::GROUP, K::URL_PATH_SEGMENT);
            ApiError::not_found(&GroupResource::new(group, plural), name)
        };
        let row = self.catalog.of::<K>().ok_or_else(not_found)?;
        let target = Target { resource: row, subresource: None, namespace, name };
        self.read_object(&target, Consistency::Latest).await
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
        let target = target(resource, subresource, namespace, name)?;
        allow(&target, Verb::Get)?;
        if let Storage::Computed(source) = &resource.storage {
            return computed::get(self, cx, resource, *source, name).await;
        }
        match target.subresource.map(|s| s.role) {
            None | Some(SubresourceRole::Status | SubresourceRole::Part) => {
                self.get_object(cx, &target, options).await
            }
            Some(SubresourceRole::Scale) => self.get_scale(&target).await,
            Some(SubresourceRole::Action | SubresourceRole::Connect) => Err(not_here(&target, "get")),
        }
    }

    /// Lists; an empty `namespace` is every namespace.
    pub async fn list(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Reply, ApiError> {
        allow(&target(resource, None, namespace, "")?, Verb::List)?;
        if let Storage::Computed(source) = &resource.storage {
            return computed::list(self, cx, resource, *source).await;
        }
        let page = self.select(resource, namespace, options).await?;
        self.render_list(cx, resource, page).await
    }

    /// Watches; an empty `namespace` is every namespace.
    pub async fn watch(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        namespace: &str,
        options: &WatchOptions,
    ) -> Result<WatchBody, ApiError> {
        allow(&target(resource, None, namespace, "")?, Verb::Watch)?;
        let row = self.row(resource)?;
        self.watch_objects(cx, &row, namespace, options).await
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
        let target = target(resource, subresource, namespace, name)?;
        allow(&target, Verb::Create)?;
        match (target.part(), &resource.storage) {
            ("", Storage::Virtual) => self.review(cx, &target, &body).await,
            ("", Storage::Action { plural, part }) => self.act(cx, &target, (plural, part), body).await,
            ("", _) => self.create_object(cx, &target, &body).await,
            ("binding", _) => self.bind_pod(cx, &target, &body).await,
            ("eviction", _) => self.evict_pod(cx, &target, &body).await,
            ("token", _) => self.issue_token(cx, &target, &body).await,
            _ => Err(not_here(&target, "create")),
        }
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
        let target = target(resource, subresource, namespace, name)?;
        allow(&target, Verb::Update)?;
        match target.subresource.map(|s| s.role) {
            None | Some(SubresourceRole::Status | SubresourceRole::Part) => {
                self.update_object(cx, &target, &body).await
            }
            Some(SubresourceRole::Scale) => self.put_scale(cx, &target, &body).await,
            Some(SubresourceRole::Action | SubresourceRole::Connect) => Err(not_here(&target, "update")),
        }
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
        let target = target(resource, subresource, namespace, name)?;
        allow(&target, Verb::Patch)?;
        match target.subresource.map(|s| s.role) {
            None | Some(SubresourceRole::Status | SubresourceRole::Part) => {
                self.patch_object(cx, &target, kind, &body).await
            }
            Some(SubresourceRole::Scale) => self.patch_scale(cx, &target, kind, &body).await,
            Some(SubresourceRole::Action | SubresourceRole::Connect) => Err(not_here(&target, "patch")),
        }
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
        let target = target(resource, None, namespace, name)?;
        allow(&target, Verb::Delete)?;
        self.delete_object(cx, &target, &options).await
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
        allow(&target(resource, None, namespace, "")?, Verb::DeleteCollection)?;
        self.delete_selected(cx, resource, namespace, &options, list).await
    }

    /// Creates a subresource of the object that the body names.
    async fn act(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        (plural, part): (&str, &str),
        body: Body,
    ) -> Result<Reply, ApiError> {
        let resource = target.resource;
        let mut incoming = body::parse(&body, (&resource.api_version(), &resource.kind))?;
        body::check_type(resource, &mut incoming.value)?;
        body::check_namespace(target, &mut incoming.value)?;
        let name = crate::api::meta::name(&incoming.value);
        let row = self.catalog.by_plural(&resource.group, &resource.version, plural);
        let row = row.ok_or_else(|| ApiError::not_found(&resource.group_resource(), name))?;
        Box::pin(self.create(cx, row, Some(part), target.namespace, name, body)).await
    }

    /// Answers a virtual create.
    async fn review(&self, cx: &RequestContext, target: &Target<'_>, body: &Body) -> Result<Reply, ApiError> {
        let resource = target.resource;
        let mut incoming = body::parse(body, (&resource.api_version(), &resource.kind))?;
        body::check_type(resource, &mut incoming.value)?;
        body::check_namespace(target, &mut incoming.value)?;
        let mut object = body::typed(cx, resource, incoming)?;
        self.admit(cx, target, object.as_mut(), None, Operation::Create).await?;
        let request = Request::new(self, cx, target, Operation::Create).about(object.as_ref());
        self.admission().validate(&request, Some(object.as_ref()), None).await?;
        let handler = self.hooks().and_then(|hooks| hooks.reviews.clone());
        let handler = handler.ok_or_else(|| ApiError::service_unavailable("reviews are not configured"))?;
        let value = object.to_value().map_err(ApiError::internal)?;
        let answer = handler.review(cx, resource, target.namespace, value).await?;
        let body = crate::registry::write::encode::canonical(&answer).map_err(ApiError::internal)?;
        Ok(Reply { code: 201, body })
    }
}

/// What the cache must know about a row.
fn spec(row: &Resource) -> ResourceSpec {
    ResourceSpec {
        prefix: row.storage_prefix.to_string(),
        namespaced: row.namespaced(),
        api_version: row.api_version().into_owned(),
        kind: row.kind.to_string(),
        resource: row.plural.to_string(),
        fields: row.selectable.iter().map(|field| field.for_cache()).collect(),
    }
}

/// What a request is about; fails when the kind does not have the subresource.
pub(in crate::registry) fn target<'a>(
    resource: &'a Resource,
    subresource: Option<&str>,
    namespace: &'a str,
    name: &'a str,
) -> Result<Target<'a>, ApiError> {
    let subresource = match subresource {
        None | Some("") => None,
        Some(part) => Some(resource.subresource(part).ok_or_else(|| {
            ApiError::not_found(
                &GroupResource::new(resource.group.as_ref(), format!("{}/{part}", resource.plural)),
                name,
            )
        })?),
    };
    Ok(Target { resource, subresource, namespace, name })
}

/// Fails when the kind or subresource does not have the verb.
fn allow(target: &Target<'_>, verb: Verb) -> Result<(), ApiError> {
    let allowed = match target.subresource {
        None => target.resource.verbs.contains(&verb),
        Some(part) => part.verbs.contains(&verb.as_str()),
    };
    if allowed { Ok(()) } else { Err(not_here(target, verb.as_str())) }
}

fn not_here(target: &Target<'_>, verb: &str) -> ApiError {
    ApiError::method_not_supported(&target.resource.group_resource(), verb)
}

/// Decodes the objects of a snapshot; an empty namespace is all of them.
pub fn decode_all<K: Kind>(snapshot: &Snapshot, namespace: &str) -> Result<Vec<K>, ApiError> {
    let scope = (!namespace.is_empty()).then_some(namespace);
    let objects = snapshot.iter(scope, None);
    objects.map(|object| json::typed(object.json()).map_err(ApiError::internal)).collect()
}
