//! The shape of custom resources, for patches and field ownership, from their structural schema.

use serde_json::{Value, json};

use super::arena::{Arena, Builder, Field, ListType, NodeId, Scalar, Shape, Strategy};
use crate::api::structural::{Additional, Structural, Type};

/// The name of the only definition.
pub(super) const ROOT: &str = "root";

/// Makes the tables.
pub(super) fn arena(schema: &Structural) -> Arena {
    let mut builder = Builder::default();
    let node = resource(&mut builder, schema);
    builder.define(ROOT, node);
    builder.finish()
}

/// The shape of `metadata`, which schemas of custom resources do not describe.
fn metadata() -> Structural {
    let text = || json!({"type": "string"});
    let texts = || json!({"type": "object", "additionalProperties": {"type": "string"}});
    Structural::parse(&json!({"type": "object", "properties": {
        "annotations": texts(), "labels": texts(),
        "creationTimestamp": text(), "deletionTimestamp": text(), "generateName": text(), "name": text(),
        "namespace": text(), "resourceVersion": text(), "selfLink": text(), "uid": text(),
        "deletionGracePeriodSeconds": {"type": "integer"}, "generation": {"type": "integer"},
        "finalizers": {"type": "array", "items": text(), "x-kubernetes-list-type": "set"},
        "managedFields": {"type": "array", "items": {"x-kubernetes-preserve-unknown-fields": true}},
        "ownerReferences": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
            "items": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
                "apiVersion": text(), "kind": text(), "name": text(), "uid": text(),
                "blockOwnerDeletion": {"type": "boolean"}, "controller": {"type": "boolean"},
            }}},
    }}))
}

/// A schema whose values are whole resources.
fn resource(builder: &mut Builder, schema: &Structural) -> NodeId {
    let mut schema = schema.clone();
    let text = Structural { kind: Some(Type::String), ..Structural::default() };
    schema.properties.insert("apiVersion".into(), text.clone());
    schema.properties.insert("kind".into(), text);
    schema.properties.insert("metadata".into(), metadata());
    schema.embedded = false;
    node(builder, &schema)
}

fn node(builder: &mut Builder, schema: &Structural) -> NodeId {
    if schema.embedded {
        return resource(builder, schema);
    }
    if schema.int_or_string {
        return builder.scalar(Scalar::IntOrString);
    }
    match schema.kind {
        Some(Type::String) => builder.scalar(Scalar::String),
        Some(Type::Boolean) => builder.scalar(Scalar::Boolean),
        Some(Type::Integer) => builder.scalar(Scalar::Int64),
        Some(Type::Number) => builder.scalar(Scalar::Float),
        Some(Type::Array) => list(builder, schema),
        Some(Type::Object) => object(builder, schema),
        None if !schema.properties.is_empty() => object(builder, schema),
        None => builder.any(),
    }
}

fn list(builder: &mut Builder, schema: &Structural) -> NodeId {
    let item = match schema.items.as_deref() {
        Some(items) => node(builder, items),
        None => builder.any(),
    };
    let keys = builder.keys(&schema.list_keys);
    builder.node(Shape::List { item, list_type: schema.list_type.unwrap_or(ListType::Atomic), keys })
}

fn object(builder: &mut Builder, schema: &Structural) -> NodeId {
    if schema.properties.is_empty() {
        let value = match &schema.additional {
            Some(Additional::Schema(below)) => node(builder, below),
            Some(Additional::Allowed(true)) => builder.any(),
            _ if schema.preserve_unknown && !schema.atomic_map => return builder.any(),
            _ => builder.any(),
        };
        return builder.node(Shape::Map { value, atomic: schema.atomic_map });
    }
    let mut fields = Vec::with_capacity(schema.properties.len());
    for (name, below) in &schema.properties {
        let default = match &below.default {
            Some(Value::String(text)) => Some(text.clone()),
            Some(default @ (Value::Number(_) | Value::Bool(_))) => Some(default.to_string()),
            _ => None,
        };
        fields.push(Field {
            name: builder.name(name),
            node: node(builder, below),
            strategy: Strategy::default(),
            required: schema.limits.required.contains(name),
            merge_key: None,
            default: default.map(|text| builder.name(&text)),
        });
    }
    let rest = schema.preserve_unknown.then(|| builder.any());
    let fields = builder.fields(fields);
    builder.node(Shape::Struct { fields, atomic: schema.atomic_map, rest })
}
