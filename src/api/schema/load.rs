//! Reading definitions (the `definitions` of an OpenAPI v2 document) into tables.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;
use serde_json::Value;

use super::arena::{Arena, Builder, Field, ListType, NodeId, Scalar, Shape, Strategy};

/// Why definitions cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// They are not a JSON object of schemas.
    #[error("decode schema definitions")]
    Decode(#[source] serde_json::Error),
}

#[derive(Deserialize)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

/// What tables need of a JSON schema; everything else, descriptions above all, is skipped while reading.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Definition {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    format: Option<String>,
    properties: BTreeMap<String, Definition>,
    items: Option<Box<Definition>>,
    #[serde(rename = "additionalProperties")]
    additional: Option<Box<Definition>>,
    required: Vec<String>,
    default: Option<Value>,
    #[serde(rename = "x-kubernetes-list-type")]
    list_type: Option<String>,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    list_keys: Vec<String>,
    #[serde(rename = "x-kubernetes-map-type")]
    map_type: Option<String>,
    #[serde(rename = "x-kubernetes-patch-strategy")]
    patch_strategy: Option<String>,
    #[serde(rename = "x-kubernetes-patch-merge-key")]
    merge_key: Option<String>,
    #[serde(rename = "x-kubernetes-group-version-kind")]
    kinds: Vec<GroupVersionKind>,
}

pub(super) fn load(reader: impl Read) -> Result<Arena, LoadError> {
    let definitions: BTreeMap<String, Definition> =
        serde_json::from_reader(reader).map_err(LoadError::Decode)?;
    let mut builder = Builder::default();
    for name in definitions.keys() {
        let node = builder.node(Shape::Any);
        builder.define(name, node);
    }
    // Objects come last: a field may override what its type says (`x-kubernetes-map-type`), for which the type's
    // own shape must be known. So the types' shapes are set before any field is resolved.
    let objects: Vec<_> = definitions.iter().filter(|(_, d)| !d.properties.is_empty()).collect();
    for (name, definition) in definitions.iter().filter(|(_, d)| d.properties.is_empty()) {
        let shape = plain_shape(&mut builder, name, definition);
        set(&mut builder, name, shape);
    }
    let mut spans = Vec::with_capacity(objects.len());
    for (name, definition) in &objects {
        let fields = definition.properties.keys().map(|field| builder_field(&mut builder, field)).collect();
        let span = builder.fields(fields);
        let atomic = definition.map_type.as_deref() == Some("atomic");
        set(&mut builder, name, Shape::Struct { fields: span, atomic, rest: None });
        spans.push(span);
    }
    for ((_, definition), span) in objects.iter().zip(spans) {
        for (i, (name, field)) in definition.properties.iter().enumerate() {
            let resolved = resolve_field(&mut builder, name, field, &definition.required);
            builder.set_field(span, i, resolved);
        }
    }
    for (name, definition) in &definitions {
        for kind in &definition.kinds {
            builder.name_kind(&kind.group, &kind.version, &kind.kind, name);
        }
    }
    Ok(builder.finish())
}

fn set(builder: &mut Builder, name: &str, shape: Shape) {
    if let Some(node) = builder.defined(name) {
        builder.set_shape(node, shape);
    }
}

/// A field whose schema is not resolved yet.
fn builder_field(builder: &mut Builder, name: &str) -> Field {
    Field {
        name: builder.name(name),
        node: builder.any(),
        strategy: Strategy::default(),
        required: false,
        merge_key: None,
        default: None,
    }
}

fn resolve_field(builder: &mut Builder, name: &str, field: &Definition, required: &[String]) -> Field {
    Field {
        name: builder.name(name),
        node: resolve(builder, field),
        strategy: field.patch_strategy.as_deref().map(Strategy::parse).unwrap_or_default(),
        required: required.iter().any(|r| r == name),
        merge_key: field.merge_key.as_ref().map(|key| builder.name(key)),
        default: field.default.as_ref().and_then(Value::as_str).map(|text| builder.name(text)),
    }
}

/// The shape of a definition without properties.
fn plain_shape(builder: &mut Builder, name: &str, definition: &Definition) -> Shape {
    if name.ends_with(".resource.Quantity") {
        return Shape::Scalar(Scalar::Quantity);
    }
    match scalar(definition) {
        Some(scalar) => Shape::Scalar(scalar),
        None => {
            let node = resolve(builder, definition);
            builder.shape(node)
        }
    }
}

fn scalar(definition: &Definition) -> Option<Scalar> {
    Some(match (definition.kind.as_deref()?, definition.format.as_deref()) {
        ("boolean", _) => Scalar::Boolean,
        ("integer", Some("int32")) => Scalar::Int32,
        ("integer", _) => Scalar::Int64,
        ("number", _) => Scalar::Float,
        ("string", Some("byte")) => Scalar::Bytes,
        ("string", Some("date-time")) => Scalar::Time,
        ("string", Some("int-or-string")) => Scalar::IntOrString,
        ("string", _) => Scalar::String,
        _ => return None,
    })
}

fn resolve(builder: &mut Builder, schema: &Definition) -> NodeId {
    if let Some(reference) = &schema.reference {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        let Some(node) = builder.defined(name) else { return builder.any() };
        return match (&schema.map_type, builder.shape(node)) {
            (Some(map_type), Shape::Struct { fields, rest, .. }) => {
                builder.node(Shape::Struct { fields, atomic: map_type == "atomic", rest })
            }
            _ => node,
        };
    }
    if let Some(scalar) = scalar(schema) {
        return builder.scalar(scalar);
    }
    if let Some(items) = &schema.items {
        let item = resolve(builder, items);
        let list_type = match schema.list_type.as_deref() {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map,
            _ => ListType::Atomic,
        };
        let keys = builder.keys(&schema.list_keys);
        return builder.node(Shape::List { item, list_type, keys });
    }
    if let Some(value) = &schema.additional {
        let value = resolve(builder, value);
        let atomic = schema.map_type.as_deref() == Some("atomic");
        return builder.node(Shape::Map { value, atomic });
    }
    builder.any()
}
