//! Kinds whose objects are not stored: they are made when somebody asks.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::meta;
use crate::registry::context::{Representation, RequestContext};
use crate::registry::render;
use crate::registry::resource::Resource;
use crate::registry::service::{Registry, Reply};
use crate::registry::table;
use crate::registry::write::encode;

/// Makes the objects of a kind that is not stored.
#[async_trait]
pub trait Computed: Send + Sync {
    /// Every object as it is now, in the order of the list.
    async fn objects(&self, registry: &Registry) -> Result<Vec<Value>, ApiError>;
}

fn bytes(value: &Value) -> Result<Bytes, ApiError> {
    encode::canonical(value).map_err(ApiError::internal)
}

/// The answer to a get.
pub(super) async fn get(
    registry: &Registry,
    cx: &RequestContext,
    resource: &Resource,
    source: &dyn Computed,
    name: &str,
) -> Result<Reply, ApiError> {
    let objects = source.objects(registry).await?;
    let found = objects.iter().find(|object| meta::name(object) == name);
    let found = found.ok_or_else(|| ApiError::not_found(&resource.group_resource(), name))?;
    render::one(cx.representation, resource, bytes(found)?).map(Reply::ok)
}

/// The answer to a list. Selectors have no effect, as upstream.
pub(super) async fn list(
    registry: &Registry,
    cx: &RequestContext,
    resource: &Resource,
    source: &dyn Computed,
) -> Result<Reply, ApiError> {
    let objects = source.objects(registry).await?;
    let (version, kind) = match cx.representation {
        Representation::Table(include) => {
            let rows = objects
                .iter()
                .map(|object| table::rows::row(resource, &bytes(object)?, include))
                .collect::<Result<Vec<_>, _>>()?;
            return table::rows::table(resource, json!({}), rows, true).map(Reply::ok);
        }
        Representation::Metadata => ("meta.k8s.io/v1".into(), "PartialObjectMetadataList"),
        Representation::Object => (resource.api_version(), resource.list_kind.as_ref()),
    };
    let items: Vec<Value> = match cx.representation {
        Representation::Metadata => objects.into_iter().map(render::metadata_only).collect(),
        _ => objects,
    };
    let body = json!({"kind": kind, "apiVersion": version, "metadata": {}, "items": items});
    Ok(Reply::ok(body.to_string()))
}
