//! What a ReplicaSet needs: the decision about its pods, and its status. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::victims;
use crate::controllers::workload::pods;

/// Most creates or deletes in one reconcile.
pub const BURST: usize = 500;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What to do about the number of pods.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// How many pods to create.
    pub create: usize,
    /// Which pods to delete.
    pub delete: Vec<Arc<Pod>>,
}

/// Compares the owned pods with the wanted number. `per_node` is the crowding of the nodes by related pods.
pub fn plan(set: &ReplicaSet, owned: &[Arc<Pod>], per_node: &HashMap<String, usize>, now: Timestamp) -> Plan {
    if set.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let active: Vec<_> = owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    let wanted = desired(set);
    if active.len() < wanted {
        return Plan { create: (wanted - active.len()).min(BURST), delete: Vec::new() };
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus == 0 {
        return Plan::default();
    }
    Plan { create: 0, delete: victims::choose(active, surplus, per_node, now) }
}

/// The number of pods the spec asks for.
pub fn desired(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

/// A failed attempt to change the number of pods, for the `ReplicaFailure` condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// What the API server said.
    pub message: String,
}

/// The status that follows from the owned pods.
pub fn status(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let labels = spec.template.and_then(|t| t.metadata).and_then(|m| m.labels).unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let active = || owned.iter().filter(|pod| pods::is_active(pod));
    let fully_labeled = active().filter(|pod| {
        let of_pod = pod.metadata.labels.as_ref();
        labels.iter().all(|(k, v)| of_pod.and_then(|l| l.get(k)) == Some(v))
    });
    let terminating = owned.iter().filter(|pod| pods::is_terminating(pod)).count();
    ReplicaSetStatus {
        replicas: count(active()),
        fully_labeled_replicas: Some(count(fully_labeled)),
        ready_replicas: Some(count(active().filter(|pod| pods::is_ready(pod)))),
        available_replicas: Some(count(active().filter(|pod| pods::is_available(pod, min_ready, now)))),
        terminating_replicas: Some(i32::try_from(terminating).unwrap_or(i32::MAX)),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure, now),
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

fn conditions(
    set: &ReplicaSet,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = set.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let known = conditions.iter().any(|c| c.type_ == REPLICA_FAILURE);
    match failure {
        Some(failure) if !known => conditions.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }),
        Some(_) => {}
        None => conditions.retain(|c| c.type_ != REPLICA_FAILURE),
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// Whether the two statuses say the same; absent counters are zero.
pub fn same_status(a: &ReplicaSetStatus, b: &ReplicaSetStatus) -> bool {
    let counters = |s: &ReplicaSetStatus| {
        [
            s.replicas,
            s.fully_labeled_replicas.unwrap_or(0),
            s.ready_replicas.unwrap_or(0),
            s.available_replicas.unwrap_or(0),
            s.terminating_replicas.unwrap_or(0),
        ]
    };
    counters(a) == counters(b)
        && a.observed_generation == b.observed_generation
        && a.conditions.as_deref().unwrap_or_default() == b.conditions.as_deref().unwrap_or_default()
}

/// When to look again because a ready pod becomes available without any event.
pub fn recheck(set: &ReplicaSet, owned: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let min_ready = set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let active = owned.iter().map(AsRef::as_ref).filter(|pod| pods::is_active(pod));
    pods::next_available(active, min_ready, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::workload::pods::tests::{at, pod};
    use serde_json::json;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u", "generation": 4},
            "spec": {"replicas": replicas, "minReadySeconds": 10, "selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}}}},
        }))
        .unwrap()
    }

    fn running(count: usize) -> Vec<Arc<Pod>> {
        (0..count).map(|i| Arc::new(pod(&format!("p{i}"), "Running", Some(0)))).collect()
    }

    #[test]
    fn the_difference_is_created_or_deleted() {
        for (wanted, have, create, delete) in [
            (3, 3, 0, 0),
            (3, 1, 2, 0),
            (1, 3, 0, 2),
            (0, 2, 0, 2),
            (2000, 0, BURST, 0),
            (0, 600, 0, BURST),
            (-1, 1, 0, 1),
        ] {
            let plan = plan(&set(wanted), &running(have), &HashMap::new(), at(0));
            assert_eq!((plan.create, plan.delete.len()), (create, delete), "{wanted} wanted, {have} there");
        }
    }

    #[test]
    fn finished_and_deleting_pods_are_replaced() {
        let mut deleting = pod("d", "Running", Some(0));
        deleting.metadata.deletion_timestamp = Some(Time(at(0)));
        let owned =
            vec![Arc::new(pod("f", "Failed", None)), Arc::new(deleting), Arc::new(pod("a", "Running", None))];
        assert_eq!(plan(&set(2), &owned, &HashMap::new(), at(0)), Plan { create: 1, delete: vec![] });
    }

    #[test]
    fn a_set_being_deleted_is_left_alone() {
        let mut set = set(3);
        set.metadata.deletion_timestamp = Some(Time(at(0)));
        assert_eq!(plan(&set, &[], &HashMap::new(), at(0)), Plan::default());
    }

    #[test]
    fn the_status_counts_active_pods() {
        let mut labeled = pod("a", "Running", Some(0));
        labeled.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
        let mut deleting = pod("d", "Running", Some(0));
        deleting.metadata.deletion_timestamp = Some(Time(at(0)));
        let owned = [
            labeled,
            pod("b", "Running", Some(15)),
            pod("c", "Pending", None),
            pod("f", "Failed", None),
            deleting,
        ]
        .map(Arc::new);
        let status = status(&set(3), &owned, None, at(20));
        assert_eq!(
            (
                status.replicas,
                status.fully_labeled_replicas,
                status.ready_replicas,
                status.available_replicas
            ),
            (3, Some(1), Some(2), Some(1))
        );
        assert_eq!((status.terminating_replicas, status.observed_generation), (Some(1), Some(4)));
        assert_eq!(status.conditions, None);
        assert_eq!(recheck(&set(3), &owned, at(20)), Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_failure_becomes_a_condition_and_goes_away_with_it() {
        let failure = Failure { reason: "FailedCreate", message: "quota".into() };
        let mut set = set(3);
        let first = status(&set, &[], Some(&failure), at(0));
        let condition = &first.conditions.as_ref().unwrap()[0];
        assert_eq!(
            (condition.type_.as_str(), condition.reason.as_deref()),
            ("ReplicaFailure", Some("FailedCreate"))
        );
        set.status = Some(first.clone());
        let second = status(&set, &[], Some(&failure), at(9));
        assert!(same_status(&first, &second), "a lasting failure keeps its first time");
        let third = status(&set, &[], None, at(9));
        assert_eq!(third.conditions, None);
        assert!(!same_status(&second, &third));
    }

    #[test]
    fn absent_counters_equal_zero() {
        let full = status(&set(0), &[], None, at(0));
        let sparse = ReplicaSetStatus { observed_generation: Some(4), ..ReplicaSetStatus::default() };
        assert!(same_status(&full, &sparse));
    }
}
