//! Admission: what may change or refuse a write between decoding and storing, in a fixed order.

mod certificates;
mod default_ingress_class;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod policies;
mod priority;
mod reinvocation;
mod resource_quota;
pub(in crate::registry) mod rights;
mod role_escalation;
mod runtime_class;
mod service_account;
mod storage;
mod tolerations;
pub(in crate::registry) mod topology_labels;
mod webhooks;

pub use webhooks::{condition_environment, policy_environment};

use std::sync::Mutex;

use async_trait::async_trait;

use crate::api::error::ApiError;
use crate::registry::context::RequestContext;
use crate::registry::object::Object;
use crate::registry::resource::Resource;
use crate::registry::service::Registry;
use crate::registry::write::Target;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A create, or an action such as a binding.
    Create,
    /// An update or patch.
    Update,
    /// A delete.
    Delete,
    /// A connection to what is behind an object: `exec`, `attach`, `portforward`, `proxy`.
    Connect,
}

/// A request as plugins see it.
pub struct Request<'a> {
    /// The registry, to read other objects.
    pub registry: &'a Registry,
    /// Who asks, and how.
    pub cx: &'a RequestContext,
    /// The row.
    pub resource: &'a Resource,
    /// Name of the subresource, or nothing.
    pub subresource: &'a str,
    /// Namespace, empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Name, empty for creates.
    pub name: &'a str,
    /// What is done.
    pub operation: Operation,
    /// Name for messages: that of the object where the URL has none.
    shown: String,
    /// What the mutating half remembers from its first pass.
    passes: Mutex<reinvocation::Passes>,
}

impl<'a> Request<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        cx: &'a RequestContext,
        target: &'a Target<'_>,
        operation: Operation,
    ) -> Self {
        Self {
            registry,
            cx,
            resource: target.resource,
            subresource: target.part(),
            namespace: target.namespace,
            name: target.name,
            operation,
            shown: target.name.to_owned(),
            passes: Mutex::default(),
        }
    }

    /// Names the object in messages where the URL does not.
    pub(super) fn about(mut self, object: &dyn Object) -> Self {
        if self.shown.is_empty() {
            self.shown = object.meta().name.clone().unwrap_or_default();
        }
        self
    }

    /// Whether the request is about this kind itself, not a subresource.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural && self.subresource.is_empty()
    }

    /// 403 in the request's name.
    pub fn forbid(&self, why: impl std::fmt::Display) -> ApiError {
        ApiError::forbidden(&self.resource.group_resource(), &self.shown, why)
    }
}

/// One admission plugin. It may read everything, and change only the object.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// May change the object; the result says whether it did.
    async fn admit(
        &self,
        _request: &Request<'_>,
        _object: &mut dyn Object,
        _old: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        Ok(false)
    }

    /// May refuse the request. A delete has no object.
    async fn validate(
        &self,
        _request: &Request<'_>,
        _object: Option<&dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The plugins in their order.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Chain {
    /// The built-in plugins.
    pub fn builtin() -> Self {
        Self {
            plugins: vec![
                Box::new(namespace_lifecycle::NamespaceLifecycle),
                Box::new(limit_ranger::LimitRanger),
                Box::new(service_account::ServiceAccountPlugin),
                Box::new(node_restriction::NodeRestriction),
                Box::new(node_restriction::TaintNodesByCondition),
                Box::new(pod_security::PodSecurity),
                Box::new(priority::Priority::default()),
                Box::new(tolerations::DefaultTolerationSeconds),
                Box::new(storage::DefaultStorageClass),
                Box::new(storage::ClaimResize),
                Box::new(storage::ObjectInUseProtection),
                Box::new(topology_labels::PodTopologyLabels),
                Box::new(runtime_class::RuntimeClassPlugin),
                Box::new(certificates::Certificates),
                Box::new(default_ingress_class::DefaultIngressClass),
                Box::new(role_escalation::RoleEscalation),
                Box::new(policies::Mutating::default()),
                Box::new(webhooks::Mutating::default()),
                Box::new(policies::Validating::default()),
                Box::new(webhooks::Validating::default()),
                Box::new(resource_quota::ResourceQuotaPlugin),
            ],
        }
    }

    /// Runs the mutating half; the result says whether any plugin changed the object.
    ///
    /// As upstream, what a webhook or a policy has changed is shown to all plugins once more: a container that was added
    /// gets its token and its limits. Of webhooks and policies only those take part that wish to be asked again.
    pub async fn admit(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        let mut changed = self.pass(request, object, old).await?;
        if request.second_pass() {
            if request.operation != Operation::Connect {
                request.resource.behaviour.default(object);
            }
            changed |= self.pass(request, object, old).await?;
        }
        Ok(changed)
    }

    async fn pass(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        let mut changed = false;
        for plugin in &self.plugins {
            changed |= plugin.admit(request, object, old).await?;
        }
        Ok(changed)
    }

    /// Runs the validating half.
    pub async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        for plugin in &self.plugins {
            plugin.validate(request, object, old).await?;
        }
        Ok(())
    }
}
