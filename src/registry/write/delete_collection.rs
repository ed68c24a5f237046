//! Deleting what a list selects.

use std::sync::Arc;

use futures::stream::{self, StreamExt};

use super::Target;
use crate::api::error::ApiError;
use crate::cache::Object;
use crate::registry::context::RequestContext;
use crate::registry::options::{DeleteOptions, ListOptions};
use crate::registry::resource::Resource;
use crate::registry::service::{Registry, Reply};

/// Deletes under way at one time; their writes share commits.
const CONCURRENCY: usize = 16;

impl Registry {
    pub(in crate::registry) async fn delete_selected(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        namespace: &str,
        options: &DeleteOptions,
        list: &ListOptions,
    ) -> Result<Reply, ApiError> {
        let page = self.select(resource, namespace, list).await?;
        // A plain loop over owned handles: the futures stay `Send` for callers that spawn them.
        let mut pending = stream::FuturesUnordered::new();
        let mut rest = page.objects.iter().cloned();
        let mut first_error = None;
        loop {
            while pending.len() < CONCURRENCY
                && let Some(object) = rest.next()
            {
                pending.push(self.delete_one(cx, resource, object, options));
            }
            match pending.next().await {
                None => break,
                Some(Err(error)) if error.code() != 404 && first_error.is_none() => first_error = Some(error),
                Some(_) => {}
            }
        }
        drop(pending);
        if let Some(error) = first_error {
            return Err(error);
        }
        self.render_list(cx, resource, page).await
    }

    async fn delete_one(
        &self,
        cx: &RequestContext,
        resource: &Resource,
        object: Arc<Object>,
        options: &DeleteOptions,
    ) -> Result<Reply, ApiError> {
        let target =
            Target { resource, subresource: None, namespace: object.namespace(), name: object.name() };
        self.delete_object(cx, &target, options).await
    }
}
