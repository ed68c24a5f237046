//! Old ReplicaSets beyond the revision history limit.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::{annotations, sets};

/// The old sets that may be deleted: empty, observed, and the lowest revisions first.
pub fn surplus(deployment: &Deployment, old: &[super::sets::Draft]) -> Vec<Arc<ReplicaSet>> {
    let limit = deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
    if limit == i32::MAX {
        return Vec::new();
    }
    let mut alive: Vec<_> =
        old.iter().filter(|set| set.original.metadata.deletion_timestamp.is_none()).collect();
    let Some(surplus) = alive.len().checked_sub(usize::try_from(limit).unwrap_or(0)) else {
        return Vec::new();
    };
    alive.sort_by_key(|set| annotations::revision(&set.original.metadata));
    let oldest = alive.into_iter().take(surplus);
    oldest.filter(|set| !set.changed() && is_empty(&set.original)).map(|set| set.original.clone()).collect()
}

fn is_empty(set: &ReplicaSet) -> bool {
    let status = set.status.as_ref();
    let observed = status.and_then(|s| s.observed_generation).unwrap_or(0);
    sets::replicas(set) == 0
        && status.map_or(0, |s| s.replicas) == 0
        && set.metadata.generation.unwrap_or(0) <= observed
}
