//! What a claim or a volume needs next. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::client::EventType;
use crate::client::volumes::{self, BIND_COMPLETED, BOUND_BY_CONTROLLER, has};

/// Who made the volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Who is asked to make a volume, by its two names.
pub const ASKED: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];

/// What to do about a claim.
#[derive(Debug, PartialEq)]
pub enum ClaimStep {
    /// Bind it to this volume, or finish doing so.
    Bind(Arc<PersistentVolume>),
    /// Ask this provisioner for a volume.
    Provision(String),
    /// Nothing can be done now; say why.
    Wait(EventType, &'static str, String),
    /// Its volume is gone or somebody else's; say why.
    Lose(&'static str, String),
}

/// What to do about a volume.
#[derive(Debug, PartialEq, Eq)]
pub enum VolumeStep {
    /// Set this phase.
    Phase(&'static str),
    /// Its claim is gone and it may go too.
    Delete,
    /// Look at its claim, which has not taken it yet.
    Ask,
    /// Its claim took another one: make it free again.
    Free,
}

/// The pods that use a claim and have not ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Consumers {
    /// The node of one that has a node.
    pub node: Option<String>,
    /// The names of those that have none.
    pub waiting: Vec<String>,
}

/// Decides about a claim. `class` is that of its name, if there is one.
pub fn claim(
    claim: &PersistentVolumeClaim,
    all: &[Arc<PersistentVolume>],
    class: Option<&StorageClass>,
    consumers: &Consumers,
) -> ClaimStep {
    if let Some(name) = volumes::volume_name(claim) {
        let volume = all.iter().find(|volume| volume.metadata.name.as_deref() == Some(name));
        return with_volume(claim, volume);
    }
    // What waits for a pod is matched with a volume by the scheduler, which knows the node.
    let late = class.is_some_and(volumes::is_late);
    if let Some(volume) = volumes::best(all.iter(), claim, late, |_| true) {
        return ClaimStep::Bind(volume);
    }
    if late && consumers.node.is_none() && !volumes::has(&claim.metadata, volumes::SELECTED_NODE) {
        let (reason, message) = match consumers.waiting.as_slice() {
            [] => {
                ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned())
            }
            [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            pods => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
        };
        return ClaimStep::Wait(EventType::Normal, reason, message);
    }
    let name = volumes::class_of_claim(claim);
    match class {
        Some(class) if class.provisioner != volumes::NO_PROVISIONER => {
            ClaimStep::Provision(class.provisioner.clone())
        }
        None if !name.is_empty() => {
            let message = format!("storageclass.storage.k8s.io {name:?} not found");
            ClaimStep::Wait(EventType::Warning, "ProvisioningFailed", message)
        }
        _ => {
            let message = "no persistent volumes available for this claim and no storage class is set";
            ClaimStep::Wait(EventType::Normal, "FailedBinding", message.to_owned())
        }
    }
}

/// Decides about a claim that names its volume.
fn with_volume(claim: &PersistentVolumeClaim, volume: Option<&Arc<PersistentVolume>>) -> ClaimStep {
    let complete = has(&claim.metadata, BIND_COMPLETED);
    let Some(volume) = volume else {
        if complete {
            let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            return ClaimStep::Lose("ClaimLost", message.to_owned());
        }
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
        return ClaimStep::Wait(EventType::Warning, "FailedBinding", format!("volume {name:?} not found"));
    };
    let free = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
    if !free && !volumes::is_reserved_for(volume, claim) {
        let message = "Two claims are bound to the same volume, this one is bound incorrectly";
        return if complete {
            ClaimStep::Lose("ClaimMisbound", message.to_owned())
        } else {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let message = format!("volume {name:?} already bound to a different claim.");
            ClaimStep::Wait(EventType::Warning, "FailedBinding", message)
        };
    }
    match volumes::mismatch(volume, claim).filter(|_| free && !complete) {
        Some(why) => {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let message = format!("Cannot bind to requested volume {name:?}: {why}");
            ClaimStep::Wait(EventType::Warning, "VolumeMismatch", message)
        }
        None => ClaimStep::Bind(volume.clone()),
    }
}

/// Decides about a volume. `claim` is the one that it names, if there is one.
pub fn volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumeStep {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return VolumeStep::Phase("Available");
    };
    let uid = reference.uid.as_deref().filter(|uid| !uid.is_empty());
    let Some(uid) = uid else {
        // Somebody reserved it; the claim takes it when it comes.
        return if claim.is_some() { VolumeStep::Ask } else { VolumeStep::Phase("Available") };
    };
    let Some(claim) = claim.filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) else {
        let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        let ours = volume.metadata.annotations.as_ref().and_then(|all| all.get(PROVISIONED_BY));
        let ours = ours.is_some_and(|by| by == super::local_path::PROVISIONER);
        return if policy == Some("Delete") && ours {
            VolumeStep::Delete
        } else {
            VolumeStep::Phase("Released")
        };
    };
    match claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()).filter(|name| !name.is_empty()) {
        None => VolumeStep::Ask,
        Some(name) if Some(name) == volume.metadata.name.as_ref() => VolumeStep::Phase("Bound"),
        Some(_) if has(&volume.metadata, BOUND_BY_CONTROLLER) => VolumeStep::Free,
        Some(_) => VolumeStep::Phase("Available"),
    }
}

/// The claim, bound to the volume; `None` if it is already.
pub fn bound_claim(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<PersistentVolumeClaim> {
    let mut wanted = claim.clone();
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
    let spec = wanted.spec.get_or_insert_default();
    if spec.volume_name.as_deref().is_none_or(str::is_empty) {
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        spec.volume_name.clone_from(&volume.metadata.name);
    }
    (wanted != *claim).then_some(wanted)
}

/// The status of a claim that is bound to the volume.
pub fn bound_status(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> PersistentVolumeClaimStatus {
    let spec = volume.spec.clone().unwrap_or_default();
    let before = claim.status.clone().unwrap_or_default();
    let was_bound = before.phase.as_deref() == Some("Bound");
    // A volume that grew is told of by whoever grew the file system in it.
    let capacity = before.capacity.clone().filter(|_| was_bound).or(spec.capacity);
    PersistentVolumeClaimStatus {
        phase: Some("Bound".to_owned()),
        access_modes: spec.access_modes,
        capacity,
        ..before
    }
}
