//! Evaluation.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Expr, Node};
use super::value::{Key, Value};
use super::{EvalError, functions, loops, operators};

/// How many steps may still be taken.
#[derive(Clone, Debug)]
pub struct Budget(u64);

impl Budget {
    /// A budget of so many steps.
    pub fn new(steps: u64) -> Self {
        Self(steps)
    }

    /// How many are left.
    pub fn left(&self) -> u64 {
        self.0
    }

    /// Takes steps.
    ///
    /// # Errors
    /// There are none left.
    pub fn spend(&mut self, steps: u64) -> Result<(), EvalError> {
        self.0 = self.0.checked_sub(steps).ok_or(EvalError::TooExpensive)?;
        Ok(())
    }
}

/// Variables that are made when they are first used.
pub trait Source: Send + Sync {
    /// The value of a variable.
    ///
    /// # Errors
    /// The variable has no value for this request.
    fn get(&self, name: &str, budget: &mut Budget) -> Option<Result<Value, EvalError>>;
}

/// Variables: one on top of others.
#[derive(Clone, Copy)]
pub enum Scope<'s> {
    /// No variables.
    Empty,
    /// Many.
    Values(&'s [(&'s str, Value)]),
    /// One on top of others.
    One(&'s str, &'s Value, &'s Scope<'s>),
    /// Some that are computed.
    Computed(&'s dyn Source, &'s Scope<'s>),
}

impl Scope<'_> {
    fn find(&self, name: &str, budget: &mut Budget) -> Result<Option<Value>, EvalError> {
        match self {
            Self::Empty => Ok(None),
            Self::Values(values) => {
                Ok(values.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.clone()))
            }
            Self::One(known, value, _) if *known == name => Ok(Some((*value).clone())),
            Self::One(_, _, rest) => rest.find(name, budget),
            Self::Computed(source, rest) => match source.get(name, budget) {
                Some(value) => value.map(Some),
                None => rest.find(name, budget),
            },
        }
    }
}

fn no_such_overload<T>() -> Result<T, EvalError> {
    Err(EvalError::failed("no such overload"))
}

/// Evaluates an expression.
pub(super) fn eval(expr: &Expr, scope: &Scope<'_>, budget: &mut Budget) -> Result<Value, EvalError> {
    budget.spend(1)?;
    match &expr.node {
        Node::Literal(value) => Ok(value.clone()),
        Node::Ident(name) => match scope.find(name, budget)? {
            Some(value) => Ok(value),
            None => match functions::type_named(name) {
                Some(kind) => Ok(Value::Type(kind.into())),
                None => Err(EvalError::failed(format!("no such attribute(s): {name}"))),
            },
        },
        Node::Select { of, field, optional } => {
            if let Some(qualified) = functions::qualified_type(expr) {
                return Ok(Value::Type(qualified.into()));
            }
            // Some fields are variables of their own, made when they are first used.
            if let Node::Ident(base) = &of.node
                && matches!(base.as_str(), "variables" | "authorizer")
                && let Some(value) = scope.find(&format!("{base}.{field}"), budget)?
            {
                return Ok(value);
            }
            let of = eval(of, scope, budget)?;
            select(&of, field, *optional)
        }
        Node::Has { of, field } => {
            let of = match eval(of, scope, budget)? {
                Value::Optional(None) => return Ok(Value::Bool(false)),
                Value::Optional(Some(inner)) => (*inner).clone(),
                other => other,
            };
            match &of {
                Value::Map(map) => Ok(Value::Bool(field_of(map, field).is_some())),
                _ => no_such_overload(),
            }
        }
        Node::Index { of, index, optional } => {
            let (of, index) = (eval(of, scope, budget)?, eval(index, scope, budget)?);
            operators::index(&of, &index, *optional)
        }
        Node::Call { of, function, args } => call(of.as_deref(), function, args, scope, budget),
        Node::List(items) => list(items, scope, budget),
        Node::Map(entries) => map(entries, scope, budget),
        Node::Struct { fields, .. } => {
            let mut map = BTreeMap::new();
            for (name, value, optional) in fields {
                let value = match (eval(value, scope, budget)?, optional) {
                    (Value::Optional(None), true) => continue,
                    (Value::Optional(Some(value)), true) => (*value).clone(),
                    (value, _) => value,
                };
                map.insert(
                    Key::String(super::types::unescaped(name).unwrap_or_else(|| name.clone()).into()),
                    value,
                );
            }
            Ok(Value::Map(Arc::new(map)))
        }
        Node::Not(inner) => match eval(inner, scope, budget)? {
            Value::Bool(value) => Ok(Value::Bool(!value)),
            _ => no_such_overload(),
        },
        Node::Negate(inner) => operators::negate(&eval(inner, scope, budget)?),
        Node::Binary { operator, left, right } => {
            let (left, right) = (eval(left, scope, budget)?, eval(right, scope, budget)?);
            operators::binary(operator, &left, &right, budget)
        }
        Node::And(left, right) => logic(left, right, false, scope, budget),
        Node::Or(left, right) => logic(left, right, true, scope, budget),
        Node::Choose { test, yes, no } => match eval(test, scope, budget)? {
            Value::Bool(true) => eval(yes, scope, budget),
            Value::Bool(false) => eval(no, scope, budget),
            _ => no_such_overload(),
        },
        Node::Loop { kind, over, names, bodies } => {
            let over = eval(over, scope, budget)?;
            loops::run(*kind, &over, names, bodies, scope, budget)
        }
        Node::Bind { name, value, body } => {
            let value = eval(value, scope, budget)?;
            eval(body, &Scope::One(name, &value, scope), budget)
        }
        Node::OptMap { of, name, body, flat } => match eval(of, scope, budget)? {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => {
                let value = eval(body, &Scope::One(name, &inner, scope), budget)?;
                Ok(if *flat { value } else { Value::some(value) })
            }
            _ => no_such_overload(),
        },
    }
}

/// `&&` and `||`: the side that decides does so, even when the other one fails.
fn logic(
    left: &Expr,
    right: &Expr,
    deciding: bool,
    scope: &Scope<'_>,
    budget: &mut Budget,
) -> Result<Value, EvalError> {
    let left = eval(left, scope, budget);
    match left {
        Ok(Value::Bool(value)) if value == deciding => return Ok(Value::Bool(deciding)),
        Err(EvalError::TooExpensive) => return left,
        _ => {}
    }
    match (left, eval(right, scope, budget)) {
        (_, Ok(Value::Bool(value))) if value == deciding => Ok(Value::Bool(deciding)),
        (Ok(Value::Bool(_)), Ok(Value::Bool(value))) => Ok(Value::Bool(value)),
        (Err(error), _) | (_, Err(error)) => Err(error),
        _ => no_such_overload(),
    }
}

/// A field of an object; names that are no identifiers are written escaped.
pub(super) fn field_of<'v>(map: &'v BTreeMap<Key, Value>, field: &str) -> Option<&'v Value> {
    map.get(&Key::String(field.into())).or_else(|| {
        let plain = super::types::unescaped(field)?;
        map.get(&Key::String(plain.into()))
    })
}

fn select(of: &Value, field: &str, optional: bool) -> Result<Value, EvalError> {
    match of {
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => select(inner, field, true),
        Value::Map(map) => match (field_of(map, field), optional) {
            (Some(value), false) => Ok(value.clone()),
            (Some(value), true) => Ok(Value::some(value.clone())),
            (None, true) => Ok(Value::Optional(None)),
            (None, false) => Err(EvalError::failed(format!("no such key: {field}"))),
        },
        _ if optional => Ok(Value::Optional(None)),
        _ => Err(EvalError::failed(format!("no such key: {field}"))),
    }
}

fn call(
    of: Option<&Expr>,
    function: &str,
    args: &[Expr],
    scope: &Scope<'_>,
    budget: &mut Budget,
) -> Result<Value, EvalError> {
    // Functions in name spaces look like calls on values.
    let qualified = of.and_then(|of| match &of.node {
        Node::Ident(space) if functions::is_space(space) || (space == "ip" && function == "isCanonical") => {
            Some(format!("{space}.{function}"))
        }
        _ => None,
    });
    let receiver = match (of, &qualified) {
        (Some(of), None) => Some(eval(of, scope, budget)?),
        _ => None,
    };
    let name = qualified.as_deref().unwrap_or(function);
    // Alternatives of optional values are evaluated only when they are needed.
    if let (Some(Value::Optional(inner)), "orValue" | "or", [other]) = (&receiver, name, args) {
        return match inner {
            Some(value) if name == "orValue" => Ok((**value).clone()),
            Some(_) => Ok(Value::Optional(inner.clone())),
            None => eval(other, scope, budget),
        };
    }
    let args = args.iter().map(|arg| eval(arg, scope, budget)).collect::<Result<Vec<_>, _>>()?;
    functions::call(receiver.as_ref(), name, &args, budget)
}

fn list(items: &[(Expr, bool)], scope: &Scope<'_>, budget: &mut Budget) -> Result<Value, EvalError> {
    let mut list = Vec::with_capacity(items.len());
    for (item, optional) in items {
        match (eval(item, scope, budget)?, optional) {
            (Value::Optional(None), true) => {}
            (Value::Optional(Some(value)), true) => list.push((*value).clone()),
            (value, _) => list.push(value),
        }
    }
    Ok(Value::list(list))
}

fn map(entries: &[(Expr, Expr, bool)], scope: &Scope<'_>, budget: &mut Budget) -> Result<Value, EvalError> {
    let mut map = BTreeMap::new();
    for (key, value, optional) in entries {
        let key = eval(key, scope, budget)?;
        let key = key.key().ok_or_else(|| EvalError::failed("unsupported key type"))?;
        let value = match (eval(value, scope, budget)?, optional) {
            (Value::Optional(None), true) => continue,
            (Value::Optional(Some(value)), true) => (*value).clone(),
            (value, _) => value,
        };
        if map.insert(key, value).is_some() {
            return Err(EvalError::failed("insert failed: key already exists"));
        }
    }
    Ok(Value::Map(Arc::new(map)))
}
