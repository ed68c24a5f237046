//! `NamespaceLifecycle`: nothing is created in a namespace that is missing or ends, and some namespaces stay.

use async_trait::async_trait;
use serde_json::Value;

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::api::meta;
use crate::cache::Consistency;
use crate::registry::object::Object;
use crate::registry::write::Target;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&dyn Object>,
        _: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        if request.operation == Operation::Delete {
            if request.is("", "namespaces") && IMMORTAL.contains(&request.name) {
                return Err(request.forbid("this namespace may not be deleted"));
            }
            return Ok(());
        }
        if request.operation != Operation::Create || !request.resource.namespaced() {
            return Ok(());
        }
        if request.resource.plural == "localsubjectaccessreviews" {
            return Ok(());
        }
        let Some(namespaces) = request.registry.catalog().by_plural("", "v1", "namespaces") else {
            return Ok(());
        };
        let target =
            Target { resource: namespaces, subresource: None, namespace: "", name: request.namespace };
        let namespace = request.registry.read_object(&target, Consistency::Latest).await?;
        if namespace.field("status.phase") != Some("Terminating") {
            return Ok(());
        }
        let name = object.and_then(|object| object.meta().name.clone()).unwrap_or_default();
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            request.namespace
        );
        let value: Value = serde_json::from_slice(namespace.json()).unwrap_or_default();
        let since = meta::deletion_timestamp(&value).unwrap_or_default();
        let message = format!("namespace {} is being terminated", request.namespace);
        let message = if since.is_empty() { message } else { format!("{message} since {since}") };
        Err(ApiError::forbidden(&request.resource.group_resource(), &name, why).with_cause(
            "NamespaceTerminating",
            "metadata.namespace",
            message,
        ))
    }
}
