//! From a claim in a pod's spec to the persistent volume that it is bound to.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::{Api, Client};

use crate::kubelet::pods::admission::term_matches;
use crate::kubelet::spec;

/// A claim that gives no volume, yet or ever.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The API does not give the claim.
    #[error("error processing PVC {claim}: failed to fetch PVC from API server")]
    Fetch {
        /// Namespace and name.
        claim: String,
        /// What the API said.
        #[source]
        source: kube::Error,
    },
    /// The API does not give the volume.
    #[error("failed to fetch PV {0} from API server")]
    Volume(String, #[source] kube::Error),
    /// There is no claim of this name.
    #[error("error processing PVC {claim}: persistentvolumeclaim \"{name}\" not found")]
    Missing {
        /// Namespace and name.
        claim: String,
        /// Name.
        name: String,
    },
    /// No volume is bound to it.
    #[error("error processing PVC {0}: PVC is not bound")]
    NotBound(String),
    /// It is going away.
    #[error("error processing PVC {0}: PVC is being deleted")]
    Deleting(String),
    /// A claim of the name that the pod's own volume would have, made by somebody else.
    #[error("PVC {claim} was not created for pod {pod} (pod is not owner)")]
    NotOwner {
        /// Namespace and name of the claim.
        claim: String,
        /// Namespace and name of the pod.
        pod: String,
    },
    /// The volume is bound to another claim.
    #[error("PV {volume} spec.claimRef does not match PVC {claim}")]
    Mismatch {
        /// The volume.
        volume: String,
        /// The claim.
        claim: String,
    },
    /// The volume is somewhere else.
    #[error("volume {0}: no matching NodeSelectorTerms")]
    Elsewhere(String),
}

/// A volume that a pod may use.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The volume.
    pub volume: PersistentVolume,
    /// The pod may only read it.
    pub read_only: bool,
}

/// Name of the claim that a volume stands for, and whether the claim must be the pod's own.
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), false));
    }
    volume.ephemeral.as_ref().map(|_| (format!("{}-{}", spec::name(pod), volume.name), true))
}

/// The volume behind the claim, when it can be used on this node.
pub async fn resolve(
    client: &Client,
    pod: &Pod,
    volume: &Volume,
    node: Option<&Node>,
) -> Result<Option<Claimed>, ClaimError> {
    let Some((name, own)) = claim_of(pod, volume) else { return Ok(None) };
    let claim_name = format!("{}/{name}", spec::namespace(pod));
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), spec::namespace(pod));
    let fetch = |source| ClaimError::Fetch { claim: claim_name.clone(), source };
    let claim = claims.get_opt(&name).await.map_err(fetch)?;
    let Some(claim) = claim else { return Err(ClaimError::Missing { claim: claim_name, name }) };
    let bound = check_claim(pod, &claim, own, &claim_name)?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let persistent = volumes.get(&bound).await.map_err(|source| ClaimError::Volume(bound, source))?;
    check_volume(&persistent, &claim, &claim_name, node)?;
    let asked = volume.persistent_volume_claim.as_ref().and_then(|c| c.read_only).unwrap_or(false);
    Ok(Some(Claimed { volume: persistent, read_only: asked }))
}

/// Name of the volume that the claim is bound to.
fn check_claim(
    pod: &Pod,
    claim: &PersistentVolumeClaim,
    own: bool,
    name: &str,
) -> Result<String, ClaimError> {
    if own {
        let owners = claim.metadata.owner_references.iter().flatten();
        if !owners.into_iter().any(|o| o.controller == Some(true) && o.uid == spec::uid(pod)) {
            let pod = format!("{}/{}", spec::namespace(pod), spec::name(pod));
            return Err(ClaimError::NotOwner { claim: name.to_owned(), pod });
        }
    }
    if claim.metadata.deletion_timestamp.is_some()
        && pod.status.as_ref().is_none_or(|s| s.start_time.is_none())
    {
        return Err(ClaimError::Deleting(name.to_owned()));
    }
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|v| !v.is_empty());
    volume.filter(|_| bound).ok_or_else(|| ClaimError::NotBound(name.to_owned()))
}

fn check_volume(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
    claim_name: &str,
    node: Option<&Node>,
) -> Result<(), ClaimError> {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    if reference.and_then(|r| r.uid.as_ref()) != claim.metadata.uid.as_ref() {
        return Err(ClaimError::Mismatch { volume: name, claim: claim_name.to_owned() });
    }
    let required = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()?.required.as_ref());
    match (required, node) {
        (Some(required), Some(node))
            if !required.node_selector_terms.iter().any(|t| term_matches(t, node)) =>
        {
            Err(ClaimError::Elsewhere(name))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::{Value, json};

    fn claim(extra: Value) -> PersistentVolumeClaim {
        let mut value = json!({"metadata": {"name": "c", "uid": "cu"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
        crate::api::patch::merge_patch(&mut value, extra).unwrap();
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_a_bound_claim_of_the_right_owner_gives_a_volume() {
        let pod = fixture::pod(json!({"containers": []}));
        for (extra, own, want) in [
            (json!({}), false, Ok("pv")),
            (
                json!({"status": {"phase": "Pending"}}),
                false,
                Err("error processing PVC default/c: PVC is not bound"),
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                false,
                Err("error processing PVC default/c: PVC is being deleted"),
            ),
            (json!({}), true, Err("PVC default/c was not created for pod default/web (pod is not owner)")),
            (
                json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u1", "controller": true}]}}),
                true,
                Ok("pv"),
            ),
        ] {
            let got = check_claim(&pod, &claim(extra.clone()), own, "default/c").map_err(|e| e.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{extra}");
        }
    }

    #[test]
    fn a_volume_must_be_the_claims_and_near() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}})).unwrap();
        let volume = |uid: &str, zone: &str| -> PersistentVolume {
            serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"uid": uid},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "zone", "operator": "In", "values": [zone]}]}]}}}}))
            .unwrap()
        };
        let claim = claim(json!({}));
        assert!(check_volume(&volume("cu", "a"), &claim, "default/c", Some(&node)).is_ok());
        let other = check_volume(&volume("x", "a"), &claim, "default/c", Some(&node));
        assert!(matches!(other, Err(ClaimError::Mismatch { .. })));
        let far = check_volume(&volume("cu", "b"), &claim, "default/c", Some(&node));
        assert_eq!(far.unwrap_err().to_string(), "volume pv: no matching NodeSelectorTerms");
    }

    #[test]
    fn an_ephemeral_volume_has_a_claim_of_its_own() {
        let pod = fixture::pod(json!({"containers": []}));
        let volume: Volume = serde_json::from_value(json!({"name": "v", "ephemeral": {}})).unwrap();
        assert_eq!(claim_of(&pod, &volume), Some(("web-v".to_owned(), true)));
    }
}
