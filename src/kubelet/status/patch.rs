//! The strategic merge patch that turns one pod status into another.
//!
//! Only what changed is sent, so that conditions which others set at the same time are not undone.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use super::conditions::{DISRUPTION, OWNED};

/// Lists that a strategic merge patch merges by key instead of replacing.
const MERGED: [(&str, &str); 3] = [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];

/// The patch for the `status` subresource, or `None` when nothing changed. The UID guards against a pod of the same
/// name that was made in the meantime.
pub fn patch(uid: &str, from: &PodStatus, to: &PodStatus) -> Option<Value> {
    let (from, to) = (fields(from), fields(to));
    let mut diff = Map::new();
    for (name, value) in &to {
        if from.get(name) == Some(value) {
            continue;
        }
        match MERGED.iter().find(|(list, _)| list == name) {
            Some((_, key)) => {
                let entries = list_diff(from.get(name), value, key, *name == "conditions");
                if !entries.is_empty() {
                    diff.insert(name.clone(), Value::Array(entries));
                }
            }
            None => drop(diff.insert(name.clone(), without_leftovers(from.get(name), value))),
        }
    }
    for name in from.keys().filter(|n| !to.contains_key(*n)) {
        diff.insert(name.clone(), Value::Null);
    }
    (!diff.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": diff}))
}

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn list_diff(from: Option<&Value>, to: &Value, key: &str, conditions: bool) -> Vec<Value> {
    let (from, to) = (by_key(from, key), by_key(Some(to), key));
    let owned = |name: &str| !conditions || OWNED.contains(&name);
    let mut out: Vec<Value> = to
        .iter()
        .filter(|(name, value)| (owned(name) || **name == DISRUPTION) && from.get(*name) != Some(*value))
        .map(|(name, value)| without_leftovers(from.get(*name).copied(), value))
        .collect();
    for gone in from.keys().filter(|name| owned(name) && !to.contains_key(*name)) {
        out.push(json!({key: gone, "$patch": "delete"}));
    }
    out
}

/// A merge keeps the fields that are not named, so those that are no longer there are named as null.
fn without_leftovers(from: Option<&Value>, to: &Value) -> Value {
    let (Some(Value::Object(from)), Value::Object(to)) = (from, to) else { return to.clone() };
    let mut out: Map<String, Value> =
        to.iter().map(|(name, value)| (name.clone(), without_leftovers(from.get(name), value))).collect();
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        out.insert(name.clone(), Value::Null);
    }
    Value::Object(out)
}

fn by_key<'a>(list: Option<&'a Value>, key: &str) -> BTreeMap<&'a str, &'a Value> {
    let entries = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter_map(|v| Some((v.get(key)?.as_str()?, v))).collect()
}
