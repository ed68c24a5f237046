//! `create`, `update`, `patch`, `delete` and `deletecollection`.

use axum::body::Body;
use http::Response;

use super::{ResourceCall, options};
use crate::api::error::ApiError;
use crate::apiserver::negotiate::{self, Format, Offer};
use crate::apiserver::{ApiServer, body};
use crate::registry::{self, ListOptions, PatchKind};

/// The patches that custom resources take.
const CUSTOM_PATCHES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

impl ApiServer {
    pub(super) async fn create(
        &self,
        call: &ResourceCall<'_>,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        let body = object(call, body).await?;
        let (namespace, name) = (call.namespace(), call.target.name.as_str());
        let reply =
            self.registry.create(&call.context, call.row, call.subresource(), namespace, name, body).await?;
        Ok(call.respond(reply))
    }

    pub(super) async fn update(
        &self,
        call: &ResourceCall<'_>,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        let body = object(call, body).await?;
        let (namespace, name) = (call.namespace(), call.target.name.as_str());
        let reply =
            self.registry.update(&call.context, call.row, call.subresource(), namespace, name, body).await?;
        Ok(call.respond(reply))
    }

    pub(super) async fn patch(
        &self,
        call: &ResourceCall<'_>,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        let kind = negotiate::patch_type(call.headers)?;
        if kind == PatchKind::Strategic && call.row.dynamic.is_some() {
            // Custom resources have no strategies.
            return Err(ApiError::unsupported_media_type(&CUSTOM_PATCHES));
        }
        if kind == PatchKind::Apply && call.context.field_manager.is_empty() {
            return Err(options::manager_required());
        }
        if kind != PatchKind::Apply && call.context.force {
            return Err(options::force_forbidden());
        }
        let bytes = body::read(body).await?;
        // An apply patch is YAML, of which JSON is a part.
        let format = if kind == PatchKind::Apply { Format::Yaml } else { Format::Json };
        let body = registry::Body { bytes, format };
        let (namespace, name) = (call.namespace(), call.target.name.as_str());
        let reply = self
            .registry
            .patch(&call.context, call.row, call.subresource(), namespace, name, kind, body)
            .await?;
        Ok(call.respond(reply))
    }

    pub(super) async fn delete(
        &self,
        call: &ResourceCall<'_>,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        let body = delete_options(call, body).await?;
        let options = options::delete(call.info, &body.bytes, body.format)?;
        let (namespace, name) = (call.namespace(), call.target.name.as_str());
        let reply = self.registry.delete(&call.context, call.row, namespace, name, options).await?;
        Ok(call.respond(reply))
    }

    pub(super) async fn delete_collection(
        &self,
        call: &ResourceCall<'_>,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        let body = delete_options(call, body).await?;
        let options = options::delete(call.info, &body.bytes, body.format)?;
        let list = ListOptions::from_query(&call.info.query)?;
        let reply = self
            .registry
            .delete_collection(&call.context, call.row, call.namespace(), options, &list)
            .await?;
        Ok(call.respond(reply))
    }
}

/// The body of a delete: options, which every client may send in every format.
async fn delete_options(call: &ResourceCall<'_>, body: Body) -> Result<registry::Body, ApiError> {
    let format = negotiate::body_format(call.headers, Offer::Objects)?;
    Ok(registry::Body { bytes: body::read(body).await?, format })
}

/// The body of a request, in the format its content type says.
async fn object(call: &ResourceCall<'_>, body: Body) -> Result<registry::Body, ApiError> {
    let format = negotiate::body_format(call.headers, call.offer)?;
    Ok(registry::Body { bytes: body::read(body).await?, format })
}
