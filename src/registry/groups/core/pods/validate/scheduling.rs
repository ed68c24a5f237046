//! Checks of what steers a pod to nodes.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Affinity, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::node_affinity;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::{each, known, selector, text};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
const NODE_POLICIES: [&str; 2] = ["Honor", "Ignore"];
const NO_SELECTOR: &str = "must not be specified when labelSelector is not set";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NOT_POSITIVE: &str = "must be greater than zero";

/// Checks tolerations.
pub fn tolerations(tolerations: &[Toleration], at: &Path, errors: &mut FieldErrors) {
    for (i, toleration) in tolerations.iter().enumerate() {
        tolerate(toleration, &at.index(i), errors);
    }
}

fn tolerate(toleration: &Toleration, at: &Path, errors: &mut FieldErrors) {
    let (key, operator) = (text(&toleration.key), text(&toleration.operator));
    let (value, effect) = (text(&toleration.value), text(&toleration.effect));
    let at_operator = at.child("operator");
    if !key.is_empty() {
        each(names::is_qualified_name(key), key, &at.child("key"), errors);
    } else if operator != "Exists" {
        let message =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(&at_operator, operator, message));
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(&at.child("effect"), effect, message));
    }
    match operator {
        "" | "Equal" => {
            let messages = names::is_label_value(value);
            if !messages.is_empty() {
                errors.push(FieldError::invalid(&at_operator, value, messages.join(";")));
            }
        }
        "Exists" if !value.is_empty() => {
            let message = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(&at_operator, value, message));
        }
        "Exists" => {}
        // Comparisons need a feature that is off; upstream names them all the same.
        "Lt" | "Gt" => {
            let supported = ["Equal", "Exists", "Lt", "Gt"];
            errors.push(FieldError::not_supported(&at_operator, operator, &supported));
        }
        other => errors.push(FieldError::not_supported(&at_operator, other, &["Equal", "Exists"])),
    }
    if !effect.is_empty() {
        known(Some(effect), &EFFECTS, &at.child("effect"), errors);
    }
}

/// Checks what a pod prefers and requires of nodes and of other pods.
pub(super) fn affinity(affinity: &Affinity, at: &Path, errors: &mut FieldErrors) {
    if let Some(node) = &affinity.node_affinity {
        let at = at.child("nodeAffinity");
        if let Some(required) = &node.required_during_scheduling_ignored_during_execution {
            node_affinity::selector(required, &at.child(REQUIRED), errors);
        }
        let preferred = &node.preferred_during_scheduling_ignored_during_execution;
        for (i, term) in preferred.iter().flatten().enumerate() {
            let at = at.child(PREFERRED).index(i);
            weight(term.weight, &at, errors);
            node_affinity::term(&term.preference, false, &at.child("preference"), errors);
        }
    }
    if let Some(own) = &affinity.pod_affinity {
        let required = own.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = own.preferred_during_scheduling_ignored_during_execution.as_deref();
        pod_terms(required, preferred, &at.child("podAffinity"), errors);
    }
    if let Some(own) = &affinity.pod_anti_affinity {
        let required = own.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = own.preferred_during_scheduling_ignored_during_execution.as_deref();
        pod_terms(required, preferred, &at.child("podAntiAffinity"), errors);
    }
}

fn weight(weight: i32, at: &Path, errors: &mut FieldErrors) {
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(&at.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn pod_terms(
    required: Option<&[PodAffinityTerm]>,
    preferred: Option<&[WeightedPodAffinityTerm]>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    for (i, term) in required.into_iter().flatten().enumerate() {
        pod_term(term, &at.child(REQUIRED).index(i), errors);
    }
    for (i, term) in preferred.into_iter().flatten().enumerate() {
        let at = at.child(PREFERRED).index(i);
        weight(term.weight, &at, errors);
        pod_term(&term.pod_affinity_term, &at.child("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &PodAffinityTerm, at: &Path, errors: &mut FieldErrors) {
    selector(term.label_selector.as_ref(), &at.child("labelSelector"), errors);
    selector(term.namespace_selector.as_ref(), &at.child("namespaceSelector"), errors);
    for namespace in term.namespaces.iter().flatten() {
        each(names::is_dns1123_label(namespace), namespace, &at.child("namespace"), errors);
    }
    label_keys(
        term.match_label_keys.as_deref().unwrap_or_default(),
        term.mismatch_label_keys.as_deref().unwrap_or_default(),
        term.label_selector.as_ref(),
        at,
        errors,
    );
    if term.topology_key.is_empty() {
        errors.push(FieldError::required(&at.child("topologyKey"), "can not be empty"));
    }
    each(names::is_qualified_name(&term.topology_key), &term.topology_key, &at.child("topologyKey"), errors);
}

/// Keys of labels whose values are the pod's own: what is matched has no other rule for the same key.
fn label_keys(
    matched: &[String],
    mismatched: &[String],
    selector: Option<&LabelSelector>,
    at: &Path,
    errors: &mut FieldErrors,
) {
    for (field, keys) in [("matchLabelKeys", matched), ("mismatchLabelKeys", mismatched)] {
        let at = at.child(field);
        if !keys.is_empty() && selector.is_none() {
            errors.push(FieldError::forbidden(&at, NO_SELECTOR));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            each(names::is_qualified_name(key), key, &at.index(i), errors);
        }
    }
    if let Some(selector) = selector {
        let mut seen: BTreeSet<&str> =
            selector.match_labels.iter().flatten().map(|(key, _)| key.as_str()).collect();
        for expression in selector.match_expressions.iter().flatten() {
            let key = expression.key.as_str();
            let place = matched.iter().rposition(|own| own == key);
            if let Some(i) = place.filter(|_| seen.contains(key)) {
                let message = "exists in both matchLabelKeys and labelSelector";
                errors.push(FieldError::invalid(&at.index(i), key, message));
            }
            seen.insert(key);
        }
    }
    for (i, key) in matched.iter().enumerate().filter(|(_, key)| mismatched.contains(key)) {
        let message = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(&at.child("matchLabelKeys").index(i), key, message));
    }
}

/// Checks what a pod waits for.
pub(super) fn gates(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let at = at.child("readinessGates").index(i).child("conditionType");
        each(names::is_qualified_name(&gate.condition_type), &gate.condition_type, &at, errors);
    }
    let mut seen = BTreeSet::new();
    for (i, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let at = at.child("schedulingGates").index(i);
        each(names::is_qualified_name(&gate.name), &gate.name, &at, errors);
        if !seen.insert(&gate.name) {
            errors.push(FieldError::duplicate(&at, &gate.name));
        }
    }
}

/// Checks how pods are spread.
pub(super) fn spread(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    for (i, constraint) in constraints.iter().enumerate() {
        let at = at.index(i);
        spread_one(constraint, &at, errors);
        let kind = (&constraint.topology_key, &constraint.when_unsatisfiable);
        if constraints[i + 1..].iter().any(|other| (&other.topology_key, &other.when_unsatisfiable) == kind) {
            let at = at.child("{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(&at, format!("{{{}, {}}}", kind.0, kind.1)));
        }
        details(constraint, &at, errors);
    }
}

fn spread_one(constraint: &TopologySpreadConstraint, at: &Path, errors: &mut FieldErrors) {
    if constraint.max_skew <= 0 {
        errors.push(FieldError::invalid(&at.child("maxSkew"), constraint.max_skew, NOT_POSITIVE));
    }
    if constraint.topology_key.is_empty() {
        errors.push(FieldError::required(&at.child("topologyKey"), "can not be empty"));
    }
    known(Some(&constraint.when_unsatisfiable), &ACTIONS, &at.child("whenUnsatisfiable"), errors);
}

fn details(constraint: &TopologySpreadConstraint, at: &Path, errors: &mut FieldErrors) {
    if let Some(domains) = constraint.min_domains {
        let at = at.child("minDomains");
        if domains <= 0 {
            errors.push(FieldError::invalid(&at, domains, NOT_POSITIVE));
        }
        let action = &constraint.when_unsatisfiable;
        if action != "DoNotSchedule" {
            let message = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            errors.push(FieldError::invalid(&at, domains, message));
        }
    }
    let policies = [
        ("nodeAffinityPolicy", &constraint.node_affinity_policy),
        ("nodeTaintsPolicy", &constraint.node_taints_policy),
    ];
    for (field, policy) in policies {
        known(policy.as_deref(), &NODE_POLICIES, &at.child(field), errors);
    }
    let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
    label_keys(keys, &[], constraint.label_selector.as_ref(), at, errors);
    selector(constraint.label_selector.as_ref(), &at.child("labelSelector"), errors);
}
