//! Authentication's and authorization's view of the cluster: the cached objects, decoded once per revision.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::authentication::service_account::{Bound, BoundObjects};
use super::authentication::unix_now;
use super::authorization::node::{NodeSource, References};
use super::authorization::rbac::{Objects, RbacSource};
use super::secret_tokens::{self, INVALID_SINCE, LAST_USED, Use, today};
use crate::api::json;
use crate::cache::{Consistency, Object, ResourceCache, Snapshot};
use crate::registry::Registry;

/// How long after its deletion was due an object still counts as there: what is bound to it may finish.
const DELETION_LEEWAY_SECONDS: i64 = 60;

/// Reads cached objects.
pub(super) struct CachedObjects {
    registry: Arc<Registry>,
    rbac: Mutex<RbacMemory>,
    /// What pods refer to, by uid: that does not change while a pod lives, but for its status.
    references: Mutex<HashMap<String, (u64, Arc<References>)>>,
    /// Uses of tokens in Secrets, until they are noted; the other end, until somebody takes it.
    uses: (mpsc::Sender<Use>, Mutex<Option<mpsc::Receiver<Use>>>),
}

/// The last RBAC objects that were decoded.
#[derive(Default)]
struct RbacMemory {
    version: u64,
    snapshots: Vec<Snapshot>,
    roles: Decoded<Role>,
    cluster_roles: Decoded<ClusterRole>,
    role_bindings: Decoded<RoleBinding>,
    cluster_role_bindings: Decoded<ClusterRoleBinding>,
}

/// Decoded objects by key and revision.
struct Decoded<K>(HashMap<(String, u64), Arc<K>>);

impl<K> Default for Decoded<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: DeserializeOwned> Decoded<K> {
    /// Decodes what is new in a snapshot and forgets what is gone.
    fn update(&mut self, snapshot: Option<&Snapshot>) {
        let mut now = HashMap::new();
        for object in snapshot.into_iter().flat_map(|snapshot| snapshot.iter(None, None)) {
            let key = (object.key().to_owned(), object.revision().0);
            let decoded = self.0.remove(&key).or_else(|| decode(object).map(Arc::new));
            if let Some(decoded) = decoded {
                now.insert(key, decoded);
            }
        }
        self.0 = now;
    }

    fn all(&self) -> Vec<Arc<K>> {
        self.0.values().cloned().collect()
    }
}

fn decode<K: DeserializeOwned>(object: &Object) -> Option<K> {
    match json::typed(object.json()) {
        Ok(decoded) => Some(decoded),
        Err(error) => {
            tracing::warn!(key = object.key(), %error, "cached object cannot be decoded");
            None
        }
    }
}

impl CachedObjects {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        let (sender, receiver) = secret_tokens::channel();
        let uses = (sender, Mutex::new(Some(receiver)));
        Self { registry, rbac: Mutex::default(), references: Mutex::default(), uses }
    }

    /// The uses of tokens in Secrets that are to be noted; they can be taken once.
    pub(super) fn uses(&self) -> Option<mpsc::Receiver<Use>> {
        self.uses.1.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn cache_of<K: k8s_openapi::Resource>(&self) -> Option<Arc<ResourceCache>> {
        self.registry.cached(self.registry.catalog().of::<K>()?)
    }

    fn get<K: k8s_openapi::Resource>(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.cache_of::<K>()?.get(namespace, name)
    }

    /// Waits until the cached objects include every write that was acknowledged before the call.
    ///
    /// The cache follows the store by moments. A refusal that rests on what is cached is looked at once more after this,
    /// so that what was just granted counts for the next request.
    pub(super) async fn catch_up(&self) {
        let Some(cache) = self.cache_of::<RoleBinding>() else { return };
        if let Err(error) = cache.snapshot(Consistency::Latest).await {
            tracing::debug!(%error, "cache did not catch up");
        }
    }

    fn references_of(&self, pod: &Object) -> Arc<References> {
        let mut known = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((revision, refs)) = known.get(pod.uid())
            && *revision == pod.revision().0
        {
            return refs.clone();
        }
        let refs = Arc::new(decode::<Pod>(pod).map(|pod| References::of(&pod)).unwrap_or_default());
        known.insert(pod.uid().to_owned(), (pod.revision().0, refs.clone()));
        refs
    }

    /// Forgets pods that are gone, once there are clearly more remembered than live ones.
    fn prune_references(&self, pods: &Snapshot) {
        let mut known = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() <= 2 * pods.len() + 64 {
            return;
        }
        let live: std::collections::HashSet<&str> = pods.iter(None, None).map(|pod| pod.uid()).collect();
        known.retain(|uid, _| live.contains(uid.as_str()));
    }
}

impl RbacSource for CachedObjects {
    fn version(&self) -> u64 {
        let caches = [
            self.cache_of::<Role>(),
            self.cache_of::<ClusterRole>(),
            self.cache_of::<RoleBinding>(),
            self.cache_of::<ClusterRoleBinding>(),
        ];
        let now: Vec<Snapshot> = caches.iter().flatten().map(|cache| cache.current()).collect();
        let mut memory = self.rbac.lock().unwrap_or_else(PoisonError::into_inner);
        let unchanged = memory.snapshots.len() == now.len()
            && memory.snapshots.iter().zip(&now).all(|(old, new)| old.holds_the_same_as(new));
        if !unchanged {
            memory.version += 1;
            memory.snapshots = now;
            let RbacMemory { snapshots, roles, cluster_roles, role_bindings, cluster_role_bindings, .. } =
                &mut *memory;
            roles.update(snapshots.first());
            cluster_roles.update(snapshots.get(1));
            role_bindings.update(snapshots.get(2));
            cluster_role_bindings.update(snapshots.get(3));
        }
        memory.version
    }

    fn objects(&self) -> Objects {
        let memory = self.rbac.lock().unwrap_or_else(PoisonError::into_inner);
        Objects {
            roles: memory.roles.all(),
            cluster_roles: memory.cluster_roles.all(),
            role_bindings: memory.role_bindings.all(),
            cluster_role_bindings: memory.cluster_role_bindings.all(),
        }
    }
}

impl NodeSource for CachedObjects {
    fn any_pod(&self, node: &str, namespace: &str, wanted: &dyn Fn(&References) -> bool) -> bool {
        let Some(pods) = self.cache_of::<Pod>().map(|cache| cache.current()) else { return false };
        self.prune_references(&pods);
        pods.iter(Some(namespace), None)
            .filter(|pod| pod.field("spec.nodeName") == Some(node))
            .any(|pod| wanted(&self.references_of(pod)))
    }

    fn claim_of_volume(&self, volume: &str) -> Option<(String, String)> {
        let volume: PersistentVolume = decode(&*self.get::<PersistentVolume>("", volume)?)?;
        let claim = volume.spec?.claim_ref?;
        Some((claim.namespace?, claim.name?))
    }

    fn claims_with_secret(&self, namespace: &str, secret: &str) -> Vec<(String, String)> {
        let Some(volumes) = self.cache_of::<PersistentVolume>().map(|cache| cache.current()) else {
            return Vec::new();
        };
        let claim = |volume: PersistentVolume| {
            let spec = volume.spec?;
            let csi = spec.csi?;
            let secrets =
                [csi.node_stage_secret_ref, csi.node_publish_secret_ref, csi.node_expand_secret_ref];
            let needs = secrets.into_iter().flatten().any(|reference| {
                reference.namespace.as_deref() == Some(namespace) && reference.name.as_deref() == Some(secret)
            });
            let claim = spec.claim_ref.filter(|_| needs)?;
            Some((claim.namespace?, claim.name?))
        };
        // Asked only for secrets that no pod of the node refers to itself.
        volumes.iter(None, None).filter_map(|volume| decode(volume)).filter_map(claim).collect()
    }

    fn node_of_attachment(&self, attachment: &str) -> Option<String> {
        use k8s_openapi::api::storage::v1::VolumeAttachment;
        let attachment: VolumeAttachment = decode(&*self.get::<VolumeAttachment>("", attachment)?)?;
        Some(attachment.spec.node_name)
    }

    fn node_of_pod(&self, namespace: &str, name: &str) -> Option<String> {
        Some(self.get::<Pod>(namespace, name)?.field("spec.nodeName").unwrap_or_default().to_owned())
    }
}

/// The part of an object that says whether it is on its way out.
#[derive(Deserialize)]
struct Deletable {
    metadata: DeletableMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeletableMeta {
    deletion_timestamp: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
}

impl BoundObjects for CachedObjects {
    fn uid(&self, kind: Bound, namespace: &str, name: &str) -> Option<String> {
        let object = match kind {
            Bound::ServiceAccount => self.get::<ServiceAccount>(namespace, name),
            Bound::Pod => self.get::<Pod>(namespace, name),
            Bound::Secret => self.get::<Secret>(namespace, name),
            Bound::Node => self.get::<Node>("", name),
        }?;
        let overdue = unix_now() - DELETION_LEEWAY_SECONDS;
        let deletion = decode::<Deletable>(&object)?.metadata.deletion_timestamp;
        let gone = deletion.is_some_and(|time| time.0.as_second() < overdue);
        (!gone).then(|| object.uid().to_owned())
    }

    fn uses_secret(&self, namespace: &str, name: &str) -> bool {
        let Some(secret) = self.get::<Secret>(namespace, name) else { return true };
        if secret.field("type") != Some("kubernetes.io/service-account-token") {
            return true;
        }
        if secret.label(INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
            tracing::warn!(namespace, name, "a token that is marked as invalid was used");
            return false;
        }
        if secret.label(LAST_USED) != Some(&today()) {
            // One that finds no room is noted with its next use.
            self.uses.0.try_send((namespace.to_owned(), name.to_owned())).ok();
        }
        true
    }
}
