//! Admission policies and their bindings: defaults and checks.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, NamedRuleWithOperations,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Variable,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::webhooks::{conditions, expression};
use crate::api::cel::{Env, Program, Type};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::admission::policy_environment;
use crate::registry::strategy::Strategy;

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

/// Checks variables in their order; each may use those before it.
fn variables(list: &[Variable], mut env: Env, at: &Path, errors: &mut FieldErrors) -> Env {
    let mut fields: Vec<(String, Type)> = Vec::new();
    for (i, variable) in list.iter().enumerate() {
        let at = at.index(i);
        if variable.name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), "name is not specified"));
        } else if fields.iter().any(|(known, _)| *known == variable.name) {
            errors.push(FieldError::duplicate(&at.child("name"), &variable.name));
        }
        expression(&variable.expression, &Type::Dyn, &env, &at.child("expression"), errors);
        let kind = Program::compile(&variable.expression, &env).map(|program| program.kind().clone());
        fields.push((variable.name.clone(), kind.unwrap_or_default()));
        env = env.with("variables", Type::fields("variables", fields.clone()));
    }
    env
}

fn check_matches(matches: Option<&MatchResources>, at: &Path, errors: &mut FieldErrors) {
    let rules = matches.and_then(|matches| matches.resource_rules.as_deref()).unwrap_or_default();
    if rules.is_empty() {
        errors.push(FieldError::required(&at.child("resourceRules"), ""));
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
        if spec.match_constraints.is_none() {
            errors.push(FieldError::required(&at.child("matchConstraints"), ""));
        } else {
            check_matches(spec.match_constraints.as_ref(), &at.child("matchConstraints"), errors);
        }
        let validations = spec.validations.as_deref().unwrap_or_default();
        let annotations = spec.audit_annotations.as_deref().unwrap_or_default();
        if validations.is_empty() && annotations.is_empty() {
            let why = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required(&at.child("validations"), why));
            errors.push(FieldError::required(&at.child("auditAnnotations"), why));
        }
        let env = policy_environment(spec.param_kind.is_some());
        let given = spec.match_conditions.as_deref().unwrap_or_default();
        conditions(given, &env, &at.child("matchConditions"), errors);
        let list = spec.variables.as_deref().unwrap_or_default();
        let env = variables(list, env, &at.child("variables"), errors);
        for (i, validation) in validations.iter().enumerate() {
            let at = at.child("validations").index(i);
            expression(&validation.expression, &Type::Bool, &env, &at.child("expression"), errors);
            if let Some(source) = validation.message_expression.as_deref().filter(|text| !text.is_empty()) {
                expression(source, &Type::String, &env, &at.child("messageExpression"), errors);
            }
        }
        for (i, annotation) in annotations.iter().enumerate() {
            let at = at.child("auditAnnotations").index(i);
            if annotation.key.is_empty() {
                errors.push(FieldError::required(&at.child("key"), "non-empty string required"));
            }
            expression(&annotation.value_expression, &Type::Dyn, &env, &at.child("valueExpression"), errors);
        }
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
        if spec.policy_name.is_empty() {
            errors.push(FieldError::required(&at.child("policyName"), ""));
        }
        let at = at.child("validationActions");
        let actions = spec.validation_actions.as_slice();
        if actions.is_empty() {
            errors.push(FieldError::required(&at, "at least one validation action is required"));
        }
        for (i, action) in actions.iter().enumerate() {
            if !ACTIONS.contains(&action.as_str()) {
                errors.push(FieldError::not_supported(&at.index(i), action, &ACTIONS));
            }
            if actions[..i].contains(action) {
                errors.push(FieldError::duplicate(&at.index(i), action));
            }
        }
        if ["Deny", "Warn"].iter().all(|both| actions.iter().any(|action| action == both)) {
            let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
            errors.push(FieldError::invalid(&at, actions, why));
        }
    }
}

impl Strategy for MutatingPolicy {
    type Object = MutatingAdmissionPolicy;

    fn default(&self, policy: &mut MutatingAdmissionPolicy) {
        let Some(spec) = &mut policy.spec else { return };
        spec.failure_policy.get_or_insert_with(|| "Fail".to_owned());
        if let Some(matches) = &mut spec.match_constraints {
            default_matches(matches);
        }
    }

    fn validate(&self, policy: &MutatingAdmissionPolicy, errors: &mut FieldErrors) {
        let at = Path::new("spec");
        let spec = policy.spec.clone().unwrap_or_default();
        check_matches(spec.match_constraints.as_ref(), &at.child("matchConstraints"), errors);
        let mutations = spec.mutations.as_deref().unwrap_or_default();
        if mutations.is_empty() {
            let why = "mutations must contain at least one item";
            errors.push(FieldError::required(&at.child("mutations"), why));
        }
        let env = policy_environment(spec.param_kind.is_some());
        let given = spec.match_conditions.as_deref().unwrap_or_default();
        conditions(given, &env, &at.child("matchConditions"), errors);
        let list = spec.variables.as_deref().unwrap_or_default();
        let env = variables(list, env, &at.child("variables"), errors);
        for (i, mutation) in mutations.iter().enumerate() {
            let at = at.child("mutations").index(i);
            let apply = mutation.apply_configuration.as_ref().and_then(|apply| apply.expression.as_deref());
            let patch = mutation.json_patch.as_ref().and_then(|patch| patch.expression.as_deref());
            let (source, at) = match mutation.patch_type.as_str() {
                "ApplyConfiguration" => (apply, at.child("applyConfiguration").child("expression")),
                "JSONPatch" => (patch, at.child("jsonPatch").child("expression")),
                other => {
                    let known = ["ApplyConfiguration", "JSONPatch"];
                    errors.push(FieldError::not_supported(&at.child("patchType"), other, &known));
                    continue;
                }
            };
            expression(source.unwrap_or_default(), &Type::Dyn, &env, &at, errors);
        }
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
        let spec = binding.spec.clone().unwrap_or_default();
        if spec.policy_name.as_deref().is_none_or(str::is_empty) {
            errors.push(FieldError::required(&Path::new("spec").child("policyName"), ""));
        }
    }
}
