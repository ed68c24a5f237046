//! Operators.

use std::cmp::Ordering;
use std::sync::Arc;

use super::EvalError;
use super::eval::Budget;
use super::value::{Key, Value};

fn overflow(kind: &str) -> EvalError {
    EvalError::failed(format!("{kind} overflow"))
}

fn no_such_overload<T>() -> Result<T, EvalError> {
    Err(EvalError::failed("no such overload"))
}

pub(super) fn negate(value: &Value) -> Result<Value, EvalError> {
    match value {
        Value::Int(n) => n.checked_neg().map(Value::Int).ok_or_else(|| overflow("integer")),
        Value::Double(n) => Ok(Value::Double(-n)),
        Value::Duration(d) => d.checked_neg().map(Value::Duration).ok_or_else(|| overflow("duration")),
        _ => no_such_overload(),
    }
}

pub(super) fn binary(
    operator: &str,
    left: &Value,
    right: &Value,
    budget: &mut Budget,
) -> Result<Value, EvalError> {
    let ordered = |test: fn(Ordering) -> bool| match left.compare(right) {
        Some(order) => Ok(Value::Bool(test(order))),
        None if left.is_number() && right.is_number() => Ok(Value::Bool(false)),
        None => no_such_overload(),
    };
    match operator {
        "==" => Ok(Value::Bool(left.equals(right))),
        "!=" => Ok(Value::Bool(!left.equals(right))),
        "<" => ordered(Ordering::is_lt),
        "<=" => ordered(Ordering::is_le),
        ">" => ordered(Ordering::is_gt),
        ">=" => ordered(Ordering::is_ge),
        "in" => contains(left, right, budget),
        "+" => add(left, right, budget),
        "-" => subtract(left, right),
        _ => multiply(operator, left, right),
    }
}

fn contains(item: &Value, within: &Value, budget: &mut Budget) -> Result<Value, EvalError> {
    match within {
        Value::List(list) => {
            budget.spend(list.len() as u64 / 10)?;
            Ok(Value::Bool(list.iter().any(|known| known.equals(item))))
        }
        Value::Map(map) => Ok(Value::Bool(item.key().is_some_and(|key| map.contains_key(&key)))),
        _ => no_such_overload(),
    }
}

fn add(left: &Value, right: &Value, budget: &mut Budget) -> Result<Value, EvalError> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => {
            a.checked_add(*b).map(Value::Int).ok_or_else(|| overflow("integer"))
        }
        (Value::Uint(a), Value::Uint(b)) => {
            a.checked_add(*b).map(Value::Uint).ok_or_else(|| overflow("unsigned integer"))
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => {
            budget.spend((a.len() + b.len()) as u64 / 10)?;
            Ok(Value::text(format!("{a}{b}")))
        }
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes(a.iter().chain(b.iter()).copied().collect())),
        (Value::List(a), Value::List(b)) => {
            budget.spend((a.len() + b.len()) as u64 / 10)?;
            Ok(Value::List(Arc::new(a.iter().chain(b.iter()).cloned().collect())))
        }
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_add(*b).map(Value::Duration).ok_or_else(|| overflow("duration"))
        }
        (Value::Timestamp(a), Value::Duration(b)) | (Value::Duration(b), Value::Timestamp(a)) => {
            a.checked_add(*b).map(Value::Timestamp).map_err(|_| overflow("timestamp"))
        }
        _ => no_such_overload(),
    }
}

fn subtract(left: &Value, right: &Value) -> Result<Value, EvalError> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => {
            a.checked_sub(*b).map(Value::Int).ok_or_else(|| overflow("integer"))
        }
        (Value::Uint(a), Value::Uint(b)) => {
            a.checked_sub(*b).map(Value::Uint).ok_or_else(|| overflow("unsigned integer"))
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_sub(*b).map(Value::Duration).ok_or_else(|| overflow("duration"))
        }
        (Value::Timestamp(a), Value::Duration(b)) => {
            a.checked_sub(*b).map(Value::Timestamp).map_err(|_| overflow("timestamp"))
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(Value::Duration(a.duration_since(*b))),
        _ => no_such_overload(),
    }
}

fn multiply(operator: &str, left: &Value, right: &Value) -> Result<Value, EvalError> {
    let zero = || EvalError::failed(if operator == "%" { "modulus by zero" } else { "division by zero" });
    match (operator, left, right) {
        ("*", Value::Int(a), Value::Int(b)) => {
            a.checked_mul(*b).map(Value::Int).ok_or_else(|| overflow("integer"))
        }
        ("*", Value::Uint(a), Value::Uint(b)) => {
            a.checked_mul(*b).map(Value::Uint).ok_or_else(|| overflow("unsigned integer"))
        }
        ("*", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        ("/", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        ("/" | "%", Value::Int(_), Value::Int(0)) | ("/" | "%", Value::Uint(_), Value::Uint(0)) => {
            Err(zero())
        }
        ("/", Value::Int(a), Value::Int(b)) => {
            a.checked_div(*b).map(Value::Int).ok_or_else(|| overflow("integer"))
        }
        ("%", Value::Int(a), Value::Int(b)) => {
            a.checked_rem(*b).map(Value::Int).ok_or_else(|| overflow("integer"))
        }
        ("/", Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a / b)),
        ("%", Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a % b)),
        _ => no_such_overload(),
    }
}

/// `of[index]`.
pub(super) fn index(of: &Value, index_value: &Value, optional: bool) -> Result<Value, EvalError> {
    let found = match of {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => return index(inner, index_value, true),
        Value::List(list) => {
            let Some(Key::Int(at)) = index_value.key() else { return no_such_overload() };
            match usize::try_from(at).ok().and_then(|at| list.get(at)) {
                None if !optional => return Err(EvalError::failed(format!("index out of bounds: {at}"))),
                found => found,
            }
        }
        Value::Map(map) => {
            let key = index_value.key().ok_or_else(|| EvalError::failed("unsupported key type"))?;
            match map.get(&key) {
                None if !optional => {
                    let shown = match &key {
                        Key::String(text) => text.to_string(),
                        Key::Bool(b) => b.to_string(),
                        Key::Int(n) => n.to_string(),
                        Key::Uint(n) => n.to_string(),
                    };
                    return Err(EvalError::failed(format!("no such key: {shown}")));
                }
                found => found,
            }
        }
        _ => return no_such_overload(),
    };
    Ok(match (found, optional) {
        (Some(value), false) => value.clone(),
        (Some(value), true) => Value::some(value.clone()),
        (None, _) => Value::Optional(None),
    })
}
