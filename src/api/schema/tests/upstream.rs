//! Compares the built-in schemas with the published OpenAPI document, where a copy of it lies beside the sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::api::schema::openapi;

fn document() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["../shared", "../../shared"]
        .iter()
        .map(|dir| root.join(dir).join("k8s-1.36/swagger.json"))
        .find(|path| path.exists())
}

/// Kinds of every group and version are listed there, with versions that are not served here.
const MANY_KINDS: [&str; 2] =
    ["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent"];

#[test]
fn types_fields_and_extensions_equal_upstreams() {
    let Some(path) = document() else {
        println!("skipped: there is no copy of the OpenAPI document");
        return;
    };
    let upstream: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let ours: Map<String, Value> = serde_json::from_str(&openapi::text().unwrap()).unwrap();
    let mut differences = Vec::new();
    for (name, definition) in &ours {
        match upstream["definitions"].get(name) {
            Some(expected) => compare(name, name, expected, definition, &mut differences),
            None => differences.push(format!("{name} is not defined there")),
        }
    }
    assert!(ours.len() > 500, "only {} definitions", ours.len());
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

fn compare(definition: &str, path: &str, theirs: &Value, ours: &Value, differences: &mut Vec<String>) {
    let (Some(theirs), Some(ours)) = (theirs.as_object(), ours.as_object()) else {
        if theirs != ours {
            differences.push(format!("{path}: {theirs} there, {ours} here"));
        }
        return;
    };
    let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    for name in names {
        let (there, here) = (theirs.get(name), ours.get(name));
        let same = match name.as_str() {
            "description" | "default" => true,
            "x-kubernetes-group-version-kind" if MANY_KINDS.contains(&definition) => here.is_some(),
            "required" => sorted(there) == sorted(here),
            "properties" => {
                compare_properties(definition, path, there, here, differences);
                true
            }
            "items" | "additionalProperties" => {
                let (there, here) = (there.unwrap_or(&Value::Null), here.unwrap_or(&Value::Null));
                compare(definition, &format!("{path}.{name}"), there, here, differences);
                true
            }
            _ => there == here,
        };
        if !same {
            differences.push(format!("{path}.{name}: {there:?} there, {here:?} here"));
        }
    }
}

fn compare_properties(
    definition: &str,
    path: &str,
    there: Option<&Value>,
    here: Option<&Value>,
    differences: &mut Vec<String>,
) {
    let empty = Map::new();
    let there = there.and_then(Value::as_object).unwrap_or(&empty);
    let here = here.and_then(Value::as_object).unwrap_or(&empty);
    for name in there.keys().chain(here.keys()).collect::<BTreeSet<_>>() {
        match (there.get(name), here.get(name)) {
            (Some(there), Some(here)) => {
                compare(definition, &format!("{path}.{name}"), there, here, differences);
            }
            (Some(_), None) => differences.push(format!("{path}.{name} is missing here")),
            _ => differences.push(format!("{path}.{name} is not there")),
        }
    }
}

fn sorted(list: Option<&Value>) -> BTreeSet<String> {
    let list = list.and_then(Value::as_array);
    list.into_iter().flatten().map(Value::to_string).collect()
}
