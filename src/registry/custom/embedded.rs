//! Resources within custom resources (`x-kubernetes-embedded-resource`), wherever their schema has them: in fields, items
//! and additional properties. Their metadata has the fields of metadata and no others, and they say what they are.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/objectmeta`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::structural::{Additional, Structural};
use crate::registry::decode::{TypeError, decode_any};
use crate::registry::validation::{each, metadata};

/// Brings the metadata of embedded resources into the form of metadata; the paths of the fields that it does not have.
///
/// # Errors
/// Some metadata is none.
pub fn coerce(schema: &Structural, value: &mut Value) -> Result<Vec<String>, TypeError> {
    let mut unknown = Vec::new();
    walk(schema, value, &mut String::new(), false, &mut |path, map| {
        let Some(metadata) = map.remove("metadata").filter(|metadata| !metadata.is_null()) else {
            return Ok(());
        };
        let (meta, more) = decode_any::<ObjectMeta>(metadata)?;
        unknown.extend(more.into_iter().map(|field| format!("{path}.metadata.{field}")));
        map.insert("metadata".into(), serde_json::to_value(meta).unwrap_or_default());
        Ok(())
    })?;
    unknown.sort();
    Ok(unknown)
}

type Visit<'v> = dyn FnMut(&str, &mut Map<String, Value>) -> Result<(), TypeError> + 'v;

fn walk(
    schema: &Structural,
    value: &mut Value,
    path: &mut String,
    embedded: bool,
    visit: &mut Visit<'_>,
) -> Result<(), TypeError> {
    let length = path.len();
    match value {
        Value::Object(map) => {
            if embedded {
                visit(path, map)?;
            }
            for (name, below) in map.iter_mut() {
                let Some(schema) = schema.field(name) else { continue };
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                walk(schema, below, path, schema.embedded, visit)?;
                path.truncate(length);
            }
        }
        Value::Array(list) => {
            let Some(schema) = schema.items.as_deref() else { return Ok(()) };
            for (i, item) in list.iter_mut().enumerate() {
                path.push_str(&format!("[{i}]"));
                walk(schema, item, path, schema.embedded, visit)?;
                path.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Checks embedded resources: each says its version and kind, and its metadata is right.
pub fn validate(schema: &Structural, value: &Value, at: Option<&Path>, errors: &mut FieldErrors) {
    match value {
        Value::Object(map) => {
            if let Some(at) = at.filter(|_| schema.embedded) {
                check(map, at, errors);
            }
            for (name, below) in map {
                let Some(found) = schema.field(name) else { continue };
                let named = matches!(&schema.additional, Some(Additional::Schema(_)))
                    && !schema.properties.contains_key(name);
                let at = match at {
                    None => Path::new(name.clone()),
                    Some(at) if named => at.key(name.clone()),
                    Some(at) => at.child(name.clone()),
                };
                validate(found, below, Some(&at), errors);
            }
        }
        Value::Array(list) => {
            let (Some(schema), Some(at)) = (schema.items.as_deref(), at) else { return };
            for (i, item) in list.iter().enumerate() {
                validate(schema, item, Some(&at.index(i)), errors);
            }
        }
        _ => {}
    }
}

fn check(map: &Map<String, Value>, at: &Path, errors: &mut FieldErrors) {
    for field in ["apiVersion", "kind"] {
        let at = at.child(field);
        match map.get(field) {
            None => errors.push(FieldError::required(&at, "must not be empty")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(FieldError::invalid(&at, text, "must not be empty"));
            }
            Some(Value::String(text)) if field == "apiVersion" && text.matches('/').count() > 1 => {
                let why = format!("unexpected GroupVersion string: {text}");
                errors.push(FieldError::invalid(&at, text, why));
            }
            Some(Value::String(_)) => {}
            Some(other) => errors.push(FieldError::invalid(&at, other, "must be a string")),
        }
    }
    let Some(meta) = map.get("metadata") else { return };
    let at = at.child("metadata");
    match serde_json::from_value::<ObjectMeta>(meta.clone()) {
        Ok(meta) => {
            for (field, name) in [("generateName", &meta.generate_name), ("name", &meta.name)] {
                let name = name.as_deref().unwrap_or_default();
                each(names::is_path_segment_name(name), name, &at.child(field), errors);
            }
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            if !namespace.is_empty() {
                each(names::is_dns1123_label(namespace), namespace, &at.child("namespace"), errors);
            }
            if let Some(labels) = &meta.labels {
                metadata::validate_labels(labels, &at.child("labels"), errors);
            }
            if let Some(annotations) = &meta.annotations {
                metadata::validate_annotations(annotations, &at.child("annotations"), errors);
            }
        }
        Err(error) => errors.push(FieldError::invalid(&at, meta, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Structural {
        let resource = json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
        Structural::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "one": resource, "list": {"type": "array", "items": resource},
            "map": {"type": "object", "additionalProperties": resource}}}}}))
    }

    #[test]
    fn metadata_loses_what_is_none_wherever_it_is() {
        let one = |name: &str| json!({"apiVersion": "v1", "kind": "A", "metadata": {"name": name, "odd": 1}, "x": 1});
        let mut value = json!({"metadata": {"kept": 1}, "spec": {"one": one("a"), "list": [one("b")], "map": {"k": one("c")}}});
        let unknown = coerce(&schema(), &mut value).unwrap();
        assert_eq!(
            unknown,
            ["spec.list[0].metadata.odd", "spec.map.k.metadata.odd", "spec.one.metadata.odd"]
        );
        for (at, name) in [("/spec/one", "a"), ("/spec/list/0", "b"), ("/spec/map/k", "c")] {
            let wanted = json!({"apiVersion": "v1", "kind": "A", "metadata": {"name": name}, "x": 1});
            assert_eq!(value.pointer(at), Some(&wanted));
        }
        assert_eq!(
            value["metadata"],
            json!({"kept": 1}),
            "the metadata of the resource itself is not its business"
        );
        let mut wrong = json!({"spec": {"one": {"metadata": {"labels": 5}}}});
        assert!(coerce(&schema(), &mut wrong).is_err());
    }

    #[test]
    fn embedded_resources_say_what_they_are() {
        let value = json!({"spec": {"one": {"metadata": {"labels": {"a": "b c"}}}, "list": [{"apiVersion": "a/b/c", "kind": 1}],
            "map": {"k": {"apiVersion": "v1", "kind": ""}}}});
        let mut errors = FieldErrors::new();
        validate(&schema(), &value, None, &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for wanted in [
            "spec.one.apiVersion: Required value: must not be empty",
            "spec.one.kind: Required value: must not be empty",
            "spec.list[0].apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
            "spec.list[0].kind: Invalid value: 1: must be a string",
            "spec.map[k].kind: Invalid value: \"\": must not be empty",
        ] {
            assert!(found.iter().any(|found| found == wanted), "{wanted}: {found:#?}");
        }
        assert!(
            found.iter().any(|found| found.starts_with("spec.one.metadata.labels: Invalid value: \"b c\"")),
            "{found:#?}"
        );
        assert_eq!(found.len(), 6);
    }
}
