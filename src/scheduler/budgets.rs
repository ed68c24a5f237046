//! Disruption budgets as preemption sees them: which victims would break one. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::pod_info::PodInfo;
use crate::api::selector::LabelSelector;
use crate::client::Key;

/// A budget with its selector parsed.
#[derive(Debug)]
struct Budget {
    selector: LabelSelector,
    budget: Arc<PodDisruptionBudget>,
}

/// All budgets.
#[derive(Debug, Default)]
pub struct Budgets(HashMap<Key, Budget>);

impl Budgets {
    /// The present state of a budget; `None` if it is gone.
    pub fn set(&mut self, key: &Key, budget: Option<Arc<PodDisruptionBudget>>) {
        let Some(budget) = budget else { return drop(self.0.remove(key)) };
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        // Here, as for upstream's scheduler, an empty selector selects nothing.
        let selector = match selector {
            some @ Some(_) => LabelSelector::from_meta(some).unwrap_or_else(|_| LabelSelector::nothing()),
            None => LabelSelector::nothing(),
        };
        self.0.insert(key.clone(), Budget { selector, budget });
    }

    /// Which of the pods, taken away in this order, go beyond a budget.
    pub fn broken_by(&self, pods: &[Arc<PodInfo>]) -> Vec<bool> {
        let mut left: HashMap<&Key, i32> = HashMap::new();
        let judge = |pod: &Arc<PodInfo>| {
            let labels = pod.pod.metadata.labels.as_ref().filter(|labels| !labels.is_empty());
            let Some(labels) = labels else { return false };
            let mut breaks = false;
            for (key, Budget { selector, budget }) in &self.0 {
                let status = budget.status.as_ref();
                let counted = status.and_then(|status| status.disrupted_pods.as_ref());
                if key.namespace() != pod.namespace()
                    || selector.is_everything()
                    || !selector.matches_labels(Some(labels))
                    || counted.is_some_and(|pods| pods.contains_key(pod.key.name()))
                {
                    continue;
                }
                let allowed = status.and_then(|status| status.disruptions_allowed).unwrap_or(0);
                let left = left.entry(key).or_insert(allowed);
                *left -= 1;
                breaks |= *left < 0;
            }
            breaks
        };
        pods.iter().map(judge).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fixtures::pod_with;
    use serde_json::{Value, json};

    fn budgets(selector: Value, allowed: i32, disrupted: Value) -> Budgets {
        let budget = json!({"metadata": {"name": "b", "namespace": "default"}, "spec": {"selector": selector},
            "status": {"disruptionsAllowed": allowed, "disruptedPods": disrupted,
                       "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}});
        let mut budgets = Budgets::default();
        budgets.set(&Key::new("default", "b"), Some(serde_json::from_value(budget).unwrap()));
        budgets
    }

    #[test]
    fn pods_beyond_what_a_budget_allows_break_it() {
        let web = json!({"matchLabels": {"app": "web"}});
        let pods = ["a", "b", "c"].map(|name| pod_with(name, json!({})));
        for (selector, allowed, disrupted, expected) in [
            (web.clone(), 1, json!({}), [false, true, true]),
            (web.clone(), 0, json!({"a": "2026-01-01T00:00:00Z"}), [false, true, true]),
            (web, 3, json!({}), [false; 3]),
            (json!({"matchLabels": {"app": "db"}}), 0, json!({}), [false; 3]),
            (json!({}), 0, json!({}), [false; 3]),
        ] {
            let budgets = budgets(selector.clone(), allowed, disrupted);
            assert_eq!(budgets.broken_by(&pods), expected, "{selector} {allowed}");
        }
    }
}
