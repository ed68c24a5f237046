//! Who controls an object: adoption of matching orphans and release of owned objects that no longer match.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

/// What an owner does about one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is controlled by this owner and matches its selector.
    Owned,
    /// It matches and nobody controls it: take it.
    Adopt,
    /// It is controlled by this owner but does not match any more: let it go.
    Release,
    /// It is none of this owner's business.
    Ignore,
}

/// The reference to the controlling owner.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// The uid of the controlling owner.
pub fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    controller_of(meta).map(|owner| owner.uid.as_str())
}

/// Decides about one object of the owner's namespace. `matches` says whether the owner's selector selects it.
pub fn claim(owner: &ObjectMeta, object: &ObjectMeta, matches: bool) -> Claim {
    let owner_deleting = owner.deletion_timestamp.is_some();
    match controller_uid(object) {
        Some(uid) if Some(uid) != owner.uid.as_deref() => Claim::Ignore,
        Some(_) if matches => Claim::Owned,
        Some(_) if owner_deleting => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner_deleting || !matches || object.deletion_timestamp.is_some() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// A controlling owner reference that blocks the owner's foreground deletion.
pub fn controller_reference(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The strategic merge patch that makes `owner` the controller of the object with this uid.
pub fn adopt_patch(owner: &OwnerReference, object_uid: &str) -> Value {
    json!({"metadata": {"uid": object_uid, "ownerReferences": [owner]}})
}

/// The strategic merge patch that takes the owner off the object with this uid.
pub fn release_patch(owner_uid: &str, object_uid: &str) -> Value {
    json!({"metadata": {"uid": object_uid, "ownerReferences": [{"$patch": "delete", "uid": owner_uid}]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(owner: Option<&str>, deleting: bool) -> ObjectMeta {
        let deletion = deleting.then_some("2026-01-01T00:00:00Z");
        let owners: Vec<_> = owner
            .map(|uid| json!({"apiVersion": "apps/v1", "kind": "X", "name": "x", "uid": uid, "controller": true}))
            .into_iter()
            .collect();
        serde_json::from_value(json!({"uid": "o", "deletionTimestamp": deletion, "ownerReferences": owners}))
            .unwrap()
    }

    fn owner(deleting: bool) -> ObjectMeta {
        ObjectMeta { uid: Some("me".into()), ..object(None, deleting) }
    }

    #[test]
    fn claims_follow_the_controller_reference_and_the_selector() {
        use Claim::*;
        for (owner_deleting, controlled_by, deleting, matches, expected) in [
            (false, Some("me"), false, true, Owned),
            (false, Some("me"), true, true, Owned),
            (false, Some("me"), false, false, Release),
            (true, Some("me"), false, false, Ignore),
            (true, Some("me"), false, true, Owned),
            (false, Some("other"), false, true, Ignore),
            (false, None, false, true, Adopt),
            (false, None, true, true, Ignore),
            (false, None, false, false, Ignore),
            (true, None, false, true, Ignore),
        ] {
            let claim = claim(&owner(owner_deleting), &object(controlled_by, deleting), matches);
            assert_eq!(claim, expected, "{owner_deleting} {controlled_by:?} {deleting} {matches}");
        }
    }

    #[test]
    fn an_owner_that_is_not_the_controller_does_not_control() {
        let mut meta = object(Some("me"), false);
        meta.owner_references.as_mut().unwrap()[0].controller = None;
        assert_eq!(controller_uid(&meta), None);
    }
}
