//! PodTopologySpread: pods of a kind are spread over domains (zones, nodes), hard or as a preference.
//!
//! Pods without constraints of their own are spread by preference over nodes and zones, counted per controller.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::node_affinity::Required;
use super::taint_toleration::tolerates_all;
use crate::api::selector::LabelSelector;
use crate::scheduler::affinity::with_label_keys;
use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{
    Cycle, Events, Filter, MAX_SCORE, NODE_ADDED, NODE_LABELS, NODE_TAINTS, NodeFilter, NodeScorer, Outcome,
    POD_GONE, POD_PLACED, POD_UPDATED, Reason, Score,
};
use crate::scheduler::pod_info::PodInfo;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The plugin.
#[derive(Debug)]
pub struct PodTopologySpread;

impl Filter for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn events(&self) -> Events {
        NODE_ADDED | NODE_LABELS | NODE_TAINTS | POD_PLACED | POD_UPDATED | POD_GONE
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>> {
        let constraints = constraints(cycle.pod, "DoNotSchedule");
        if constraints.is_empty() {
            return None;
        }
        let keys: Vec<&str> = constraints.iter().map(|c| c.topology_key.as_str()).collect();
        let hard = constraints.iter().map(|c| Hard::of(cycle, c, &keys)).collect();
        Some(Box::new(HardConstraints(hard)))
    }
}

fn constraints<'a>(pod: &'a PodInfo, action: &str) -> Vec<&'a TopologySpreadConstraint> {
    let all = pod.spec().and_then(|spec| spec.topology_spread_constraints.as_deref()).unwrap_or_default();
    all.iter().filter(|c| c.when_unsatisfiable == action).collect()
}

fn selector(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> LabelSelector {
    let selector = LabelSelector::from_meta(constraint.label_selector.as_ref());
    let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
    with_label_keys(selector.unwrap_or_else(|_| LabelSelector::nothing()), &pod.pod, keys, &[])
}

/// Nodes that the pod could not run on anyway do not count, as far as the constraint's policies say so.
fn counts(constraint: &TopologySpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    let honors = |policy: &Option<String>, default: &str| policy.as_deref().unwrap_or(default) == "Honor";
    let tolerations = pod.spec().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    (!honors(&constraint.node_affinity_policy, "Honor") || Required::of(pod).matches(node))
        && (!honors(&constraint.node_taints_policy, "Ignore") || tolerates_all(tolerations, node.taints()))
}

fn matching(cycle: Cycle<'_>, node: &NodeInfo, selector: &LabelSelector) -> i64 {
    let pods = node.pods.iter().filter(|pod| cycle.without.is_none_or(|gone| !gone.contains(&pod.uid)));
    let counted = pods.filter(|pod| {
        pod.namespace() == cycle.pod.namespace()
            && !pod.is_deleting()
            && selector.matches_labels(pod.pod.metadata.labels.as_ref())
    });
    i64::try_from(counted.count()).unwrap_or(i64::MAX)
}

struct Hard<'a> {
    constraint: &'a TopologySpreadConstraint,
    domains: HashMap<&'a str, i64>,
    /// The fewest matching pods in any domain.
    fewest: i64,
    /// 1 if the pod counts itself.
    own: i64,
}

impl<'a> Hard<'a> {
    fn of(cycle: Cycle<'a>, constraint: &'a TopologySpreadConstraint, keys: &[&str]) -> Self {
        let selector = selector(constraint, cycle.pod);
        let mut domains: HashMap<&str, i64> = HashMap::new();
        for node in cycle.nodes() {
            let complete = keys.iter().all(|key| node.label(key).is_some());
            if let Some(domain) = node.label(&constraint.topology_key)
                && complete
                && counts(constraint, cycle.pod, node)
            {
                *domains.entry(domain).or_default() += matching(cycle, node, &selector);
            }
        }
        let too_few = constraint.min_domains.is_some_and(|min| (domains.len() as i64) < i64::from(min));
        let fewest = if too_few { 0 } else { domains.values().copied().min().unwrap_or(0) };
        let own = i64::from(selector.matches_labels(cycle.pod.pod.metadata.labels.as_ref()));
        Self { constraint, domains, fewest, own }
    }
}

struct HardConstraints<'a>(Vec<Hard<'a>>);

impl NodeFilter for HardConstraints<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome {
        for hard in &self.0 {
            let Some(domain) = node.label(&hard.constraint.topology_key) else {
                reasons.push(Reason::Text(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                ));
                return Outcome::Unresolvable;
            };
            let there = hard.domains.get(domain).copied().unwrap_or(0);
            if there + hard.own - hard.fewest > i64::from(hard.constraint.max_skew) {
                reasons.push(Reason::Text("node(s) didn't match pod topology spread constraints"));
                return Outcome::Rejected;
            }
        }
        Outcome::Fits
    }
}

impl Score for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, feasible: &[&'a NodeInfo]) -> Option<Box<dyn NodeScorer + 'a>> {
        let own = cycle.pod.spec().and_then(|spec| spec.topology_spread_constraints.as_deref());
        if own.is_none_or(<[_]>::is_empty) {
            let owner = cycle.pod.owner.as_ref()?;
            let soft = [(HOSTNAME, 3), (ZONE, 5)]
                .map(|(key, skew)| Soft::of_owner(cycle, feasible, key, skew, owner));
            return Some(Box::new(SoftConstraints { soft: soft.into(), all_keys_needed: false }));
        }
        let constraints = constraints(cycle.pod, "ScheduleAnyway");
        let keys: Vec<&str> = constraints.iter().map(|c| c.topology_key.as_str()).collect();
        let complete = |node: &NodeInfo| keys.iter().all(|key| node.label(key).is_some());
        let candidates: Vec<_> = feasible.iter().copied().filter(|node| complete(node)).collect();
        let soft: Vec<_> =
            constraints.into_iter().map(|c| Soft::of(cycle, &candidates, c, complete)).collect();
        (!soft.is_empty()).then(|| Box::new(SoftConstraints { soft, all_keys_needed: true }) as _)
    }
}

struct Soft<'a> {
    key: &'a str,
    domains: HashMap<&'a str, i64>,
    /// Domains weigh more the more of them there are.
    weight: f64,
    max_skew: i32,
}

impl<'a> Soft<'a> {
    /// `candidates` are the nodes among which the pod's is chosen: only their domains matter.
    fn new(
        cycle: Cycle<'a>,
        candidates: &[&'a NodeInfo],
        key: &'a str,
        max_skew: i32,
        count: impl Fn(&'a NodeInfo) -> Option<i64>,
    ) -> Self {
        let mut domains: HashMap<&str, i64> =
            candidates.iter().filter_map(|node| Some((node.label(key)?, 0))).collect();
        for node in cycle.nodes() {
            if let Some(sum) = node.label(key).and_then(|domain| domains.get_mut(domain)) {
                *sum += count(node).unwrap_or(0);
            }
        }
        // Nodes are counted one by one; nodes without the label are one domain together.
        let nowhere = candidates.iter().any(|node| node.label(key).is_none());
        let size = if key == HOSTNAME { candidates.len() } else { domains.len() + usize::from(nowhere) };
        Self { key, domains, weight: (size as f64 + 2.0).ln(), max_skew }
    }

    fn of(
        cycle: Cycle<'a>,
        candidates: &[&'a NodeInfo],
        constraint: &'a TopologySpreadConstraint,
        complete: impl Fn(&NodeInfo) -> bool,
    ) -> Self {
        let selector = selector(constraint, cycle.pod);
        Self::new(cycle, candidates, &constraint.topology_key, constraint.max_skew, |node| {
            let counts = complete(node) && counts(constraint, cycle.pod, node);
            counts.then(|| matching(cycle, node, &selector))
        })
    }

    fn of_owner(
        cycle: Cycle<'a>,
        candidates: &[&'a NodeInfo],
        key: &'a str,
        max_skew: i32,
        owner: &'a Arc<str>,
    ) -> Self {
        let count = |node: &NodeInfo| Some(node.owners.get(owner).copied().unwrap_or(0).into());
        Self::new(cycle, candidates, key, max_skew, count)
    }
}

struct SoftConstraints<'a> {
    soft: Vec<Soft<'a>>,
    all_keys_needed: bool,
}

impl SoftConstraints<'_> {
    fn is_ignored(&self, node: &NodeInfo) -> bool {
        self.all_keys_needed && self.soft.iter().any(|soft| node.label(soft.key).is_none())
    }
}

impl NodeScorer for SoftConstraints<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let scores = self.soft.iter().filter_map(|soft| {
            let there = soft.domains.get(node.label(soft.key)?).copied().unwrap_or(0);
            Some(there as f64 * soft.weight + f64::from(soft.max_skew - 1))
        });
        scores.sum::<f64>().round() as i64
    }

    fn normalize(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        let counted = || nodes.iter().zip(scores.iter()).filter(|(node, _)| !self.is_ignored(node));
        let min = counted().map(|(_, score)| *score).min().unwrap_or(0);
        let max = counted().map(|(_, score)| *score).max().unwrap_or(0);
        for (node, score) in nodes.iter().zip(scores) {
            *score = match (self.is_ignored(node), max) {
                (true, _) => 0,
                (false, 0) => MAX_SCORE,
                (false, _) => MAX_SCORE * (max + min - *score) / max,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::cluster::Cluster;
    use crate::scheduler::fixtures::{cluster, node, pod, pod_on, pod_with};
    use serde_json::{Value, json};

    fn zones(pods: &[Arc<PodInfo>]) -> Cluster {
        let zone = |name: &str| json!({"metadata": {"labels": {ZONE: name}}});
        cluster(
            [node("a1", zone("a")), node("a2", zone("a")), node("b1", zone("b")), node("none", json!({}))],
            pods,
        )
    }

    fn constraint(patch: Value) -> Arc<PodInfo> {
        let mut constraint = json!({
            "topologyKey": ZONE, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}},
        });
        json_patch::merge(&mut constraint, &patch);
        pod_with("p", json!({"spec": {"topologySpreadConstraints": [constraint]}}))
    }

    fn fitting(cluster: &Cluster, pod: &PodInfo) -> Vec<(String, Outcome)> {
        let cycle = Cycle { pod, cluster, without: None };
        let filter = Filter::prepare(&PodTopologySpread, cycle).unwrap();
        cluster.nodes().iter().map(|n| (n.name.to_string(), filter.check(n, &mut Vec::new()))).collect()
    }

    #[test]
    fn hard_constraints_hold_the_skew() {
        use Outcome::*;
        let on = |name: &str, node: &str| pod_on(name, node, json!({}));
        for (why, pods, patch, expected) in [
            ("empty", vec![], json!({}), [Fits, Fits, Fits, Unresolvable]),
            ("one more in a", vec![on("x", "a1")], json!({}), [Rejected, Rejected, Fits, Unresolvable]),
            ("a skew of two", vec![on("x", "a1")], json!({"maxSkew": 2}), [Fits, Fits, Fits, Unresolvable]),
            ("even", vec![on("x", "a1"), on("y", "b1")], json!({}), [Fits, Fits, Fits, Unresolvable]),
            (
                "too few domains",
                vec![on("x", "a1"), on("y", "b1")],
                json!({"minDomains": 3}),
                [Rejected, Rejected, Rejected, Unresolvable],
            ),
            (
                "others do not count",
                vec![on("x", "a1")],
                json!({"labelSelector": {"matchLabels": {"app": "db"}}}),
                [Fits, Fits, Fits, Unresolvable],
            ),
        ] {
            let outcomes: Vec<_> =
                fitting(&zones(&pods), &constraint(patch)).into_iter().map(|(_, o)| o).collect();
            assert_eq!(outcomes, expected, "{why}");
        }
    }

    #[test]
    fn pods_of_one_controller_prefer_empty_nodes() {
        let cluster = cluster(
            ["n1", "n2", "n3"].map(|n| node(n, json!({}))),
            &[pod_on("a", "n1", json!({})), pod_on("b", "n1", json!({})), pod_on("c", "n2", json!({}))],
        );
        let pod = pod("p", json!({}));
        let nodes: Vec<_> = cluster.nodes().iter().collect();
        let cycle = Cycle { pod: &pod, cluster: &cluster, without: None };
        let scorer = Score::prepare(&PodTopologySpread, cycle, &nodes).unwrap();
        let mut scores: Vec<_> = nodes.iter().map(|node| scorer.score(node)).collect();
        scorer.normalize(&nodes, &mut scores);
        assert!(scores[2] == MAX_SCORE && scores[2] > scores[1] && scores[1] > scores[0], "{scores:?}");
    }

    #[test]
    fn soft_constraints_weigh_domains_of_the_nodes_to_choose_from() {
        let on = |name: &str, node: &str| pod_on(name, node, json!({}));
        let cluster = zones(&[on("x", "a1"), on("y", "a2"), on("z", "b1"), on("n", "none")]);
        let pod = constraint(json!({"whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 2}));
        let cycle = Cycle { pod: &pod, cluster: &cluster, without: None };
        let raw = |names: &[&str]| -> Vec<i64> {
            let nodes: Vec<_> = names.iter().map(|name| cluster.node(name).unwrap()).collect();
            let scorer = Score::prepare(&PodTopologySpread, cycle, &nodes).unwrap();
            nodes.iter().map(|node| scorer.score(node)).collect()
        };
        // Two domains weigh ln 4, one weighs ln 3; the skew that is allowed adds one.
        assert_eq!(
            raw(&["a1", "b1", "none"]),
            [4, 2, 0],
            "pods on nodes that are not to choose from count too"
        );
        assert_eq!(raw(&["a1", "a2"]), [3, 3], "the other zone is none to choose");
    }
}
