//! Preemption: which less important pods have to go so that a pod fits, and on which node that costs least. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::cluster::{Cluster, NodeInfo};
use super::decide::{Filters, Misfit, write_reasons};
use super::framework::{Cycle, Outcome};
use super::plugins::Plugins;
use super::pod_info::PodInfo;

/// A node and the pods that have to leave it.
#[derive(Debug, Clone)]
pub struct Preemption {
    /// The node.
    pub node: Arc<str>,
    /// The pods: first those whose end breaks a disruption budget; of each sort the most important ones first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them break a disruption budget.
    pub broken_budgets: usize,
}

/// Why preemption does not help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPreemption {
    /// The pod must not preempt.
    Never,
    /// Victims of an earlier attempt are still on their way out.
    Underway,
    /// Counts of nodes by reason.
    Nodes {
        /// How many nodes there are.
        nodes: usize,
        /// On how many of them preemption cannot help at all.
        not_helpful: usize,
    },
}

impl fmt::Display for NoPreemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("not eligible due to preemptionPolicy=Never."),
            Self::Underway => f.write_str("not eligible due to a terminating pod on the nominated node."),
            Self::Nodes { nodes, not_helpful } => {
                write!(f, "0/{nodes} nodes are available: ")?;
                let mut reasons = BTreeMap::new();
                for (text, count) in [
                    ("Preemption is not helpful for scheduling", *not_helpful),
                    ("No preemption victims found for incoming pod", nodes - not_helpful),
                ] {
                    if count > 0 {
                        reasons.insert(text.to_owned(), count);
                    }
                }
                write_reasons(f, &reasons)
            }
        }
    }
}

/// Finds the node where making room costs least.
pub fn find(
    plugins: &Plugins,
    pod: &PodInfo,
    cluster: &Cluster,
    misfit: &Misfit,
) -> Result<Preemption, NoPreemption> {
    let spec = pod.spec();
    if spec.and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
        return Err(NoPreemption::Never);
    }
    if is_underway(pod, cluster) {
        return Err(NoPreemption::Underway);
    }
    let candidates = misfit.resolvable.iter().filter_map(|name| {
        let node = cluster.node(name)?;
        let (victims, broken_budgets) = victims_on(plugins, pod, cluster, node)?;
        Some(Preemption { node: node.name.clone(), victims, broken_budgets })
    });
    candidates.min_by_key(cost).ok_or(NoPreemption::Nodes {
        nodes: misfit.nodes,
        not_helpful: misfit.nodes - misfit.resolvable.len(),
    })
}

/// On the node nominated earlier a less important pod is still terminating.
fn is_underway(pod: &PodInfo, cluster: &Cluster) -> bool {
    let status = pod.pod.status.as_ref();
    let told = status.and_then(|s| s.nominated_node_name.as_deref());
    let Some(node) = cluster.nominated_node(&pod.key).or(told) else { return false };
    let pods = cluster.node(node).map(|node| node.pods.as_slice()).unwrap_or_default();
    pods.iter().any(|other| other.is_deleting() && other.priority < pod.priority)
}

/// The pods that have to leave the node and how many of them break a disruption budget, or `None` if even all less
/// important ones would not make enough room.
fn victims_on(
    plugins: &Plugins,
    pod: &PodInfo,
    cluster: &Cluster,
    node: &NodeInfo,
) -> Option<(Vec<Arc<PodInfo>>, usize)> {
    let mut lesser: Vec<_> =
        node.pods.iter().filter(|other| other.priority < pod.priority).cloned().collect();
    if lesser.is_empty() {
        return None;
    }
    lesser.sort_by_key(|pod| (Reverse(pod.priority), started(pod)));
    let mut without: HashSet<Arc<str>> = lesser.iter().map(|pod| pod.uid.clone()).collect();
    if !fits(plugins, pod, cluster, node, &without) {
        return None;
    }
    // Those that a budget protects get the first chance to stay, and among them the most important ones.
    let breaks = cluster.budgets.broken_by(&lesser);
    let (mut victims, mut broken_budgets) = (Vec::new(), 0);
    for protected in [true, false] {
        for (candidate, _) in lesser.iter().zip(&breaks).filter(|(_, breaks)| **breaks == protected) {
            without.remove(&candidate.uid);
            if !fits(plugins, pod, cluster, node, &without) {
                without.insert(candidate.uid.clone());
                victims.push(candidate.clone());
                broken_budgets += usize::from(protected);
            }
        }
    }
    Some((victims, broken_budgets))
}

fn fits(
    plugins: &Plugins,
    pod: &PodInfo,
    cluster: &Cluster,
    node: &NodeInfo,
    without: &HashSet<Arc<str>>,
) -> bool {
    let mut emptier = node.clone();
    without.iter().for_each(|uid| emptier.remove(uid));
    for other in cluster.nominated_on(&node.name, pod.priority, &pod.key) {
        emptier.add(other.clone());
    }
    let filters = Filters::prepare(plugins, Cycle { pod, cluster, without: Some(without) });
    filters.check(&emptier, &mut Vec::new()).0 == Outcome::Fits
}

fn started(pod: &PodInfo) -> Option<Timestamp> {
    pod.pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0)
}

/// Less is better: broken budgets, the most important victim, the sum of importance, the number of victims, and victims that started late.
fn cost(preemption: &Preemption) -> (usize, i32, i64, usize, Reverse<Option<Timestamp>>) {
    let victims = &preemption.victims;
    let highest = victims.iter().map(|pod| pod.priority).max().unwrap_or(i32::MIN);
    // Shifted so that more victims never sum up to less.
    let sum = victims.iter().map(|pod| i64::from(pod.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest = victims.iter().filter(|pod| pod.priority == highest).map(|pod| started(pod)).min();
    (preemption.broken_budgets, highest, sum, victims.len(), Reverse(earliest.flatten()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::decide::Decider;
    use crate::scheduler::fixtures::{cluster, node, pod_with};
    use serde_json::{Value, json};

    fn pod(name: &str, node: Option<&str>, priority: i32, cpu: &str, patch: Value) -> Arc<PodInfo> {
        let containers = json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
        let mut body = json!({"spec": {"nodeName": node, "priority": priority, "containers": containers}});
        json_patch::merge(&mut body, &patch);
        pod_with(name, body)
    }

    fn preempt(cluster: &Cluster, pod: &PodInfo) -> Result<(String, Vec<String>), String> {
        let mut decider = Decider::new(Plugins::default(), 1);
        let misfit = decider.decide(pod, cluster).unwrap_err();
        let found = find(decider.plugins(), pod, cluster, &misfit).map_err(|no| no.to_string())?;
        Ok((found.node.to_string(), found.victims.iter().map(|v| v.key.name().to_owned()).collect()))
    }

    #[test]
    fn the_cheapest_node_and_the_fewest_victims_are_chosen() {
        let running = [
            pod("a1", Some("a"), 5, "3", json!({})),
            pod("b1", Some("b"), 1, "1", json!({})),
            pod("b2", Some("b"), 2, "1", json!({})),
            pod("b3", Some("b"), 3, "2", json!({})),
        ];
        let cluster = cluster(["a", "b"].map(|name| node(name, json!({}))), &running);
        let preemptor = pod("p", None, 10, "2", json!({}));
        assert_eq!(preempt(&cluster, &preemptor), Ok(("b".into(), vec!["b2".into(), "b1".into()])));
        let equal = pod("p", None, 1, "2", json!({}));
        let none = "0/2 nodes are available: 2 No preemption victims found for incoming pod.";
        assert_eq!(preempt(&cluster, &equal), Err(none.into()));
    }

    #[test]
    fn nodes_that_no_preemption_helps_are_counted_apart() {
        let cordoned = node("a", json!({"spec": {"unschedulable": true}}));
        let cluster = cluster([cordoned, node("b", json!({}))], &[pod("x", Some("b"), 50, "4", json!({}))]);
        let expected = "0/2 nodes are available: 1 No preemption victims found for incoming pod, \
                        1 Preemption is not helpful for scheduling.";
        assert_eq!(preempt(&cluster, &pod("p", None, 10, "1", json!({}))), Err(expected.into()));
    }

    #[test]
    fn some_pods_must_not_preempt() {
        let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let cluster = cluster([node("a", json!({}))], &[pod("x", Some("a"), 1, "4", leaving)]);
        let never = pod("p", None, 10, "1", json!({"spec": {"preemptionPolicy": "Never"}}));
        assert_eq!(preempt(&cluster, &never), Err("not eligible due to preemptionPolicy=Never.".into()));
        let waiting = pod("p", None, 10, "1", json!({"status": {"nominatedNodeName": "a"}}));
        let underway = "not eligible due to a terminating pod on the nominated node.";
        assert_eq!(preempt(&cluster, &waiting), Err(underway.into()));
    }

    #[test]
    fn anti_affinity_is_solved_by_removing_the_other_pod() {
        let anti = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}}});
        let running = [
            pod("web", Some("a"), 1, "1", json!({})),
            pod("db", Some("a"), 1, "1", json!({"metadata": {"labels": {"app": "db"}}})),
        ];
        let cluster = cluster([node("a", json!({}))], &running);
        assert_eq!(preempt(&cluster, &pod("p", None, 10, "1", anti)), Ok(("a".into(), vec!["web".into()])));
    }

    #[test]
    fn budgets_are_kept_where_that_is_possible() {
        let labels = |app: &str| json!({"metadata": {"labels": {"app": app}}});
        let running = [
            pod("a1", Some("a"), 1, "4", labels("db")),
            pod("b1", Some("b"), 5, "4", labels("free")),
            pod("c1", Some("c"), 1, "2", labels("db")),
            pod("c2", Some("c"), 2, "2", labels("free")),
        ];
        let mut cluster = cluster(["a", "b", "c"].map(|name| node(name, json!({}))), &running);
        let budget = json!({"metadata": {"name": "db", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "db"}}},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}});
        let budget = Arc::new(serde_json::from_value(budget).unwrap());
        cluster.budgets.set(&crate::client::Key::new("default", "db"), Some(budget));
        let small = pod("p", None, 10, "2", json!({}));
        assert_eq!(preempt(&cluster, &small), Ok(("c".into(), vec!["c2".into()])), "though c1 matters less");
        let large = pod("p", None, 10, "4", json!({}));
        assert_eq!(preempt(&cluster, &large), Ok(("b".into(), vec!["b1".into()])), "though a1 matters less");
    }
}
