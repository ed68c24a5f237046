//! Volumes on the disk of the node that the first consumer runs on.
//!
//! The kubelet makes the directory when it mounts the volume, as for any `hostPath` of type `DirectoryOrCreate`, and
//! removes it when it is asked to before the volume is deleted; one that a class's `nodePath` puts elsewhere is left.

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use kube::api::ObjectMeta;

use super::plan;
use crate::client::volumes;

/// The name by which classes ask for these volumes; that of k3s, so that charts made for it work.
pub const PROVISIONER: &str = "rancher.io/local-path";
/// Label of a node with the name of its host.
pub const HOST_NAME: &str = "kubernetes.io/hostname";
/// Where the directories lie on the node.
const ROOT: &str = "/var/lib/kube-lite/storage";

/// The value of the host name label of the node that a volume lies on, and its directory there; `None` if it does not lie
/// where kubelets remove directories.
pub fn place(volume: &PersistentVolume) -> Option<(&str, &str)> {
    let spec = volume.spec.as_ref()?;
    let directory = spec.host_path.as_ref()?.path.strip_prefix(ROOT)?.strip_prefix('/')?;
    let terms = &spec.node_affinity.as_ref()?.required.as_ref()?.node_selector_terms;
    let on_host = |requirement: &&NodeSelectorRequirement| requirement.key == HOST_NAME;
    let mut requirements = terms.iter().flat_map(|term| term.match_expressions.iter().flatten());
    let host = requirements.find(on_host)?.values.as_ref()?.first()?;
    Some((host, directory))
}

/// The volume for a claim whose consumer runs on `node`.
pub fn volume(class: &StorageClass, claim: &PersistentVolumeClaim, node: &str) -> PersistentVolume {
    let meta = &claim.metadata;
    let spec = claim.spec.clone().unwrap_or_default();
    let name = format!("pvc-{}", meta.uid.as_deref().unwrap_or_default());
    let (namespace, claim_name) =
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let root = class.parameters.as_ref().and_then(|all| all.get("nodePath")).map_or(ROOT, String::as_str);
    let path = format!("{root}/{name}_{namespace}_{claim_name}");
    let on_node = NodeSelectorRequirement {
        key: HOST_NAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![on_node]), match_fields: None };
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name),
            annotations: Some([(plan::PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some(
                [("storage".to_owned(), RawQuantity(volumes::requested(claim).to_string()))].into(),
            ),
            claim_ref: Some(ObjectReference { resource_version: None, ..volumes::reference(claim) }),
            host_path: Some(HostPathVolumeSource { path, type_: Some("DirectoryOrCreate".to_owned()) }),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone().or(Some("Delete".to_owned())),
            storage_class_name: class.metadata.name.clone(),
            mount_options: class.mount_options.clone(),
            volume_mode: spec.volume_mode,
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}
