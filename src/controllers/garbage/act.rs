//! Looking at one object through the API, and deleting it or changing its references and finalizers.

use super::{
    Shared,
    decide::{Need, Standing, Verdict, judge, need, standing},
    graph::{self, FOREGROUND, Node, ORPHAN, Uid},
};
use crate::{
    client::{EventType, Key, Recorder, error},
    controllers::discovery::ResourceType,
};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client,
    api::{
        DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, Preconditions, PropagationPolicy,
    },
};
use serde_json::json;
use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};
use tracing::{debug, info};

/// How many owners are remembered as absent.
const ABSENT_REMEMBERED: usize = 500;

type Meta = PartialObjectMeta<DynamicObject>;

/// What went wrong with one object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object could not be read.
    #[error("get {0}")]
    Get(Key, #[source] kube::Error),
    /// An owner could not be looked up.
    #[error("look up owner {0}")]
    Owner(Key, #[source] kube::Error),
    /// An owner's kind is unknown to the server.
    #[error("owner reference names the unknown kind {kind} of {api_version}")]
    UnknownKind {
        /// The kind.
        kind: String,
        /// Its group and version.
        api_version: String,
    },
    /// The object could not be deleted.
    #[error("delete {0}")]
    Delete(Key, #[source] kube::Error),
    /// The references or finalizers could not be changed.
    #[error("patch {0}")]
    Patch(Key, #[source] kube::Error),
}

/// Owners that were looked up and not found, by uid and the namespace they were looked up in.
#[derive(Debug, Default)]
pub(super) struct Absent {
    known: HashSet<(String, Uid)>,
    order: VecDeque<(String, Uid)>,
}

impl Absent {
    fn insert(&mut self, entry: (String, Uid)) {
        if self.known.insert(entry.clone()) {
            self.order.push_back(entry);
            if self.order.len() > ABSENT_REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

/// Carries out what the graph calls for.
pub(super) struct Collector {
    pub(super) client: Client,
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: Recorder,
    pub(super) absent: Mutex<Absent>,
}

impl Collector {
    /// Does what the object `uid` needs now.
    pub(super) async fn attempt(&self, uid: &str) -> Result<(), Error> {
        let (need, node) = {
            let graph = self.shared.graph();
            (need(&graph, uid), graph.get(uid).cloned())
        };
        let Some(node) = node else { return Ok(()) };
        let Some(row) = self.shared.kinds().get(node.kind) else { return Ok(()) };
        match need {
            Need::Nothing => Ok(()),
            Need::WaitFor(dependents) => {
                self.shared.enqueue(dependents);
                Ok(())
            }
            Need::Finish => self.remove_finalizer(&row, &node, FOREGROUND).await,
            Need::Orphan(dependents) => {
                for dependent in dependents {
                    self.free(&dependent, uid).await?;
                }
                self.remove_finalizer(&row, &node, ORPHAN).await
            }
            Need::CheckOwners => self.check_owners(&row, &node).await,
        }
    }

    /// Looks the owners up and acts on the verdict.
    async fn check_owners(&self, row: &ResourceType, node: &Node) -> Result<(), Error> {
        let Some(live) = self.get_live(row, node).await? else { return Ok(()) };
        if live.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let references = live.metadata.owner_references.clone().unwrap_or_default();
        let owners = graph::owners(&references);
        let fresh = Node { owners, ..node.clone() };
        let mut standings = Vec::new();
        for owner in &fresh.owners {
            match self.standing(row, &fresh, owner).await? {
                Some(standing) => standings.push(standing),
                // A reference that can never be right; the object is left alone.
                None => return Ok(()),
            }
        }
        let has_dependents = self.shared.graph().dependents(&node.uid).next().is_some();
        match judge(&standings, has_dependents) {
            Verdict::Keep => Ok(()),
            Verdict::DropReferences => {
                let kept: Vec<_> = std::iter::zip(&references, &standings)
                    .filter(|(_, standing)| **standing == Standing::Solid)
                    .map(|(reference, _)| reference)
                    .collect();
                debug!(object = %node.key, kind = row.resource.kind, "dropping references to owners that are gone");
                self.patch(row, &node.key, &live, json!({"ownerReferences": kept})).await
            }
            Verdict::DeleteForeground => {
                let changed = self.unblock_cycle(row, node, &live).await?;
                let version = live.metadata.resource_version.filter(|_| !changed);
                self.delete(row, node, version, PropagationPolicy::Foreground).await
            }
            Verdict::Delete => {
                let policy = policy(&live);
                self.delete(row, node, live.metadata.resource_version, policy).await
            }
        }
    }

    /// The standing of an owner, looked up in the API if need be; `None` for a reference that is invalid as such.
    async fn standing(
        &self,
        row: &ResourceType,
        node: &Node,
        owner: &graph::Owner,
    ) -> Result<Option<Standing>, Error> {
        let known = standing(&self.shared.graph(), node, owner);
        if known != Standing::Unknown {
            return Ok(Some(known));
        }
        let named = self.shared.kinds().named(&owner.api_version, &owner.kind);
        let Some(owner_row) = named else {
            let (kind, api_version) = (owner.kind.to_string(), owner.api_version.to_string());
            return Err(Error::UnknownKind { kind, api_version });
        };
        let namespace = if owner_row.namespaced { node.key.namespace() } else { "" };
        if owner_row.namespaced && namespace.is_empty() {
            self.report_invalid(row, node, owner);
            return Ok(None);
        }
        let entry = (namespace.to_owned(), owner.uid.clone());
        if self.shared.graph().get(&owner.uid).is_some_and(|known| known.key.namespace() != namespace) {
            // It exists, but out of reach: the reference counts for nothing, and somebody should know.
            self.report_invalid(row, node, owner);
        }
        if self.absent.lock().unwrap_or_else(PoisonError::into_inner).known.contains(&entry) {
            return Ok(Some(Standing::Dangling));
        }
        let key = Key::new(namespace, &owner.name);
        let found = self
            .api(&owner_row, &key)
            .get_metadata_opt(&owner.name)
            .await
            .map_err(|e| Error::Owner(key, e))?;
        match found.filter(|found| found.metadata.uid.as_deref() == Some(&owner.uid)) {
            None => {
                self.absent.lock().unwrap_or_else(PoisonError::into_inner).insert(entry);
                Ok(Some(Standing::Dangling))
            }
            Some(found) => {
                let waits = found.metadata.deletion_timestamp.is_some()
                    && found.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
                Ok(Some(if waits { Standing::Waiting } else { Standing::Solid }))
            }
        }
    }

    fn report_invalid(&self, row: &ResourceType, node: &Node, owner: &graph::Owner) {
        let regarding = ObjectReference {
            api_version: Some(row.resource.api_version.clone()),
            kind: Some(row.resource.kind.clone()),
            name: Some(node.key.name().to_owned()),
            namespace: Some(node.key.namespace().to_owned()).filter(|namespace| !namespace.is_empty()),
            uid: Some(node.uid.to_string()),
            ..ObjectReference::default()
        };
        let namespace = node.key.namespace();
        let message = format!(
            "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace \"{namespace}\"",
            owner.api_version, owner.kind, owner.name, owner.uid
        );
        self.recorder.event_for(regarding, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }

    /// Objects that own each other in a circle and all wait would wait forever: this one stops blocking its owners.
    /// Tells whether that changed it.
    async fn unblock_cycle(&self, row: &ResourceType, node: &Node, live: &Meta) -> Result<bool, Error> {
        let circular =
            self.shared.graph().dependents(&node.uid).any(|d| d.deletion == graph::Deletion::Foreground);
        if !circular {
            return Ok(false);
        }
        let mut references = live.metadata.owner_references.clone().unwrap_or_default();
        for reference in &mut references {
            reference.block_owner_deletion = Some(false);
        }
        self.patch(row, &node.key, live, json!({"ownerReferences": references})).await?;
        Ok(true)
    }

    /// Removes the reference to `owner` from a dependent.
    async fn free(&self, dependent: &str, owner: &str) -> Result<(), Error> {
        let Some(node) = self.shared.graph().get(dependent).cloned() else { return Ok(()) };
        let Some(row) = self.shared.kinds().get(node.kind) else { return Ok(()) };
        let Some(live) = self.get_live(&row, &node).await? else { return Ok(()) };
        let mut references = live.metadata.owner_references.clone().unwrap_or_default();
        let before = references.len();
        references.retain(|reference| reference.uid != owner);
        if references.len() == before {
            return Ok(());
        }
        self.patch(&row, &node.key, &live, json!({"ownerReferences": references})).await
    }

    async fn remove_finalizer(&self, row: &ResourceType, node: &Node, name: &str) -> Result<(), Error> {
        let Some(live) = self.get_live(row, node).await? else { return Ok(()) };
        let mut finalizers = live.metadata.finalizers.clone().unwrap_or_default();
        if live.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|known| known == name) {
            return Ok(());
        }
        finalizers.retain(|known| known != name);
        self.patch(row, &node.key, &live, json!({"finalizers": finalizers})).await
    }

    /// The object as it is now; `None` (and gone from the graph) if it or its name belongs to the past.
    async fn get_live(&self, row: &ResourceType, node: &Node) -> Result<Option<Meta>, Error> {
        let api = self.api(row, &node.key);
        let live =
            api.get_metadata_opt(node.key.name()).await.map_err(|e| Error::Get(node.key.clone(), e))?;
        let live = live.filter(|live| live.metadata.uid.as_deref() == Some(&*node.uid));
        if live.is_none() {
            let look = self.shared.graph().remove(&node.uid);
            self.shared.enqueue(look);
        }
        Ok(live)
    }

    /// Merges `change` into the metadata, if the object is still as `live` shows it.
    async fn patch(
        &self,
        row: &ResourceType,
        key: &Key,
        live: &Meta,
        mut change: serde_json::Value,
    ) -> Result<(), Error> {
        change["uid"] = json!(live.metadata.uid);
        change["resourceVersion"] = json!(live.metadata.resource_version);
        let patch = Patch::Merge(json!({"metadata": change}));
        match self.api(row, key).patch_metadata(key.name(), &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(failure) if error::is_not_found(&failure) => Ok(()),
            Err(failure) => Err(Error::Patch(key.clone(), failure)),
        }
    }

    async fn delete(
        &self,
        row: &ResourceType,
        node: &Node,
        resource_version: Option<String>,
        policy: PropagationPolicy,
    ) -> Result<(), Error> {
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(node.uid.to_string()), resource_version }),
            propagation_policy: Some(policy),
            ..DeleteParams::default()
        };
        match self.api(row, &node.key).delete(node.key.name(), &params).await {
            Ok(_) => {
                info!(object = %node.key, kind = row.resource.kind, "deleted, its owners are gone");
                Ok(())
            }
            Err(failure) if error::is_not_found(&failure) => Ok(()),
            Err(failure) => Err(Error::Delete(node.key.clone(), failure)),
        }
    }

    fn api(&self, row: &ResourceType, key: &Key) -> Api<DynamicObject> {
        if row.namespaced {
            Api::namespaced_with(self.client.clone(), key.namespace(), &row.resource)
        } else {
            Api::all_with(self.client.clone(), &row.resource)
        }
    }
}

/// How the dependents of an object that nothing holds are to be treated.
fn policy(live: &Meta) -> PropagationPolicy {
    let has = |wanted: &str| live.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == wanted);
    if has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if has(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    }
}
