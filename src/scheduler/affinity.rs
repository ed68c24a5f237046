//! Inter-pod affinity terms with selectors parsed once.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};

use super::pod_info::PodInfo;
use crate::api::selector::{LabelSelector, Operator, Requirement};

/// Labels of namespaces, by name.
pub type Namespaces = HashMap<String, BTreeMap<String, String>>;

/// One affinity term.
#[derive(Debug, Clone)]
pub struct Term {
    selector: LabelSelector,
    namespaces: Vec<String>,
    namespace_selector: LabelSelector,
    /// The node label whose values are the domains.
    pub topology_key: String,
    /// Its weight; 0 for a required term.
    pub weight: i64,
}

impl Term {
    fn of(term: &PodAffinityTerm, weight: i64, pod: &Pod, namespace: &str) -> Self {
        let namespaces = term.namespaces.clone().unwrap_or_default();
        let own = namespaces.is_empty() && term.namespace_selector.is_none();
        let selector = LabelSelector::from_meta(term.label_selector.as_ref());
        Self {
            selector: with_label_keys(
                selector.unwrap_or_else(|_| LabelSelector::nothing()),
                pod,
                term.match_label_keys.as_deref().unwrap_or_default(),
                term.mismatch_label_keys.as_deref().unwrap_or_default(),
            ),
            namespaces: if own { vec![namespace.to_owned()] } else { namespaces },
            namespace_selector: LabelSelector::from_meta(term.namespace_selector.as_ref())
                .unwrap_or_else(|_| LabelSelector::nothing()),
            topology_key: term.topology_key.clone(),
            weight,
        }
    }

    /// The term is about `pod`.
    pub fn matches(&self, pod: &PodInfo, namespaces: &Namespaces) -> bool {
        let namespace = pod.namespace();
        let in_namespace = self.namespaces.iter().any(|name| name == namespace)
            || !self.namespace_selector.is_nothing()
                && self.namespace_selector.matches_labels(namespaces.get(namespace));
        in_namespace && self.selector.matches_labels(pod.pod.metadata.labels.as_ref())
    }
}

/// The selector, narrowed to the pod's own values of `same` and widened away from those of `other`.
pub fn with_label_keys(
    selector: LabelSelector,
    pod: &Pod,
    same: &[String],
    other: &[String],
) -> LabelSelector {
    if selector.is_nothing() || same.is_empty() && other.is_empty() {
        return selector;
    }
    let mut requirements = selector.requirements().to_vec();
    for (keys, operator) in [(same, Operator::In), (other, Operator::NotIn)] {
        for key in keys {
            let value = pod.metadata.labels.as_ref().and_then(|labels| labels.get(key));
            let requirement =
                value.and_then(|value| Requirement::new(key, operator, vec![value.clone()]).ok());
            requirements.extend(requirement);
        }
    }
    LabelSelector::from_requirements(requirements)
}

/// All affinity terms of a pod.
#[derive(Debug, Clone, Default)]
pub struct PodTerms {
    /// Domains must have matching pods.
    pub required: Vec<Term>,
    /// Domains must not have matching pods.
    pub required_anti: Vec<Term>,
    /// Domains should have matching pods.
    pub preferred: Vec<Term>,
    /// Domains should not have matching pods.
    pub preferred_anti: Vec<Term>,
}

impl PodTerms {
    /// Reads the pod's terms.
    pub fn of(pod: &Pod, namespace: &str) -> Self {
        let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else {
            return Self::default();
        };
        let required = |terms: Option<&Vec<PodAffinityTerm>>| {
            terms.into_iter().flatten().map(|term| Term::of(term, 0, pod, namespace)).collect()
        };
        let preferred = |terms: Option<&Vec<WeightedPodAffinityTerm>>| {
            let weighted = terms.into_iter().flatten();
            weighted.map(|w| Term::of(&w.pod_affinity_term, w.weight.into(), pod, namespace)).collect()
        };
        let (to, from) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        Self {
            required: required(
                to.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            required_anti: required(
                from.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred: preferred(
                to.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred_anti: preferred(
                from.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            ),
        }
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty()
            && self.required_anti.is_empty()
            && self.preferred.is_empty()
            && self.preferred_anti.is_empty()
    }
}
