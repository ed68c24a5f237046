//! Macros over lists and maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::EvalError;
use super::ast::{Expr, Loop};
use super::eval::{Budget, Scope, eval};
use super::value::{Key, Value};

/// The items, each as one or two values: a key and a value, or an index and an item.
fn items(over: &Value, two: bool) -> Result<Vec<(Value, Value)>, EvalError> {
    match over {
        Value::List(list) if two => {
            let index = |i: usize| Value::Int(i64::try_from(i).unwrap_or(i64::MAX));
            Ok(list.iter().enumerate().map(|(i, item)| (index(i), item.clone())).collect())
        }
        Value::List(list) => Ok(list.iter().map(|item| (item.clone(), Value::Null)).collect()),
        Value::Map(map) => Ok(map.iter().map(|(key, value)| (Value::from(key), value.clone())).collect()),
        _ => Err(EvalError::failed("no such overload")),
    }
}

fn truth(value: Result<Value, EvalError>) -> Result<bool, EvalError> {
    match value? {
        Value::Bool(value) => Ok(value),
        _ => Err(EvalError::failed("no such overload")),
    }
}

pub(super) fn run(
    kind: Loop,
    over: &Value,
    names: &[String],
    bodies: &[Expr],
    scope: &Scope<'_>,
    budget: &mut Budget,
) -> Result<Value, EvalError> {
    let items = items(over, names.len() == 2)?;
    let each = |body: usize, (first, second): &(Value, Value), budget: &mut Budget| {
        let Some(body) = bodies.get(body) else { return Err(EvalError::failed("no such overload")) };
        match names {
            [one] => eval(body, &Scope::One(one, first, scope), budget),
            [one, two] => eval(body, &Scope::One(two, second, &Scope::One(one, first, scope)), budget),
            _ => Err(EvalError::failed("no such overload")),
        }
    };
    match kind {
        Loop::All | Loop::Exists => {
            // The item that decides does so even when another one fails.
            let deciding = kind == Loop::Exists;
            let mut failed = None;
            for item in &items {
                match truth(each(0, item, budget)) {
                    Ok(value) if value == deciding => return Ok(Value::Bool(deciding)),
                    Ok(_) => {}
                    Err(EvalError::TooExpensive) => return Err(EvalError::TooExpensive),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            failed.map_or(Ok(Value::Bool(!deciding)), Err)
        }
        Loop::ExistsOne => {
            let mut count = 0;
            for item in &items {
                count += u32::from(truth(each(0, item, budget))?);
            }
            Ok(Value::Bool(count == 1))
        }
        Loop::Filter => {
            let mut kept = Vec::new();
            for item in &items {
                if truth(each(0, item, budget))? {
                    kept.push(item.0.clone());
                }
            }
            Ok(Value::list(kept))
        }
        Loop::Map => {
            items.iter().map(|item| each(0, item, budget)).collect::<Result<_, _>>().map(Value::list)
        }
        Loop::MapSome | Loop::TransformList => {
            let some = bodies.len() == 2;
            let mut mapped = Vec::new();
            for item in &items {
                if !some || truth(each(0, item, budget))? {
                    mapped.push(each(usize::from(some), item, budget)?);
                }
            }
            Ok(Value::list(mapped))
        }
        Loop::TransformMap => {
            let some = bodies.len() == 2;
            let mut mapped = BTreeMap::new();
            for item in &items {
                if !some || truth(each(0, item, budget))? {
                    let key: Key = item.0.key().ok_or_else(|| EvalError::failed("unsupported key type"))?;
                    mapped.insert(key, each(usize::from(some), item, budget)?);
                }
            }
            Ok(Value::Map(Arc::new(mapped)))
        }
        Loop::SortBy => {
            let mut keyed = Vec::with_capacity(items.len());
            for item in &items {
                keyed.push((each(0, item, budget)?, item.0.clone()));
            }
            keyed.sort_by(|(a, _), (b, _)| a.compare(b).unwrap_or(std::cmp::Ordering::Equal));
            Ok(Value::list(keyed.into_iter().map(|(_, item)| item).collect()))
        }
    }
}
