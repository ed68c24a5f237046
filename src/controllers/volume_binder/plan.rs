//! What a claim or a volume needs next. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::fit;
use crate::client::EventType;

/// The claim and its volume know each other.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Nobody but the binder chose the other side.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Who made the volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The node that the scheduler chose for the first consumer.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
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

/// The reference by which a volume names its claim.
pub fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// The object carries this annotation.
pub fn has(meta: &ObjectMeta, annotation: &str) -> bool {
    meta.annotations.as_ref().is_some_and(|all| all.contains_key(annotation))
}

/// Decides about a claim. `class` is that of its name, if there is one; `consumer` says whether a pod that uses the claim
/// has a node.
pub fn claim(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    class: Option<&StorageClass>,
    consumer: bool,
) -> ClaimStep {
    let named =
        claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    if let Some(name) = named {
        let volume = volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name));
        return with_volume(claim, volume);
    }
    let waits_for_pod =
        class.and_then(|class| class.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer");
    let waits = waits_for_pod && !consumer && !has(&claim.metadata, SELECTED_NODE);
    if let Some(volume) = fit::best(volumes, claim, waits) {
        return ClaimStep::Bind(volume);
    }
    if waits {
        let message = "waiting for first consumer to be created before binding";
        return ClaimStep::Wait(EventType::Normal, "WaitForFirstConsumer", message.to_owned());
    }
    let name = fit::class_of_claim(claim);
    match class {
        Some(class) if class.provisioner != "kubernetes.io/no-provisioner" => {
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
    if !free && !fit::is_reserved_for(volume, claim) {
        let message = "Two claims are bound to the same volume, this one is bound incorrectly";
        return if complete {
            ClaimStep::Lose("ClaimMisbound", message.to_owned())
        } else {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let message = format!("volume {name:?} already bound to a different claim.");
            ClaimStep::Wait(EventType::Warning, "FailedBinding", message)
        };
    }
    match fit::mismatch(volume, claim).filter(|_| free && !complete) {
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

/// The volume, bound to the claim; `None` if it is already.
pub fn bound_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let mut wanted = volume.clone();
    let known = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if known.is_some_and(|known| known.uid == claim.metadata.uid) {
        return None;
    }
    if known.is_none() {
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    wanted.spec.get_or_insert_default().claim_ref = Some(reference(claim));
    Some(wanted)
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
