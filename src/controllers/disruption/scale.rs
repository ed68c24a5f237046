//! The wanted size of the owners of pods: known kinds from the cache, others by their scale subresource.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, DynamicObject, GroupVersionKind};

use crate::client::{Informer, Informers};
use crate::controllers::workload::{claims::Object, ownership};

/// Why the size of an owner is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The owner or its scale could not be read.
    #[error("read the scale of {kind} {name}")]
    Read {
        /// Kind of the owner.
        kind: String,
        /// Its name.
        name: String,
        /// What the server said.
        #[source]
        source: kube::Error,
    },
    /// Nothing of that uid owns the pod any more, or it has no scale.
    #[error("found no controllers for pod {0:?}")]
    NoController(String),
}

/// The sum of sizes, and the pods that nobody controls.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// The sum.
    pub total: i32,
    /// Names of unmanaged pods.
    pub unmanaged: Vec<String>,
}

/// Finds sizes.
pub(super) struct Scales {
    client: Client,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
}

impl Scales {
    pub(super) fn new(client: Client, informers: &Informers) -> Self {
        Self {
            client,
            deployments: informers.get(),
            replica_sets: informers.get(),
            stateful_sets: informers.get(),
            controllers: informers.get(),
        }
    }

    /// Waits until the owners are known.
    pub(super) async fn synced(&self) {
        self.deployments.synced().await;
        self.replica_sets.synced().await;
        self.stateful_sets.synced().await;
        self.controllers.synced().await;
    }

    /// The sum of the sizes of all owners of `pods`, each counted once.
    pub(super) async fn of(&self, pods: &[Arc<Pod>]) -> Result<Scale, Error> {
        let (mut scale, mut sizes, mut unmanaged) = (Scale::default(), HashMap::new(), BTreeSet::new());
        for pod in pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let Some(owner) = ownership::controller_of(&pod.metadata) else {
                unmanaged.insert(name);
                continue;
            };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            if sizes.contains_key(&owner.uid) {
                continue;
            }
            let found = self.size(namespace, owner).await?;
            let (uid, size) = found.ok_or(Error::NoController(name))?;
            // Several ReplicaSets of a Deployment have one size together.
            sizes.insert(owner.uid.clone(), 0);
            sizes.insert(uid, size);
        }
        scale.total = sizes.values().sum();
        scale.unmanaged = unmanaged.into_iter().collect();
        Ok(scale)
    }

    /// The uid and size of the object that says how many pods there should be.
    async fn size(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<(String, i32)>, Error> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let found = match (group, owner.kind.as_str()) {
            ("apps", "ReplicaSet") => {
                let Some(set) = find(&self.replica_sets, namespace, owner) else { return Ok(None) };
                let parent = ownership::controller_of(&set.metadata).filter(|o| o.kind == "Deployment");
                let Some(parent) = parent else {
                    let size = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                    return Ok(Some((owner.uid.clone(), size)));
                };
                let deployment = find(&self.deployments, namespace, parent);
                let size = deployment.and_then(|d| d.spec.as_ref().map(|spec| spec.replicas.unwrap_or(1)));
                return Ok(size.map(|size| (parent.uid.clone(), size)));
            }
            ("apps", "StatefulSet") => find(&self.stateful_sets, namespace, owner)
                .and_then(|set| set.spec.as_ref().map(|spec| spec.replicas.unwrap_or(1))),
            ("", "ReplicationController") => find(&self.controllers, namespace, owner)
                .and_then(|set| set.spec.as_ref().map(|spec| spec.replicas.unwrap_or(1))),
            _ => self.by_subresource(namespace, owner).await?,
        };
        Ok(found.map(|size| (owner.uid.clone(), size)))
    }

    async fn by_subresource(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<i32>, Error> {
        let failed = |source| Error::Read { kind: owner.kind.clone(), name: owner.name.clone(), source };
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let kind = GroupVersionKind::gvk(group, version, &owner.kind);
        let (resource, _) = kube::discovery::pinned_kind(&self.client, &kind).await.map_err(failed)?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let scale = api.get_subresource("scale", &owner.name).await.map_err(failed)?;
        let same = scale.metadata.uid.as_deref() == Some(&owner.uid);
        let size = scale.data["spec"]["replicas"].as_i64().unwrap_or(0);
        Ok(same.then(|| i32::try_from(size).unwrap_or(i32::MAX)))
    }
}

fn find<K: Object>(informer: &Informer<K>, namespace: &str, owner: &OwnerReference) -> Option<Arc<K>> {
    let found = informer.find(namespace, &owner.name)?;
    (found.meta().uid.as_deref() == Some(owner.uid.as_str())).then_some(found)
}
