//! ComponentStatuses: whether the parts of the control plane are at work, as `kubectl get componentstatuses` shows.

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ComponentStatus;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::registry::computed::Computed;
use crate::registry::service::Registry;
use crate::registry::strategy::Strategy;
use crate::registry::table::{Column, NAME, column, name_cell};

/// The columns of ComponentStatuses.
pub const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "Whether the component is healthy."),
    column("Message", "string", "What it says."),
    column("Error", "string", "What is wrong."),
];

const SYSTEM: &str = "kube-system";
/// Components and the leases that they hold while they work.
const HOLDERS: [(&str, &str); 2] =
    [("scheduler", "kube-scheduler"), ("controller-manager", "kube-controller-manager")];

/// The strategy of ComponentStatuses.
pub struct ComponentStatusStrategy;
/// Makes them: the store is asked, the others are known by the leases they renew.
pub struct Components;

#[async_trait]
impl Computed for Components {
    async fn objects(&self, registry: &Registry) -> Result<Vec<Value>, ApiError> {
        let mut found = Vec::new();
        for (name, lease) in HOLDERS {
            let lease: Option<Lease> = registry.read_one(SYSTEM, lease)?;
            found.push(component(name, holds(lease.as_ref(), Timestamp::now())));
        }
        found.push(component("etcd-0", registry.storage_health()));
        Ok(found)
    }
}

/// Whether somebody has renewed the lease in time.
fn holds(lease: Option<&Lease>, now: Timestamp) -> Result<(), String> {
    let spec = lease.and_then(|lease| lease.spec.as_ref()).ok_or("nobody holds its lease")?;
    let renewed = spec.renew_time.as_ref().ok_or("nobody holds its lease")?;
    let length = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or(15).into());
    if renewed.0.saturating_add(length).unwrap_or(now) < now {
        return Err(format!("its lease was last renewed at {}", renewed.0));
    }
    Ok(())
}

fn component(name: &str, health: Result<(), String>) -> Value {
    let mut condition = json!({"type": "Healthy", "status": "True", "message": "ok"});
    if let Err(why) = health {
        condition = json!({"type": "Healthy", "status": "False", "message": why});
    }
    json!({
        "apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": [condition],
    })
}

impl Strategy for ComponentStatusStrategy {
    type Object = ComponentStatus;

    fn cells(&self, object: &ComponentStatus, _: Timestamp) -> Vec<Value> {
        let healthy = object.conditions.iter().flatten().find(|condition| condition.type_ == "Healthy");
        let status = match healthy.map(|condition| condition.status.as_str()) {
            Some("True") => "Healthy",
            Some(_) => "Unhealthy",
            None => "Unknown",
        };
        vec![
            name_cell(&object.metadata),
            status.into(),
            healthy.and_then(|c| c.message.clone()).unwrap_or_default().into(),
            healthy.and_then(|c| c.error.clone()).unwrap_or_default().into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_healthy_while_its_lease_is_renewed() {
        let lease: Lease = serde_json::from_value(json!({"metadata": {"name": "l"},
            "spec": {"renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 15}}))
        .unwrap();
        let at = |text: &str| text.parse().unwrap();
        assert!(holds(Some(&lease), at("2026-01-01T00:00:10Z")).is_ok());
        assert!(holds(Some(&lease), at("2026-01-01T00:00:20Z")).is_err());
        assert!(holds(None, at("2026-01-01T00:00:20Z")).is_err());
    }
}
