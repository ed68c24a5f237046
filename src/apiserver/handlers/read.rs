//! `get` and `list`.

use axum::body::Body;
use http::Response;

use super::ResourceCall;
use crate::api::error::ApiError;
use crate::apiserver::ApiServer;
use crate::registry::{GetOptions, ListOptions};

impl ApiServer {
    pub(super) async fn get(&self, call: &ResourceCall<'_>) -> Result<Response<Body>, ApiError> {
        let options = GetOptions::from_query(&call.info.query);
        let (namespace, name) = (call.namespace(), call.target.name.as_str());
        let reply =
            self.registry.get(&call.context, call.row, call.subresource(), namespace, name, &options).await?;
        Ok(call.respond(reply))
    }

    pub(super) async fn list(&self, call: &ResourceCall<'_>) -> Result<Response<Body>, ApiError> {
        let options = ListOptions::from_query(&call.info.query)?;
        let reply = self.registry.list(&call.context, call.row, call.namespace(), &options).await?;
        Ok(call.respond(reply))
    }
}
