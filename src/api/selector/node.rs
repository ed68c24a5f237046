//! Selecting nodes: node selector terms over labels and fields, and tolerations of taints.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

/// What of a node is selected by: its name and its labels.
#[derive(Debug, Clone, Copy)]
pub struct NodeFace<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.labels`.
    pub labels: Option<&'a BTreeMap<String, String>>,
}

impl NodeFace<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels?.get(key).map(String::as_str)
    }

    /// The node meets one of the selector's terms.
    pub fn is_selected_by(&self, selector: &NodeSelector) -> bool {
        selector.node_selector_terms.iter().any(|term| self.meets(term))
    }

    /// The node meets all of the term's requirements; a term without any is met by no node.
    pub fn meets(&self, term: &NodeSelectorTerm) -> bool {
        let labels = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let field = |key: &str| (key == "metadata.name").then_some(self.name);
        !(labels.is_empty() && fields.is_empty())
            && labels.iter().all(|requirement| is_met(requirement, self.label(&requirement.key)))
            && fields.iter().all(|requirement| is_met(requirement, field(&requirement.key)))
    }

    /// The node meets the pod's node selector and its required node affinity.
    pub fn suits(&self, pod: &PodSpec) -> bool {
        let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        pod.node_selector.iter().flatten().all(|(key, value)| self.label(key) == Some(value))
            && required.is_none_or(|selector| self.is_selected_by(selector))
    }
}

fn is_met(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|value| values.iter().any(|v| v == value));
    let numbers = || -> Option<(i64, i64)> {
        let [bound] = values else { return None };
        Some((value?.parse().ok()?, bound.parse().ok()?))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// One of `tolerations` tolerates the taint.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
        let effect = empty(&toleration.effect) || toleration.effect.as_deref() == Some(&taint.effect);
        let key = empty(&toleration.key) || toleration.key.as_deref() == Some(&taint.key);
        let value = match toleration.operator.as_deref().unwrap_or_default() {
            "" | "Equal" => {
                toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
            }
            "Exists" => true,
            _ => false,
        };
        effect && key && value
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn suits(pod: Value) -> bool {
        let labels = [("zone".to_owned(), "a".to_owned()), ("cpus".to_owned(), "8".to_owned())].into();
        let pod: PodSpec = serde_json::from_value(pod).unwrap();
        NodeFace { name: "n1", labels: Some(&labels) }.suits(&pod)
    }

    fn required(terms: Value) -> Value {
        let required = json!({"nodeSelectorTerms": terms});
        json!({"containers": [], "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": required}}})
    }

    #[test]
    fn terms_are_alternatives_and_requirements_add_up() {
        let label = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        for (terms, expected) in [
            (json!([{"matchExpressions": [label("zone", "In", &["a", "b"])]}]), true),
            (
                json!([{"matchExpressions": [label("zone", "In", &["b"])]}, {"matchFields": [label("metadata.name", "In", &["n1"])]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [label("zone", "In", &["a"]), label("cpus", "Gt", &["8"])]}]),
                false,
            ),
            (
                json!([{"matchExpressions": [label("cpus", "Lt", &["9"]), label("gpu", "DoesNotExist", &[])]}]),
                true,
            ),
            (json!([{"matchExpressions": [label("zone", "NotIn", &["a"])]}]), false),
            (json!([{}]), false),
        ] {
            assert_eq!(suits(required(terms.clone())), expected, "{terms}");
        }
        assert!(suits(json!({"containers": [], "nodeSelector": {"zone": "a"}})));
        assert!(!suits(json!({"containers": [], "nodeSelector": {"zone": "b"}})));
    }

    #[test]
    fn tolerations_match_key_value_and_effect() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"})).unwrap();
        for (toleration, expected) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "value": "w"}), false),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
        ] {
            let all = [serde_json::from_value(toleration.clone()).unwrap()];
            assert_eq!(tolerates(&all, &taint), expected, "{toleration}");
        }
    }
}
