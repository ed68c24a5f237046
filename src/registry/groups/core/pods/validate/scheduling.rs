//! Checks of what steers a pod to nodes.

use k8s_openapi::api::core::v1::{Affinity, NodeSelectorTerm, PodAffinityTerm, PodSpec, Toleration};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::selector::validate_label_selector;
use crate::registry::validation::{each, metadata};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn validate(spec: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    if let Some(selector) = &spec.node_selector {
        metadata::validate_labels(selector, &at.child("nodeSelector"), errors);
    }
    for (i, toleration) in spec.tolerations.iter().flatten().enumerate() {
        tolerate(toleration, &at.child("tolerations").index(i), errors);
    }
    if let Some(affinity) = &spec.affinity {
        self::affinity(affinity, &at.child("affinity"), errors);
    }
    for (i, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        let at = at.child("topologySpreadConstraints").index(i);
        if constraint.max_skew <= 0 {
            errors.push(FieldError::invalid(
                &at.child("maxSkew"),
                constraint.max_skew,
                "must be greater than zero",
            ));
        }
        if constraint.topology_key.is_empty() {
            errors.push(FieldError::required(&at.child("topologyKey"), "can not be empty"));
        }
        let action = constraint.when_unsatisfiable.as_str();
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            let supported = ["DoNotSchedule", "ScheduleAnyway"];
            errors.push(FieldError::not_supported(&at.child("whenUnsatisfiable"), action, &supported));
        }
    }
}

fn tolerate(toleration: &Toleration, at: &Path, errors: &mut FieldErrors) {
    let key = toleration.key.as_deref().unwrap_or_default();
    let operator = toleration.operator.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !key.is_empty() {
        each(names::is_qualified_name(key), key, &at.child("key"), errors);
    } else if operator != "Exists" {
        let message =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(&at.child("operator"), operator, message));
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(&at.child("effect"), effect, message));
    }
    match operator {
        "" | "Equal" => each(names::is_label_value(value), value, &at.child("operator"), errors),
        "Exists" if !value.is_empty() => {
            let message = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(&at.child("operator"), value, message));
        }
        "Exists" | "Lt" | "Gt" => {}
        other => errors.push(FieldError::not_supported(&at.child("operator"), other, &["Equal", "Exists"])),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.push(FieldError::not_supported(&at.child("effect"), effect, &EFFECTS));
    }
}

fn affinity(affinity: &Affinity, at: &Path, errors: &mut FieldErrors) {
    if let Some(node) = &affinity.node_affinity {
        let at = at.child("nodeAffinity");
        if let Some(required) = &node.required_during_scheduling_ignored_during_execution {
            let at = at.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
            if required.node_selector_terms.is_empty() {
                errors.push(FieldError::required(&at, "must have at least one node selector term"));
            }
            for (i, term) in required.node_selector_terms.iter().enumerate() {
                node_term(term, &at.index(i), errors);
            }
        }
        for (i, term) in
            node.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate()
        {
            let at = at.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
            weight(term.weight, &at, errors);
            node_term(&term.preference, &at.child("preference"), errors);
        }
    }
    if let Some(pod) = &affinity.pod_affinity {
        let at = at.child("podAffinity");
        required_terms(pod.required_during_scheduling_ignored_during_execution.as_deref(), &at, errors);
        for (i, term) in pod.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate()
        {
            let at = at.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
            weight(term.weight, &at, errors);
            pod_term(&term.pod_affinity_term, &at.child("podAffinityTerm"), errors);
        }
    }
    if let Some(pod) = &affinity.pod_anti_affinity {
        let at = at.child("podAntiAffinity");
        required_terms(pod.required_during_scheduling_ignored_during_execution.as_deref(), &at, errors);
        for (i, term) in pod.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate()
        {
            let at = at.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
            weight(term.weight, &at, errors);
            pod_term(&term.pod_affinity_term, &at.child("podAffinityTerm"), errors);
        }
    }
}

fn weight(weight: i32, at: &Path, errors: &mut FieldErrors) {
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(&at.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn required_terms(terms: Option<&[PodAffinityTerm]>, at: &Path, errors: &mut FieldErrors) {
    for (i, term) in terms.into_iter().flatten().enumerate() {
        pod_term(term, &at.child("requiredDuringSchedulingIgnoredDuringExecution").index(i), errors);
    }
}

fn pod_term(term: &PodAffinityTerm, at: &Path, errors: &mut FieldErrors) {
    if let Some(selector) = &term.label_selector {
        errors.extend(validate_label_selector(selector, &at.child("labelSelector")));
    }
    if term.topology_key.is_empty() {
        errors.push(FieldError::required(&at.child("topologyKey"), "can not be empty"));
    } else {
        each(
            names::is_qualified_name(&term.topology_key),
            &term.topology_key,
            &at.child("topologyKey"),
            errors,
        );
    }
}

fn node_term(term: &NodeSelectorTerm, at: &Path, errors: &mut FieldErrors) {
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let at = at.child("matchExpressions").index(i);
        let values = requirement.values.as_deref().unwrap_or_default();
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                &at.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                &at.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Gt" | "Lt" if values.len() != 1 => errors.push(FieldError::required(
                &at.child("values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.push(FieldError::invalid(
                &at.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        each(names::is_qualified_name(&requirement.key), &requirement.key, &at.child("key"), errors);
    }
}
