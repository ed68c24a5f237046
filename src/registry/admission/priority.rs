//! `Priority`: resolves a pod's priority class to a number.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::registry::object::Object;

pub(super) struct Priority;

struct Resolved {
    name: String,
    value: i32,
    policy: String,
}

fn resolved(class: &PriorityClass) -> Resolved {
    Resolved {
        name: class.metadata.name.clone().unwrap_or_default(),
        value: class.value.unwrap_or(0),
        policy: class.preemption_policy.clone().unwrap_or_else(|| "PreemptLowerPriority".into()),
    }
}

fn resolve(request: &Request<'_>, name: &str) -> Result<Resolved, ApiError> {
    if name.is_empty() {
        let mut defaults: Vec<PriorityClass> = request.registry.read_all::<PriorityClass>("")?;
        defaults.retain(|class| class.global_default == Some(true));
        let lowest = defaults.iter().min_by_key(|class| class.value);
        return Ok(lowest.map_or_else(
            || Resolved { name: String::new(), value: 0, policy: "PreemptLowerPriority".into() },
            resolved,
        ));
    }
    match request.registry.read_one::<PriorityClass>("", name)? {
        Some(class) => Ok(resolved(&class)),
        None => Err(request.forbid(format!("no PriorityClass with name {name} was found"))),
    }
}

#[async_trait]
impl Plugin for Priority {
    async fn admit(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        if !request.is("", "pods") {
            return Ok(false);
        }
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(false) };
        let spec = pod.spec.get_or_insert_default();
        if request.operation == Operation::Update {
            let Some(old) = old.and_then(|old| old.downcast_ref::<Pod>()).and_then(|old| old.spec.as_ref())
            else {
                return Ok(false);
            };
            spec.priority = spec.priority.or(old.priority);
            spec.preemption_policy = spec.preemption_policy.take().or_else(|| old.preemption_policy.clone());
            return Ok(false);
        }
        let class = resolve(request, spec.priority_class_name.as_deref().unwrap_or_default())?;
        if spec.priority.is_some_and(|priority| priority != class.value) {
            return Err(request.forbid(format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller \
                 computed {} from the given PriorityClass name",
                spec.priority.unwrap_or_default(),
                class.value
            )));
        }
        if spec.preemption_policy.as_deref().is_some_and(|policy| policy != class.policy) {
            return Err(request.forbid(format!(
                "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission \
                 controller computed {} from the given PriorityClass name",
                spec.preemption_policy.as_deref().unwrap_or_default(),
                class.policy
            )));
        }
        if !class.name.is_empty() {
            spec.priority_class_name = Some(class.name);
        }
        spec.priority = Some(class.value);
        spec.preemption_policy = Some(class.policy);
        Ok(true)
    }
}
