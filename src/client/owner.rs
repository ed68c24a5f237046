//! Owner references: making them and reading them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;

/// The reference with `controller: true`, if any.
pub fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.meta().owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// `object` is controlled by the object with this uid.
pub fn is_controlled_by<K: Resource>(object: &K, uid: &str) -> bool {
    controller_of(object).is_some_and(|owner| owner.uid == uid)
}

/// A reference by which `owner` controls another object; its deletion in the foreground waits for that object.
/// `None` when `owner` has no name or uid, that is, when it does not come from the API.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> Option<OwnerReference> {
    let mut reference = owner.controller_owner_ref(&())?;
    reference.block_owner_deletion = Some(true);
    Some(reference)
}

/// The uids of all owners of `object`.
pub fn owner_uids<K: Resource>(object: &K) -> impl Iterator<Item = &str> {
    object.meta().owner_references.iter().flatten().map(|owner| owner.uid.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
    use kube::api::ObjectMeta;

    #[test]
    fn a_made_reference_is_found_again() {
        let meta = |uid: &str| ObjectMeta {
            name: Some("web".into()),
            uid: Some(uid.into()),
            ..ObjectMeta::default()
        };
        let owner = ReplicaSet { metadata: meta("u1"), ..ReplicaSet::default() };
        let reference = controller_reference(&owner).unwrap();
        assert_eq!((reference.api_version.as_str(), reference.kind.as_str()), ("apps/v1", "ReplicaSet"));
        assert_eq!(reference.block_owner_deletion, Some(true));
        let mut pod = Pod { metadata: meta("p"), ..Pod::default() };
        assert!(controller_of(&pod).is_none());
        pod.metadata.owner_references = Some(vec![reference]);
        assert!(is_controlled_by(&pod, "u1") && !is_controlled_by(&pod, "u2"));
        assert_eq!(owner_uids(&pod).collect::<Vec<_>>(), ["u1"]);
    }
}
