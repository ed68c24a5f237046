//! One kind, as data: names, scope, verbs, subresources, storage and printed columns.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::{ClusterResourceScope, ListableResource, NamespaceResourceScope};

use crate::api::error::{GroupKind, GroupResource};
use crate::registry::computed::Computed;
use crate::registry::convert::{Conversion, Convert};
use crate::registry::custom::Dynamic;
use crate::registry::object::Kind;
use crate::registry::strategy::{Behaviour, Plain, Strategy};
use crate::registry::table::{Column, PLAIN};

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One name space for the cluster.
    Cluster,
    /// Names are unique within a namespace.
    Namespaced,
}

/// What a client can do with a kind; `Display` as in discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `create`
    Create,
    /// `delete`
    Delete,
    /// `deletecollection`
    DeleteCollection,
    /// `get`
    Get,
    /// `list`
    List,
    /// `patch`
    Patch,
    /// `update`
    Update,
    /// `watch`
    Watch,
}

impl Verb {
    /// The name in discovery and in rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// The verbs of a stored kind, in discovery's order.
pub const ALL_VERBS: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// What stands behind a subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubresourceRole {
    /// Reads and writes only the status.
    Status,
    /// `autoscaling/v1` `Scale` over the kind's replica fields.
    Scale,
    /// Reads and writes the whole object, but only some fields change (`resize`, `ephemeralcontainers`, `finalize`,
    /// `approval`).
    Part,
    /// A create that acts (`binding`, `eviction`, `token`).
    Action,
    /// Answered by the HTTP layer, which connects to the node (`log`, `exec`, `attach`, `portforward`, `proxy`).
    Connect,
}

/// A subresource of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Name, such as `status`.
    pub name: &'static str,
    /// What it does.
    pub role: SubresourceRole,
    /// Group, version and kind of its body; `None` is the kind itself.
    pub body: Option<(&'static str, &'static str, &'static str)>,
    /// Verbs in discovery's order.
    pub verbs: &'static [&'static str],
}

/// A field that field selectors may name, and where its value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectableField {
    /// Name in the selector.
    pub label: &'static str,
    /// Path of keys to the value.
    pub path: &'static [&'static str],
    /// Value when the field is absent.
    pub absent: &'static str,
}

impl SelectableField {
    /// As the cache wants it.
    pub fn for_cache(&self) -> crate::cache::SelectableField {
        crate::cache::SelectableField {
            name: self.label.into(),
            paths: vec![self.path.join(".").into()],
            default: self.absent.into(),
        }
    }
}

/// How objects of a row are kept.
#[derive(Clone)]
pub enum Storage {
    /// Under the row's prefix, as they are.
    Own,
    /// In another row's storage (group, version, plural), through a conversion.
    Shared(&'static dyn Conversion),
    /// Under a prefix that the versions of a custom resource share, each of which sees them in its own form.
    Custom(Arc<dyn Convert>),
    /// Nowhere: a create is answered and forgotten.
    Virtual,
    /// Nowhere: objects are made when somebody asks for them.
    Computed(&'static dyn Computed),
    /// Nowhere: a create acts on a subresource of the object of the same name.
    Action {
        /// The other kind's plural, in the same group and version.
        plural: &'static str,
        /// Its subresource.
        part: &'static str,
    },
}

/// One kind of one group and version.
#[derive(Clone)]
pub struct Resource {
    /// API group; empty is core.
    pub group: Cow<'static, str>,
    /// Version within the group.
    pub version: Cow<'static, str>,
    /// Kind.
    pub kind: Cow<'static, str>,
    /// Kind of its list.
    pub list_kind: Cow<'static, str>,
    /// Plural name, as in URLs.
    pub plural: Cow<'static, str>,
    /// Singular name.
    pub singular: Cow<'static, str>,
    /// Short names.
    pub short_names: Vec<Cow<'static, str>>,
    /// Categories, such as `all`.
    pub categories: Vec<Cow<'static, str>>,
    /// Scope.
    pub scope: Scope,
    /// Verbs of the kind itself.
    pub verbs: &'static [Verb],
    /// Subresources.
    pub subresources: Vec<Subresource>,
    /// Key prefix in the store, with a slash at both ends.
    pub storage_prefix: Cow<'static, str>,
    /// How objects are kept.
    pub storage: Storage,
    /// Fields besides `metadata.name` and `metadata.namespace` that selectors may name.
    pub selectable: &'static [SelectableField],
    /// Columns of printed tables.
    pub columns: &'static [Column],
    /// Behaviour.
    pub behaviour: Arc<dyn Behaviour>,
    /// Whether the object counts its spec changes in `metadata.generation`.
    pub generation: bool,
    /// Whether a PUT to a name that does not exist creates it.
    pub create_on_update: bool,
    /// Whether a write without a resourceVersion is accepted.
    pub unconditional_update: bool,
    /// Whether a finished delete answers with the object instead of a `Status`.
    pub returns_deleted: bool,
    /// Whether a delete that does not say what becomes of dependents leaves them as orphans.
    pub orphans: bool,
    /// How long objects live; `None` is for ever.
    pub ttl: Option<Duration>,
    /// How names are checked.
    pub name_rule: NameRule,
    /// Whether a create may bring a status (nodes register with theirs).
    pub keeps_status: bool,
    /// What clients are warned of with every answer, such as that the kind is going away.
    pub deprecation: Option<&'static str>,
    /// What is known only at run time, of custom resources.
    pub dynamic: Option<Arc<Dynamic>>,
}

/// The rule for the names of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// DNS-1123 subdomain.
    Subdomain,
    /// DNS-1123 label.
    Label,
    /// DNS-1035 label (services).
    Label1035,
    /// Anything that is one path segment (RBAC).
    PathSegment,
    /// Colons allowed between DNS-1123 parts (CSRs, flow control have subdomains; leases subdomains).
    Any,
}

/// Maps `k8s-openapi`'s scope types to [`Scope`].
pub trait ScopeOf {
    /// The scope.
    const SCOPE: Scope;
}

impl ScopeOf for ClusterResourceScope {
    const SCOPE: Scope = Scope::Cluster;
}

impl ScopeOf for NamespaceResourceScope {
    const SCOPE: Scope = Scope::Namespaced;
}

impl Resource {
    /// A row for a kind without behaviour of its own.
    pub fn plain<K>() -> Self
    where
        K: Kind + ListableResource,
        <K as k8s_openapi::Resource>::Scope: ScopeOf,
    {
        Self::of(Plain::<K>::new())
    }

    /// A row for the kind of `strategy`.
    pub fn of<S>(strategy: S) -> Self
    where
        S: Strategy,
        S::Object: ListableResource,
        <S::Object as k8s_openapi::Resource>::Scope: ScopeOf,
    {
        let plural = <S::Object as k8s_openapi::Resource>::URL_PATH_SEGMENT;
        Self::build(
            strategy,
            plural,
            <S::Object as ListableResource>::LIST_KIND,
            <<S::Object as k8s_openapi::Resource>::Scope as ScopeOf>::SCOPE,
        )
    }

    /// A row for a virtual kind: its create is answered by [`crate::registry::ReviewHandler`].
    pub fn review<K: Kind>(plural: &'static str, scope: Scope) -> Self {
        let mut row = Self::build(Plain::<K>::new(), plural, "", scope);
        row.verbs = &[Verb::Create];
        row.storage = Storage::Virtual;
        row
    }

    /// A row whose create is a create of the subresource `part` of the named object of `plural`.
    pub fn action<K: Kind>(
        own: &'static str,
        scope: Scope,
        plural: &'static str,
        part: &'static str,
    ) -> Self {
        let mut row = Self::review::<K>(own, scope);
        row.storage = Storage::Action { plural, part };
        row
    }

    /// The row's objects are made when somebody asks for them.
    #[must_use]
    pub fn computed(mut self, source: &'static dyn Computed) -> Self {
        self.verbs = &[Verb::Get, Verb::List];
        self.storage = Storage::Computed(source);
        self
    }

    fn build<S: Strategy>(strategy: S, plural: &'static str, list_kind: &'static str, scope: Scope) -> Self {
        let kind = <S::Object as k8s_openapi::Resource>::KIND;
        Self {
            group: <S::Object as k8s_openapi::Resource>::GROUP.into(),
            version: <S::Object as k8s_openapi::Resource>::VERSION.into(),
            kind: kind.into(),
            list_kind: list_kind.into(),
            plural: plural.into(),
            singular: kind.to_lowercase().into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            scope,
            verbs: ALL_VERBS,
            subresources: Vec::new(),
            storage_prefix: format!("/registry/{plural}/").into(),
            storage: Storage::Own,
            selectable: &[],
            columns: PLAIN,
            behaviour: Arc::new(strategy),
            generation: false,
            create_on_update: false,
            unconditional_update: true,
            returns_deleted: false,
            orphans: false,
            ttl: None,
            name_rule: NameRule::Subdomain,
            keeps_status: false,
            deprecation: None,
            dynamic: None,
        }
    }

    /// Sets the short names.
    #[must_use]
    pub fn short(mut self, names: &[&'static str]) -> Self {
        self.short_names = names.iter().map(|n| Cow::Borrowed(*n)).collect();
        self
    }

    /// Sets the categories.
    #[must_use]
    pub fn categories(mut self, names: &[&'static str]) -> Self {
        self.categories = names.iter().map(|n| Cow::Borrowed(*n)).collect();
        self
    }

    /// Sets the printed columns.
    #[must_use]
    pub fn columns(mut self, columns: &'static [Column]) -> Self {
        self.columns = columns;
        self
    }

    /// Adds a subresource.
    #[must_use]
    pub fn with(mut self, subresource: Subresource) -> Self {
        self.subresources.push(subresource);
        self
    }

    /// Sets the store's prefix where upstream's differs from the plural.
    #[must_use]
    pub fn prefix(mut self, prefix: &'static str) -> Self {
        self.storage_prefix = prefix.into();
        self
    }

    /// Sets the selectable fields.
    #[must_use]
    pub fn selectable(mut self, fields: &'static [SelectableField]) -> Self {
        self.selectable = fields;
        self
    }

    /// The kind counts its spec changes.
    #[must_use]
    pub fn generation(mut self) -> Self {
        self.generation = true;
        self
    }

    /// PUT creates.
    #[must_use]
    pub fn create_on_update(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    /// Every write must carry a resourceVersion.
    #[must_use]
    pub fn conditional_only(mut self) -> Self {
        self.unconditional_update = false;
        self
    }

    /// A finished delete answers with the object.
    #[must_use]
    pub fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    /// Dependents are left as orphans unless a delete says otherwise, as in the time before garbage collection.
    #[must_use]
    pub fn orphans(mut self) -> Self {
        self.orphans = true;
        self
    }

    /// Objects expire.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets the rule for names.
    #[must_use]
    pub fn names(mut self, rule: NameRule) -> Self {
        self.name_rule = rule;
        self
    }

    /// A create may bring a status.
    #[must_use]
    pub fn keeps_status(mut self) -> Self {
        self.keeps_status = true;
        self
    }

    /// Clients are warned.
    #[must_use]
    pub fn deprecated(mut self, warning: &'static str) -> Self {
        self.deprecation = Some(warning);
        self
    }

    /// Keeps the objects in another row's storage.
    #[must_use]
    pub fn stored_as(mut self, conversion: &'static dyn Conversion, prefix: &'static str) -> Self {
        self.storage = Storage::Shared(conversion);
        self.storage_prefix = prefix.into();
        self
    }

    /// Whether objects are kept, under a prefix that other rows may share.
    pub fn stored(&self) -> bool {
        matches!(self.storage, Storage::Own | Storage::Shared(_) | Storage::Custom(_))
    }

    /// The schema of the kind, where there is one.
    pub fn schema(&self) -> Option<crate::api::schema::Schema<'_>> {
        match &self.dynamic {
            Some(dynamic) => dynamic.schemas.root(),
            None => crate::api::schema::Schemas::builtin().for_gvk(&self.group, &self.version, &self.kind),
        }
    }

    /// Whether a field selector may name the field.
    pub fn selects(&self, name: &str) -> bool {
        self.selectable.iter().any(|field| field.label == name)
            || self.dynamic.as_ref().is_some_and(|d| d.fields.iter().any(|field| field.name == name))
    }

    /// Whether selectors may name fields besides name and namespace.
    pub fn has_selectable(&self) -> bool {
        !self.selectable.is_empty() || self.dynamic.as_ref().is_some_and(|d| !d.fields.is_empty())
    }

    /// `group/version`, or `version` for core.
    pub fn api_version(&self) -> Cow<'static, str> {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version).into()
        }
    }

    /// Whether the kind is namespaced.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Group and plural, for error messages.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group.as_ref(), self.plural.as_ref())
    }

    /// Group and kind, for error messages.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(self.group.as_ref(), self.kind.as_ref())
    }

    /// The subresource `name`, if the kind has it.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether the kind has a status subresource, which separates the writers of spec and status.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// The store's key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if namespace.is_empty() {
            format!("{}{name}", self.storage_prefix)
        } else {
            format!("{}{namespace}/{name}", self.storage_prefix)
        }
    }
}

const GPU: &[&str] = &["get", "patch", "update"];

/// The status subresource.
pub const STATUS: Subresource =
    Subresource { name: "status", role: SubresourceRole::Status, body: None, verbs: GPU };

/// The scale subresource.
pub const SCALE: Subresource = Subresource {
    name: "scale",
    role: SubresourceRole::Scale,
    body: Some(("autoscaling", "v1", "Scale")),
    verbs: GPU,
};
