//! `Priority`: resolves a pod's priority class to a number.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::cache::Snapshot;
use crate::registry::object::Object;
use crate::registry::service::decode_all;

#[derive(Default)]
pub(super) struct Priority {
    /// What pods without a class get, and of what state of the classes that was read.
    usual: Mutex<Option<(Snapshot, Resolved)>>,
}

#[derive(Clone)]
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

impl Priority {
    /// The priority of pods that name no class.
    async fn usual(&self, request: &Request<'_>) -> Result<Resolved, ApiError> {
        let Some(classes) = request.registry.snapshot_of::<PriorityClass>().await? else {
            return Ok(usual(Vec::new()));
        };
        let known = self.usual.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, usual)) = known.filter(|(seen, _)| seen.holds_the_same_as(&classes)) {
            return Ok(usual);
        }
        let usual = usual(decode_all(&classes, "")?);
        *self.usual.lock().unwrap_or_else(PoisonError::into_inner) = Some((classes, usual.clone()));
        Ok(usual)
    }
}

fn usual(mut classes: Vec<PriorityClass>) -> Resolved {
    classes.retain(|class| class.global_default == Some(true));
    let lowest = classes.iter().min_by_key(|class| class.value);
    let none = || Resolved { name: String::new(), value: 0, policy: "PreemptLowerPriority".into() };
    lowest.map_or_else(none, resolved)
}

async fn resolve(request: &Request<'_>, name: &str) -> Result<Resolved, ApiError> {
    match request.registry.find::<PriorityClass>("", name).await? {
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
        let class = match spec.priority_class_name.as_deref().unwrap_or_default() {
            "" => self.usual(request).await?,
            name => resolve(request, name).await?,
        };
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

    /// One class at most is the default of the cluster.
    async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&dyn Object>,
        _: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        if request.operation == Operation::Delete || !request.is("scheduling.k8s.io", "priorityclasses") {
            return Ok(());
        }
        let Some(class) = object.and_then(|object| object.downcast_ref::<PriorityClass>()) else {
            return Ok(());
        };
        if class.global_default != Some(true) {
            return Ok(());
        }
        let others = request.registry.read_all_latest::<PriorityClass>("").await?;
        let mut others = others.into_iter().filter(|other| other.metadata.name != class.metadata.name);
        match others.find(|other| other.global_default == Some(true)).and_then(|other| other.metadata.name) {
            Some(other) => Err(request.forbid(format!(
                "PriorityClass {other} is already marked as default. Only one default can exist"
            ))),
            None => Ok(()),
        }
    }
}
