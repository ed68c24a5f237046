//! `RuntimeClass`: a pod takes over the overhead and the scheduling rules of its class.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::registry::object::Object;

pub(super) struct RuntimeClassPlugin;

#[async_trait]
impl Plugin for RuntimeClassPlugin {
    async fn admit(
        &self,
        request: &Request<'_>,
        object: &mut dyn Object,
        _: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        if request.operation != Operation::Create || !request.is("", "pods") {
            return Ok(false);
        }
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(false) };
        let name = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.clone());
        let class = match name.filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => match request.registry.find::<RuntimeClass>("", &name).await? {
                Some(class) => Some(class),
                None => {
                    return Err(request.forbid(format!("pod rejected: RuntimeClass {name:?} not found")));
                }
            },
        };
        apply(pod, class.as_ref()).map_err(|why| request.forbid(why))
    }
}

/// Changes the pod as the class demands; the result says whether it did.
fn apply(pod: &mut Pod, class: Option<&RuntimeClass>) -> Result<bool, String> {
    let spec = pod.spec.get_or_insert_default();
    let own = spec.overhead.clone().filter(|overhead| !overhead.is_empty());
    let fixed = class.and_then(|class| class.overhead.as_ref()?.pod_fixed.clone()).filter(|o| !o.is_empty());
    let mut changed = false;
    match (own, fixed) {
        (Some(_), None) => {
            return Err(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into()
            );
        }
        (Some(own), Some(fixed)) if own != fixed => {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        (None, Some(fixed)) => {
            spec.overhead = Some(fixed);
            changed = true;
        }
        _ => {}
    }
    let Some(scheduling) = class.and_then(|class| class.scheduling.as_ref()) else { return Ok(changed) };
    for (key, value) in scheduling.node_selector.iter().flatten() {
        let selector = spec.node_selector.get_or_insert_default();
        match selector.get(key) {
            Some(own) if own != value => {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
                ));
            }
            _ => drop(selector.insert(key.clone(), value.clone())),
        }
        changed = true;
    }
    for toleration in scheduling.tolerations.iter().flatten() {
        let own = spec.tolerations.get_or_insert_default();
        if !own.contains(toleration) {
            own.push(toleration.clone());
            changed = true;
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_pod_takes_over_what_its_class_says() {
        let class: RuntimeClass = serde_json::from_value(json!({"metadata": {"name": "c"}, "handler": "h",
            "overhead": {"podFixed": {"cpu": "10m"}}, "scheduling": {"nodeSelector": {"a": "b"}}}))
        .unwrap();
        let mut object = pod(json!({}));
        assert_eq!(apply(&mut object, Some(&class)), Ok(true));
        let spec = object.spec.unwrap();
        assert_eq!(spec.overhead.unwrap()["cpu"].0, "10m");
        assert_eq!(spec.node_selector.unwrap()["a"], "b");
        assert!(apply(&mut pod(json!({"nodeSelector": {"a": "x"}})), Some(&class)).is_err());
        assert!(apply(&mut pod(json!({"overhead": {"cpu": "1"}})), Some(&class)).is_err());
        assert!(apply(&mut pod(json!({"overhead": {"cpu": "1"}})), None).is_err());
        assert_eq!(apply(&mut pod(json!({})), None), Ok(false));
    }
}
