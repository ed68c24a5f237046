//! Reads of one object.

use crate::api::error::ApiError;
use crate::cache::{Consistency, Object};
use crate::registry::context::RequestContext;
use crate::registry::options::GetOptions;
use crate::registry::service::{Registry, Reply};
use crate::registry::write::Target;
use crate::registry::{errors, render};
use crate::store::Revision;

/// Parses a resourceVersion parameter; `None` when it is empty.
pub fn parse_version(text: &str) -> Result<Option<u64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        ApiError::bad_request(format!(
            "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

impl Registry {
    /// The cached object, as fresh as asked for.
    pub(in crate::registry) async fn read_object(
        &self,
        target: &Target<'_>,
        at: Consistency,
    ) -> Result<std::sync::Arc<Object>, ApiError> {
        let cache = self.cache_of(target.resource)?;
        let found = cache
            .get_at(target.namespace, target.name, at)
            .await
            .map_err(|error| errors::cache(target.resource, error))?;
        found.ok_or_else(|| ApiError::not_found(&target.resource.group_resource(), target.name))
    }

    pub(in crate::registry) async fn get_object(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        options: &GetOptions,
    ) -> Result<Reply, ApiError> {
        let at = match parse_version(&options.resource_version)? {
            None => Consistency::Latest,
            Some(0) => Consistency::Any,
            Some(version) => Consistency::NotOlderThan(Revision(version)),
        };
        let object = self.read_object(target, at).await?;
        let own = render::own_form(target.resource, object.json()).await?;
        render::one(cx.representation, target.resource, own).map(Reply::ok)
    }
}
