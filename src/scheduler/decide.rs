//! The decision about one pod: filter, score, choose. Pure: the cluster goes in, a node or the reasons come out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::cluster::{Cluster, NodeInfo};
use super::framework::{Cycle, Events, NodeFilter, Outcome, Reason};
use super::plugins::Plugins;
use super::pod_info::PodInfo;

/// With fewer nodes than this all are looked at.
const ALWAYS_LOOK_AT: usize = 100;

/// Decides about pods, one after the other.
#[derive(Debug)]
pub struct Decider {
    plugins: Plugins,
    random: Random,
    /// Where the search for feasible nodes goes on, so that all nodes get their turn.
    start: usize,
}

/// Why no node fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Misfit {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes were rejected for each reason.
    pub reasons: BTreeMap<String, usize>,
    /// Why no node at all will do; then none was looked at.
    pub veto: Option<String>,
    /// The changes that may help.
    pub events: Events,
    /// The nodes on which preemption might help.
    pub resolvable: Vec<Arc<str>>,
}

impl fmt::Display for Misfit {
    /// `0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available: ", self.nodes)?;
        if let Some(veto) = &self.veto {
            return write!(f, "{veto}.");
        }
        write_reasons(f, &self.reasons)
    }
}

/// `1 reason, 2 another reason.`, sorted by that text as upstream does.
pub fn write_reasons(f: &mut fmt::Formatter<'_>, reasons: &BTreeMap<String, usize>) -> fmt::Result {
    let mut texts: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    write!(f, "{}.", texts.join(", "))
}

/// The filters prepared for one pod, each with the events that may change its mind.
pub struct Filters<'a> {
    prepared: Vec<(Events, Box<dyn NodeFilter + 'a>)>,
    cycle: Cycle<'a>,
}

impl fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filters").field("filters", &self.prepared.len()).finish()
    }
}

impl<'a> Filters<'a> {
    /// Prepares all filters.
    pub fn prepare(plugins: &Plugins, cycle: Cycle<'a>) -> Self {
        let prepared = plugins.filters.iter().filter_map(|f| Some((f.events(), f.prepare(cycle)?)));
        Self { prepared: prepared.collect(), cycle }
    }

    /// Asks all filters until one rejects the node; returns the rejecting one's events.
    pub fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> (Outcome, Events) {
        for (events, filter) in &self.prepared {
            let outcome = filter.check(node, reasons);
            if outcome != Outcome::Fits {
                return (outcome, *events);
            }
        }
        (Outcome::Fits, 0)
    }

    /// As [`check`](Self::check), and the node must also have room for pods that were promised it.
    fn check_with_nominated(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> (Outcome, Events) {
        let pod = self.cycle.pod;
        if self.cycle.cluster.has_nominations() {
            let mut nominated =
                self.cycle.cluster.nominated_on(&node.name, pod.priority, &pod.key).peekable();
            if nominated.peek().is_some() {
                let mut fuller = node.clone();
                nominated.for_each(|other| fuller.add(other.clone()));
                let (outcome, events) = self.check(&fuller, reasons);
                if outcome != Outcome::Fits {
                    return (outcome, events);
                }
            }
        }
        self.check(node, reasons)
    }
}

impl Decider {
    /// A decider with these plugins; the seed decides between equally good nodes.
    pub fn new(plugins: Plugins, seed: u64) -> Self {
        Self { plugins, random: Random(seed), start: 0 }
    }

    /// The plugins.
    pub fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    /// The best node for the pod, or why there is none.
    pub fn decide(&mut self, pod: &PodInfo, cluster: &Cluster) -> Result<Arc<str>, Misfit> {
        let cycle = Cycle { pod, cluster, without: None };
        self.find_veto(cycle)?;
        let filters = Filters::prepare(&self.plugins, cycle);
        // Room was made for the pod there.
        let nominated = cluster.nominated_node(&pod.key).and_then(|name| cluster.node(name));
        if let Some(node) = nominated.filter(|node| node.node.is_some())
            && filters.check_with_nominated(node, &mut Vec::new()).0 == Outcome::Fits
        {
            return Ok(node.name.clone());
        }
        let feasible = find_feasible(&filters, cluster, &mut self.start)?;
        let totals = totals(&self.plugins, cycle, &feasible);
        let best = totals.iter().copied().max().unwrap_or(0);
        let mut chosen = 0;
        let mut seen = 0;
        for (at, _) in totals.iter().enumerate().filter(|(_, total)| **total == best) {
            seen += 1;
            if self.random.below(seen) == 0 {
                chosen = at;
            }
        }
        Ok(feasible[chosen].name.clone())
    }
}

impl Decider {
    /// Asks whether the pod is out of the question on every node.
    fn find_veto(&self, cycle: Cycle<'_>) -> Result<(), Misfit> {
        let nodes = cycle.cluster.node_count();
        let mut vetoes = self.plugins.filters.iter().filter_map(|f| Some((f.events(), f.veto(cycle)?)));
        match vetoes.next().filter(|_| nodes > 0) {
            None => Ok(()),
            Some((events, veto)) => Err(Misfit { nodes, veto: Some(veto), events, ..Misfit::default() }),
        }
    }
}

/// How many feasible nodes are enough: fewer and fewer per cent in larger clusters.
fn enough(nodes: usize) -> usize {
    if nodes < ALWAYS_LOOK_AT {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(ALWAYS_LOOK_AT)
}

fn find_feasible<'a>(
    filters: &Filters<'_>,
    cluster: &'a Cluster,
    start: &mut usize,
) -> Result<Vec<&'a NodeInfo>, Misfit> {
    let nodes = cluster.nodes();
    let enough = enough(cluster.node_count());
    let (mut feasible, mut misfit) = (Vec::new(), Misfit::default());
    let (mut reasons, mut counts) = (Vec::new(), BTreeMap::<Reason, usize>::new());
    let mut looked_at = 0;
    for offset in 0..nodes.len() {
        let node = &nodes[(*start + offset) % nodes.len()];
        looked_at += 1;
        if node.node.is_none() {
            continue;
        }
        misfit.nodes += 1;
        let (outcome, events) = filters.check_with_nominated(node, &mut reasons);
        misfit.events |= events;
        match outcome {
            Outcome::Fits => feasible.push(node),
            Outcome::Rejected => misfit.resolvable.push(node.name.clone()),
            Outcome::Unresolvable => {}
        }
        for reason in reasons.drain(..) {
            *counts.entry(reason).or_default() += 1;
        }
        if feasible.len() >= enough && !feasible.is_empty() {
            break;
        }
    }
    if !nodes.is_empty() {
        *start = (*start + looked_at) % nodes.len();
    }
    if !feasible.is_empty() {
        return Ok(feasible);
    }
    misfit.reasons = counts.into_iter().map(|(reason, count)| (reason.to_string(), count)).collect();
    if misfit.nodes == 0 {
        misfit.events = super::framework::NODE_ADDED;
    }
    Err(misfit)
}

fn totals<'a>(plugins: &Plugins, cycle: Cycle<'a>, feasible: &[&'a NodeInfo]) -> Vec<i64> {
    let mut totals = vec![0; feasible.len()];
    if feasible.len() < 2 {
        return totals;
    }
    let mut scores = vec![0; feasible.len()];
    for plugin in &plugins.scores {
        let Some(scorer) = plugin.prepare(cycle, feasible) else { continue };
        for (score, node) in scores.iter_mut().zip(feasible) {
            *score = scorer.score(node);
        }
        scorer.normalize(feasible, &mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * plugin.weight();
        }
    }
    totals
}

/// A small seeded generator (splitmix64): the same seed gives the same choices.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{cluster, node, pod, pod_on, pod_with};
    use crate::scheduler::framework::{NODE_TAINTS, POD_GONE};
    use serde_json::{Value, json};

    fn decide(cluster: &Cluster, pod: &PodInfo) -> Result<String, String> {
        let decision = Decider::new(Plugins::default(), 1).decide(pod, cluster);
        decision.map(|node| node.to_string()).map_err(|misfit| misfit.to_string())
    }

    fn taint(effect: &str) -> Value {
        json!({"spec": {"taints": [{"key": "k", "effect": effect}]}})
    }

    #[test]
    fn the_reasons_are_counted_in_upstreams_words() {
        let none = Cluster::default();
        assert_eq!(decide(&none, &pod("p", json!({}))).unwrap_err(), "no nodes available to schedule pods");
        let cluster = cluster(
            [
                node("small", json!({"status": {"allocatable": {"cpu": "1", "memory": "1Mi"}}})),
                node("tainted", taint("NoSchedule")),
                node("cordoned", json!({"spec": {"unschedulable": true}})),
                node("busy", json!({})),
            ],
            &[pod_on("x", "busy", json!({"cpu": "3"}))],
        );
        let big = pod("p", json!({"cpu": "2", "memory": "1Gi"}));
        assert_eq!(
            decide(&cluster, &big).unwrap_err(),
            "0/4 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint(s), \
             1 node(s) were unschedulable, 2 Insufficient cpu."
        );
        let misfit = Decider::new(Plugins::default(), 1).decide(&big, &cluster).unwrap_err();
        assert_eq!(misfit.resolvable, ["busy".into()]);
        assert!(misfit.events & NODE_TAINTS != 0 && misfit.events & POD_GONE != 0);
    }

    #[test]
    fn preferences_choose_among_feasible_nodes() {
        let web = pod_on("x", "b", json!({}));
        for (why, nodes, pods, wanted, expected) in [
            (
                "untainted",
                [node("a", taint("PreferNoSchedule")), node("b", json!({}))],
                vec![],
                pod("p", json!({})),
                "b",
            ),
            (
                "emptier",
                [node("a", json!({})), node("b", json!({}))],
                vec![pod_on("x", "a", json!({"cpu": "3", "memory": "6Gi"}))],
                pod("p", json!({"cpu": "1", "memory": "2Gi"})),
                "b",
            ),
            ("spread", [node("a", json!({})), node("b", json!({}))], vec![web], pod("p", json!({})), "a"),
            (
                "selector",
                [node("a", json!({})), node("b", json!({"metadata": {"labels": {"x": "y"}}}))],
                vec![],
                pod_with("p", json!({"spec": {"nodeSelector": {"x": "y"}}})),
                "b",
            ),
        ] {
            assert_eq!(decide(&cluster(nodes, &pods), &wanted).as_deref(), Ok(expected), "{why}");
        }
    }

    #[test]
    fn equal_nodes_are_chosen_by_the_seed() {
        let cluster = cluster(["a", "b", "c", "d"].map(|name| node(name, json!({}))), &[]);
        let choices = |seed| {
            let mut decider = Decider::new(Plugins::default(), seed);
            (0..16).map(|_| decider.decide(&pod("p", json!({})), &cluster).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(choices(7), choices(7));
        let mut all = choices(7);
        all.sort();
        all.dedup();
        assert!(all.len() > 1, "{all:?}");
    }

    #[test]
    fn room_promised_to_others_is_not_given_away() {
        let mut cluster = cluster([node("n", json!({}))], &[]);
        let important = pod_with(
            "i",
            json!({"spec": {"priority": 9, "containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]}}),
        );
        cluster.nominate(important.clone(), "n");
        let ordinary = pod("p", json!({"cpu": "2"}));
        assert!(decide(&cluster, &ordinary).is_err());
        assert!(decide(&cluster, &important).is_ok(), "its own room");
        let more_important = pod_with(
            "m",
            json!({"spec": {"priority": 10, "containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}}),
        );
        assert!(decide(&cluster, &more_important).is_ok());
        cluster.drop_nomination(&important.key);
        assert!(decide(&cluster, &ordinary).is_ok());
    }

    #[test]
    fn large_clusters_are_searched_in_part_and_in_turn() {
        assert_eq!([5, 99, 100, 1000, 10_000].map(enough), [5, 99, 100, 420, 500]);
        let cluster = cluster((0..300).map(|i| node(&format!("n{i}"), json!({}))), &[]);
        let mut decider = Decider::new(Plugins::default(), 1);
        decider.decide(&pod("p", json!({})), &cluster).unwrap();
        assert!((100..300).contains(&decider.start), "{}", decider.start);
    }
}
