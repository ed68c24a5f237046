//! One step of a rolling update: sizes in, sizes out.

use super::sets::{Draft, Sets};
use super::strategy::Limits;

/// The size that the new ReplicaSet may have now. `current` is its size so far (0 if it is about to be created),
/// `total` the sum over all sets.
pub fn new_set_size(limits: &Limits, current: i32, total: i32) -> i32 {
    if limits.recreate || current > limits.replicas {
        return limits.replicas;
    }
    let room = limits.max_total().saturating_sub(total);
    if room <= 0 {
        return current;
    }
    current + room.min(limits.replicas - current)
}

/// Scales the new set; true if its size changes.
pub fn scale_new(sets: &mut Sets, limits: &Limits) -> bool {
    let total = sets.total_replicas();
    let Some(new) = &mut sets.new else { return false };
    let size = new_set_size(limits, new.replicas(), total);
    size != new.replicas() && new.scale(size, limits.replicas, limits.max_total())
}

/// Scales old sets down as far as availability allows: first pods that are not available anyway, then oldest sets first.
pub fn scale_down_old(sets: &mut Sets, limits: &Limits) -> bool {
    let new_unavailable = sets.new.as_ref().map_or(0, |new| new.replicas() - new.available());
    let may_go = sets.total_replicas() - limits.min_available() - new_unavailable;
    if may_go <= 0 || sets.old.iter().all(|old| old.replicas() == 0) {
        return false;
    }
    let unhealthy = shrink(&mut sets.old, limits, may_go, |old| old.replicas() - old.available());
    let available: i32 = sets.all().map(Draft::available).sum();
    let healthy = shrink(&mut sets.old, limits, available - limits.min_available(), Draft::replicas);
    unhealthy || healthy
}

/// Takes at most `budget` replicas, from each set at most what `surplus` says.
fn shrink(old: &mut [Draft], limits: &Limits, mut budget: i32, surplus: impl Fn(&Draft) -> i32) -> bool {
    let mut changed = false;
    for set in old {
        let take = surplus(set).min(set.replicas()).min(budget);
        if take > 0 {
            budget -= take;
            changed |= set.scale(set.replicas() - take, limits.replicas, limits.max_total());
        }
    }
    changed
}
