//! `ResourceQuota`: what a request would use is charged to the namespace's quotas, or the request is refused.
//!
//! Runs last, so that nothing is charged for what another plugin refuses. What is charged and then not stored, and what
//! is deleted, the quota controller finds out by counting again.

use std::collections::BTreeSet;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::api::json;
use crate::api::quota::{self, Amounts};
use crate::registry::context::{RequestContext, UserInfo};
use crate::registry::object::Object;
use crate::registry::resource::STATUS;
use crate::registry::write::Target;
use crate::registry::write::body::Incoming;
use crate::registry::write::load::Current;
use crate::registry::write::update::Proposal;

pub(super) struct ResourceQuotaPlugin;

/// Kinds that no quota counts.
const IGNORED: [&str; 1] = ["events"];

#[async_trait]
impl Plugin for ResourceQuotaPlugin {
    async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(object) = object.filter(|_| is_charged(request)) else { return Ok(()) };
        let quotas = request.registry.read_all_latest::<ResourceQuota>(request.namespace).await?;
        let mut charged = Vec::new();
        for quota in &quotas {
            if let Some(name) = concerned(request, quota, object)? {
                charged.push(name);
            }
        }
        if charged.is_empty() {
            return Ok(());
        }
        let mut delta = usage(request, object);
        if let Some(old) = old {
            for (name, before) in usage(request, old) {
                let entry = delta.entry(name).or_insert(crate::api::quantity::Quantity::ZERO);
                *entry = entry.sub(&before);
            }
        }
        delta.retain(|_, amount| !amount.is_zero());
        if delta.is_empty() {
            return Ok(());
        }
        for quota in quotas.iter().filter(|quota| charged.contains(&name_of(quota))) {
            let value = serde_json::to_value(&quota.status).map_err(ApiError::internal)?;
            charge(request, &name_of(quota), &value, &delta)?;
        }
        if request.cx.dry_run {
            return Ok(());
        }
        for name in charged {
            spend(request, &name, &delta).await?;
        }
        Ok(())
    }
}

fn name_of(quota: &ResourceQuota) -> String {
    quota.metadata.name.clone().unwrap_or_default()
}

fn is_charged(request: &Request<'_>) -> bool {
    let resource = request.resource;
    if !resource.namespaced() || IGNORED.contains(&resource.plural.as_ref()) {
        return false;
    }
    let grows = resource.group.is_empty()
        && matches!(
            (resource.plural.as_ref(), request.subresource),
            ("services" | "persistentvolumeclaims", "") | ("pods", "resize")
        );
    match request.operation {
        Operation::Create => request.subresource.is_empty(),
        Operation::Update => grows,
        Operation::Delete | Operation::Connect => false,
    }
}

fn usage(request: &Request<'_>, object: &dyn Object) -> Amounts {
    if let Some(pod) = object.downcast_ref::<Pod>() {
        return quota::pods::usage(pod, Timestamp::now());
    }
    if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
        return quota::claim_usage(claim);
    }
    if let Some(service) = object.downcast_ref::<Service>() {
        return quota::service_usage(service);
    }
    quota::count(&request.resource.group, &request.resource.plural)
}

/// The name of the quota when it is about the object. Fails when the object must say more, or the quota is not yet
/// counted.
fn concerned(
    request: &Request<'_>,
    quota: &ResourceQuota,
    object: &dyn Object,
) -> Result<Option<String>, ApiError> {
    let (group, plural) = (request.resource.group.as_ref(), request.resource.plural.as_ref());
    let scopes = quota::scopes(quota);
    let selected = if let Some(pod) = object.downcast_ref::<Pod>() {
        quota::pods::scopes_select(&scopes, pod)
    } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
        quota::scopes_select_claim(&scopes, claim)
    } else {
        scopes.is_empty()
    };
    let status = quota.status.as_ref();
    // A new quota limits nothing until the controller has counted, as upstream.
    let hard = status.and_then(|status| status.hard.as_ref());
    let limited: BTreeSet<String> = hard
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .filter(|name| quota::concerns(name, group, plural))
        .collect();
    if !selected || limited.is_empty() {
        return Ok(None);
    }
    let name = name_of(quota);
    if let Some(pod) = object.downcast_ref::<Pod>()
        && let Some(missing) = quota::pods::unstated(pod, &limited)
    {
        return Err(request.forbid(format!("failed quota: {name}: must specify {missing}")));
    }
    let used = status.and_then(|status| status.used.as_ref());
    if limited.iter().any(|resource| used.is_none_or(|used| !used.contains_key(resource))) {
        let names: Vec<_> = limited.into_iter().collect();
        let message = format!("status unknown for quota: {name}, resources: {}", names.join(","));
        return Err(request.forbid(message));
    }
    Ok(Some(name))
}

fn shown(amounts: &Amounts) -> String {
    let parts: Vec<String> = amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    parts.join(",")
}

fn amounts(status: &Value, field: &str) -> Amounts {
    json::typed_value(&status[field]).unwrap_or_default()
}

/// What is used after the charge, by the resources that the quota limits; fails when that is too much.
fn charge(request: &Request<'_>, name: &str, status: &Value, delta: &Amounts) -> Result<Amounts, ApiError> {
    let (hard, used) = (amounts(status, "hard"), amounts(status, "used"));
    let (mut after, mut exceeded) = (Amounts::new(), Vec::new());
    for (resource, more) in delta.iter().filter(|(resource, _)| hard.contains_key(*resource)) {
        let sum = used.get(resource).copied().unwrap_or_default().add(more);
        // Nobody is kept from using less.
        if more.sign().is_gt() && sum > hard[resource] {
            exceeded.push(resource.clone());
        }
        after.insert(resource.clone(), sum);
    }
    if exceeded.is_empty() {
        return Ok(after);
    }
    let only = |amounts: &Amounts| -> Amounts {
        amounts.iter().filter(|(name, _)| exceeded.contains(name)).map(|(n, a)| (n.clone(), *a)).collect()
    };
    Err(request.forbid(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        shown(&only(delta)),
        shown(&only(&used)),
        shown(&only(&hard))
    )))
}

/// Writes the charge into the quota's status; somebody else's charge in between is taken into account.
async fn spend(request: &Request<'_>, name: &str, delta: &Amounts) -> Result<(), ApiError> {
    let registry = request.registry;
    let Some(row) = registry.catalog().of::<ResourceQuota>() else { return Ok(()) };
    let target = Target { resource: row, subresource: Some(&STATUS), namespace: request.namespace, name };
    let propose = |now: &Current| {
        let after = charge(request, name, &now.value["status"], delta)?;
        let mut value = now.value.clone();
        let used = &mut value["status"]["used"];
        if !used.is_object() {
            *used = Value::Object(Map::new());
        }
        for (resource, amount) in after {
            used[resource.as_str()] = amount.to_string().into();
        }
        Ok(Proposal { incoming: Incoming { value, duplicates: Vec::new() }, patch: None })
    };
    let mut cx = RequestContext::for_user(std::sync::Arc::new(UserInfo {
        name: "system:apiserver".into(),
        groups: vec!["system:masters".into()],
        ..UserInfo::default()
    }));
    cx.field_manager = "kube-apiserver".into();
    Box::pin(registry.modify(&cx, &target, &propose)).await.map(drop)
}
