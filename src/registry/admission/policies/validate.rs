//! Validating policies: what their checks say about a request.

use super::config::{Binding, Policy, Validation};
use super::scope::{Variables, values};
use super::{bindings, params};
use crate::api::cel::Value as CelValue;
use crate::api::cel::{Budget, Scope};
use crate::api::error::ApiError;
use crate::registry::admission::Request;
use crate::registry::admission::webhooks::conditions::Verdict;
use crate::registry::admission::webhooks::matching::Subject;

/// Steps that one policy may take for one request.
const STEPS: u64 = 10_000_000;

/// What a policy has against a request.
struct Objection {
    message: String,
    reason: String,
}

/// Asks a policy, and does what its bindings say about its objections.
pub async fn run(request: &Request<'_>, policy: &Policy, subject: &Subject) -> Result<(), ApiError> {
    let Some(form) = bindings::policy(request, policy, subject).await? else { return Ok(()) };
    let mut seen = None;
    for binding in &policy.bindings {
        if !bindings::binding(request, binding, subject).await? {
            continue;
        }
        if seen.is_none() {
            seen = Some(values(request, &form, subject).await?);
        }
        let values = seen.as_deref().unwrap_or_default();
        let objections = match params::of(request, policy, binding).await {
            Ok(params) => params
                .iter()
                .flat_map(|params| objections(policy, &Variables::new(policy, values, params.as_ref())))
                .collect(),
            Err(why) if policy.must_hold => {
                let message = format!("failed to configure binding: {why}");
                vec![Objection { message, reason: "Invalid".to_owned() }]
            }
            Err(_) => Vec::new(),
        };
        for objection in objections {
            act(request, (policy, binding), subject, &objection)?;
        }
    }
    Ok(())
}

fn objections(policy: &Policy, variables: &Variables<'_>) -> Vec<Objection> {
    let plain = variables.plain();
    let failure =
        |message: String| policy.must_hold.then(|| Objection { message, reason: "Invalid".to_owned() });
    match policy.conditions.verdict(&plain) {
        Verdict::Asked => {}
        Verdict::Skipped => return Vec::new(),
        Verdict::Failed(why) => return failure(why).into_iter().collect(),
    }
    let scope = Scope::Computed(variables, &plain);
    let mut budget = Budget::new(STEPS);
    let check = |validation: &Validation| {
        let result = match &validation.program {
            Ok(program) => program.run(&scope, &mut budget).map_err(|error| error.to_string()),
            Err(error) => Err(error.clone()),
        };
        match result {
            Ok(CelValue::Bool(true)) => None,
            Ok(_) => Some(Objection {
                message: message(validation, &scope),
                reason: if validation.reason.is_empty() {
                    "Invalid".to_owned()
                } else {
                    validation.reason.clone()
                },
            }),
            Err(error) => failure(format!("expression '{}' resulted in error: {error}", validation.source)),
        }
    };
    policy.validations.iter().filter_map(check).collect()
}

fn message(validation: &Validation, scope: &Scope<'_>) -> String {
    if let Some(Ok(program)) = &validation.message_program
        && let Ok(CelValue::String(text)) = program.run(scope, &mut Budget::new(STEPS))
        && !text.trim().is_empty()
        && !text.contains('\n')
    {
        return text.trim().to_owned();
    }
    if validation.message.is_empty() {
        format!("failed expression: {}", validation.source.trim())
    } else {
        validation.message.trim().to_owned()
    }
}

fn act(
    request: &Request<'_>,
    (policy, binding): (&Policy, &Binding),
    subject: &Subject,
    objection: &Objection,
) -> Result<(), ApiError> {
    let (name, by, why) = (&policy.name, &binding.name, &objection.message);
    if binding.actions.iter().any(|action| action == "Warn") {
        request.cx.warn(format!(
            "Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{by}': {why}"
        ));
    }
    if !binding.actions.iter().any(|action| action == "Deny") {
        return Ok(());
    }
    let text = format!("ValidatingAdmissionPolicy '{name}' with binding '{by}' denied request: {why}");
    Err(denied(request, subject.name(request), &text, &objection.reason))
}

fn denied(request: &Request<'_>, name: &str, text: &str, reason: &str) -> ApiError {
    let forbidden = ApiError::forbidden(&request.resource.group_resource(), name, text);
    let mut status = forbidden.with_cause("", "", text).into_status();
    status.reason = Some(reason.to_owned());
    status.code = Some(match reason {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    });
    ApiError::from(status)
}
