//! Warnings about volumes that are accepted and yet use what is gone or going.

use k8s_openapi::api::core::v1::PersistentVolume;

use crate::api::field::Path;
use crate::registry::groups::core::pods::warnings::node_term;

const ANNOTATIONS: [(&str, &str); 2] = [
    (
        "volume.beta.kubernetes.io/storage-class",
        "deprecated since v1.8; use \"storageClassName\" attribute instead",
    ),
    (
        "volume.beta.kubernetes.io/mount-options",
        "deprecated since v1.31; use \"mountOptions\" attribute instead",
    ),
];
const RECYCLE: &str = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic \
                       provisioning.";

/// Warnings about a volume.
pub(super) fn of(volume: &PersistentVolume) -> Vec<String> {
    let at = Path::new("spec");
    let notes = volume.metadata.annotations.as_ref();
    let noted = ANNOTATIONS.iter().filter(|(key, _)| notes.is_some_and(|own| own.contains_key(*key)));
    let mut warnings: Vec<String> =
        noted.map(|(key, message)| format!("metadata.annotations[{key}]: {message}")).collect();
    let Some(spec) = &volume.spec else { return warnings };
    if spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") {
        warnings.push(format!("{}: {RECYCLE}", at.child("persistentVolumeReclaimPolicy")));
    }
    let required = spec.node_affinity.as_ref().and_then(|own| own.required.as_ref());
    let at_terms = at.child("nodeAffinity").child("required").child("nodeSelectorTerms");
    for (i, term) in required.iter().flat_map(|own| &own.node_selector_terms).enumerate() {
        warnings.extend(node_term(term, false, &at_terms.index(i)));
    }
    let gone = [
        ("cephfs", spec.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        (
            "photonPersistentDisk",
            spec.photon_persistent_disk.is_some(),
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("scaleIO", spec.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
        ("storageOS", spec.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", spec.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", spec.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for (field, _, message) in gone.into_iter().filter(|(_, used, _)| *used) {
        warnings.push(format!("{}: {message}", at.child(field)));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn what_is_gone_or_going_is_named() {
        let volume = json!({
            "metadata": {"annotations": {"volume.beta.kubernetes.io/mount-options": ""}},
            "spec": {"persistentVolumeReclaimPolicy": "Recycle", "rbd": {"image": "", "monitors": []},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "beta.kubernetes.io/arch", "operator": "Exists"}]}]}}},
        });
        assert_eq!(
            of(&from_value(volume).unwrap()),
            [
                "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use \
                 \"mountOptions\" attribute instead",
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
                 approach is to use dynamic provisioning.",
                "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/arch is \
                 deprecated since v1.14; use \"kubernetes.io/arch\" instead",
                "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
            ]
        );
    }
}
