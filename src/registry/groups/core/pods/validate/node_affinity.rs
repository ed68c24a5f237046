//! Checks of what selects nodes by their labels and fields.

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::validation::each;

const OPERATOR: &str = "not a valid selector operator";

/// Checks a selector of nodes.
pub fn selector(selector: &NodeSelector, at: &Path, errors: &mut FieldErrors) {
    let at = at.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(FieldError::required(&at, "must have at least one node selector term"));
    }
    for (i, own) in selector.node_selector_terms.iter().enumerate() {
        term(own, true, &at.index(i), errors);
    }
}

/// Checks a term of a selector of nodes; a mere preference may name values that no label can have.
pub fn term(term: &NodeSelectorTerm, required: bool, at: &Path, errors: &mut FieldErrors) {
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        expression(requirement, required, &at.child("matchExpressions").index(i), errors);
    }
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        field(requirement, &at.child("matchFields").index(i), errors);
    }
}

fn expression(requirement: &NodeSelectorRequirement, required: bool, at: &Path, errors: &mut FieldErrors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let at_values = at.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            let message = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(&at_values, message));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&at_values, message));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let message = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(&at_values, message));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(&at.child("operator"), other, OPERATOR)),
    }
    each(names::is_qualified_name(&requirement.key), &requirement.key, &at.child("key"), errors);
    if required {
        for (i, value) in values.iter().enumerate() {
            each(names::is_label_value(value), value, &at_values.index(i), errors);
        }
    }
}

fn field(requirement: &NodeSelectorRequirement, at: &Path, errors: &mut FieldErrors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => {
            let message = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(&at.child("values"), message));
        }
        other => errors.push(FieldError::invalid(&at.child("operator"), other, OPERATOR)),
    }
    if requirement.key != "metadata.name" {
        let message = "not a valid field selector key";
        errors.push(FieldError::invalid(&at.child("key"), &requirement.key, message));
        return;
    }
    for (i, value) in values.iter().enumerate() {
        each(names::is_dns1123_subdomain(value), value, &at.child("values").index(i), errors);
    }
}
