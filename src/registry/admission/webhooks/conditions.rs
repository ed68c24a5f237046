//! `matchConditions`: expressions that must all be true for a webhook or a policy to be asked.

use serde_json::Value;

use crate::api::cel::Value as CelValue;
use crate::api::cel::{Budget, Env, Program, Scope, Type};

/// Steps that the conditions of one webhook may take.
const STEPS: u64 = 1_000_000;

/// What the conditions say about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All are true.
    Asked,
    /// One is false.
    Skipped,
    /// One has no value, and none is false.
    Failed(String),
}

/// Compiled conditions.
#[derive(Clone, Debug, Default)]
pub struct Conditions(Vec<(String, Result<Program, String>)>);

/// The variables that conditions may use.
pub fn environment() -> Env {
    Env::new()
        .with("object", Type::Dyn)
        .with("oldObject", Type::Dyn)
        .with("request", Type::Dyn)
        .with("authorizer", Type::Foreign("kubernetes.authorization.Authorizer"))
}

/// The variables that policies may use; `params` only where there are some.
pub fn policy_environment(params: bool) -> Env {
    let env = environment()
        .with("namespaceObject", Type::Dyn)
        .with("authorizer.requestResource", Type::Foreign("kubernetes.authorization.Authorizer"));
    if params { env.with("params", Type::Dyn) } else { env }
}

impl Conditions {
    /// Compiles the conditions of a webhook.
    pub fn of(conditions: Option<&Value>) -> Self {
        Self::compiled(conditions, &environment())
    }

    /// Compiles conditions over other variables.
    pub fn compiled(conditions: Option<&Value>, env: &Env) -> Self {
        let conditions = conditions.and_then(Value::as_array).into_iter().flatten();
        Self(
            conditions
                .map(|condition| {
                    let text = |key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default();
                    let program =
                        Program::compile(text("expression"), env).map_err(|error| error.to_string());
                    (text("name").to_owned(), program)
                })
                .collect(),
        )
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Evaluates them.
    pub fn verdict(&self, scope: &Scope<'_>) -> Verdict {
        let mut failed = None;
        let mut budget = Budget::new(STEPS);
        for (name, program) in &self.0 {
            let result = match program {
                Ok(program) => program.run(scope, &mut budget).map_err(|error| error.to_string()),
                Err(error) => Err(format!("compilation failed: {error}")),
            };
            match result {
                Ok(CelValue::Bool(true)) => {}
                Ok(CelValue::Bool(false)) => return Verdict::Skipped,
                Ok(_) => failed = failed.or(Some(format!("{name}: must evaluate to a bool"))),
                Err(error) => failed = failed.or(Some(format!("{name}: {error}"))),
            }
        }
        failed.map_or(Verdict::Asked, Verdict::Failed)
    }
}
