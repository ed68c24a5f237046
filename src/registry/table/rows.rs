//! `meta.k8s.io/v1` `Table`s.

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::registry::context::IncludeObject;
use crate::registry::render::metadata_only;
use crate::registry::resource::Resource;

/// The row of one object, from its bytes in the row's own form.
pub fn row(resource: &Resource, bytes: &[u8], include: IncludeObject) -> Result<Value, ApiError> {
    let object = resource.behaviour.decode_bytes(bytes).map_err(ApiError::internal)?;
    let cells = resource.behaviour.cells(object.as_ref(), Timestamp::now());
    let whole = || serde_json::from_slice::<Value>(bytes).map_err(ApiError::internal);
    let embedded = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => metadata_only(whole()?),
        IncludeObject::Object => whole()?,
    };
    Ok(json!({"cells": cells, "object": embedded}))
}

/// A table; the column definitions are left out of all but the first table of a watch.
pub fn table(
    resource: &Resource,
    list_meta: Value,
    rows: Vec<Value>,
    with_columns: bool,
) -> Result<Bytes, ApiError> {
    let dynamic =
        resource.dynamic.iter().filter(|_| with_columns).flat_map(|dynamic| dynamic.columns.definitions());
    let columns: Vec<Value> = resource
        .columns
        .iter()
        .filter(|_| with_columns)
        .map(|c| {
            json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description,
                "priority": c.priority})
        })
        .chain(dynamic)
        .collect();
    let table = json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": columns,
        "rows": rows,
    });
    serde_json::to_vec(&table).map(Bytes::from).map_err(ApiError::internal)
}
