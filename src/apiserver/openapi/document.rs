//! The definitions that a set of served kinds needs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Served;
use crate::api::schema::LoadError;
use crate::api::schema::openapi::{self, Definitions};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const REFERENCE: &str = "\"#/definitions/";
/// A built-in kind whose fields are described as those of all kinds are.
const MODEL: &str = "io.k8s.api.core.v1.ConfigMap";

/// Definitions that exist in every group and version.
const IN_EVERY_GROUP: [&str; 2] = ["DeleteOptions", "WatchEvent"];

/// The definitions of the built-in kinds, and of the served kinds that bring their own.
pub(super) fn all(served: &[Served]) -> Result<Definitions, LoadError> {
    let mut all = openapi::definitions()?;
    let model: Value = match all.get(MODEL) {
        Some(definition) => serde_json::from_str(definition.get()).map_err(LoadError::Decode)?,
        None => Value::Null,
    };
    for own in served.iter().filter_map(|row| row.own.as_ref()) {
        let raw = |value: &Value| serde_json::value::to_raw_value(value).map_err(LoadError::Decode);
        let mut object = own.object.clone();
        describe(&mut object, &model);
        all.insert(own.name.clone(), raw(&object)?);
        all.insert(format!("{}List", own.name), raw(&own.list)?);
    }
    Ok(all)
}

/// Describes what every object has in the words of the built-in kinds, which people look for.
fn describe(schema: &mut Value, model: &Value) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    if properties.get("metadata").is_some_and(|metadata| metadata.get("$ref").is_some()) {
        for field in ["apiVersion", "kind", "metadata"] {
            if let (Some(own), Some(words)) =
                (properties.get_mut(field), model["properties"][field].get("description"))
            {
                own["description"] = words.clone();
            }
        }
    }
    properties.values_mut().for_each(|below| describe(below, model));
}

/// `roots` and all that they refer to, directly or not.
pub(super) fn closure(
    definitions: &Definitions,
    roots: impl IntoIterator<Item = String>,
) -> BTreeSet<String> {
    let mut open: Vec<String> = roots.into_iter().collect();
    open.push(format!("{META}.WatchEvent"));
    let mut closed = BTreeSet::new();
    while let Some(name) = open.pop() {
        let Some(definition) = definitions.get(&name) else { continue };
        let text = definition.get();
        let references = text.match_indices(REFERENCE).filter_map(|(at, found)| {
            let rest = &text[at + found.len()..];
            rest.split('"').next().map(str::to_owned)
        });
        open.extend(references.filter(|reference| !closed.contains(reference)));
        closed.insert(name);
    }
    closed
}

/// One definition, with the kinds that it stands for among the served groups.
pub(super) fn definition(definitions: &Definitions, name: &str, served: &[Served]) -> Option<Value> {
    let mut value: Value = serde_json::from_str(definitions.get(name)?.get()).ok()?;
    let kind = name.strip_prefix(META).and_then(|rest| rest.strip_prefix('.'));
    if let Some(kind) = kind.filter(|kind| IN_EVERY_GROUP.contains(kind)) {
        // Those of built-in kinds: custom ones come and go, and documents of other groups do not change with them.
        let fixed = served.iter().filter(|row| row.own.is_none());
        let versions: BTreeSet<_> = fixed.map(|row| (&row.group, &row.version)).collect();
        let kinds =
            versions.iter().map(|(group, version)| json!({"group": group, "version": version, "kind": kind}));
        value["x-kubernetes-group-version-kind"] = Value::Array(kinds.collect());
    }
    Some(value)
}
