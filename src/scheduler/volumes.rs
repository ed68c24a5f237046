//! Getting the claims of a pod bound before the pod is: writes what was decided, and waits for the binder and for
//! provisioners to do their part.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::cluster::NodeInfo;
use super::storage::{Plan, is_in_reach};
use crate::client::{Informer, Informers, Key, volumes};

/// How long volumes may take to be bound or made.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why the claims are not bound.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The volume could not be given to its claim.
    #[error("binding volumes: write volume")]
    Volume(#[source] kube::Error),
    /// The claim could not be promised to the node.
    #[error("binding volumes: write claim")]
    Claim(#[source] kube::Error),
    /// It took too long.
    #[error("binding volumes: context deadline exceeded")]
    Late,
    /// The claim is gone or is another one by now.
    #[error("binding volumes: pvc {0:?} is gone")]
    Gone(String),
    /// The provisioner gave the claim back.
    #[error("binding volumes: provisioning failed for PVC {0:?}")]
    GivenBack(String),
    /// The claim took another volume, which the node cannot reach.
    #[error("binding volumes: pv {0:?} node affinity doesn't match node {1:?}")]
    OutOfReach(String, String),
}

/// Writes and waits; cloning gives another handle.
#[derive(Clone)]
pub struct VolumeBinder {
    client: Client,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    nodes: Informer<Node>,
}

impl fmt::Debug for VolumeBinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumeBinder").field("claims", &self.claims).finish_non_exhaustive()
    }
}

impl VolumeBinder {
    /// Works through `client`, and learns from `informers` how things go.
    pub fn new(client: Client, informers: &Informers) -> Self {
        Self { client, claims: informers.get(), volumes: informers.get(), nodes: informers.get() }
    }

    /// Carries out the plan for a pod that is to run on `node`, and returns when all its claims are bound.
    ///
    /// # Errors
    /// The pod must be scheduled again.
    pub async fn bind(&self, plan: &Plan, node: &str) -> Result<(), Error> {
        for (claim, volume) in &plan.bindings {
            self.give(volume, claim).await?;
        }
        let mut written = Vec::with_capacity(plan.provisions.len());
        for claim in &plan.provisions {
            written.push(self.select(claim, node).await?);
        }
        let (mut claims, mut volumes) = (self.claims.subscribe(), self.volumes.subscribe());
        let bound = async {
            while !self.all_bound(plan, node, &written)? {
                tokio::select! {
                    _ = claims.next() => {}
                    _ = volumes.next() => {}
                }
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, bound).await.unwrap_or(Err(Error::Late))
    }

    /// Reserves the volume for the claim; the binder does the rest.
    async fn give(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let Some(wanted) = volumes::bound_volume(volume, claim) else { return Ok(()) };
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        api.replace(name, &PostParams::default(), &wanted).await.map(drop).map_err(Error::Volume)
    }

    /// Tells the provisioner for which node to make the claim's volume; the version of the claim that says so.
    async fn select(&self, claim: &PersistentVolumeClaim, node: &str) -> Result<String, Error> {
        let meta = &claim.metadata;
        if volumes::selected_node(claim) == Some(node) {
            return Ok(meta.resource_version.clone().unwrap_or_default());
        }
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let patch = Patch::Merge(json!({"metadata": {
            "uid": meta.uid,
            "annotations": {(volumes::SELECTED_NODE): node},
        }}));
        let name = meta.name.as_deref().unwrap_or_default();
        let written = api.patch(name, &PatchParams::default(), &patch).await.map_err(Error::Claim)?;
        Ok(written.metadata.resource_version.unwrap_or_default())
    }

    /// All claims are bound to volumes that the node reaches.
    fn all_bound(&self, plan: &Plan, node: &str, written: &[String]) -> Result<bool, Error> {
        if !written.iter().all(|version| self.claims.has_seen(version)) {
            return Ok(false);
        }
        let mut all = true;
        for claim in plan.claims() {
            let key = Key::of(claim.as_ref());
            let now = self.claims.get(&key).filter(|now| now.metadata.uid == claim.metadata.uid);
            let now = now.ok_or_else(|| Error::Gone(key.to_string()))?;
            if volumes::is_bound(&now) {
                all &= self.is_in_reach(&now, node)?;
                continue;
            }
            all = false;
            let provisioned = plan.provisions.iter().any(|one| Key::of(one.as_ref()) == key);
            if provisioned && volumes::selected_node(&now) != Some(node) {
                return Err(Error::GivenBack(key.to_string()));
            }
        }
        Ok(all)
    }

    /// The claim's volume is known here and in reach of the node.
    fn is_in_reach(&self, claim: &PersistentVolumeClaim, node: &str) -> Result<bool, Error> {
        let name = volumes::volume_name(claim).unwrap_or_default();
        let (Some(volume), Some(known)) = (self.volumes.find("", name), self.nodes.find("", node)) else {
            return Ok(false);
        };
        let info = NodeInfo { name: node.into(), node: Some(known), ..NodeInfo::default() };
        if is_in_reach(&volume, &info) {
            return Ok(true);
        }
        Err(Error::OutOfReach(name.to_owned(), node.to_owned()))
    }
}
