//! What a node needs attached, and what may go. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::core::v1::{AttachedVolume, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use k8s_openapi::jiff::Timestamp;

use crate::client::clock::age;
use crate::client::volumes::claims_of;
use crate::controllers::workload::pods::is_finished;

/// A node that has not been ready for this long will not unmount anything any more.
pub const FORCE_AFTER: Duration = Duration::from_secs(6 * 60);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Modes of a volume that only one node may have.
const ONE_NODE: [&str; 2] = ["ReadWriteOnce", "ReadWriteOncePod"];

/// A volume that a node should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the VolumeAttachment.
    pub attachment: String,
    /// The driver.
    pub driver: String,
    /// Name of the PersistentVolume.
    pub volume: String,
    /// Namespace and name of a pod that needs it.
    pub pod: (String, String),
    /// Only one node at a time may have it.
    pub exclusive: bool,
}

/// The name of the attachment of a volume to a node, as upstream derives it; kubelets look for it.
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    let sum = digest(&SHA256, format!("{handle}{driver}{node}").as_bytes());
    let hex: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("csi-{hex}")
}

/// Upstream's name of an attached volume in a Node's status.
fn unique_name(volume: &PersistentVolume) -> Option<String> {
    let csi = volume.spec.as_ref()?.csi.as_ref()?;
    Some(format!("kubernetes.io/csi/{}^{}", csi.driver, csi.volume_handle))
}

fn attaches(driver: Option<&CSIDriver>) -> bool {
    driver.is_none_or(|driver| driver.spec.attach_required.unwrap_or(true))
}

/// The volumes that the pods of a node need.
pub fn wanted(
    node: &str,
    pods: &[Arc<Pod>],
    claim: impl Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
    volume: impl Fn(&str) -> Option<Arc<PersistentVolume>>,
    driver: impl Fn(&str) -> Option<Arc<CSIDriver>>,
) -> BTreeMap<String, Wanted> {
    let mut out = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !is_finished(pod)) {
        for name in claims_of(pod) {
            let bound = claim(&name).filter(|claim| {
                claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
            });
            let volume = bound.and_then(|claim| volume(claim.spec.as_ref()?.volume_name.as_deref()?));
            let Some(volume) = volume else { continue };
            let Some(csi) = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()) else { continue };
            if !attaches(driver(&csi.driver).as_deref()) {
                continue;
            }
            let attachment = attachment_name(&csi.volume_handle, &csi.driver, node);
            let modes = volume.spec.iter().flat_map(|spec| spec.access_modes.iter().flatten());
            let pod = &pod.metadata;
            out.entry(attachment.clone()).or_insert_with(|| Wanted {
                attachment,
                driver: csi.driver.clone(),
                volume: volume.metadata.name.clone().unwrap_or_default(),
                pod: (pod.namespace.clone().unwrap_or_default(), pod.name.clone().unwrap_or_default()),
                exclusive: modes.into_iter().all(|mode| ONE_NODE.contains(&mode.as_str())),
            });
        }
    }
    out
}

/// Another node that has the volume, when only one may.
pub fn held_by<'a>(
    wanted: &Wanted,
    node: &str,
    all: impl IntoIterator<Item = &'a Arc<VolumeAttachment>>,
) -> Option<&'a str> {
    let of_volume = |attachment: &&Arc<VolumeAttachment>| {
        attachment.spec.source.persistent_volume_name.as_deref() == Some(&wanted.volume)
    };
    let others = all.into_iter().filter(of_volume).map(|attachment| attachment.spec.node_name.as_str());
    wanted.exclusive.then(|| others.into_iter().find(|other| *other != node)).flatten()
}

/// Whether an attachment that no pod needs may go now; otherwise after which time it is worth another look.
pub fn may_detach(
    attachment: &VolumeAttachment,
    volume: Option<&PersistentVolume>,
    node: Option<&Node>,
    now: Timestamp,
) -> Result<(), Option<Duration>> {
    let Some(node) = node else { return Ok(()) };
    let in_use = node.status.iter().flat_map(|status| status.volumes_in_use.iter().flatten());
    let own = volume.and_then(unique_name);
    let used = in_use.into_iter().any(|name| match &own {
        Some(own) => own == name,
        // The volume is gone, so the handle is not known: the driver's name has to do.
        None => name.starts_with(&format!("kubernetes.io/csi/{}^", attachment.spec.attacher)),
    });
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    if !used || taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE) {
        return Ok(());
    }
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    let since = match ready {
        Some(ready) if ready.status == "True" => return Err(None),
        Some(ready) => ready.last_transition_time.as_ref().map_or(now, |time| time.0),
        None => return Err(None),
    };
    let left = FORCE_AFTER.saturating_sub(age(now, since));
    if left.is_zero() { Ok(()) } else { Err(Some(left)) }
}

/// Whether this controller has made the attachment.
pub fn is_ours(attachment: &VolumeAttachment, volume: Option<&PersistentVolume>) -> bool {
    let name = attachment.metadata.name.as_deref().unwrap_or_default();
    let spec = &attachment.spec;
    match volume.and_then(|volume| volume.spec.as_ref()?.csi.as_ref()) {
        Some(csi) => name == attachment_name(&csi.volume_handle, &spec.attacher, &spec.node_name),
        None => name
            .strip_prefix("csi-")
            .is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())),
    }
}

/// The list of a Node's attached volumes.
pub fn attached<'a>(
    attachments: impl IntoIterator<Item = &'a Arc<VolumeAttachment>>,
    volume: impl Fn(&str) -> Option<Arc<PersistentVolume>>,
) -> Vec<AttachedVolume> {
    let names: BTreeSet<String> = attachments
        .into_iter()
        .filter(|attachment| attachment.status.as_ref().is_some_and(|status| status.attached))
        .filter_map(|attachment| {
            unique_name(volume(attachment.spec.source.persistent_volume_name.as_deref()?)?.as_ref())
        })
        .collect();
    names.into_iter().map(|name| AttachedVolume { name, device_path: String::new() }).collect()
}
