//! Scaling a deployment whose size was changed, also in the middle of a rollout: proportionally over its sets.

use std::cmp::Reverse;

use super::annotations;
use super::sets::{Draft, Sets, age_key};
use super::strategy::Limits;

/// Whether the deployment's size differs from the one its active sets were last scaled for.
pub fn is_scaling_event(sets: &Sets, limits: &Limits) -> bool {
    sets.all().filter(|set| set.replicas() > 0).any(|set| {
        annotations::number::<i32>(&set.wanted.metadata, annotations::DESIRED)
            .is_some_and(|desired| desired != limits.replicas)
    })
}

/// Brings the sets to the deployment's size. `status_replicas` is the deployment's observed size.
pub fn scale(sets: &mut Sets, limits: &Limits, status_replicas: i32) {
    if let Some(only) = active_or_latest(sets) {
        if only.replicas() != limits.replicas {
            only.scale(limits.replicas, limits.replicas, limits.max_total());
        }
        return;
    }
    if sets.new.as_ref().is_some_and(|new| is_saturated(new, limits)) {
        for old in sets.old.iter_mut().filter(|old| old.replicas() > 0) {
            old.scale(0, limits.replicas, limits.max_total());
        }
        return;
    }
    if !limits.recreate {
        proportional(sets, limits, status_replicas);
    }
}

/// The only set with replicas or, if no set has any, the newest.
fn active_or_latest(sets: &mut Sets) -> Option<&mut Draft> {
    match sets.all().filter(|set| set.replicas() > 0).count() {
        0 if sets.new.is_some() => sets.new.as_mut(),
        0 => sets.old.last_mut(),
        1 => sets.all_mut().find(|set| set.replicas() > 0),
        _ => None,
    }
}

fn is_saturated(new: &Draft, limits: &Limits) -> bool {
    let desired = annotations::number::<i32>(&new.wanted.metadata, annotations::DESIRED);
    new.replicas() == limits.replicas
        && desired == Some(limits.replicas)
        && new.available() == limits.replicas
}

/// Spreads the difference over the active sets in proportion to their size; rounding goes to the largest.
fn proportional(sets: &mut Sets, limits: &Limits, status_replicas: i32) {
    let total: i32 = sets.total_replicas();
    let allowed = if limits.replicas > 0 { limits.max_total() } else { 0 };
    let to_add = allowed - total;
    let mut active: Vec<_> = sets.all_mut().filter(|set| set.replicas() > 0).collect();
    active.sort_by(|a, b| age_key(&a.original).cmp(&age_key(&b.original)));
    if to_add > 0 {
        active.reverse();
    }
    active.sort_by_key(|set| Reverse(set.replicas()));
    let mut added = 0;
    let mut sizes = Vec::with_capacity(active.len());
    for set in &active {
        let part = proportion(set, limits, status_replicas, to_add, added);
        added += part;
        sizes.push(set.replicas() + part);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    for (set, size) in active.into_iter().zip(sizes) {
        set.scale(size, limits.replicas, limits.max_total());
    }
}

fn proportion(set: &Draft, limits: &Limits, status_replicas: i32, to_add: i32, added: i32) -> i32 {
    if to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(set, limits, status_replicas);
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

/// How much the set would grow if it kept its share of the deployment.
fn fraction(set: &Draft, limits: &Limits, status_replicas: i32) -> i32 {
    if limits.replicas == 0 {
        return -set.replicas();
    }
    let max_before =
        annotations::number::<i32>(&set.wanted.metadata, annotations::MAX).unwrap_or(status_replicas);
    if max_before <= 0 {
        return 0;
    }
    let (size, before) = (i64::from(set.replicas()), i64::from(max_before));
    let new_size = (2 * size * i64::from(limits.max_total()) + before) / (2 * before);
    i32::try_from(new_size).unwrap_or(i32::MAX).saturating_sub(set.replicas())
}
