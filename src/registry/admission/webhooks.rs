//! `MutatingAdmissionWebhook` and `ValidatingAdmissionWebhook`: configured webhooks are asked about requests.
//!
//! The configurations come from the watch cache and are read again when they change. Who calls is a hook of the
//! registry; this module knows no HTTP.

mod call;
pub(super) mod conditions;
pub(super) mod config;
pub(super) mod matching;
mod patch;
pub(super) mod review;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::future::join_all;

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::cache::Snapshot;
use crate::registry::object::Object;
use config::Webhook;
use matching::Subject;

pub use conditions::{environment as condition_environment, policy_environment};

/// The kinds whose configurations these are: nothing configured may stand in the way of repairing it.
const EXEMPT: &str = "admissionregistration.k8s.io";

/// The webhooks of all configurations of one kind, as of one snapshot.
#[derive(Default)]
struct Known(Mutex<Option<(Snapshot, Arc<Vec<Webhook>>)>>);

impl Known {
    /// The webhooks as the cache has them.
    fn webhooks(&self, request: &Request<'_>, plural: &str) -> Arc<Vec<Webhook>> {
        let row = request.registry.catalog().by_plural(EXEMPT, "v1", plural);
        let Some(cache) = row.and_then(|row| request.registry.cache_of(row).ok()) else {
            return Arc::default();
        };
        let now = cache.current();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((snapshot, webhooks)) = known.as_ref()
            && snapshot.holds_the_same_as(&now)
        {
            return webhooks.clone();
        }
        let webhooks = Arc::new(config::read(now.iter(None, None).map(|object| object.json().as_ref())));
        *known = Some((now, webhooks.clone()));
        webhooks
    }
}

/// Whether no webhook and no policy is asked: what configures them must not lock itself out.
pub(super) fn is_exempt(request: &Request<'_>) -> bool {
    request.resource.group == EXEMPT
}

/// Webhooks that may change objects, one after the other.
#[derive(Default)]
pub(super) struct Mutating(Known);

impl Mutating {
    async fn run(
        &self,
        request: &Request<'_>,
        mut object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        if is_exempt(request) {
            return Ok(false);
        }
        let webhooks = self.0.webhooks(request, "mutatingwebhookconfigurations");
        if webhooks.is_empty() {
            return Ok(false);
        }
        let second = request.passes().is_second();
        if let Some(object) = object.as_deref() {
            let now = object.to_value().map_err(ApiError::internal)?;
            request.passes().webhooks.begin(&now);
        }
        let mut changed = false;
        for (i, webhook) in webhooks.iter().enumerate() {
            let key = format!("{}/{i}", webhook.configuration);
            if second && !request.passes().webhooks.wants(&key) {
                continue;
            }
            let Some((called, mutated)) = self.one(request, webhook, again(&mut object), old).await? else {
                continue;
            };
            let mut passes = request.passes();
            if mutated {
                changed = true;
                passes.webhooks.changed();
                passes.want();
            }
            if called && webhook.reinvoke {
                passes.webhooks.note(key);
            }
        }
        if let Some(object) = object.as_deref() {
            let now = object.to_value().map_err(ApiError::internal)?;
            request.passes().webhooks.end(now);
        }
        Ok(changed)
    }

    /// Asks one webhook, if it is to be asked: whether it answered, and whether it changed the object.
    async fn one(
        &self,
        request: &Request<'_>,
        webhook: &Webhook,
        object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<Option<(bool, bool)>, ApiError> {
        let subject = Subject::new(request, object.as_deref(), old)?;
        let Some(form) = matching::matched(request, webhook, &subject).await? else { return Ok(None) };
        let Some(answer) = call::ask(request, webhook, &subject, &form).await? else {
            return Ok(Some((false, false)));
        };
        answer.admitted(request, &webhook.name)?;
        let (Some(patch), Some(object)) = (answer.patch, object) else { return Ok(Some((true, false))) };
        let mutated = patch::apply(request, webhook, &form, &patch, object).await?;
        Ok(Some((true, mutated)))
    }
}

#[async_trait]
impl Plugin for Mutating {
    async fn admit(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        self.run(request, Some(object), old).await
    }

    async fn validate(
        &self,
        request: &Request<'_>,
        _: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        // A delete has no object to change and comes here alone.
        if request.operation == Operation::Delete && old.is_some() {
            self.run(request, None, old).await?;
        }
        Ok(())
    }
}

/// The object once more, for the next webhook.
fn again<'o>(object: &'o mut Option<&mut dyn Object>) -> Option<&'o mut dyn Object> {
    match object {
        Some(object) => Some(&mut **object),
        None => None,
    }
}

/// Asks one validating webhook, if it is to be asked.
async fn judged(request: &Request<'_>, webhook: &Webhook, subject: &Subject) -> Result<(), ApiError> {
    let Some(form) = matching::matched(request, webhook, subject).await? else { return Ok(()) };
    match call::ask(request, webhook, subject, &form).await? {
        Some(answer) => answer.admitted(request, &webhook.name),
        None => Ok(()),
    }
}

/// Webhooks that may refuse requests, all at once.
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
        let webhooks = self.0.webhooks(request, "validatingwebhookconfigurations");
        if webhooks.is_empty() {
            return Ok(());
        }
        let subject = Subject::new(request, object, old)?;
        let mut asked = Vec::with_capacity(webhooks.len());
        for webhook in webhooks.iter() {
            asked.push(judged(request, webhook, &subject));
        }
        join_all(asked).await.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
