//! Checking: every name is declared, every field exists, and every function takes what it is given.

use super::ast::{Expr, Loop, Node};
use super::types::Type;
use super::value::Value;
use super::{Env, Fault, functions, signatures};

/// The type of an expression.
pub(super) fn check(expr: &Expr, env: &Env) -> Result<Type, Fault> {
    Checker { env, locals: Vec::new() }.of(expr)
}

struct Checker<'e> {
    env: &'e Env,
    locals: Vec<(String, Type)>,
}

fn fault<T>(at: usize, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { at, message: message.into() })
}

fn overload<T>(at: usize, function: &str, of: Option<&Type>, args: &[Type]) -> Result<T, Fault> {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let receiver = of.map(|of| format!("{of}.")).unwrap_or_default();
    fault(
        at,
        format!("found no matching overload for '{function}' applied to '{receiver}({})'", args.join(", ")),
    )
}

fn joined(a: &Type, b: &Type) -> Type {
    if a == b { a.clone() } else { Type::Dyn }
}

impl Checker<'_> {
    fn lookup(&self, name: &str) -> Option<Type> {
        let local = self.locals.iter().rev().find(|(known, _)| known == name).map(|(_, kind)| kind.clone());
        local.or_else(|| self.env.lookup(name).cloned())
    }

    fn with<T>(&mut self, names: Vec<(String, Type)>, run: impl FnOnce(&mut Self) -> T) -> T {
        let depth = self.locals.len();
        self.locals.extend(names);
        let found = run(self);
        self.locals.truncate(depth);
        found
    }

    fn wants(&mut self, expr: &Expr, wanted: &Type, what: &str) -> Result<(), Fault> {
        let found = self.of(expr)?;
        if found.fits(wanted) {
            return Ok(());
        }
        fault(expr.at, format!("expected type '{wanted}' but found '{found}'{what}"))
    }

    fn of(&mut self, expr: &Expr) -> Result<Type, Fault> {
        match &expr.node {
            Node::Literal(value) => Ok(of_literal(value)),
            Node::Ident(name) => match self.lookup(name) {
                Some(kind) => Ok(kind),
                None if functions::type_named(name).is_some() => Ok(Type::Type),
                None => fault(expr.at, format!("undeclared reference to '{name}' (in container '')")),
            },
            Node::Select { of, field, optional } => {
                if functions::qualified_type(expr).is_some() {
                    return Ok(Type::Type);
                }
                if let Node::Ident(base) = &of.node
                    && let Some(kind) = self.env.lookup(&format!("{base}.{field}"))
                {
                    return Ok(kind.clone());
                }
                let of = self.of(of)?;
                self.field(&of, field, *optional, expr.at)
            }
            Node::Has { of, field } => {
                let of = self.of(of)?;
                self.field(&of, field, false, expr.at)?;
                Ok(Type::Bool)
            }
            Node::Index { of, index, optional } => self.index(expr.at, of, index, *optional),
            Node::Call { of, function, args } => self.call(expr.at, of.as_deref(), function, args),
            Node::List(items) => {
                let mut item: Option<Type> = None;
                for (expr, optional) in items {
                    let kind = inner(self.of(expr)?, *optional);
                    item = Some(item.map_or_else(|| kind.clone(), |known| joined(&known, &kind)));
                }
                Ok(Type::list(item.unwrap_or_default()))
            }
            Node::Map(entries) => {
                let mut kinds: Option<(Type, Type)> = None;
                for (key, value, optional) in entries {
                    let (key, value) = (self.of(key)?, inner(self.of(value)?, *optional));
                    kinds = Some(match kinds {
                        Some((a, b)) => (joined(&a, &key), joined(&b, &value)),
                        None => (key, value),
                    });
                }
                let (key, value) = kinds.unwrap_or_default();
                Ok(Type::Map(Box::new(key), Box::new(value)))
            }
            Node::Struct { name, fields } => {
                let known = name == "JSONPatch" || name == "Object" || name.starts_with("Object.");
                if !known {
                    return fault(expr.at, format!("undeclared reference to '{name}' (in container '')"));
                }
                for (_, value, _) in fields {
                    self.of(value)?;
                }
                Ok(Type::Dyn)
            }
            Node::Not(of) => match self.of(of)? {
                Type::Bool | Type::Dyn => Ok(Type::Bool),
                other => overload(expr.at, "!_", None, &[other]),
            },
            Node::Negate(of) => match self.of(of)? {
                kind @ (Type::Int | Type::Double | Type::Duration | Type::Dyn) => Ok(kind),
                other => overload(expr.at, "-_", None, &[other]),
            },
            Node::Binary { operator, left, right } => {
                let (left, right) = (self.of(left)?, self.of(right)?);
                binary(expr.at, operator, &left, &right)
            }
            Node::And(left, right) | Node::Or(left, right) => {
                self.wants(left, &Type::Bool, "")?;
                self.wants(right, &Type::Bool, "")?;
                Ok(Type::Bool)
            }
            Node::Choose { test, yes, no } => {
                self.wants(test, &Type::Bool, "")?;
                let (yes, no) = (self.of(yes)?, self.of(no)?);
                if !yes.fits(&no) {
                    return overload(expr.at, "_?_:_", None, &[Type::Bool, yes, no]);
                }
                Ok(joined(&yes, &no))
            }
            Node::Loop { kind, over, names, bodies } => self.run(expr.at, *kind, over, names, bodies),
            Node::Bind { name, value, body } => {
                let kind = self.of(value)?;
                self.with(vec![(name.clone(), kind)], |checker| checker.of(body))
            }
            Node::OptMap { of, name, body, flat } => {
                let kind = inner(self.of(of)?, true);
                let body = self.with(vec![(name.clone(), kind)], |checker| checker.of(body))?;
                Ok(if *flat { body } else { Type::Optional(Box::new(body)) })
            }
        }
    }

    fn field(&self, of: &Type, field: &str, optional: bool, at: usize) -> Result<Type, Fault> {
        let found = match of {
            Type::Dyn => Type::Dyn,
            Type::Map(_, value) => (**value).clone(),
            Type::Optional(of) => {
                let found = self.field(of, field, false, at)?;
                return Ok(Type::Optional(Box::new(found)));
            }
            Type::Object(object) => match object.fields.get(field) {
                Some(kind) => kind.clone(),
                None => return fault(at, format!("undefined field '{field}'")),
            },
            other => return fault(at, format!("type '{other}' does not support field selection")),
        };
        Ok(if optional { Type::Optional(Box::new(found)) } else { found })
    }

    fn index(&mut self, at: usize, of: &Expr, index: &Expr, optional: bool) -> Result<Type, Fault> {
        let (of, index) = (self.of(of)?, self.of(index)?);
        let (plain, optional) = match &of {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), optional),
        };
        let found = match &plain {
            Type::List(item) if index.fits(&Type::Int) => (**item).clone(),
            Type::Map(key, value) if index.fits(key) => (**value).clone(),
            Type::Dyn => Type::Dyn,
            _ => return overload(at, "_[_]", None, &[of, index]),
        };
        Ok(if optional { Type::Optional(Box::new(found)) } else { found })
    }

    fn call(&mut self, at: usize, of: Option<&Expr>, function: &str, args: &[Expr]) -> Result<Type, Fault> {
        let qualified = of.and_then(|of| match &of.node {
            Node::Ident(space) if functions::is_space(space) || space == "ip" => {
                Some(format!("{space}.{function}"))
            }
            _ => None,
        });
        let qualified = qualified.filter(|name| signatures::is_known(name));
        let receiver = match (of, &qualified) {
            (Some(of), None) => Some(self.of(of)?),
            _ => None,
        };
        let name = qualified.as_deref().unwrap_or(function);
        let args = args.iter().map(|arg| self.of(arg)).collect::<Result<Vec<_>, _>>()?;
        match signatures::result(receiver.as_ref(), name, &args) {
            Some(kind) => Ok(kind),
            None if !signatures::is_known(name) => {
                fault(at, format!("undeclared reference to '{name}' (in container '')"))
            }
            None => overload(at, name, receiver.as_ref(), &args),
        }
    }

    fn run(
        &mut self,
        at: usize,
        kind: Loop,
        over: &Expr,
        names: &[String],
        bodies: &[Expr],
    ) -> Result<Type, Fault> {
        let range = self.of(over)?;
        let (key, item) = match &range {
            Type::Dyn => (Type::Dyn, Type::Dyn),
            Type::List(item) => (Type::Int, (**item).clone()),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Object(_) => (Type::String, Type::Dyn),
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return fault(over.at, message);
            }
        };
        let is_list = matches!(range, Type::List(_));
        let declared = match names {
            [one] => vec![(one.clone(), if is_list { item.clone() } else { key.clone() })],
            [one, two] => vec![(one.clone(), key.clone()), (two.clone(), item.clone())],
            _ => return fault(at, "argument must be a simple name"),
        };
        let own = declared.first().map(|(_, kind)| kind.clone()).unwrap_or_default();
        let kinds = self.with(declared, |checker| {
            bodies.iter().map(|body| checker.of(body)).collect::<Result<Vec<_>, _>>()
        })?;
        let last = kinds.last().cloned().unwrap_or_default();
        let filters = match kind {
            Loop::All | Loop::Exists | Loop::ExistsOne | Loop::Filter => kinds.len(),
            Loop::MapSome => 1,
            Loop::TransformList | Loop::TransformMap => kinds.len() - 1,
            Loop::Map | Loop::SortBy => 0,
        };
        for (kind, body) in kinds.iter().zip(bodies).take(filters) {
            if !kind.fits(&Type::Bool) {
                return fault(body.at, format!("expected type 'bool' but found '{kind}'"));
            }
        }
        Ok(match kind {
            Loop::All | Loop::Exists | Loop::ExistsOne => Type::Bool,
            Loop::Filter | Loop::SortBy => Type::list(own),
            Loop::Map | Loop::MapSome | Loop::TransformList => Type::list(last),
            Loop::TransformMap => Type::Map(Box::new(key), Box::new(last)),
        })
    }
}

fn inner(kind: Type, optional: bool) -> Type {
    match kind {
        Type::Optional(inner) if optional => *inner,
        other => other,
    }
}

fn of_literal(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        _ => Type::Dyn,
    }
}

fn binary(at: usize, operator: &'static str, left: &Type, right: &Type) -> Result<Type, Fault> {
    let unknown = *left == Type::Dyn || *right == Type::Dyn;
    let number = |kind: &Type| matches!(kind, Type::Int | Type::Uint | Type::Double);
    let wrong = || overload(at, symbol(operator), None, &[left.clone(), right.clone()]);
    match operator {
        "==" | "!=" => {
            if left.fits(right) {
                Ok(Type::Bool)
            } else {
                wrong()
            }
        }
        "<" | "<=" | ">" | ">=" => {
            let ordered =
                matches!(left, Type::Bool | Type::String | Type::Bytes | Type::Duration | Type::Timestamp);
            let fits = unknown || (ordered && left == right) || (number(left) && number(right));
            if fits { Ok(Type::Bool) } else { wrong() }
        }
        "in" => match right {
            Type::Dyn => Ok(Type::Bool),
            Type::List(item) if left.fits(item) => Ok(Type::Bool),
            Type::Map(key, _) if left.fits(key) => Ok(Type::Bool),
            _ => wrong(),
        },
        _ if unknown => Ok(match (left, right) {
            (Type::List(_) | Type::String, _) => left.clone(),
            _ => Type::Dyn,
        }),
        "+" => match (left, right) {
            (Type::String | Type::Bytes | Type::Duration, _) if left == right => Ok(left.clone()),
            (Type::List(a), Type::List(b)) => Ok(Type::list(joined(a, b))),
            (Type::Timestamp, Type::Duration) | (Type::Duration, Type::Timestamp) => Ok(Type::Timestamp),
            _ if number(left) && left == right => Ok(left.clone()),
            _ => wrong(),
        },
        "-" => match (left, right) {
            (Type::Duration, Type::Duration) | (Type::Timestamp, Type::Timestamp) => Ok(Type::Duration),
            (Type::Timestamp, Type::Duration) => Ok(Type::Timestamp),
            _ if number(left) && left == right => Ok(left.clone()),
            _ => wrong(),
        },
        "%" if *left == Type::Double => wrong(),
        _ if number(left) && left == right => Ok(left.clone()),
        _ => wrong(),
    }
}

fn symbol(operator: &str) -> &'static str {
    match operator {
        "==" => "_==_",
        "!=" => "_!=_",
        "<" => "_<_",
        "<=" => "_<=_",
        ">" => "_>_",
        ">=" => "_>=_",
        "in" => "@in",
        "+" => "_+_",
        "-" => "_-_",
        "*" => "_*_",
        "/" => "_/_",
        _ => "_%_",
    }
}
