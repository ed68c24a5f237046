//! Admission policies and their bindings: defaults and checks.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, Mutation,
    NamedRuleWithOperations, ParamKind, ParamRef, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, Validation, Variable,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::checks::{FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES, conditions, expression, rule};
use crate::api::cel::{Env, Program, Type};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::registry::admission::policy_environment;
use crate::registry::strategy::Strategy;
use crate::registry::validation::{each, known, one_of, selector, text};

/// The operations in which there is an object to change.
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const MOST_ANNOTATIONS: usize = 20;
/// Bytes of the expression of an audit annotation.
const LONGEST_ANNOTATION: usize = 5 * 1024;
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The strategy of validating policies.
pub struct ValidatingPolicy;
/// The strategy of their bindings.
pub struct ValidatingBinding;
/// The strategy of mutating policies.
pub struct MutatingPolicy;
/// The strategy of their bindings.
pub struct MutatingBinding;

fn default_rules(rules: &mut Option<Vec<NamedRuleWithOperations>>) {
    for rule in rules.iter_mut().flatten() {
        rule.scope.get_or_insert_with(|| "*".to_owned());
    }
}

fn default_matches(matches: &mut MatchResources) {
    matches.match_policy.get_or_insert_with(|| "Equivalent".to_owned());
    matches.namespace_selector.get_or_insert_with(LabelSelector::default);
    matches.object_selector.get_or_insert_with(LabelSelector::default);
    default_rules(&mut matches.resource_rules);
    default_rules(&mut matches.exclude_resource_rules);
}

fn is_identifier(name: &str) -> bool {
    let plain = |c: char| c == '_' || c.is_ascii_alphanumeric();
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(plain) && !RESERVED.contains(&name)
}

/// Checks variables in their order; each may use those before it.
fn variables(list: &[Variable], mut env: Env, at: &Path, errors: &mut FieldErrors) -> Env {
    let mut fields: Vec<(String, Type)> = Vec::new();
    for (i, variable) in list.iter().enumerate() {
        let at = at.index(i);
        if variable.name.trim().is_empty() {
            errors.push(FieldError::required(&at.child("name"), "name is not specified"));
        } else if !is_identifier(&variable.name) {
            let why = "must be a valid CEL identifier";
            errors.push(FieldError::invalid(&at.child("name"), &variable.name, why));
        } else if fields.iter().any(|(known, _)| *known == variable.name) {
            errors.push(FieldError::duplicate(&at.child("name"), &variable.name));
        }
        let wanted = (&Type::Dyn, "expression is not specified");
        expression(&variable.expression, wanted, &env, &at.child("expression"), errors);
        let kind = Program::compile(&variable.expression, &env).map(|program| program.kind().clone());
        fields.push((variable.name.clone(), kind.unwrap_or_default()));
        env = env.with("variables", Type::fields("variables", fields.clone()));
    }
    env
}

fn check_param_kind(kind: &ParamKind, at: &Path, errors: &mut FieldErrors) {
    let version_at = at.child("apiVersion");
    let api_version = text(&kind.api_version);
    match api_version.split('/').collect::<Vec<_>>().as_slice() {
        _ if api_version.is_empty() => errors.push(FieldError::required(&version_at, "")),
        [version] => check_version("", version, api_version, &version_at, errors),
        [group, version] => check_version(group, version, api_version, &version_at, errors),
        _ => {
            let why = format!("unexpected GroupVersion string: {api_version}");
            errors.push(FieldError::invalid(&version_at, api_version, why));
        }
    }
    let kind = text(&kind.kind);
    let wrong = names::is_dns1035_label(&kind.to_lowercase());
    if kind.is_empty() {
        errors.push(FieldError::required(&at.child("kind"), ""));
    } else if !wrong.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.push(FieldError::invalid(&at.child("kind"), kind, why));
    }
}

fn check_version(group: &str, version: &str, whole: &str, at: &Path, errors: &mut FieldErrors) {
    let wrong = names::is_dns1123_subdomain(group);
    if !group.is_empty() && !wrong.is_empty() {
        errors.push(FieldError::invalid(at, group, wrong.join(",")));
    }
    let wrong = names::is_dns1035_label(version);
    if version.is_empty() {
        errors.push(FieldError::invalid(at, whole, "version must be specified"));
    } else if !wrong.is_empty() {
        errors.push(FieldError::invalid(at, version, wrong.join(",")));
    }
}

fn check_matches(matches: &MatchResources, at: &Path, errors: &mut FieldErrors) {
    one_of(matches.match_policy.as_deref(), &MATCH_POLICIES, &at.child("matchPolicy"), errors);
    for (field, found) in
        [("namespaceSelector", &matches.namespace_selector), ("objectSelector", &matches.object_selector)]
    {
        if found.is_none() {
            errors.push(FieldError::required(&at.child(field), ""));
        }
        selector(found.as_ref(), &at.child(field), errors);
    }
    for (field, rules) in [
        ("resourceRules", &matches.resource_rules),
        ("excludeResourceRules", &matches.exclude_resource_rules),
    ] {
        for (i, found) in rules.iter().flatten().enumerate() {
            let at = at.child(field).index(i);
            let mut seen = BTreeSet::new();
            for (j, name) in found.resource_names.iter().flatten().enumerate() {
                let at = at.child("resourceNames").index(j);
                each(names::is_path_segment_name(name), name, &at, errors);
                if !seen.insert(name) {
                    errors.push(FieldError::duplicate(&at, name));
                }
            }
            rule(&found.into(), &at, errors);
        }
    }
}

/// Checks what a policy is about: there is at least one rule, which says of which types the expressions speak.
fn check_constraints(matches: Option<&MatchResources>, at: &Path, errors: &mut FieldErrors) {
    let Some(matches) = matches else { return errors.push(FieldError::required(at, "")) };
    check_matches(matches, at, errors);
    if matches.resource_rules.as_ref().is_none_or(Vec::is_empty) {
        errors.push(FieldError::required(&at.child("resourceRules"), ""));
    }
}

/// Checks that a mutating policy is about requests alone that bring an object.
fn check_operations(matches: Option<&MatchResources>, at: &Path, errors: &mut FieldErrors) {
    let rules = matches.into_iter().flat_map(|matches| matches.resource_rules.iter().flatten());
    for operation in rules.flat_map(|rule| rule.operations.iter().flatten()) {
        let at = at.child("resourceRules").child("operations");
        known(Some(operation), &MUTATING_OPERATIONS, &at, errors);
    }
}

fn check_validation(validation: &Validation, env: &Env, at: &Path, errors: &mut FieldErrors) {
    let wanted = (&Type::Bool, "expression is not specified");
    expression(&validation.expression, wanted, env, &at.child("expression"), errors);
    let told = text(&validation.message_expression);
    if !told.is_empty() {
        let at = at.child("messageExpression");
        if told.trim().is_empty() {
            errors.push(FieldError::invalid(&at, told, "must be non-empty if specified"));
        } else {
            expression(told, (&Type::String, ""), env, &at, errors);
        }
    }
    let message = text(&validation.message);
    let at_message = at.child("message");
    if !message.is_empty() && message.trim().is_empty() {
        errors.push(FieldError::invalid(&at_message, message, "must be non-empty if specified"));
    } else if message.trim().contains(['\n', '\r']) {
        errors.push(FieldError::invalid(&at_message, message, "must not contain line breaks"));
    }
    known(validation.reason.as_deref(), &REASONS, &at.child("reason"), errors);
}

fn check_annotations(
    name: Option<&str>,
    annotations: &[AuditAnnotation],
    env: &Env,
    at: &Path,
    errors: &mut FieldErrors,
) {
    if annotations.len() > MOST_ANNOTATIONS {
        let why = format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations");
        errors.push(FieldError::invalid(at, annotations, why));
    }
    let mut seen = BTreeSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let at = at.index(i);
        match name.filter(|name| !name.is_empty()) {
            Some(name) => {
                let whole = format!("{name}/{}", annotation.key);
                each(names::is_qualified_name(&whole), &whole, &at.child("key"), errors);
            }
            None => {
                let why = "requires metadata.name be non-empty";
                errors.push(FieldError::invalid(&at.child("key"), &annotation.key, why));
            }
        }
        let at_value = at.child("valueExpression");
        if annotation.value_expression.trim().len() > LONGEST_ANNOTATION {
            let why = format!("must not exceed {LONGEST_ANNOTATION} bytes in length");
            errors.push(FieldError::required(&at_value, why));
        } else {
            let wanted = (&Type::Dyn, "valueExpression is not specified");
            expression(&annotation.value_expression, wanted, env, &at_value, errors);
        }
        if !seen.insert(&annotation.key) {
            errors.push(FieldError::duplicate(&at.child("key"), &annotation.key));
        }
    }
}

fn check_param_ref(reference: Option<&ParamRef>, at: &Path, errors: &mut FieldErrors) {
    let Some(reference) = reference else { return };
    let name = text(&reference.name);
    let both = !name.is_empty() && reference.selector.is_some();
    let exclusive = "name and selector are mutually exclusive";
    if !name.is_empty() {
        each(names::is_path_segment_name(name), name, &at.child("name"), errors);
    }
    if both {
        errors.push(FieldError::forbidden(&at.child("name"), exclusive));
    }
    selector(reference.selector.as_ref(), &at.child("selector"), errors);
    if both {
        errors.push(FieldError::forbidden(&at.child("selector"), exclusive));
    }
    if name.is_empty() && reference.selector.is_none() {
        errors.push(FieldError::required(at, "one of name or selector must be specified"));
    }
    let action = reference.parameter_not_found_action.as_deref();
    one_of(action, &["Deny", "Allow"], &at.child("parameterNotFoundAction"), errors);
}

fn check_policy_name(name: &str, at: &Path, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.push(FieldError::required(at, ""));
    }
    each(names::is_dns1123_subdomain(name), name, at, errors);
}

fn check_mutation(mutation: &Mutation, env: &Env, at: &Path, errors: &mut FieldErrors) {
    let (own, other) = match mutation.patch_type.as_str() {
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
        "JSONPatch" => ("jsonPatch", "applyConfiguration"),
        word => {
            return one_of(Some(word), &["ApplyConfiguration", "JSONPatch"], &at.child("patchType"), errors);
        }
    };
    let apply = mutation.apply_configuration.as_ref().map(|apply| apply.expression.as_deref());
    let patch = mutation.json_patch.as_ref().map(|patch| patch.expression.as_deref());
    let (wanted, unwanted) = if own == "jsonPatch" { (patch, apply) } else { (apply, patch) };
    match wanted {
        Some(source) => {
            let at = at.child(own).child("expression");
            expression(source.unwrap_or_default(), (&Type::Dyn, ""), env, &at, errors);
        }
        None => {
            let why = format!("must be specified when patchType is {}", mutation.patch_type);
            errors.push(FieldError::required(&at.child(own), why));
        }
    }
    if unwanted.is_some() {
        let why = format!("must not be specified when patchType is {}", mutation.patch_type);
        errors.push(FieldError::invalid(&at.child(other), format!("{{{other}}}"), why));
    }
}

impl Strategy for ValidatingPolicy {
    type Object = ValidatingAdmissionPolicy;

    fn default(&self, policy: &mut ValidatingAdmissionPolicy) {
        let Some(spec) = &mut policy.spec else { return };
        spec.failure_policy.get_or_insert_with(|| "Fail".to_owned());
        if let Some(matches) = &mut spec.match_constraints {
            default_matches(matches);
        }
    }

    fn validate(&self, policy: &ValidatingAdmissionPolicy, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        let spec = policy.spec.clone().unwrap_or_default();
        one_of(spec.failure_policy.as_deref(), &FAILURE_POLICIES, &at.child("failurePolicy"), errors);
        if let Some(kind) = &spec.param_kind {
            check_param_kind(kind, &at.child("paramKind"), errors);
        }
        check_constraints(spec.match_constraints.as_ref(), &at.child("matchConstraints"), errors);
        let env = policy_environment(spec.param_kind.is_some());
        let given = spec.match_conditions.as_deref().unwrap_or_default();
        conditions(given, &env, &at.child("matchConditions"), errors);
        let list = spec.variables.as_deref().unwrap_or_default();
        let env = variables(list, env, &at.child("variables"), errors);
        let validations = spec.validations.as_deref().unwrap_or_default();
        let annotations = spec.audit_annotations.as_deref().unwrap_or_default();
        if validations.is_empty() && annotations.is_empty() {
            let why = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required(&at.child("validations"), why));
            errors.push(FieldError::required(&at.child("auditAnnotations"), why));
        }
        for (i, validation) in validations.iter().enumerate() {
            check_validation(validation, &env, &at.child("validations").index(i), errors);
        }
        let name = policy.metadata.name.as_deref();
        check_annotations(name, annotations, &env, &at.child("auditAnnotations"), errors);
    }

    fn validate_status_update(
        &self,
        policy: &ValidatingAdmissionPolicy,
        _: &ValidatingAdmissionPolicy,
        errors: &mut FieldErrors,
    ) {
        let Some(status) = &policy.status else { return };
        let at = Path::new("status");
        let warnings =
            status.type_checking.iter().flat_map(|checked| checked.expression_warnings.iter().flatten());
        for (i, warning) in warnings.enumerate() {
            let at = at.child("typeChecking").child("expressionWarnings").index(i);
            for (field, value) in [("warning", &warning.warning), ("fieldRef", &warning.field_ref)] {
                if value.trim().is_empty() {
                    errors.push(FieldError::required(&at.child(field), ""));
                }
            }
        }
        crate::registry::validation::conditions(
            status.conditions.as_deref().unwrap_or_default(),
            &at.child("conditions"),
            errors,
        );
    }
}

impl Strategy for ValidatingBinding {
    type Object = ValidatingAdmissionPolicyBinding;

    fn default(&self, binding: &mut ValidatingAdmissionPolicyBinding) {
        if let Some(matches) = &mut binding.spec.match_resources {
            default_matches(matches);
        }
    }

    fn validate(&self, binding: &ValidatingAdmissionPolicyBinding, errors: &mut FieldErrors) {
        const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
        let at = Path::new("spec");
        let spec = &binding.spec;
        check_policy_name(&spec.policy_name, &at.child("policyName"), errors);
        check_param_ref(spec.param_ref.as_ref(), &at.child("paramRef"), errors);
        if let Some(matches) = &spec.match_resources {
            check_matches(matches, &at.child("matchResources"), errors);
        }
        let at = at.child("validationActions");
        let actions = spec.validation_actions.as_slice();
        for (i, action) in actions.iter().enumerate() {
            known(Some(action), &ACTIONS, &at.index(i), errors);
            if actions[..i].contains(action) {
                errors.push(FieldError::duplicate(&at.index(i), action));
            }
        }
        if ["Deny", "Warn"].iter().all(|both| actions.iter().any(|action| action == both)) {
            let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
            errors.push(FieldError::invalid(&at, actions, why));
        }
        if actions.is_empty() {
            errors.push(FieldError::required(&at, "at least one validation action is required"));
        }
    }
}

impl Strategy for MutatingPolicy {
    type Object = MutatingAdmissionPolicy;

    fn default(&self, policy: &mut MutatingAdmissionPolicy) {
        let spec = policy.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".to_owned());
        if let Some(matches) = &mut spec.match_constraints {
            default_matches(matches);
        }
    }

    fn validate(&self, policy: &MutatingAdmissionPolicy, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        let spec = policy.spec.clone().unwrap_or_default();
        one_of(spec.failure_policy.as_deref(), &FAILURE_POLICIES, &at.child("failurePolicy"), errors);
        if let Some(kind) = &spec.param_kind {
            check_param_kind(kind, &at.child("paramKind"), errors);
        }
        let at_matches = at.child("matchConstraints");
        check_constraints(spec.match_constraints.as_ref(), &at_matches, errors);
        check_operations(spec.match_constraints.as_ref(), &at_matches, errors);
        let env = policy_environment(spec.param_kind.is_some());
        let given = spec.match_conditions.as_deref().unwrap_or_default();
        conditions(given, &env, &at.child("matchConditions"), errors);
        let list = spec.variables.as_deref().unwrap_or_default();
        let env = variables(list, env, &at.child("variables"), errors);
        let mutations = spec.mutations.as_deref().unwrap_or_default();
        if mutations.is_empty() {
            let why = "mutations must contain at least one item";
            errors.push(FieldError::required(&at.child("mutations"), why));
        }
        for (i, mutation) in mutations.iter().enumerate() {
            check_mutation(mutation, &env, &at.child("mutations").index(i), errors);
        }
        let policy = spec.reinvocation_policy.as_deref();
        one_of(policy, &REINVOCATION_POLICIES, &at.child("reinvocationPolicy"), errors);
    }
}

impl Strategy for MutatingBinding {
    type Object = MutatingAdmissionPolicyBinding;

    fn default(&self, binding: &mut MutatingAdmissionPolicyBinding) {
        if let Some(matches) = binding.spec.as_mut().and_then(|spec| spec.match_resources.as_mut()) {
            default_matches(matches);
        }
    }

    fn validate(&self, binding: &MutatingAdmissionPolicyBinding, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        let spec = binding.spec.clone().unwrap_or_default();
        check_policy_name(text(&spec.policy_name), &at.child("policyName"), errors);
        check_param_ref(spec.param_ref.as_ref(), &at.child("paramRef"), errors);
        if let Some(matches) = &spec.match_resources {
            check_matches(matches, &at.child("matchResources"), errors);
        }
        check_operations(spec.match_resources.as_ref(), &at.child("matchResources"), errors);
    }
}

#[cfg(test)]
mod tests;
