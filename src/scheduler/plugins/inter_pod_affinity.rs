//! InterPodAffinity: pods that want to be, or not to be, in one domain with other pods.

use std::collections::HashMap;

use crate::scheduler::affinity::Term;
use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{
    Cycle, Events, Filter, MAX_SCORE, NODE_ADDED, NODE_LABELS, NodeFilter, NodeScorer, Outcome, POD_GONE,
    POD_PLACED, POD_UPDATED, Reason, Score,
};
use crate::scheduler::pod_info::PodInfo;

/// The weight of the required affinity of pods that run already, when it comes to preferences.
const HARD_WEIGHT: i64 = 1;

/// The plugin.
#[derive(Debug)]
pub struct InterPodAffinity;

type Domains<'a> = HashMap<(&'a str, &'a str), i64>;

impl Filter for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn events(&self) -> Events {
        NODE_ADDED | NODE_LABELS | POD_PLACED | POD_UPDATED | POD_GONE
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>> {
        let (terms, namespaces) = (&cycle.pod.terms, &cycle.cluster.namespaces);
        // A pod counts for one of the terms only if it meets all of them.
        let is_wanted = |pod: &PodInfo| terms.required.iter().all(|term| term.matches(pod, namespaces));
        let prepared = Prepared {
            repelled_by_others: repelled_by_others(cycle),
            wanted: terms.required.iter().map(|term| (term, domains_of(cycle, term, is_wanted))).collect(),
            unwanted: terms
                .required_anti
                .iter()
                .map(|term| (term, domains_of(cycle, term, |pod| term.matches(pod, namespaces))))
                .collect(),
            first_of_its_kind: is_wanted(cycle.pod),
        };
        let silent = prepared.repelled_by_others.is_empty()
            && prepared.wanted.is_empty()
            && prepared.unwanted.is_empty();
        (!silent).then(|| Box::new(prepared) as _)
    }
}

/// Domains in which a running pod's required anti-affinity refuses this pod.
fn repelled_by_others(cycle: Cycle<'_>) -> Domains<'_> {
    let mut domains = Domains::new();
    for node in cycle.nodes().filter(|node| !node.with_terms.is_empty()) {
        for other in &node.with_terms {
            if cycle.without.is_some_and(|gone| gone.contains(&other.uid)) {
                continue;
            }
            for term in &other.terms.required_anti {
                if let Some(domain) = node.label(&term.topology_key)
                    && term.matches(cycle.pod, &cycle.cluster.namespaces)
                {
                    *domains.entry((&term.topology_key, domain)).or_default() += 1;
                }
            }
        }
    }
    domains
}

/// How many pods are wanted, per domain of the term.
fn domains_of<'a>(cycle: Cycle<'a>, term: &'a Term, wanted: impl Fn(&PodInfo) -> bool) -> Domains<'a> {
    let mut domains = Domains::new();
    for node in cycle.nodes() {
        let Some(domain) = node.label(&term.topology_key) else { continue };
        let matching = cycle.pods_on(node).filter(|pod| wanted(pod));
        let count = i64::try_from(matching.count()).unwrap_or(i64::MAX);
        if count > 0 {
            *domains.entry((&term.topology_key, domain)).or_default() += count;
        }
    }
    domains
}

struct Prepared<'a> {
    repelled_by_others: Domains<'a>,
    wanted: Vec<(&'a Term, Domains<'a>)>,
    unwanted: Vec<(&'a Term, Domains<'a>)>,
    /// The pod matches its own required affinity, so it may be the first.
    first_of_its_kind: bool,
}

impl NodeFilter for Prepared<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome {
        let there = |term: &Term, domains: &Domains<'_>| {
            let domain = node.label(&term.topology_key);
            domain.is_some_and(|domain| domains.contains_key(&(term.topology_key.as_str(), domain)))
        };
        let has_keys = self.wanted.iter().all(|(term, _)| node.label(&term.topology_key).is_some());
        let nobody_yet = self.wanted.iter().all(|(_, domains)| domains.is_empty());
        let satisfied = self.wanted.iter().all(|(term, domains)| there(term, domains));
        if !has_keys || !(satisfied || nobody_yet && self.first_of_its_kind) {
            reasons.push(Reason::Text("node(s) didn't match pod affinity rules"));
            return Outcome::Unresolvable;
        }
        if self.unwanted.iter().any(|(term, domains)| there(term, domains)) {
            reasons.push(Reason::Text("node(s) didn't match pod anti-affinity rules"));
            return Outcome::Rejected;
        }
        let repelled = self.repelled_by_others.keys().any(|(key, domain)| node.label(key) == Some(*domain));
        let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
        Outcome::reject_if(repelled, Outcome::Rejected, reason, reasons)
    }
}

impl Score for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn NodeScorer + 'a>> {
        let mut domains = Domains::new();
        let own = &cycle.pod.terms;
        for (terms, sign) in [(&own.preferred, 1), (&own.preferred_anti, -1)] {
            for term in terms {
                let wanted = |pod: &PodInfo| term.matches(pod, &cycle.cluster.namespaces);
                for (domain, count) in domains_of(cycle, term, wanted) {
                    *domains.entry(domain).or_default() += sign * term.weight * count;
                }
            }
        }
        for node in cycle.nodes() {
            for other in &node.with_terms {
                let theirs = &other.terms;
                for (terms, sign, fixed) in [
                    (&theirs.required, 1, Some(HARD_WEIGHT)),
                    (&theirs.preferred, 1, None),
                    (&theirs.preferred_anti, -1, None),
                ] {
                    for term in terms {
                        if let Some(domain) = node.label(&term.topology_key)
                            && term.matches(cycle.pod, &cycle.cluster.namespaces)
                        {
                            let weight = sign * fixed.unwrap_or(term.weight);
                            *domains.entry((&term.topology_key, domain)).or_default() += weight;
                        }
                    }
                }
            }
        }
        (!domains.is_empty()).then(|| Box::new(Preferences(domains)) as _)
    }
}

struct Preferences<'a>(Domains<'a>);

impl NodeScorer for Preferences<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let here = self.0.iter().filter(|((key, domain), _)| node.label(key) == Some(domain));
        here.map(|(_, score)| score).sum()
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        let (min, max) =
            (scores.iter().min().copied().unwrap_or(0), scores.iter().max().copied().unwrap_or(0));
        for score in scores {
            *score = if max == min { 0 } else { (*score - min) * MAX_SCORE / (max - min) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::cluster::Cluster;
    use crate::scheduler::fixtures::{cluster, node, pod_on, pod_with};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn term(app: &str) -> Value {
        json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}})
    }

    fn with(name: &str, node: Option<&str>, affinity: Value) -> Arc<PodInfo> {
        pod_with(name, json!({"spec": {"nodeName": node, "affinity": affinity}}))
    }

    fn required(kind: &str, app: &str) -> Value {
        json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term(app)]}})
    }

    fn outcomes(cluster: &Cluster, pod: &PodInfo) -> Vec<Outcome> {
        let filter = Filter::prepare(&InterPodAffinity, Cycle { pod, cluster, without: None });
        let check = |n: &NodeInfo| filter.as_ref().map_or(Outcome::Fits, |f| f.check(n, &mut Vec::new()));
        cluster.nodes().iter().map(check).collect()
    }

    #[test]
    fn required_rules_of_both_sides_hold() {
        use Outcome::*;
        let nodes = || ["n1", "n2"].map(|name| node(name, json!({})));
        let web = pod_on("web", "n1", json!({}));
        for (why, running, affinity, expected) in [
            ("no rules", web.clone(), json!({}), [Fits, Fits]),
            ("together", web.clone(), required("podAffinity", "web"), [Fits, Unresolvable]),
            ("apart", web.clone(), required("podAntiAffinity", "web"), [Rejected, Fits]),
            ("nobody to be with", web.clone(), required("podAffinity", "db"), [Unresolvable, Unresolvable]),
            (
                "the other side minds",
                with("x", Some("n1"), required("podAntiAffinity", "web")),
                json!({}),
                [Rejected, Fits],
            ),
        ] {
            let pod = with("p", None, affinity);
            assert_eq!(outcomes(&cluster(nodes(), &[running]), &pod), expected, "{why}");
        }
        let first = with("p", None, required("podAffinity", "web"));
        assert_eq!(outcomes(&cluster(nodes(), &[]), &first), [Fits, Fits], "the first of its kind");
    }

    #[test]
    fn a_pod_is_company_only_if_it_meets_all_terms() {
        use Outcome::*;
        let affinity = |apps: [&str; 2]| {
            let selector = |app: &str| json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", app]}]});
            let terms = apps
                .map(|app| json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": selector(app)}));
            json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
        };
        let labelled = |name: &str, app: &str| {
            pod_with(name, json!({"metadata": {"labels": {"app": app}}, "spec": {"nodeName": "n1"}}))
        };
        let pod = with("p", None, affinity(["db", "cache"]));
        let nodes = || ["n1", "n2"].map(|name| node(name, json!({})));
        let apart = cluster(nodes(), &[labelled("x", "db"), labelled("y", "cache")]);
        assert_eq!(outcomes(&apart, &pod), [Fits, Fits], "nobody meets both, so it is the first of its kind");
        let company = cluster(nodes(), &[labelled("x", "web")]);
        assert_eq!(outcomes(&company, &pod), [Fits, Unresolvable]);
    }

    #[test]
    fn preferences_rank_nodes() {
        let cluster =
            cluster(["n1", "n2"].map(|name| node(name, json!({}))), &[pod_on("web", "n1", json!({}))]);
        for (kind, better) in [("podAffinity", 0), ("podAntiAffinity", 1)] {
            let preferred = json!([{"weight": 10, "podAffinityTerm": term("web")}]);
            let pod = with(
                "p",
                None,
                json!({kind: {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}),
            );
            let scorer =
                Score::prepare(&InterPodAffinity, Cycle { pod: &pod, cluster: &cluster, without: None }, &[])
                    .unwrap();
            let nodes: Vec<_> = cluster.nodes().iter().collect();
            let mut scores: Vec<_> = nodes.iter().map(|n| scorer.score(n)).collect();
            scorer.normalize(&nodes, &mut scores);
            assert_eq!((scores[better], scores[1 - better]), (100, 0), "{kind}");
        }
    }
}
