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
pub(super) fn own_form(resource: &Resource, cached: &Bytes) -> Result<Bytes, ApiError> {
    let Storage::Shared(conversion) = &resource.storage else { return Ok(cached.clone()) };
    let stored: Value = serde_json::from_slice(cached).map_err(ApiError::internal)?;
    encode::canonical(&conversion.restored(stored)).map_err(ApiError::internal)
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
    pub(super) fn render_list(
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
        let body = match cx.representation {
            Representation::Object => {
                items(&resource.api_version(), &resource.list_kind, &list_meta, &page, |bytes| {
                    own_form(resource, bytes)
                })?
            }
            Representation::Metadata => {
                items("meta.k8s.io/v1", "PartialObjectMetadataList", &list_meta, &page, |bytes| {
                    one(Representation::Metadata, resource, own_form(resource, bytes)?)
                })?
            }
            Representation::Table(include) => {
                let rows = page
                    .objects
                    .iter()
                    .map(|object| table::rows::row(resource, &own_form(resource, object.json())?, include))
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
    page: &Page,
    shape: impl Fn(&Bytes) -> Result<Bytes, ApiError>,
) -> Result<Bytes, ApiError> {
    let size: usize = page.objects.iter().map(|object| object.json().len() + 1).sum();
    let mut out = BytesMut::with_capacity(size + 256);
    let head = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{list_meta},"items":["#);
    out.put_slice(head.as_bytes());
    for (i, object) in page.objects.iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&shape(object.json())?);
    }
    out.put_slice(b"]}");
    Ok(out.freeze())
}
