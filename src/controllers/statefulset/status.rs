//! The status of a StatefulSet.

use k8s_openapi::api::apps::v1::StatefulSetStatus;

use super::identity;
use super::plan::Input;
use crate::controllers::workload::pods;

/// The status that follows from the pods.
pub fn status(input: &Input<'_>) -> StatefulSetStatus {
    let before = input.set.status.clone().unwrap_or_default();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let all = input.pods;
    let of = |revision: &str| {
        let living = all.iter().filter(|pod| !pods::is_deleting(pod));
        number(living.filter(|pod| identity::revision(pod) == revision).count())
    };
    let ready = number(all.iter().filter(|pod| input.is_ready(pod)).count());
    let available = number(all.iter().filter(|pod| input.is_available(pod)).count());
    let mut status = StatefulSetStatus {
        replicas: number(all.len()),
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        current_replicas: Some(of(input.current)),
        updated_replicas: Some(of(input.update)),
        current_revision: Some(input.current.to_owned()),
        update_revision: Some(input.update.to_owned()),
        observed_generation: input.set.metadata.generation,
        collision_count: before.collision_count.or(Some(0)),
        conditions: before.conditions,
    };
    let wanted = identity::replicas(input.set);
    let strategy = input.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let rolls = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
    let complete =
        [status.updated_replicas, status.ready_replicas, Some(status.replicas)] == [Some(wanted); 3];
    if rolls && complete {
        // The update is done: what was new is what is.
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
    status
}

/// Whether both say the same; absent counters are zero.
pub fn same(a: &StatefulSetStatus, b: &StatefulSetStatus) -> bool {
    let full = |status: &StatefulSetStatus| {
        let mut status = status.clone();
        for counter in [
            &mut status.ready_replicas,
            &mut status.available_replicas,
            &mut status.current_replicas,
            &mut status.updated_replicas,
            &mut status.collision_count,
        ] {
            counter.get_or_insert(0);
        }
        status.observed_generation.get_or_insert(0);
        status
    };
    full(a) == full(b)
}
