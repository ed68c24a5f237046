//! Which active pods of a Job go when there are too many, or two of one index.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::view::View;
use crate::controllers::replicaset::victims;

/// The active pods that must go so that no more than `wanted` useful ones stay.
pub fn surplus(view: &View<'_>, wanted: usize) -> Vec<Arc<Pod>> {
    let active: Vec<_> = view.active().cloned().collect();
    let count = active.len();
    // Best victims first.
    let mut ordered = victims::choose(active, count.saturating_sub(1).min(count), &HashMap::new(), view.now);
    let all = view.active();
    let rest: Vec<_> = all.filter(|pod| !ordered.iter().any(|o| Arc::ptr_eq(o, pod))).cloned().collect();
    ordered.extend(rest);
    if !view.indexed {
        ordered.truncate(count.saturating_sub(wanted));
        return ordered;
    }
    // The best pod of each open index may stay; the best are last.
    let (mut taken, mut gone, mut useful) = (BTreeSet::new(), Vec::new(), Vec::new());
    for pod in ordered.into_iter().rev() {
        let open = view
            .index(&pod)
            .filter(|index| !view.succeeded_indexes.has(*index) && !view.failed_indexes.has(*index));
        match open {
            Some(index) if taken.insert(index) => useful.push(pod),
            _ => gone.push(pod),
        }
    }
    gone.extend(useful.into_iter().skip(wanted));
    gone
}
