//! The identity of a StatefulSet's pods: names, ordinals, labels, hosts and volumes.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};

use super::claims::claim_name;
use crate::controllers::workload::revisions::POD_LABEL;
use crate::controllers::workload::{ownership, template};

/// Label with the pod's own name, for Services that select one pod.
pub const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// Label with the pod's ordinal.
pub const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// `spec.ordinals.start`.
pub fn first_ordinal(set: &StatefulSet) -> i32 {
    let ordinals = set.spec.as_ref().and_then(|spec| spec.ordinals.as_ref());
    ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0)
}

/// `spec.replicas`.
pub fn replicas(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The ordinals that should have a pod.
pub fn wanted(set: &StatefulSet) -> std::ops::Range<i32> {
    let first = first_ordinal(set);
    first..first.saturating_add(replicas(set))
}

/// The name of the pod with this ordinal.
pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

/// The ordinal of a pod that is named as the set names its pods.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (parent, ordinal) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    let is_number = ordinal.bytes().all(|byte| byte.is_ascii_digit());
    (Some(parent) == set.metadata.name.as_deref() && is_number).then(|| ordinal.parse().ok())?
}

/// The revision that a pod is of.
pub fn revision(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(POD_LABEL)).map_or("", String::as_str)
}

/// The pod of this ordinal, made from `template`, which is that of `revision`.
pub fn build(set: &StatefulSet, ordinal: i32, template: &PodTemplateSpec, revision: &str) -> Pod {
    let owner = ownership::controller_reference("apps/v1", "StatefulSet", &set.metadata);
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = template::pod_from_template(template, namespace, "", owner);
    pod.metadata.generate_name = None;
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(pod_name(set, ordinal));
    spec.subdomain =
        set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    identify(set, ordinal, &mut pod);
    mount_claims(set, ordinal, &mut pod);
    pod
}

/// Sets what a pod must keep over its life.
pub fn identify(set: &StatefulSet, ordinal: i32, pod: &mut Pod) {
    let name = pod_name(set, ordinal);
    pod.metadata.namespace.clone_from(&set.metadata.namespace);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME_LABEL.to_owned(), name.clone());
    labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
    pod.metadata.name = Some(name);
}

/// Puts a volume for each claim in the place of the template's volume of the same name.
fn mount_claims(set: &StatefulSet, ordinal: i32, pod: &mut Pod) {
    let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    let volumes = pod.spec.get_or_insert_default().volumes.get_or_insert_default();
    for template in templates {
        let name = template.metadata.name.clone().unwrap_or_default();
        volumes.retain(|volume| volume.name != name);
        volumes.push(Volume {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, &name, ordinal),
                read_only: None,
            }),
            name,
            ..Volume::default()
        });
    }
}
