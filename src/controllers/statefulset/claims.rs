//! The volume claims of a StatefulSet's pods, and what becomes of them when pods or the set go.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::identity;
use crate::controllers::workload::ownership;

/// The name of the claim from the template called `template` for a pod.
pub fn claim_name(set: &StatefulSet, template: &str, ordinal: i32) -> String {
    format!("{template}-{}", identity::pod_name(set, ordinal))
}

/// The claims that the pod of this ordinal needs.
pub fn claims_for(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let selected = spec.selector.match_labels.clone().unwrap_or_default();
    let build = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        let name = template.metadata.name.as_deref().unwrap_or_default();
        claim.metadata.name = Some(claim_name(set, name, ordinal));
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        claim.metadata.labels.get_or_insert_default().extend(selected.clone());
        claim.status = None;
        claim
    };
    spec.volume_claim_templates.iter().flatten().map(build).collect()
}

/// The owners that the retention policy gives to a claim; `pod` is the claim's pod.
///
/// A claim that goes with the set is owned by it; one that goes with a pod which is scaled away is owned by that pod.
pub fn owners(set: &StatefulSet, pod: &Pod, claim: &PersistentVolumeClaim) -> Vec<OwnerReference> {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |policy: Option<&String>| policy.is_some_and(|policy| policy == "Delete");
    let when_deleted = deletes(policy.and_then(|policy| policy.when_deleted.as_ref()));
    let when_scaled = deletes(policy.and_then(|policy| policy.when_scaled.as_ref()));
    let condemned = identity::ordinal(set, pod).is_none_or(|n| !identity::wanted(set).contains(&n));
    let by_pod = when_scaled && condemned;
    let by_set = when_deleted && !by_pod;
    let ours = [set.metadata.uid.as_deref(), pod.metadata.uid.as_deref()];
    let is_ours = |owner: &OwnerReference| {
        ours.contains(&Some(owner.uid.as_str()))
            // A pod of the same name that lived before.
            || (owner.kind == "Pod" && Some(owner.name.as_str()) == pod.metadata.name.as_deref())
    };
    let mut owners: Vec<_> =
        claim.metadata.owner_references.iter().flatten().filter(|owner| !is_ours(owner)).cloned().collect();
    if by_set {
        owners.push(ownership::controller_reference("apps/v1", "StatefulSet", &set.metadata));
    }
    if by_pod {
        owners.push(OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            ..OwnerReference::default()
        });
    }
    owners
}
