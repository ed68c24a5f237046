//! Mutating policies: what they change.

use serde_json::{Map, Value, json};

use super::config::{PatchType, Policy};
use super::scope::{Variables, values};
use super::{bindings, params};
use crate::api::cel::Value as CelValue;
use crate::api::cel::{Budget, Program, Scope, to_json};
use crate::api::error::ApiError;
use crate::api::managed_fields;
use crate::api::patch::json_patch;
use crate::registry::admission::Request;
use crate::registry::admission::webhooks::conditions::Verdict;
use crate::registry::admission::webhooks::matching::{self, Form, Subject};
use crate::registry::object::Object;

/// Steps that one policy may take for one request.
const STEPS: u64 = 10_000_000;

/// Applies a policy through each of its bindings; whether anything changed.
pub async fn run(
    request: &Request<'_>,
    policy: &Policy,
    object: &mut dyn Object,
    old: Option<&dyn Object>,
) -> Result<bool, ApiError> {
    let mut changed = false;
    for binding in &policy.bindings {
        let subject = Subject::new(request, Some(&*object), old)?;
        let Some(form) = bindings::policy(request, policy, &subject).await? else { return Ok(changed) };
        if !bindings::binding(request, binding, &subject).await? {
            continue;
        }
        let fail = |why: String| {
            let (name, by) = (&policy.name, &binding.name);
            request.forbid(format!("policy '{name}' with binding '{by}' denied request: {why}"))
        };
        let params = match params::of(request, policy, binding).await {
            Ok(params) => params,
            Err(why) if policy.must_hold => return Err(fail(format!("failed to configure binding: {why}"))),
            Err(_) => continue,
        };
        for params in params {
            match with_params(request, policy, &form, params.as_ref(), object, old).await? {
                Ok(mutated) => changed |= mutated,
                Err(why) if policy.must_hold => return Err(fail(why)),
                Err(why) => {
                    tracing::warn!(policy = policy.name, %why, "mutating policy failed and is passed over")
                }
            }
        }
    }
    Ok(changed)
}

/// Applies a policy with one set of parameters. The inner error is the policy's.
async fn with_params(
    request: &Request<'_>,
    policy: &Policy,
    form: &Form,
    params: Option<&Value>,
    object: &mut dyn Object,
    old: Option<&dyn Object>,
) -> Result<Result<bool, String>, ApiError> {
    let mut changed = false;
    for (kind, program) in &policy.mutations {
        let subject = Subject::new(request, Some(&*object), old)?;
        let values = values(request, form, &subject).await?;
        let shown = matching::converted(request, form, subject.object.as_ref()).await?.unwrap_or_default();
        let mutated = {
            let variables = Variables::new(policy, &values, params);
            let plain = variables.plain();
            match policy.conditions.verdict(&plain) {
                Verdict::Asked => {}
                Verdict::Skipped => return Ok(Ok(false)),
                Verdict::Failed(why) => return Ok(Err(why)),
            }
            mutated(request, form, *kind, program, &Scope::Computed(&variables, &plain), &shown)
        };
        let mut next = match mutated {
            Ok(next) => next,
            Err(why) => return Ok(Err(why)),
        };
        if next == shown {
            continue;
        }
        if let Some(other) = &form.other {
            next = request.registry.between(other, request.resource, next).await?;
        }
        match request.resource.behaviour.decode(next) {
            Ok(decoded) => object.assign(decoded.object),
            Err(error) => return Ok(Err(error.to_string())),
        }
        changed = true;
    }
    Ok(Ok(changed))
}

/// The object after one mutation.
fn mutated(
    request: &Request<'_>,
    form: &Form,
    kind: PatchType,
    program: &Result<Program, String>,
    scope: &Scope<'_>,
    object: &Value,
) -> Result<Value, String> {
    let program = program.as_ref().map_err(Clone::clone)?;
    let result = program.run(scope, &mut Budget::new(STEPS)).map_err(|error| error.to_string())?;
    match kind {
        PatchType::Json => {
            let mut next = object.clone();
            json_patch(&mut next, patch_of(&result)?).map_err(|error| error.message().to_owned())?;
            Ok(next)
        }
        PatchType::Apply => {
            let mut part = to_json(&result).ok_or("must evaluate to an object")?;
            if !part.is_object() {
                return Err("must evaluate to an object".to_owned());
            }
            for field in ["apiVersion", "kind"] {
                part[field] = object.get(field).cloned().unwrap_or_default();
            }
            let row = form.other.as_deref().unwrap_or(request.resource);
            managed_fields::merged(object, &part, row.schema())
        }
    }
}

/// The patch of a list of `JSONPatch` objects.
fn patch_of(result: &CelValue) -> Result<Value, String> {
    let Some(Value::Array(list)) = to_json(result) else {
        return Err("must evaluate to a list of JSONPatch".to_owned());
    };
    let operations = list.into_iter().map(|operation| {
        let mut kept = Map::new();
        for field in ["op", "path", "from", "value"] {
            if let Some(value) = operation.get(field) {
                kept.insert(field.to_owned(), value.clone());
            }
        }
        Value::Object(kept)
    });
    Ok(json!(operations.collect::<Vec<_>>()))
}
