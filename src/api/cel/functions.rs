//! Functions: the standard ones, and the way to the others.

use super::EvalError;
use super::eval::Budget;
use super::value::Value;
use super::{kubernetes, strings};

/// Prefixes of functions that look like variables.
const SPACES: [&str; 7] = ["jsonpatch", "format", "math", "optional", "sets", "cel", "base64"];

pub(super) fn is_space(name: &str) -> bool {
    SPACES.contains(&name)
}

/// The type that a name stands for.
pub(super) fn type_named(name: &str) -> Option<&'static str> {
    const TYPES: [&str; 11] = [
        "bool",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "null_type",
        "type",
        "optional_type",
    ];
    TYPES.into_iter().find(|own| *own == name)
}

/// The type that a dotted name stands for.
pub(super) fn qualified_type(expr: &super::ast::Expr) -> Option<&'static str> {
    use super::ast::Node;
    let mut parts = Vec::new();
    let mut at = expr;
    loop {
        match &at.node {
            Node::Select { of, field, optional: false } => {
                parts.push(field.as_str());
                at = of;
            }
            Node::Ident(name) => {
                parts.push(name);
                break;
            }
            _ => return None,
        }
    }
    parts.reverse();
    const TYPES: [&str; 8] = [
        "google.protobuf.Timestamp",
        "google.protobuf.Duration",
        "kubernetes.Quantity",
        "kubernetes.URL",
        "net.IP",
        "net.CIDR",
        "kubernetes.Semver",
        "kubernetes.NamedFormat",
    ];
    let name = parts.join(".");
    TYPES.into_iter().find(|own| *own == name)
}

pub(super) fn failed<T>(message: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::failed(message))
}

/// Calls a function, on a value or on arguments alone.
pub(super) fn call(
    of: Option<&Value>,
    name: &str,
    args: &[Value],
    budget: &mut Budget,
) -> Result<Value, EvalError> {
    if let Some(found) = standard(of, name, args)? {
        return Ok(found);
    }
    if let Some(found) = strings::call(of, name, args, budget)? {
        return Ok(found);
    }
    match kubernetes::call(of, name, args, budget)? {
        Some(found) => Ok(found),
        None => failed("no such overload"),
    }
}

pub(super) fn count(length: usize) -> Value {
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

fn standard(of: Option<&Value>, name: &str, args: &[Value]) -> Result<Option<Value>, EvalError> {
    let found = match (of, name, args) {
        (None, "size", [value]) | (Some(value), "size", []) => match value {
            Value::String(text) => count(text.chars().count()),
            Value::Bytes(bytes) => count(bytes.len()),
            Value::List(list) => count(list.len()),
            Value::Map(map) => count(map.len()),
            _ => return Ok(None),
        },
        (None, "type", [value]) => Value::Type(value.type_name().into()),
        (None, "dyn", [value]) => value.clone(),
        (None, "string", [value]) => strings::to_text(value)?,
        (None, "int", [value]) => to_int(value)?,
        (None, "uint", [value]) => to_uint(value)?,
        (None, "double", [value]) => to_double(value)?,
        (None, "bool", [Value::String(text)]) => match text.as_ref() {
            "true" | "True" | "TRUE" | "t" | "1" => Value::Bool(true),
            "false" | "False" | "FALSE" | "f" | "0" => Value::Bool(false),
            _ => return failed("type conversion error from 'string' to 'bool'"),
        },
        (None, "bool", [Value::Bool(value)]) => Value::Bool(*value),
        (None, "bytes", [Value::String(text)]) => Value::Bytes(text.as_bytes().into()),
        (None, "bytes", [Value::Bytes(bytes)]) => Value::Bytes(bytes.clone()),
        (None, "duration", [Value::String(text)]) => match crate::api::structural::go_duration(text) {
            Some(duration) => Value::Duration(duration),
            None => return failed(format!("time: invalid duration {text:?}")),
        },
        (None, "duration", [value @ Value::Duration(_)])
        | (None, "timestamp", [value @ Value::Timestamp(_)]) => value.clone(),
        (None, "timestamp", [Value::String(text)]) => match crate::api::structural::parse_time(text) {
            Some(time) => Value::Timestamp(time),
            None => return failed(format!("parsing time {text:?}: cannot parse {text:?}")),
        },
        (None, "timestamp", [Value::Int(seconds)]) => {
            match k8s_openapi::jiff::Timestamp::from_second(*seconds) {
                Ok(time) => Value::Timestamp(time),
                Err(_) => return failed("timestamp overflow"),
            }
        }
        (None, "optional.of", [value]) => Value::some(value.clone()),
        (None, "jsonpatch.escapeKey", [Value::String(key)]) => {
            Value::text(key.replace('~', "~0").replace('/', "~1"))
        }
        (None, "optional.none", []) => Value::Optional(None),
        (None, "optional.ofNonZeroValue", [value]) => {
            if is_zero(value) {
                Value::Optional(None)
            } else {
                Value::some(value.clone())
            }
        }
        (Some(Value::Optional(inner)), "hasValue", []) => Value::Bool(inner.is_some()),
        (Some(Value::Optional(inner)), "value", []) => match inner {
            Some(value) => (**value).clone(),
            None => return failed("optional.none() dereference"),
        },
        _ => return Ok(None),
    };
    Ok(Some(found))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Int(n) => *n == 0,
        Value::Uint(n) => *n == 0,
        Value::Double(n) => *n == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        _ => false,
    }
}

#[allow(clippy::cast_possible_truncation, reason = "checked to be in range")]
fn to_int(value: &Value) -> Result<Value, EvalError> {
    let out_of_range = || EvalError::failed("integer overflow");
    match value {
        Value::Int(_) => Ok(value.clone()),
        Value::Uint(n) => i64::try_from(*n).map(Value::Int).map_err(|_| out_of_range()),
        Value::Double(n) if n.abs() < 9.2e18 => Ok(Value::Int(*n as i64)),
        Value::Double(_) => Err(out_of_range()),
        Value::String(text) => text
            .parse()
            .map(Value::Int)
            .map_err(|_| EvalError::failed("type conversion error from 'string' to 'int'")),
        Value::Timestamp(time) => Ok(Value::Int(time.as_second())),
        _ => failed("no such overload"),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
fn to_uint(value: &Value) -> Result<Value, EvalError> {
    let out_of_range = || EvalError::failed("unsigned integer overflow");
    match value {
        Value::Uint(_) => Ok(value.clone()),
        Value::Int(n) => u64::try_from(*n).map(Value::Uint).map_err(|_| out_of_range()),
        Value::Double(n) if (0.0..1.8e19).contains(n) => Ok(Value::Uint(*n as u64)),
        Value::Double(_) => Err(out_of_range()),
        Value::String(text) => text
            .parse()
            .map(Value::Uint)
            .map_err(|_| EvalError::failed("type conversion error from 'string' to 'uint'")),
        _ => failed("no such overload"),
    }
}

#[allow(clippy::cast_precision_loss, reason = "as in Go")]
fn to_double(value: &Value) -> Result<Value, EvalError> {
    match value {
        Value::Double(_) => Ok(value.clone()),
        Value::Int(n) => Ok(Value::Double(*n as f64)),
        Value::Uint(n) => Ok(Value::Double(*n as f64)),
        Value::String(text) => text
            .parse()
            .map(Value::Double)
            .map_err(|_| EvalError::failed("type conversion error from 'string' to 'double'")),
        _ => failed("no such overload"),
    }
}
