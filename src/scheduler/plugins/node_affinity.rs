//! NodeAffinity: `nodeSelector`, required and preferred node affinity.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorTerm, PreferredSchedulingTerm};

use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{
    Cycle, Events, Filter, NODE_ADDED, NODE_LABELS, NodeFilter, NodeScorer, Outcome, Reason, Score,
    scale_to_max,
};
use crate::scheduler::pod_info::PodInfo;

/// The plugin.
#[derive(Debug)]
pub struct NodeAffinity;

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn events(&self) -> Events {
        NODE_ADDED | NODE_LABELS
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>> {
        let required = Required::of(cycle.pod);
        (!required.is_empty()).then(|| Box::new(required) as _)
    }
}

impl Score for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn NodeScorer + 'a>> {
        let affinity = cycle.pod.affinity().and_then(|a| a.node_affinity.as_ref())?;
        let terms = affinity.preferred_during_scheduling_ignored_during_execution.as_deref()?;
        (!terms.is_empty()).then(|| Box::new(Preferred(terms)) as _)
    }
}

/// What a pod demands of its node.
#[derive(Debug)]
pub struct Required<'a> {
    labels: Option<&'a BTreeMap<String, String>>,
    terms: Option<&'a [NodeSelectorTerm]>,
}

impl<'a> Required<'a> {
    /// Reads the pod's demands.
    pub fn of(pod: &'a PodInfo) -> Self {
        let affinity = pod.affinity().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            labels: pod.spec().and_then(|spec| spec.node_selector.as_ref()).filter(|map| !map.is_empty()),
            terms: required.map(|selector| selector.node_selector_terms.as_slice()),
        }
    }

    fn is_empty(&self) -> bool {
        self.labels.is_none() && self.terms.is_none()
    }

    /// The node meets them.
    pub fn matches(&self, node: &NodeInfo) -> bool {
        self.labels.into_iter().flatten().all(|(key, value)| node.label(key) == Some(value))
            && self.terms.is_none_or(|terms| terms.iter().any(|term| node.face().meets(term)))
    }
}

impl NodeFilter for Required<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome {
        let reason = "node(s) didn't match Pod's node affinity/selector";
        Outcome::reject_if(!self.matches(node), Outcome::Unresolvable, reason, reasons)
    }
}

struct Preferred<'a>(&'a [PreferredSchedulingTerm]);

impl NodeScorer for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let matching = self.0.iter().filter(|term| node.face().meets(&term.preference));
        matching.map(|term| i64::from(term.weight)).sum()
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        scale_to_max(scores, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::{cluster, node, pod_with};
    use serde_json::{Value, json};

    fn fits(spec: Value) -> bool {
        let cluster = cluster([node("n", json!({"metadata": {"labels": {"disk": "ssd", "gen": "7"}}}))], &[]);
        let pod = pod_with("p", json!({"spec": spec}));
        Required::of(&pod).matches(&cluster.nodes()[0])
    }

    fn required(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn selectors_and_operators() {
        assert!(fits(json!({})));
        assert!(fits(json!({"nodeSelector": {"disk": "ssd"}})));
        assert!(!fits(json!({"nodeSelector": {"disk": "hdd"}})));
        for (operator, key, values, expected) in [
            ("In", "disk", json!(["hdd", "ssd"]), true),
            ("In", "none", json!(["ssd"]), false),
            ("NotIn", "disk", json!(["ssd"]), false),
            ("NotIn", "none", json!(["ssd"]), true),
            ("Exists", "disk", json!([]), true),
            ("DoesNotExist", "disk", json!([]), false),
            ("Gt", "gen", json!(["6"]), true),
            ("Lt", "gen", json!(["6"]), false),
            ("Gt", "disk", json!(["6"]), false),
        ] {
            let expression = json!({"key": key, "operator": operator, "values": values});
            assert_eq!(
                fits(required(json!([{"matchExpressions": [expression]}]))),
                expected,
                "{operator} {key}"
            );
        }
    }

    #[test]
    fn terms_are_alternatives_and_empty_terms_match_nothing() {
        let (yes, no) =
            (json!({"key": "disk", "operator": "Exists"}), json!({"key": "x", "operator": "Exists"}));
        assert!(fits(required(json!([{"matchExpressions": [no]}, {"matchExpressions": [yes]}]))));
        assert!(!fits(required(json!([{"matchExpressions": [yes, no]}]))));
        assert!(!fits(required(json!([{}]))));
        let by_name = |name: &str| json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]);
        assert!(fits(required(by_name("n"))) && !fits(required(by_name("m"))));
    }
}
