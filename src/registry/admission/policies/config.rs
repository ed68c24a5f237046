//! Policies and bindings, read and compiled once.

use serde_json::Value;

use crate::api::cel::{Env, Program, Type};
use crate::api::meta;
use crate::api::selector::LabelSelector;
use crate::cache::Snapshot;
use crate::registry::admission::policy_environment;
use crate::registry::admission::webhooks::conditions::Conditions;
use crate::registry::admission::webhooks::config::{Rule, selector};

/// A compiled expression, or why it is none.
pub type Compiled = Result<Program, String>;

/// Which requests are meant.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// These.
    pub rules: Vec<Rule>,
    /// But not these.
    pub excluded: Vec<Rule>,
    /// In these namespaces.
    pub namespaces: LabelSelector,
    /// About these objects.
    pub objects: LabelSelector,
    /// Other versions of a resource count as well.
    pub equivalent: bool,
}

/// One check of a validating policy.
#[derive(Debug)]
pub struct Validation {
    /// The expression as it was written.
    pub source: String,
    /// The expression.
    pub program: Compiled,
    /// What to tell.
    pub message: String,
    /// An expression for what to tell.
    pub message_program: Option<Compiled>,
    /// The reason in the `Status`.
    pub reason: String,
}

/// How a mutation is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// A part of the object, merged as server-side apply does.
    Apply,
    /// A JSON patch.
    Json,
}

/// A policy with its bindings.
#[derive(Debug)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Which requests it is about.
    pub matches: Matches,
    /// Whether a failure fails the request.
    pub must_hold: bool,
    /// Whether it is asked again when others have changed the object after it.
    pub reinvoke: bool,
    /// Further conditions.
    pub conditions: Conditions,
    /// Variables in their order.
    pub variables: Vec<(String, Compiled)>,
    /// The checks.
    pub validations: Vec<Validation>,
    /// The changes.
    pub mutations: Vec<(PatchType, Compiled)>,
    /// The kind of its parameters: `apiVersion` and `kind`.
    pub param_kind: Option<(String, String)>,
    /// Its bindings.
    pub bindings: Vec<Binding>,
}

/// A binding of a policy.
#[derive(Debug)]
pub struct Binding {
    /// Its name.
    pub name: String,
    /// A further choice of requests.
    pub matches: Option<Matches>,
    /// `Deny`, `Warn`, `Audit`.
    pub actions: Vec<String>,
    /// Which parameters.
    pub param_ref: Option<Value>,
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

fn matches(value: &Value) -> Matches {
    Matches {
        rules: Rule::list(value.get("resourceRules")),
        excluded: Rule::list(value.get("excludeResourceRules")),
        namespaces: selector(value.get("namespaceSelector")),
        objects: selector(value.get("objectSelector")),
        equivalent: text(value, "/matchPolicy") != "Exact",
    }
}

fn parsed(snapshot: &Snapshot) -> Vec<Value> {
    let mut all: Vec<Value> =
        snapshot.iter(None, None).filter_map(|object| serde_json::from_slice(object.json()).ok()).collect();
    all.sort_by_key(|value| meta::name(value).to_owned());
    all
}

/// Reads the policies that have bindings, in the order of their names.
pub fn read(policies: &Snapshot, bindings: &Snapshot) -> Vec<Policy> {
    let bindings = parsed(bindings);
    let policies = parsed(policies).into_iter().map(|value| policy(&value, &bindings));
    policies.filter(|policy| !policy.bindings.is_empty()).collect()
}

fn compile(source: &str, env: &Env) -> Compiled {
    Program::compile(source, env).map_err(|error| format!("compilation error: {error}"))
}

fn policy(value: &Value, bindings: &[Value]) -> Policy {
    let name = meta::name(value);
    let param_kind = value.pointer("/spec/paramKind");
    let mut env = policy_environment(param_kind.is_some());
    let conditions = Conditions::compiled(value.pointer("/spec/matchConditions"), &env);
    let mut variables: Vec<(String, Compiled)> = Vec::new();
    let mut fields = Vec::new();
    for variable in list(value, "/spec/variables") {
        let compiled = compile(text(variable, "/expression"), &env);
        fields.push((
            text(variable, "/name").to_owned(),
            compiled.as_ref().map_or(Type::Dyn, |p| p.kind().clone()),
        ));
        env = env.with("variables", Type::fields("variables", fields.clone()));
        variables.push((text(variable, "/name").to_owned(), compiled));
    }
    let validations = list(value, "/spec/validations").map(|validation| {
        let message = text(validation, "/messageExpression");
        Validation {
            source: text(validation, "/expression").to_owned(),
            program: compile(text(validation, "/expression"), &env),
            message: text(validation, "/message").to_owned(),
            message_program: (!message.is_empty()).then(|| compile(message, &env)),
            reason: text(validation, "/reason").to_owned(),
        }
    });
    let mutations = list(value, "/spec/mutations").map(|mutation| match text(mutation, "/patchType") {
        "JSONPatch" => (PatchType::Json, compile(text(mutation, "/jsonPatch/expression"), &env)),
        _ => (PatchType::Apply, compile(text(mutation, "/applyConfiguration/expression"), &env)),
    });
    let own = bindings.iter().filter(|binding| text(binding, "/spec/policyName") == name);
    Policy {
        name: name.to_owned(),
        matches: matches(value.pointer("/spec/matchConstraints").unwrap_or(&Value::Null)),
        must_hold: text(value, "/spec/failurePolicy") != "Ignore",
        reinvoke: text(value, "/spec/reinvocationPolicy") == "IfNeeded",
        conditions,
        validations: validations.collect(),
        mutations: mutations.collect(),
        variables,
        param_kind: param_kind
            .map(|kind| (text(kind, "/apiVersion").to_owned(), text(kind, "/kind").to_owned())),
        bindings: own.map(binding).collect(),
    }
}

fn binding(value: &Value) -> Binding {
    Binding {
        name: meta::name(value).to_owned(),
        matches: value.pointer("/spec/matchResources").map(matches),
        actions: list(value, "/spec/validationActions")
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        param_ref: value.pointer("/spec/paramRef").cloned(),
    }
}
