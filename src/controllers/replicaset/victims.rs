//! Which pods go first when there are too many: upstream's order of victims.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::controllers::workload::pods;

/// Annotation that lets a user say which pods are cheap to lose.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The pod's deletion cost; 0 when it is not given or not a canonical 32-bit integer.
pub fn deletion_cost(pod: &Pod) -> i32 {
    let Some(text) = pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST)) else { return 0 };
    let first = text.as_bytes().first().copied().unwrap_or(b' ');
    let canonical = first == b'-' || first.is_ascii_digit() && (first != b'0' || text == "0");
    if canonical { text.parse().unwrap_or(0) } else { 0 }
}

/// How many active pods of related owners run on each node; pods on crowded nodes go first.
pub fn crowding<'a>(related: impl IntoIterator<Item = &'a Pod>) -> HashMap<String, usize> {
    let mut per_node = HashMap::new();
    for node in related.into_iter().filter(|pod| pods::is_active(pod)).filter_map(pods::node_name) {
        *per_node.entry(node.to_owned()).or_default() += 1;
    }
    per_node
}

/// The `count` pods to delete, in the order of deletion.
pub fn choose(
    mut candidates: Vec<Arc<Pod>>,
    count: usize,
    per_node: &HashMap<String, usize>,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    if count < candidates.len() {
        candidates.sort_by_cached_key(|pod| Rank::of(pod, per_node, now));
        candidates.truncate(count);
    }
    candidates
}

/// Sorts the better victim first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    crowding: Reverse<usize>,
    ready_for: Age,
    restarts: Reverse<i32>,
    age: Age,
    uid: String,
}

impl Rank {
    fn of(pod: &Pod, per_node: &HashMap<String, usize>, now: Timestamp) -> Self {
        let phase = match pods::phase(pod) {
            "Pending" => 0,
            "Running" => 2,
            _ => 1,
        };
        let ready = pods::is_ready(pod);
        let node = pods::node_name(pod);
        Self {
            assigned: node.is_some(),
            phase,
            ready,
            cost: deletion_cost(pod),
            crowding: Reverse(node.and_then(|n| per_node.get(n)).copied().unwrap_or(0)),
            ready_for: Age::of(pods::ready_since(pod).filter(|_| ready), now),
            restarts: Reverse(restarts(pod)),
            age: Age::of(pod.metadata.creation_timestamp.as_ref().map(|t| t.0), now),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// An age on a logarithmic scale, so that pods of about the same age are chosen from evenly. Unknown sorts first.
#[derive(Debug, PartialEq, Eq)]
struct Age(Option<u32>);

impl Age {
    fn of(since: Option<Timestamp>, now: Timestamp) -> Self {
        Self(since.map(|since| {
            let seconds = now.duration_since(since).as_secs().max(0).unsigned_abs();
            u64::BITS - seconds.leading_zeros()
        }))
    }
}

impl PartialOrd for Age {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Age {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    let statuses = status.container_statuses.iter().flatten();
    statuses.map(|c| c.restart_count).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::workload::pods::tests::{at, pod};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn with(mut pod: Pod, change: impl FnOnce(&mut Pod)) -> Arc<Pod> {
        change(&mut pod);
        Arc::new(pod)
    }

    fn cost(name: &str, cost: &str) -> Arc<Pod> {
        with(pod(name, "Running", Some(0)), |p| {
            p.metadata.annotations = Some([(DELETION_COST.to_owned(), cost.to_owned())].into());
        })
    }

    /// Each pair: the first is the better victim.
    #[test]
    fn victims_are_chosen_in_upstreams_order() {
        let unassigned = with(pod("z", "Pending", None), |p| p.spec.as_mut().unwrap().node_name = None);
        let crowded = with(pod("z", "Running", Some(0)), |p| {
            p.spec.as_mut().unwrap().node_name = Some("crowded".into());
        });
        let restarted = with(pod("z", "Running", Some(0)), |p| {
            p.status.as_mut().unwrap().container_statuses =
                Some(vec![serde_json::from_value(serde_json::json!({"name": "c", "restartCount": 3, "image": "", "imageID": "", "ready": true})).unwrap()]);
        });
        let young =
            with(pod("z", "Running", Some(0)), |p| p.metadata.creation_timestamp = Some(Time(at(900))));
        let plain = Arc::new(pod("a", "Running", Some(0)));
        let per_node = HashMap::from([("crowded".to_owned(), 3), ("n1".to_owned(), 1)]);
        for (why, victim, survivor) in [
            ("unassigned", unassigned, Arc::new(pod("a", "Pending", None))),
            ("pending", Arc::new(pod("z", "Pending", None)), Arc::new(pod("a", "Running", None))),
            (
                "unknown before running",
                Arc::new(pod("z", "Unknown", None)),
                Arc::new(pod("a", "Running", None)),
            ),
            ("not ready", Arc::new(pod("z", "Running", None)), plain.clone()),
            ("cheaper", cost("z", "-5"), plain.clone()),
            ("dearer stays", Arc::new(pod("z", "Running", Some(0))), cost("a", "10")),
            ("crowded node", crowded, plain.clone()),
            ("ready for less time", Arc::new(pod("z", "Running", Some(900))), plain.clone()),
            ("restarted more", restarted, plain.clone()),
            ("younger", young, plain.clone()),
        ] {
            for order in [vec![victim.clone(), survivor.clone()], vec![survivor.clone(), victim.clone()]] {
                let chosen = choose(order, 1, &per_node, at(1000));
                assert_eq!(chosen[0].metadata.name, victim.metadata.name, "{why}");
            }
        }
    }

    #[test]
    fn malformed_costs_count_as_zero() {
        for (text, expected) in
            [("7", 7), ("-7", -7), ("0", 0), ("+7", 0), ("07", 0), ("x", 0), ("3000000000", 0)]
        {
            assert_eq!(deletion_cost(&cost("a", text)), expected, "{text}");
        }
    }

    #[test]
    fn all_candidates_go_when_all_are_asked_for() {
        let all = vec![Arc::new(pod("a", "Running", Some(0))), Arc::new(pod("b", "Running", Some(0)))];
        assert_eq!(choose(all, 5, &HashMap::new(), at(0)).len(), 2);
    }

    #[test]
    fn crowding_counts_active_pods_per_node() {
        let pods = [pod("a", "Running", None), pod("b", "Failed", None), pod("c", "Pending", None)];
        assert_eq!(crowding(pods.iter()), HashMap::from([("n1".to_owned(), 2)]));
    }
}
