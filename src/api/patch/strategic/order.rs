//! The order of a merged list: the patch's items in the patch's order, the server's own items where they were.

use serde_json::Value;

use super::{DIRECTIVE, bad};
use crate::api::error::ApiError;

/// What tells an item of a list from the others.
fn identity<'a>(item: &'a Value, key: Option<&str>) -> &'a Value {
    match key {
        Some(key) => item.get(key).unwrap_or(&Value::Null),
        None => item,
    }
}

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    let wanted = identity(item, key);
    list.iter().position(|other| identity(other, key) == wanted)
}

/// Sorts `merged`: items that `order` names follow it, the others keep their place of `before` relative to them.
pub(super) fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    before: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, ApiError> {
    let keyless = |list: &[Value]| key.is_some_and(|key| list.iter().any(|item| item.get(key).is_none()));
    if keyless(&merged) || keyless(order) {
        return Err(bad(format!(
            "an item of the list does not contain declared merge key: {}",
            key.unwrap_or_default()
        )));
    }
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|item| position(order, item, key).is_some());
    ours.sort_by_key(|item| position(order, item, key));
    theirs.sort_by_key(|item| position(before, item, key).unwrap_or(usize::MAX));
    let mut sorted = Vec::with_capacity(ours.len() + theirs.len());
    let mut ours = ours.into_iter().peekable();
    let mut theirs = theirs.into_iter().peekable();
    while let (Some(our), Some(their)) = (ours.peek(), theirs.peek()) {
        let places = (position(before, their, key), position(before, our, key));
        let server_first = matches!(places, (Some(their), Some(our)) if their < our);
        sorted.extend(if server_first { theirs.next() } else { ours.next() });
    }
    sorted.extend(ours);
    sorted.extend(theirs);
    Ok(sorted)
}

/// The items of a patch must appear in the order that the patch gives, apart from those that it deletes.
pub(super) fn check(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), ApiError> {
    let mut rest = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        if !rest.any(|ordered| identity(ordered, key) == identity(item, key)) {
            let show = |list: &[Value]| list.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
            return Err(bad(format!(
                "The order in patch list:\n[{}]\n doesn't match $setElementOrder list:\n[{}]\n",
                show(patch),
                show(order)
            )));
        }
    }
    Ok(())
}
