//! `ValidatingAdmissionPolicy` and `MutatingAdmissionPolicy`: expressions in the cluster that have a say in writes.

mod bindings;
mod config;
mod mutate;
mod params;
mod scope;
mod status;
mod validate;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::webhooks::matching::Subject;
use super::{Operation, Plugin, Request, webhooks};
use crate::api::error::ApiError;
use crate::cache::Snapshot;
use crate::registry::object::Object;
use config::Policy;

const GROUP: &str = "admissionregistration.k8s.io";

/// Snapshots of policies and bindings, and what was read from the two.
type Parsed = (Snapshot, Snapshot, Arc<Vec<Policy>>);

/// The policies of one kind with their bindings, as of two snapshots.
#[derive(Default)]
struct Known(Mutex<Option<Parsed>>);

impl Known {
    fn policies(&self, request: &Request<'_>, policies: &str, bindings: &str) -> Arc<Vec<Policy>> {
        let current = |plural: &str| {
            let row = request.registry.catalog().by_plural(GROUP, "v1", plural)?;
            Some(request.registry.cache_of(row).ok()?.current())
        };
        let (Some(policies), Some(bindings)) = (current(policies), current(bindings)) else {
            return Arc::default();
        };
        if policies.is_empty() || bindings.is_empty() {
            return Arc::default();
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((own, bound, parsed)) = known.as_ref()
            && own.holds_the_same_as(&policies)
            && bound.holds_the_same_as(&bindings)
        {
            return parsed.clone();
        }
        let parsed = Arc::new(config::read(&policies, &bindings));
        *known = Some((policies, bindings, parsed.clone()));
        parsed
    }
}

/// Policies that may refuse requests.
#[derive(Default)]
pub(super) struct Validating(Known);

#[async_trait]
impl Plugin for Validating {
    async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        if is_exempt(request) || (request.operation == Operation::Delete && old.is_none()) {
            return Ok(());
        }
        let policies =
            self.0.policies(request, "validatingadmissionpolicies", "validatingadmissionpolicybindings");
        if policies.is_empty() {
            return Ok(());
        }
        let subject = Subject::new(request, object, old)?;
        for policy in policies.iter() {
            validate::run(request, policy, &subject).await?;
        }
        Ok(())
    }
}

/// Policies that may change objects.
#[derive(Default)]
pub(super) struct Mutating(Known);

#[async_trait]
impl Plugin for Mutating {
    async fn admit(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        if is_exempt(request) {
            return Ok(false);
        }
        let policies =
            self.0.policies(request, "mutatingadmissionpolicies", "mutatingadmissionpolicybindings");
        if policies.is_empty() {
            return Ok(false);
        }
        let second = request.passes().is_second();
        let now = object.to_value().map_err(ApiError::internal)?;
        request.passes().policies.begin(&now);
        let mut changed = false;
        for policy in policies.iter() {
            if second && !request.passes().policies.wants(&policy.name) {
                continue;
            }
            let mutated = mutate::run(request, policy, object, old).await?;
            let mut passes = request.passes();
            if mutated {
                changed = true;
                passes.policies.changed();
                passes.want();
            }
            if policy.reinvoke {
                passes.policies.note(policy.name.clone());
            }
        }
        let now = object.to_value().map_err(ApiError::internal)?;
        request.passes().policies.end(now);
        Ok(changed)
    }
}

/// Policies are not asked about reviews either, other than webhooks: as upstream.
fn is_exempt(request: &Request<'_>) -> bool {
    let group = request.resource.group.as_ref();
    webhooks::is_exempt(request) || matches!(group, "authentication.k8s.io" | "authorization.k8s.io")
}

#[cfg(test)]
mod tests;
