//! What the subresources `resize` and `ephemeralcontainers` may change.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::groups::core::pods::qos;

/// Ephemeral containers are added, and then stay as they are.
pub fn ephemeral_update(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    let list =
        |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default();
    let at = Path::new("spec").child("ephemeralContainers");
    let now = list(new);
    for was in list(old) {
        match now.iter().find(|container| container.name == was.name) {
            None => {
                let message = format!("existing ephemeral containers {:?} may not be removed\n", was.name);
                errors.push(FieldError::forbidden(&at, message));
            }
            Some(container) if *container != was => {
                let message = format!("existing ephemeral containers {:?} may not be changed\n", was.name);
                errors.push(FieldError::forbidden(&at, message));
            }
            Some(_) => {}
        }
    }
}

/// CPU and memory of containers may change, as long as the pod keeps its class.
pub fn resize(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    let at = Path::new("spec");
    if qos::class(new) != qos::class(old) {
        let message = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&at, qos::class(new), message));
    }
    let phase = old.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Failed" | "Succeeded")) {
        let message = "a pod that has ended cannot be resized";
        errors.push(FieldError::forbidden(&at, message));
    }
    let (Some(spec), Some(was)) = (&new.spec, &old.spec) else { return };
    containers(&spec.containers, &was.containers, &at.child("containers"), errors);
    let init = |list: &Option<Vec<Container>>| list.clone().unwrap_or_default();
    let (now, before) = (init(&spec.init_containers), init(&was.init_containers));
    let at = at.child("initContainers");
    for (i, (container, old)) in now.iter().zip(&before).enumerate() {
        if container.restart_policy.as_deref() != Some("Always") && container.resources != old.resources {
            let message = "resources for non-sidecar init containers are immutable";
            errors.push(FieldError::forbidden(&at.index(i).child("resources"), message));
        }
    }
    containers(&now, &before, &at, errors);
}

fn containers(new: &[Container], old: &[Container], at: &Path, errors: &mut FieldErrors) {
    for (i, (container, was)) in new.iter().zip(old).enumerate() {
        let at = at.index(i).child("resources");
        let empty = ResourceRequirements::default();
        let now = container.resources.as_ref().unwrap_or(&empty);
        let before = was.resources.as_ref().unwrap_or(&empty);
        changed(now.limits.as_ref(), before.limits.as_ref(), "limits", &at, errors);
        changed(now.requests.as_ref(), before.requests.as_ref(), "requests", &at, errors);
        if now.claims != before.claims {
            errors.push(FieldError::forbidden(
                &at.child("claims"),
                "only cpu and memory resources are mutable",
            ));
        }
    }
}

type Amounts = BTreeMap<String, RawQuantity>;

fn changed(
    new: Option<&Amounts>,
    old: Option<&Amounts>,
    what: &'static str,
    at: &Path,
    errors: &mut FieldErrors,
) {
    let none = Amounts::new();
    let (new, old) = (new.unwrap_or(&none), old.unwrap_or(&none));
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        let message = format!("resource {what} cannot be removed");
        errors.push(FieldError::forbidden(&at.child(what).key(name.clone()), message));
    }
    for (name, amount) in new.iter().filter(|(name, _)| !matches!(name.as_str(), "cpu" | "memory")) {
        if old.get(name) != Some(amount) {
            let at = at.child(what).key(name.clone());
            errors.push(FieldError::forbidden(&at, "only cpu and memory resources are mutable"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(resources: Value, ephemeral: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"ephemeralContainers": ephemeral,
            "containers": [{"name": "c", "resources": resources}]}}))
        .unwrap()
    }

    fn problems(check: fn(&Pod, &Pod, &mut FieldErrors), new: &Pod, old: &Pod) -> Vec<String> {
        let mut errors = FieldErrors::new();
        check(new, old, &mut errors);
        errors.iter().map(|error| error.field.clone()).collect()
    }

    #[test]
    fn a_resize_changes_amounts_of_cpu_and_memory() {
        let of = |resources: Value| pod(resources, json!([]));
        let old = of(json!({"requests": {"cpu": "1", "memory": "1Gi"}}));
        assert!(problems(resize, &of(json!({"requests": {"cpu": "2", "memory": "1Gi"}})), &old).is_empty());
        assert_eq!(
            problems(resize, &of(json!({"requests": {"cpu": "2"}})), &old),
            ["spec.containers[0].resources.requests[memory]"]
        );
        assert_eq!(problems(resize, &of(json!({})), &old)[0], "spec");
        let other = of(json!({"requests": {"cpu": "1", "memory": "1Gi", "example.com/a": "1"}}));
        assert_eq!(problems(resize, &other, &old), ["spec.containers[0].resources.requests[example.com/a]"]);
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let of = |ephemeral: Value| pod(json!({}), ephemeral);
        let old = of(json!([{"name": "a", "image": "i"}]));
        let more = of(json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]));
        assert!(problems(ephemeral_update, &more, &old).is_empty());
        let at = "spec.ephemeralContainers";
        assert_eq!(problems(ephemeral_update, &of(json!([])), &old), [at]);
        assert_eq!(problems(ephemeral_update, &of(json!([{"name": "a", "image": "j"}])), &old), [at]);
    }
}
