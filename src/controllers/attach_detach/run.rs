//! The loop, by node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{
    CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::plan::{self, Wanted};
use crate::client::informer::index;
use crate::client::{Change, Clock, Controller, EventType, Informer, Key, Next, Recorder, error};
use crate::controllers::Context;

const BY_NODE: &str = "attachment-node";
/// Another look at what waits for another node to let go; its attachment's end is seen at once.
const RETRY: std::time::Duration = std::time::Duration::from_secs(30);

/// What went wrong with the attachments of one node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One could not be made.
    #[error("create volume attachment")]
    Create(#[source] kube::Error),
    /// One could not be deleted.
    #[error("delete volume attachment")]
    Delete(#[source] kube::Error),
    /// The node could not be told.
    #[error("update node status")]
    Node(#[source] kube::Error),
}

struct AttachDetach {
    client: Client,
    clock: Clock,
    recorder: Recorder,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    drivers: Informer<CSIDriver>,
    attachments: Informer<VolumeAttachment>,
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let informers = &context.informers;
    let this = Arc::new(AttachDetach {
        client: context.client.clone(),
        clock: context.clock.clone(),
        recorder: context.recorder.clone(),
        pods: informers.get(),
        nodes: informers.get(),
        claims: informers.get(),
        volumes: informers.get(),
        drivers: informers.get(),
        attachments: informers.get(),
    });
    this.pods.add_index(index::NODE, index::pod_node);
    this.attachments.add_index(BY_NODE, |attachment| vec![attachment.spec.node_name.clone()]);
    let keys = |names: Vec<String>| names.into_iter().map(|name| Key::new("", &name)).collect::<Vec<_>>();
    let of_pod = move |change: &Change<Pod>| {
        let uses = |pod: &Pod| !crate::client::volumes::claims_of(pod).is_empty();
        keys(index::pod_node(change.object()).into_iter().filter(|_| uses(change.object())).collect())
    };
    // Few objects and rare changes: every node with attachments or such pods has a look.
    let everybody = |this: &Arc<AttachDetach>| {
        let nodes = this.nodes.clone();
        move || nodes.list().iter().map(|node| Key::of(node.as_ref())).collect::<Vec<_>>()
    };
    let (all, all_volumes, all_drivers, all_attachments) =
        (everybody(&this), everybody(&this), everybody(&this), everybody(&this));
    let controller = Controller::new("attach-detach")
        .for_each(&this.nodes)
        .watch(&this.pods, of_pod)
        .watch(&this.claims, move |_| all())
        .watch(&this.volumes, move |_| all_volumes())
        .watch(&this.drivers, move |_| all_drivers())
        .watch(&this.attachments, move |change: &Change<VolumeAttachment>| match change.after() {
            Some(attachment) => keys(vec![attachment.spec.node_name.clone()]),
            // Somebody may have waited for this.
            None => [keys(vec![change.object().spec.node_name.clone()]), all_attachments()].concat(),
        });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(key.name()).await }
    };
    controller.run(reconcile, stop).await;
}

impl AttachDetach {
    async fn reconcile(&self, node: &str) -> Result<Next, Error> {
        let pods = self.pods.by_index(index::NODE, node);
        let wanted = plan::wanted(
            node,
            &pods,
            |claim| claim.split_once('/').and_then(|(namespace, name)| self.claims.find(namespace, name)),
            |volume| self.volumes.find("", volume),
            |driver| self.drivers.find("", driver),
        );
        let own = self.attachments.by_index(BY_NODE, node);
        let object = self.nodes.find("", node);
        let mut next = Next::Done;
        for one in wanted.values().filter(|_| object.is_some()) {
            let there = own.iter().any(|known| known.metadata.name.as_deref() == Some(&one.attachment));
            if !there && !self.attach(one, node).await? {
                next = Next::After(RETRY);
            }
        }
        for attachment in &own {
            let name = attachment.metadata.name.as_deref().unwrap_or_default();
            if wanted.contains_key(name) || attachment.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let source = attachment.spec.source.persistent_volume_name.as_deref();
            let volume = source.and_then(|source| self.volumes.find("", source));
            if !plan::is_ours(attachment, volume.as_deref()) {
                continue;
            }
            match plan::may_detach(attachment, volume.as_deref(), object.as_deref(), self.clock.now()) {
                Ok(()) => self.detach(attachment).await?,
                Err(Some(left)) => next = Next::After(left),
                // The node says when it has unmounted it.
                Err(None) => {}
            }
        }
        if let Some(object) = object {
            self.tell(&object, &own).await?;
        }
        Ok(next)
    }

    /// Orders the attachment; false when another node has the volume.
    async fn attach(&self, wanted: &Wanted, node: &str) -> Result<bool, Error> {
        let all = self.attachments.list();
        if let Some(other) = plan::held_by(wanted, node, &all) {
            let (namespace, name) = &wanted.pod;
            if let Some(pod) = self.pods.find(namespace, name) {
                let reference: ObjectReference = pod.object_ref(&());
                let message = format!(
                    "Multi-Attach error for volume \"{}\" Volume is already exclusively attached to one node and can't be attached to another",
                    wanted.volume
                );
                self.recorder.event_for(reference, EventType::Warning, "FailedAttachVolume", message);
            }
            tracing::debug!(volume = %wanted.volume, node, other, "volume is attached elsewhere");
            return Ok(false);
        }
        let mut attachment = VolumeAttachment {
            spec: VolumeAttachmentSpec {
                attacher: wanted.driver.clone(),
                node_name: node.to_owned(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(wanted.volume.clone()),
                    ..VolumeAttachmentSource::default()
                },
            },
            ..VolumeAttachment::default()
        };
        attachment.metadata.name = Some(wanted.attachment.clone());
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &attachment).await {
            Err(failure) if !error::is_already_exists(&failure) => Err(Error::Create(failure)),
            _ => Ok(true),
        }
    }

    async fn detach(&self, attachment: &VolumeAttachment) -> Result<(), Error> {
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        let uid = Preconditions { uid: attachment.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(uid), ..DeleteParams::default() };
        match api.delete(attachment.metadata.name.as_deref().unwrap_or_default(), &params).await {
            Err(failure) if !error::is_not_found(&failure) && !error::is_conflict(&failure) => {
                Err(Error::Delete(failure))
            }
            _ => Ok(()),
        }
    }

    /// Shows in the node's status what is attached to it.
    async fn tell(&self, node: &Node, own: &[Arc<VolumeAttachment>]) -> Result<(), Error> {
        let attached = plan::attached(own, |volume| self.volumes.find("", volume));
        let shown = node.status.as_ref().and_then(|status| status.volumes_attached.clone());
        if shown.unwrap_or_default() == attached {
            return Ok(());
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"status": {"volumesAttached": attached}}));
        let name = node.metadata.name.as_deref().unwrap_or_default();
        match api.patch_status(name, &PatchParams::default(), &patch).await {
            Err(failure) if !error::is_not_found(&failure) => Err(Error::Node(failure)),
            _ => Ok(()),
        }
    }
}
