//! Which volume suits a claim.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::api::quantity::Quantity;
use crate::api::selector::LabelSelector;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The class that a claim asks for, empty for none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let annotation = claim.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
    let field = || claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotation.or_else(field).map_or("", String::as_str)
}

/// The class that a volume is of, empty for none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let annotation = volume.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
    let field = || volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotation.or_else(field).map_or("", String::as_str)
}

/// How much the claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let raw = resources.and_then(|resources| resources.requests.as_ref()).and_then(|all| all.get("storage"));
    raw.and_then(|raw| Quantity::parse(&raw.0).ok()).unwrap_or(Quantity::ZERO)
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    let raw = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()).and_then(|all| all.get("storage"));
    raw.and_then(|raw| Quantity::parse(&raw.0).ok()).unwrap_or(Quantity::ZERO)
}

/// The volume is meant for this claim: by name, and by uid where it says one.
pub fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let uid = reference.uid.as_deref().filter(|uid| !uid.is_empty());
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && uid.is_none_or(|uid| Some(uid) == claim.metadata.uid.as_deref())
}

/// Why a volume cannot hold what the claim asks for, in upstream's words; `None` if it can.
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return Some("there is no spec") };
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let modes = has.access_modes.as_deref().unwrap_or_default();
    if capacity(volume) < requested(claim) {
        Some("requested PV is too small")
    } else if class_of_claim(claim) != class_of_volume(volume) {
        Some("storageClassName does not match")
    } else if mode(&has.volume_mode) != mode(&wants.volume_mode) {
        Some("incompatible volumeMode")
    } else if !wants.access_modes.iter().flatten().all(|wanted| modes.contains(wanted)) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// The best volume for the claim: the one reserved for it, else the smallest that is free and suits it.
///
/// A claim that waits for its consumer takes only a volume that is reserved for it.
pub fn best(
    volumes: &[Arc<PersistentVolume>],
    claim: &PersistentVolumeClaim,
    waits: bool,
) -> Option<Arc<PersistentVolume>> {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = match selector {
        None => LabelSelector::everything(),
        some => LabelSelector::from_meta(some).unwrap_or_else(|_| LabelSelector::nothing()),
    };
    let suits = |volume: &Arc<PersistentVolume>| {
        volume.metadata.deletion_timestamp.is_none() && mismatch(volume, claim).is_none()
    };
    let reserved = volumes.iter().filter(|volume| is_reserved_for(volume, claim) && suits(volume));
    let reserved = least(reserved);
    if reserved.is_some() || waits {
        return reserved;
    }
    let free = volumes.iter().filter(|volume| {
        let unclaimed = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        unclaimed
            && phase == Some("Available")
            && suits(volume)
            && selector.matches_labels(volume.metadata.labels.as_ref())
    });
    least(free)
}

/// The smallest of them.
fn least<'a>(found: impl Iterator<Item = &'a Arc<PersistentVolume>>) -> Option<Arc<PersistentVolume>> {
    found.min_by_key(|volume| (capacity(volume), volume.metadata.name.clone())).cloned()
}
