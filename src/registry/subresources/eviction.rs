//! `pods/eviction`: a delete that respects disruption budgets.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::binding::success;
use crate::api::error::ApiError;
use crate::api::json;
use crate::api::meta;
use crate::api::selector::LabelSelector;
use crate::cache::Consistency;
use crate::registry::context::{Body, RequestContext};
use crate::registry::decode;
use crate::registry::options::DeleteOptions;
use crate::registry::resource::STATUS;
use crate::registry::service::{Registry, Reply};
use crate::registry::write::Target;
use crate::registry::write::body::{self, Incoming};
use crate::registry::write::load::Current;
use crate::registry::write::update::Proposal;

const VIOLATION: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

impl Registry {
    pub(in crate::registry) async fn evict_pod(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        body: &Body,
    ) -> Result<Reply, ApiError> {
        let incoming = body::parse(body, ("policy/v1", "Eviction"))?;
        let (eviction, _) = decode::decode_any::<Eviction>(incoming.value)
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        if eviction.metadata.name.as_deref().is_some_and(|name| !name.is_empty() && name != target.name) {
            return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut options = DeleteOptions::from_meta(eviction.delete_options)?;
        options.dry_run |= cx.dry_run;
        let main = Target { subresource: None, ..*target };
        let found = self.read_object(&main, Consistency::Latest).await?;
        let pod: Pod = json::typed(found.json()).map_err(ApiError::internal)?;
        if !free_to_go(&pod) {
            self.spend_budget(cx, target, &pod, options.dry_run).await?;
        }
        self.delete_object(cx, &main, &options).await?;
        success(201)
    }

    async fn spend_budget(
        &self,
        cx: &RequestContext,
        target: &Target<'_>,
        pod: &Pod,
        dry_run: bool,
    ) -> Result<(), ApiError> {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let mut budgets: Vec<PodDisruptionBudget> = self.read_all(target.namespace)?;
        budgets.retain(|budget| {
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            LabelSelector::from_meta(selector).is_ok_and(|selector| selector.matches_map(&labels))
        });
        if budgets.len() > 1 {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        let Some(budget) = budgets.pop() else { return Ok(()) };
        if !is_ready(pod) && lets_unhealthy_go(&budget) {
            return Ok(());
        }
        let Some(name) = budget.metadata.name else { return Ok(()) };
        let Some(row) = self.catalog().of::<PodDisruptionBudget>() else { return Ok(()) };
        let budget =
            Target { resource: row, subresource: Some(&STATUS), namespace: target.namespace, name: &name };
        let propose = |now: &Current| {
            let value = spend(&now.value, target.name)?;
            Ok(Proposal { incoming: Incoming { value, duplicates: Vec::new() }, patch: None })
        };
        let mut own = RequestContext::for_user(cx.user.clone());
        own.dry_run = dry_run;
        self.modify(&own, &budget, &propose).await.map(|_| ())
    }
}

/// Whether a pod's eviction disrupts nobody.
fn free_to_go(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.metadata.deletion_timestamp.is_some()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A pod that serves nobody goes for free: always, or as long as enough others serve.
fn lets_unhealthy_go(budget: &PodDisruptionBudget) -> bool {
    let policy = budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    let status = budget.status.clone().unwrap_or_default();
    let (healthy, desired) = (status.current_healthy.unwrap_or(0), status.desired_healthy.unwrap_or(0));
    policy == Some("AlwaysAllow") || (desired > 0 && healthy >= desired)
}

fn spend(budget: &Value, pod: &str) -> Result<Value, ApiError> {
    let status = &budget["status"];
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    if number("observedGeneration") < meta::generation(budget) {
        let message =
            format!("The disruption budget {} is still being processed by the server.", meta::name(budget));
        return Err(ApiError::too_many_requests(VIOLATION, 10).with_cause("DisruptionBudget", "", message));
    }
    if number("disruptionsAllowed") <= 0 {
        let message = format!(
            "The disruption budget {} needs {} healthy pods and has {} currently",
            meta::name(budget),
            number("desiredHealthy"),
            number("currentHealthy")
        );
        return Err(ApiError::too_many_requests(VIOLATION, 0).with_cause("DisruptionBudget", "", message));
    }
    let mut changed = budget.clone();
    changed["status"]["disruptionsAllowed"] = (number("disruptionsAllowed") - 1).into();
    if !changed["status"]["disruptedPods"].is_object() {
        changed["status"]["disruptedPods"] = json!({});
    }
    changed["status"]["disruptedPods"][pod] =
        serde_json::to_value(Time(Timestamp::now())).map_err(ApiError::internal)?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unhealthy_pods_go_for_free_when_the_policy_or_the_others_allow_it() {
        for (policy, healthy, desired, expected) in [
            (None, 2, 2, true),
            (None, 1, 2, false),
            (Some("IfHealthyBudget"), 1, 2, false),
            (Some("AlwaysAllow"), 0, 2, true),
            (None, 0, 0, false),
        ] {
            let budget = json!({"metadata": {}, "spec": {"unhealthyPodEvictionPolicy": policy},
                "status": {"currentHealthy": healthy, "desiredHealthy": desired}});
            let budget = serde_json::from_value(budget).unwrap();
            assert_eq!(lets_unhealthy_go(&budget), expected, "{policy:?} {healthy} {desired}");
        }
    }

    #[test]
    fn a_budget_is_spent_until_it_is_empty() {
        let budget = json!({"metadata": {"name": "b", "generation": 1},
            "status": {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 2, "currentHealthy": 3}});
        let spent = spend(&budget, "p").unwrap();
        assert_eq!(spent["status"]["disruptionsAllowed"], 0);
        assert!(spent["status"]["disruptedPods"]["p"].is_string());
        let error = spend(&spent, "q").unwrap_err();
        assert_eq!((error.code(), error.message()), (429, VIOLATION));
        let mut stale = budget;
        stale["metadata"]["generation"] = 2.into();
        assert_eq!(spend(&stale, "p").unwrap_err().code(), 429);
    }
}
