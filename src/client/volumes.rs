//! Claims and volumes: which claims a pod uses, which volume suits a claim, and how a volume is given to it. Pure; the
//! binder and the scheduler share it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::quantity::Quantity;
use crate::api::selector::LabelSelector;

/// The claim and its volume know each other.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Nobody but the binder or the scheduler chose the other side.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The node that the scheduler chose for the first consumer.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The names of the claims that those of a pod's volumes use that `wanted` admits.
pub fn claim_names(pod: &Pod, wanted: impl Fn(&Volume) -> bool) -> Vec<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claims = volumes.filter(|volume| wanted(volume)).filter_map(|volume| {
        match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{name}-{}", volume.name)),
            (None, None) => None,
        }
    });
    claims.collect()
}

/// The claims that a pod uses, as `namespace/name`.
pub fn claims_of(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    claim_names(pod, |_| true).iter().map(|claim| format!("{namespace}/{claim}")).collect()
}

/// The object carries this annotation.
pub fn has(meta: &ObjectMeta, annotation: &str) -> bool {
    meta.annotations.as_ref().is_some_and(|all| all.contains_key(annotation))
}

/// The volume that a claim names.
pub fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// The claim is bound, and its volume knows.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    volume_name(claim).is_some() && has(&claim.metadata, BIND_COMPLETED)
}

/// The node that was chosen for the claim's first consumer.
pub fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref()?.get(SELECTED_NODE).map(String::as_str)
}

/// Claims of the class are bound when a pod that uses them has a node.
pub fn is_late(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
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
    let attributes = |class: &Option<String>| class.clone().unwrap_or_default();
    let modes = has.access_modes.as_deref().unwrap_or_default();
    if capacity(volume) < requested(claim) {
        Some("requested PV is too small")
    } else if class_of_claim(claim) != class_of_volume(volume) {
        Some("storageClassName does not match")
    } else if attributes(&has.volume_attributes_class_name) != attributes(&wants.volume_attributes_class_name)
    {
        Some("volumeAttributesClassName does not match")
    } else if mode(&has.volume_mode) != mode(&wants.volume_mode) {
        Some("incompatible volumeMode")
    } else if !wants.access_modes.iter().flatten().all(|wanted| modes.contains(wanted)) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// The best volume for the claim among those that `usable` admits: the one reserved for it, else the smallest that is
/// free and suits it.
///
/// With `only_reserved`, a volume that nobody has reserved for the claim is not taken.
pub fn best<'a>(
    volumes: impl Iterator<Item = &'a Arc<PersistentVolume>> + Clone,
    claim: &PersistentVolumeClaim,
    only_reserved: bool,
    usable: impl Fn(&PersistentVolume) -> bool,
) -> Option<Arc<PersistentVolume>> {
    let suits = |volume: &&Arc<PersistentVolume>| {
        volume.metadata.deletion_timestamp.is_none() && mismatch(volume, claim).is_none() && usable(volume)
    };
    let reserved = least(volumes.clone().filter(|volume| is_reserved_for(volume, claim)).filter(suits));
    if reserved.is_some() || only_reserved {
        return reserved;
    }
    let selector = match claim.spec.as_ref().and_then(|spec| spec.selector.as_ref()) {
        None => LabelSelector::everything(),
        some => LabelSelector::from_meta(some).unwrap_or_else(|_| LabelSelector::nothing()),
    };
    let free = volumes.filter(|volume| {
        let unclaimed = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        unclaimed && phase == Some("Available") && selector.matches_labels(volume.metadata.labels.as_ref())
    });
    least(free.filter(suits))
}

/// The smallest of them.
fn least<'a>(found: impl Iterator<Item = &'a Arc<PersistentVolume>>) -> Option<Arc<PersistentVolume>> {
    found.min_by_key(|volume| (capacity(volume), volume.metadata.name.clone())).cloned()
}
