//! `x-kubernetes-validations`: rules in CEL, compiled once per version and run on every write.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::cel::Value as CelValue;
use crate::api::cel::{Budget, Env, EvalError, Program, Scope, Type, from_json};
use crate::api::field::{ErrorKind, FieldError, FieldErrors, Path};
use crate::api::structural::{Additional, Rule, Structural, correlated};

/// Steps that one rule may take.
const PER_RULE: u64 = 1_000_000;
/// Steps that all rules of one write may take.
const PER_WRITE: u64 = 10_000_000;

/// A compiled rule.
#[derive(Clone, Debug)]
struct Compiled {
    rule: Rule,
    program: Program,
    message: Option<Program>,
    /// It compares with what was there before.
    transition: bool,
}

/// The rules of a schema and of what is below it.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    own: Vec<Compiled>,
    properties: BTreeMap<String, Rules>,
    additional: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

fn environment(schema: &Structural, root: bool, rule: &Rule) -> Env {
    let kind = if root { Type::of_resource(schema, "object") } else { Type::of_structural(schema, "object") };
    let old = if rule.optional_old_self == Some(true) {
        Type::Optional(Box::new(kind.clone()))
    } else {
        kind.clone()
    };
    Env::new().with("self", kind).with("oldSelf", old)
}

/// Compiles a rule, or tells at `at` why it does not compile.
fn compile(
    schema: &Structural,
    root: bool,
    rule: &Rule,
    at: &Path,
    errors: &mut FieldErrors,
) -> Option<Compiled> {
    let env = environment(schema, root, rule);
    let invalid =
        |field: &'static str, text: &str, why: String| FieldError::invalid(&at.child(field), text, why);
    let program = match Program::compile(&rule.rule, &env) {
        Ok(program) => program,
        Err(error) => {
            errors.push(invalid("rule", &rule.rule, format!("compilation failed: {error}")));
            return None;
        }
    };
    if !program.kind().fits(&Type::Bool) {
        errors.push(invalid("rule", &rule.rule, "cel expression must evaluate to a bool".to_owned()));
    }
    let mut message = None;
    if !rule.message_expression.is_empty() {
        let text = &rule.message_expression;
        match Program::compile(text, &env) {
            Ok(program) if program.kind().fits(&Type::String) => message = Some(program),
            Ok(_) => {
                let why = "messageExpression must evaluate to a string".to_owned();
                errors.push(invalid("messageExpression", text, why));
            }
            Err(error) => {
                errors.push(invalid(
                    "messageExpression",
                    text,
                    format!("messageExpression compilation failed: {error}"),
                ));
            }
        }
    }
    let transition = program.uses("oldSelf");
    if rule.optional_old_self.is_some() && !transition {
        let why = "may not be set if oldSelf is not used in rule";
        errors.push(FieldError::invalid(&at.child("optionalOldSelf"), rule.optional_old_self, why));
    }
    Some(Compiled { rule: rule.clone(), program, message, transition })
}

impl Rules {
    /// Compiles the rules of a schema; what does not compile is told, and left out.
    pub fn compile(schema: &Structural, at: &Path, errors: &mut FieldErrors) -> Self {
        Self::below(schema, true, at, errors)
    }

    fn below(schema: &Structural, root: bool, at: &Path, errors: &mut FieldErrors) -> Self {
        let rules_at = at.child("x-kubernetes-validations");
        let own = schema.rules.iter().enumerate();
        let own =
            own.filter_map(|(i, rule)| compile(schema, root, rule, &rules_at.index(i), errors)).collect();
        let properties = schema.properties.iter().map(|(name, below)| {
            let at = at.child("properties").key(name.clone());
            (name.clone(), Self::below(below, below.embedded, &at, errors))
        });
        let properties: BTreeMap<String, Self> = properties.filter(|(_, rules)| !rules.is_empty()).collect();
        let additional = match &schema.additional {
            Some(Additional::Schema(below)) => {
                Some(Self::below(below, below.embedded, &at.child("additionalProperties"), errors))
            }
            _ => None,
        };
        let items = schema.items.as_deref();
        let items = items.map(|items| Self::below(items, items.embedded, &at.child("items"), errors));
        let some = |rules: &Self| !rules.is_empty();
        Self {
            own,
            properties,
            additional: additional.filter(some).map(Box::new),
            items: items.filter(some).map(Box::new),
        }
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.properties.is_empty() && self.additional.is_none() && self.items.is_none()
    }

    /// Runs the rules, unless what was found before says that the object has not the shape they need.
    pub fn run(&self, schema: &Structural, value: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        if self.is_empty() {
            return;
        }
        let blocking = |error: &FieldError| {
            matches!(
                error.kind,
                ErrorKind::Required | ErrorKind::TooLong | ErrorKind::TooMany | ErrorKind::TypeInvalid
            )
        };
        if errors.iter().any(blocking) {
            errors.push(FieldError {
                kind: ErrorKind::Invalid,
                field: "<nil>".to_owned(),
                value: Some(Value::Null),
                detail: "some validation rules were not checked because the object was invalid; correct the existing \
                         errors to complete validation"
                    .to_owned(),
            });
            return;
        }
        let mut left = PER_WRITE;
        self.visit(schema, value, old, None, &mut left, errors);
    }

    fn visit(
        &self,
        schema: &Structural,
        value: &Value,
        old: Option<&Value>,
        at: Option<&Path>,
        left: &mut u64,
        errors: &mut FieldErrors,
    ) {
        if value.is_null() {
            return;
        }
        self.run_own(schema, value, old, at, left, errors);
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let old = old.and_then(|old| old.get(name));
                    let known = self.properties.get(name).zip(schema.properties.get(name));
                    let other = (!schema.properties.contains_key(name))
                        .then_some(self.additional.as_deref())
                        .flatten();
                    let (rules, below, path) = match (known, other, &schema.additional) {
                        (Some((rules, below)), ..) => (
                            rules,
                            below,
                            at.map_or_else(|| Path::new(name.clone()), |at| at.child(name.clone())),
                        ),
                        (None, Some(rules), Some(Additional::Schema(below))) => (
                            rules,
                            &**below,
                            at.map_or_else(|| Path::new(name.clone()), |at| at.key(name.clone())),
                        ),
                        _ => continue,
                    };
                    rules.visit(below, value, old, Some(&path), left, errors);
                }
            }
            Value::Array(list) => {
                let (Some(rules), Some(items), Some(at)) =
                    (self.items.as_deref(), schema.items.as_deref(), at)
                else {
                    return;
                };
                for (i, item) in list.iter().enumerate() {
                    let old = old.and_then(|old| correlated(schema, old, item));
                    rules.visit(items, item, old, Some(&at.index(i)), left, errors);
                }
            }
            _ => {}
        }
    }

    fn run_own(
        &self,
        schema: &Structural,
        value: &Value,
        old: Option<&Value>,
        at: Option<&Path>,
        left: &mut u64,
        errors: &mut FieldErrors,
    ) {
        let unchanged = old == Some(value);
        let wanted = |one: &&Compiled| match (one.transition, old) {
            (true, None) => one.rule.optional_old_self == Some(true),
            (true, Some(_)) => true,
            (false, _) => !unchanged,
        };
        let mut own = self.own.iter().filter(wanted).peekable();
        if own.peek().is_none() {
            return;
        }
        let this = from_json(value, Some(schema));
        let before = old.map(|old| from_json(old, Some(schema)));
        for one in own {
            let old_self = match (one.rule.optional_old_self, &before) {
                (Some(true), Some(before)) => CelValue::some(before.clone()),
                (Some(true), None) => CelValue::Optional(None),
                (_, Some(before)) => before.clone(),
                (_, None) => CelValue::Null,
            };
            let variables = [("self", this.clone()), ("oldSelf", old_self)];
            if let Some(error) = one.violation(&Scope::Values(&variables), schema, at, left) {
                errors.push(error);
            }
        }
    }
}

impl Compiled {
    fn name(&self) -> &str {
        if self.rule.message.is_empty() { self.rule.rule.trim() } else { self.rule.message.trim() }
    }

    fn violation(
        &self,
        scope: &Scope<'_>,
        schema: &Structural,
        at: Option<&Path>,
        left: &mut u64,
    ) -> Option<FieldError> {
        let steps = PER_RULE.min(*left);
        let mut budget = Budget::new(steps);
        let result = self.program.run(scope, &mut budget);
        *left = left.saturating_sub(steps - budget.left());
        let detail = match result {
            Ok(CelValue::Bool(true)) => return None,
            Ok(_) => self.text(scope),
            Err(EvalError::TooExpensive) => format!("call cost exceeds limit for rule: {}", self.name()),
            Err(EvalError::Failed(why)) if why == "no such overload" => format!(
                "call arguments did not match a supported operator, function or macro signature for rule: {}",
                self.name()
            ),
            Err(EvalError::Failed(why)) => format!("{why} evaluating rule: {}", self.name()),
        };
        Some(self.error(schema, at, detail))
    }

    fn text(&self, scope: &Scope<'_>) -> String {
        let made =
            self.message.as_ref().and_then(|message| message.run(scope, &mut Budget::new(PER_RULE)).ok());
        if let Some(CelValue::String(text)) = made
            && !text.trim().is_empty()
            && !text.contains('\n')
        {
            return text.to_string();
        }
        if self.rule.message.is_empty() {
            format!("failed rule: {}", self.rule.rule.trim())
        } else {
            self.rule.message.trim().to_owned()
        }
    }

    fn error(&self, schema: &Structural, at: Option<&Path>, detail: String) -> FieldError {
        let mut field = at.map_or_else(|| "<nil>".to_owned(), ToString::to_string);
        let below = self.rule.field_path.trim();
        if !below.is_empty() {
            field = if at.is_none() {
                below.trim_start_matches('.').to_owned()
            } else {
                format!("{field}{below}")
            };
        }
        let kind = match self.rule.reason.as_str() {
            "FieldValueForbidden" => ErrorKind::Forbidden,
            "FieldValueRequired" => ErrorKind::Required,
            "FieldValueDuplicate" => ErrorKind::Duplicate,
            _ => ErrorKind::Invalid,
        };
        let shown = matches!(kind, ErrorKind::Invalid | ErrorKind::Duplicate);
        let name = schema.kind.map_or("", crate::api::structural::Type::as_str);
        FieldError { kind, field, value: shown.then(|| name.into()), detail }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(schema: Value, value: Value, old: Option<Value>) -> Vec<String> {
        let schema = Structural::parse(&schema);
        let mut errors = FieldErrors::new();
        let rules = Rules::compile(&schema, &Path::new("s"), &mut errors);
        rules.run(&schema, &value, old.as_ref(), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    fn spec(rules: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": rules,
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "fixed": {"type": "string",
                "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed is fixed"}]}}}}})
    }

    #[test]
    fn rules_hold_or_are_told() {
        let plain = spec(json!([{"rule": "self.min <= self.max"}]));
        assert!(told(plain.clone(), json!({"spec": {"min": 1, "max": 2}}), None).is_empty());
        assert_eq!(
            told(plain.clone(), json!({"spec": {"min": 3, "max": 2}}), None),
            ["spec: Invalid value: \"object\": failed rule: self.min <= self.max"]
        );
        assert_eq!(
            told(plain, json!({"spec": {"min": 3}}), None),
            ["spec: Invalid value: \"object\": no such key: max evaluating rule: self.min <= self.max"]
        );
        let message = spec(
            json!([{"rule": "self.min <= self.max", "fieldPath": ".min", "reason": "FieldValueForbidden",
            "messageExpression": "'min is ' + string(self.min)"}]),
        );
        assert_eq!(
            told(message, json!({"spec": {"min": 3, "max": 2}}), None),
            ["spec.min: Forbidden: min is 3"]
        );
    }

    #[test]
    fn transitions_are_compared_with_what_was_there() {
        let schema = spec(json!([]));
        assert!(told(schema.clone(), json!({"spec": {"fixed": "a"}}), None).is_empty());
        assert_eq!(
            told(schema, json!({"spec": {"fixed": "b"}}), Some(json!({"spec": {"fixed": "a"}}))),
            ["spec.fixed: Invalid value: \"string\": fixed is fixed"]
        );
    }

    #[test]
    fn rules_that_do_not_compile_are_refused() {
        let found = told(spec(json!([{"rule": "self.nothing > 1"}])), json!({}), None);
        assert!(
            found[0].starts_with(
                "s.properties[spec].x-kubernetes-validations[0].rule: Invalid value: \"self.nothing > 1\": \
                 compilation failed: ERROR: <input>:1:5: undefined field 'nothing'"
            ),
            "{found:?}"
        );
    }
}
