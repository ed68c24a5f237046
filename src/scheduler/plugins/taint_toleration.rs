//! TaintToleration: NoSchedule and NoExecute taints must be tolerated, PreferNoSchedule taints count against a node.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::scheduler::cluster::NodeInfo;
use crate::scheduler::framework::{
    Cycle, Events, Filter, NODE_ADDED, NODE_TAINTS, NodeFilter, NodeScorer, Outcome, Reason, Score,
    scale_to_max,
};

/// The plugin.
#[derive(Debug)]
pub struct TaintToleration;

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn events(&self) -> Events {
        NODE_ADDED | NODE_TAINTS
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn NodeFilter + 'a>> {
        Some(Box::new(Tolerations(tolerations(cycle))))
    }
}

impl Score for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn NodeScorer + 'a>> {
        Some(Box::new(Tolerations(tolerations(cycle))))
    }
}

fn tolerations(cycle: Cycle<'_>) -> &[Toleration] {
    cycle.pod.spec().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

struct Tolerations<'a>(&'a [Toleration]);

impl NodeFilter for Tolerations<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Outcome {
        let repelled = !tolerates_all(self.0, node.taints());
        Outcome::reject_if(repelled, Outcome::Unresolvable, "node(s) had untolerated taint(s)", reasons)
    }
}

impl NodeScorer for Tolerations<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
        let repelling = soft.filter(|taint| !self.0.iter().any(|toleration| tolerates(toleration, taint)));
        i64::try_from(repelling.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        scale_to_max(scores, true);
    }
}

/// All taints that keep pods off are tolerated.
pub fn tolerates_all(tolerations: &[Toleration], taints: &[Taint]) -> bool {
    taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// A taint with this key and effect, and without a value, is tolerated.
pub fn tolerates_key(tolerations: &[Toleration], key: &str, effect: &str) -> bool {
    let taint = Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() };
    tolerations.iter().any(|toleration| tolerates(toleration, &taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (effect, key) = (given(&toleration.effect), given(&toleration.key));
    if effect.is_some_and(|effect| effect != taint.effect) || key.is_some_and(|key| key != taint.key) {
        return false;
    }
    let (own, of_taint) =
        (toleration.value.as_deref().unwrap_or_default(), taint.value.as_deref().unwrap_or_default());
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => own == of_taint,
        "Exists" => true,
        "Gt" => numbers(of_taint, own).is_some_and(|(taint, own)| taint > own),
        "Lt" => numbers(of_taint, own).is_some_and(|(taint, own)| taint < own),
        _ => false,
    }
}

fn numbers(a: &str, b: &str) -> Option<(i64, i64)> {
    Some((a.parse().ok()?, b.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tolerated(toleration: Value, taint: Value) -> bool {
        let toleration: Vec<Toleration> = serde_json::from_value(json!([toleration])).unwrap();
        tolerates_all(&toleration, &[serde_json::from_value(taint).unwrap()])
    }

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let taint = json!({"key": "k", "value": "v", "effect": "NoSchedule"});
        for (toleration, expected) in [
            (json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "value": "other"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({}), false),
        ] {
            assert_eq!(tolerated(toleration.clone(), taint.clone()), expected, "{toleration}");
        }
        assert!(tolerated(json!({}), json!({"key": "k", "effect": "PreferNoSchedule"})), "only a preference");
        assert!(tolerated(
            json!({"key": "k", "operator": "Gt", "value": "3"}),
            json!({"key": "k", "value": "5", "effect": "NoSchedule"})
        ));
    }
}
