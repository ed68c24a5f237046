//! Merging what another server describes of itself into the v2 document.
//!
//! Definitions of the same name and content are one; those of the same name and another content get another name, as
//! upstream's aggregator gives them.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::v2::V2;

const REFERENCE: &str = "#/definitions/";
const KINDS: &str = "x-kubernetes-group-version-kind";

/// Adds the paths and definitions of `part`; one that is no JSON adds nothing.
pub(super) fn add(document: &mut V2, part: &[u8]) {
    let Ok(Value::Object(mut part)) = serde_json::from_slice::<Value>(part) else { return };
    let mut take = |key: &str| match part.remove(key) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (mut paths, definitions) = (take("paths"), take("definitions"));
    let renamed = names(document, &definitions);
    for (name, mut definition) in definitions {
        rename(&mut definition, &renamed);
        let name = renamed.get(&name).cloned().unwrap_or(name);
        match document.definitions.iter_mut().find(|(own, _)| *own == name) {
            Some((_, own)) => add_kinds(own, &definition),
            None => document.definitions.push((name, definition)),
        }
    }
    document.definitions.sort_by(|a, b| a.0.cmp(&b.0));
    paths.values_mut().for_each(|path| rename(path, &renamed));
    paths.into_iter().for_each(|(path, item)| {
        match document.paths.iter_mut().find(|(own, _)| *own == path) {
            Some((_, own)) => *own = item,
            None => document.paths.push((path, item)),
        }
    });
    document.paths.sort_by(|a, b| a.0.cmp(&b.0));
}

/// New names for definitions that are called like others of ours.
fn names(document: &V2, definitions: &Map<String, Value>) -> HashMap<String, String> {
    let own = |name: &str| document.definitions.iter().find(|(own, _)| own == name).map(|(_, value)| value);
    let mut renamed = HashMap::new();
    for (name, definition) in definitions {
        let conflicts = |name: &str| own(name).is_some_and(|own| comparable(own) != comparable(definition));
        if !conflicts(name) {
            continue;
        }
        let free = (2..).map(|number| format!("{name}_v{number}")).find(|name| !conflicts(name));
        renamed.extend(free.map(|free| (name.clone(), free)));
    }
    renamed
}

/// A definition without what may differ: for which kinds it stands.
fn comparable(definition: &Value) -> Value {
    let mut definition = definition.clone();
    if let Some(map) = definition.as_object_mut() {
        map.remove(KINDS);
    }
    definition
}

fn add_kinds(own: &mut Value, other: &Value) {
    let Some(kinds) = other.get(KINDS).and_then(Value::as_array) else { return };
    match own.get_mut(KINDS).and_then(Value::as_array_mut) {
        Some(known) => {
            let new: Vec<Value> = kinds.iter().filter(|kind| !known.contains(kind)).cloned().collect();
            known.extend(new);
        }
        None => own[KINDS] = kinds.clone().into(),
    }
}

fn rename(value: &mut Value, renamed: &HashMap<String, String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(new) = reference.strip_prefix(REFERENCE).and_then(|name| renamed.get(name))
            {
                *reference = format!("{REFERENCE}{new}");
            }
            map.values_mut().for_each(|below| rename(below, renamed));
        }
        Value::Array(list) => list.iter_mut().for_each(|below| rename(below, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_of_another_content_gets_another_name() {
        let mut document = V2 {
            paths: vec![("/api/".into(), json!({}))],
            definitions: vec![
                ("Meta".into(), json!({"type": "object"})),
                ("Same".into(), json!({"type": "string", (KINDS): [1]})),
            ],
        };
        let part = json!({
            "paths": {"/apis/g/v1/": {"get": {"schema": {"$ref": "#/definitions/Meta"}}}},
            "definitions": {
                "Meta": {"type": "object", "properties": {"a": {"$ref": "#/definitions/Same"}}},
                "Same": {"type": "string", (KINDS): [2]},
            },
        });
        add(&mut document, part.to_string().as_bytes());
        let names: Vec<_> = document.definitions.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Meta", "Meta_v2", "Same"]);
        assert_eq!(document.definitions[2].1[KINDS], json!([1, 2]));
        assert_eq!(document.paths[1].1["get"]["schema"]["$ref"], "#/definitions/Meta_v2");
        add(&mut document, b"no json");
    }
}
