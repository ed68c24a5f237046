//! From watches into the graph: which kinds are watched, and what their changes mean.

use super::{
    Shared,
    graph::{KindId, Node},
};
use crate::{
    client::{
        Change, Informer, Informers, Key,
        informer::{HandlerGuard, Sink},
    },
    controllers::discovery::ResourceType,
};
use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Namespace, Node as ClusterNode, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    rbac::v1::ClusterRole,
};
use kube::{
    Resource,
    api::{DynamicObject, PartialObjectMeta},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// The kinds that are watched, by number, and which of them have been listed.
#[derive(Debug)]
pub(super) struct Kinds {
    rows: BTreeMap<KindId, (ResourceType, bool)>,
    next: KindId,
    discovered: bool,
    /// Discovery has succeeded and everything it showed has been listed. Never turns back: kinds that come later are
    /// complete soon enough, and their objects are looked up in the API until then.
    pub(super) complete: watch::Sender<bool>,
}

impl Default for Kinds {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), next: 0, discovered: false, complete: watch::Sender::new(false) }
    }
}

impl Kinds {
    pub(super) fn add(&mut self, row: ResourceType) -> KindId {
        let kind = self.next;
        self.next += 1;
        self.rows.insert(kind, (row, false));
        kind
    }

    /// A kind that the process watches anyway reports its completeness itself.
    pub(super) fn listed_elsewhere(&mut self, row: &ResourceType) {
        let kind = self.rows.iter().find(|(_, (known, _))| known == row).map(|(kind, _)| *kind);
        if let Some(kind) = kind {
            self.listed(kind);
        }
    }

    pub(super) fn remove(&mut self, row: &ResourceType) -> Option<KindId> {
        let kind = self.rows.iter().find(|(_, (known, _))| known == row).map(|(kind, _)| *kind)?;
        self.rows.remove(&kind);
        self.check();
        Some(kind)
    }

    pub(super) fn get(&self, kind: KindId) -> Option<ResourceType> {
        self.rows.get(&kind).map(|(row, _)| row.clone())
    }

    /// The watched kind that an owner reference names; its version may be another one of the same group.
    pub(super) fn named(&self, api_version: &str, kind: &str) -> Option<ResourceType> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let fits = |row: &ResourceType| row.resource.kind == kind && row.resource.group == group;
        self.rows.values().find(|(row, _)| fits(row)).map(|(row, _)| row.clone())
    }

    /// Discovery has succeeded once.
    pub(super) fn discovered(&mut self) {
        self.discovered = true;
        self.check();
    }

    fn listed(&mut self, kind: KindId) {
        if let Some((_, listed)) = self.rows.get_mut(&kind) {
            *listed = true;
        }
        self.check();
    }

    fn check(&self) {
        if self.discovered && self.rows.values().all(|(_, listed)| *listed) {
            self.complete.send_replace(true);
        }
    }
}

/// The garbage collector keeps track of this kind. Events are many, short-lived and own nothing.
pub(super) fn is_collectable(row: &ResourceType) -> bool {
    row.can(&["list", "watch", "delete"]) && row.resource.plural != "events"
}

/// Changes here mean that there may be other kinds now.
fn defines_kinds(row: &ResourceType) -> bool {
    matches!(
        (row.resource.group.as_str(), row.resource.plural.as_str()),
        ("apiextensions.k8s.io", "customresourcedefinitions") | ("apiregistration.k8s.io", "apiservices")
    )
}

/// The watch of one kind.
pub(super) struct Feed {
    pub(super) shared: Arc<Shared>,
    pub(super) kind: KindId,
}

type Meta = PartialObjectMeta<DynamicObject>;

/// A kind whose objects the process holds anyway; dropping it ends the feed.
pub(super) struct SharedFeed {
    _handler: HandlerGuard,
    /// Resolves when all objects are in the graph.
    pub(super) complete: BoxFuture<'static, ()>,
}

/// Feeds the graph from the typed informer of a kind that other loops watch too, so that it is watched and decoded
/// once. Gives the feed back for any other kind.
pub(super) fn share(informers: &Informers, row: &ResourceType, feed: Feed) -> Result<SharedFeed, Feed> {
    match (row.resource.group.as_str(), row.resource.kind.as_str()) {
        ("", "Pod") => Ok(feed.follow(informers.get::<Pod>())),
        ("", "Node") => Ok(feed.follow(informers.get::<ClusterNode>())),
        ("", "Namespace") => Ok(feed.follow(informers.get::<Namespace>())),
        ("", "Service") => Ok(feed.follow(informers.get::<Service>())),
        ("", "ServiceAccount") => Ok(feed.follow(informers.get::<ServiceAccount>())),
        ("apps", "Deployment") => Ok(feed.follow(informers.get::<Deployment>())),
        ("apps", "ReplicaSet") => Ok(feed.follow(informers.get::<ReplicaSet>())),
        ("discovery.k8s.io", "EndpointSlice") => Ok(feed.follow(informers.get::<EndpointSlice>())),
        ("rbac.authorization.k8s.io", "ClusterRole") => Ok(feed.follow(informers.get::<ClusterRole>())),
        _ => Err(feed),
    }
}

impl Feed {
    fn follow<K: Resource + Send + Sync + 'static>(self, informer: Informer<K>) -> SharedFeed {
        let handler = informer.add_handler(move |change: &Change<K>| {
            let look = match change {
                Change::Deleted(object) => self.shared.graph().delete(self.kind, &Key::of(object.as_ref())),
                Change::Added(object) | Change::Updated { new: object, .. } => {
                    let node = Node::from_meta(self.kind, object.meta());
                    node.map(|node| self.shared.graph().apply(node)).unwrap_or_default()
                }
            };
            self.shared.enqueue(look);
        });
        SharedFeed { _handler: handler, complete: async move { informer.synced().await }.boxed() }
    }

    fn changed(&self) {
        if self.shared.kinds().get(self.kind).is_some_and(|row| defines_kinds(&row)) {
            self.shared.kinds_changed.notify_one();
        }
    }
}

impl Sink<Meta> for Feed {
    fn apply(&self, object: Meta) {
        if let Some(node) = Node::from_meta(self.kind, &object.metadata) {
            let look = self.shared.graph().apply(node);
            self.shared.enqueue(look);
        }
        self.changed();
    }

    fn delete(&self, key: &Key, _last: Option<Meta>) {
        let look = self.shared.graph().delete(self.kind, key);
        self.shared.enqueue(look);
        self.changed();
    }

    fn replace(&self, objects: Vec<Meta>, _revision: u64) {
        let nodes =
            objects.iter().filter_map(|object| Node::from_meta(self.kind, &object.metadata)).collect();
        let look = self.shared.graph().replace(self.kind, nodes);
        self.shared.enqueue(look);
        self.shared.kinds().listed(self.kind);
        self.changed();
    }

    fn bookmark(&self, _revision: u64) {}
}
