//! From objects to answers: the object itself, its metadata, or a printed table.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::meta;
use crate::registry::context::{Representation, RequestContext};
use crate::registry::read::select::Page;
use crate::registry::resource::{Resource, Storage};
use crate::registry::service::{Registry, Reply};
use crate::registry::table;
use crate::registry::write::encode;
use crate::store::Revision;

/// The answer to a write. Revision 0 (nothing was stored) shows no resourceVersion.
pub(super) fn written(
    cx: &RequestContext,
    resource: &Resource,
    code: u16,
    own: &Bytes,
    revision: Revision,
) -> Result<Reply, ApiError> {
    let bytes = if revision.0 == 0 { own.clone() } else { encode::with_revision(own, revision) };
    Ok(Reply { code, body: one(cx.representation, resource, bytes)? })
}

/// One object in the wanted shape, from bytes in the row's own form.
pub(super) fn one(
    representation: Representation,
    resource: &Resource,
    bytes: Bytes,
) -> Result<Bytes, ApiError> {
    match representation {
        Representation::Object => Ok(bytes),
        Representation::Metadata => {
            let value: Value = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
            encode::canonical(&metadata_only(value)).map_err(ApiError::internal)
        }
        Representation::Table(include) => {
            let value: Value = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
            let list_meta = json!({"resourceVersion": meta::resource_version(&value)});
            let row = table::rows::row(resource, &bytes, include)?;
            table::rows::table(resource, list_meta, vec![row], true)
        }
    }
}

/// The bytes of a cached object in the row's own form.
pub(super) async fn own_form(resource: &Resource, cached: &Bytes) -> Result<Bytes, ApiError> {
    match &resource.storage {
        Storage::Shared(_) | Storage::Custom(_) => sole(own_forms(resource, &[cached]).await?),
        _ => Ok(cached.clone()),
    }
}

/// The only one of a list that has as many as were put in.
pub(super) fn sole<T>(mut list: Vec<T>) -> Result<T, ApiError> {
    list.pop().ok_or_else(|| ApiError::internal("a conversion lost an object"))
}

/// The bytes of cached objects in the row's own form, converted all at once.
pub(super) async fn own_forms(resource: &Resource, cached: &[&Bytes]) -> Result<Vec<Bytes>, ApiError> {
    let parsed =
        || cached.iter().map(|bytes| serde_json::from_slice(bytes)).collect::<Result<Vec<Value>, _>>();
    let restored: Vec<Value> = match &resource.storage {
        Storage::Shared(conversion) => parsed()
            .map_err(ApiError::internal)?
            .into_iter()
            .map(|value| conversion.restored(value))
            .collect(),
        Storage::Custom(convert) => convert.restored(parsed().map_err(ApiError::internal)?).await?,
        _ => return Ok(cached.iter().map(|bytes| (*bytes).clone()).collect()),
    };
    restored.iter().map(|value| encode::canonical(value).map_err(ApiError::internal)).collect()
}

/// `PartialObjectMetadata` of an object.
pub(super) fn metadata_only(mut value: Value) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1",
        "kind": "PartialObjectMetadata",
        "metadata": value.get_mut("metadata").map(Value::take).unwrap_or_else(|| json!({})),
    })
}

impl Registry {
    /// A list in the wanted shape.
    pub(super) async fn render_list(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        page: Page,
    ) -> Result<Reply, ApiError> {
        let mut list_meta = json!({"resourceVersion": page.revision.to_string()});
        if let Some(token) = &page.continue_token {
            list_meta["continue"] = token.as_str().into();
        }
        if let Some(remaining) = page.remaining {
            list_meta["remainingItemCount"] = remaining.into();
        }
        let cached: Vec<&Bytes> = page.objects.iter().map(|object| object.json()).collect();
        let own = own_forms(resource, &cached).await?;
        let body = match cx.representation {
            Representation::Object => {
                items(&resource.api_version(), &resource.list_kind, &list_meta, own.into_iter().map(Ok))?
            }
            Representation::Metadata => {
                let partial = own.into_iter().map(|bytes| one(Representation::Metadata, resource, bytes));
                items("meta.k8s.io/v1", "PartialObjectMetadataList", &list_meta, partial)?
            }
            Representation::Table(include) => {
                let rows = own
                    .iter()
                    .map(|bytes| table::rows::row(resource, bytes, include))
                    .collect::<Result<Vec<_>, _>>()?;
                table::rows::table(resource, list_meta, rows, true)?
            }
        };
        Ok(Reply::ok(body))
    }
}

/// Puts a list together from the bytes of its items.
fn items(
    api_version: &str,
    kind: &str,
    list_meta: &Value,
    objects: impl Iterator<Item = Result<Bytes, ApiError>>,
) -> Result<Bytes, ApiError> {
    let objects = objects.collect::<Result<Vec<_>, _>>()?;
    let size: usize = objects.iter().map(|object| object.len() + 1).sum();
    let mut out = BytesMut::with_capacity(size + 256);
    let head = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{list_meta},"items":["#);
    out.put_slice(head.as_bytes());
    for (i, object) in objects.iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        out.put_slice(object);
    }
    out.put_slice(b"]}");
    Ok(out.freeze())
}
