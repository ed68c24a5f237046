//! What the subresource `resize` may change.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use super::annotations;
use super::resources::Amounts;
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::registry::groups::core::pods::qos;

const MUTABLE: &str = "only cpu and memory resources are mutable";
const RESIZED: [&str; 2] = ["cpu", "memory"];

/// CPU and memory of containers and of the pod may change, as long as the pod keeps its class.
pub fn resize(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    let at = Path::new("spec");
    let none = PodSpec::default();
    let (spec, was) = (new.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    let static_pod = old.metadata.annotations.iter().flatten().any(|(key, _)| key == annotations::MIRROR);
    let refusal = match was.os.as_ref().map(|os| os.name.as_str()) {
        _ if static_pod => Some("static pods cannot be resized"),
        Some("windows") => Some("windows pods cannot be resized"),
        _ => None,
    };
    if let Some(refusal) = refusal {
        *errors = FieldError::forbidden(&Path::new(""), refusal).into();
        return;
    }
    if qos::class(new) != qos::class(old) {
        let class = new.status.as_ref().and_then(|status| status.qos_class.clone()).unwrap_or_default();
        let message = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&at, class, message));
    }
    if !is_supported(old) {
        errors.push(FieldError::forbidden(&at, "Pod running on node without support for resize"));
    }
    let mut munged = spec.clone();
    pod_level(&mut munged, spec, was, &at, errors);
    if !same_order(spec, was, &at, errors) {
        return;
    }
    containers(&mut munged, was, &at, errors);
    if errors.is_empty() && munged != *was {
        errors.push(FieldError::forbidden(&at, MUTABLE));
    }
}

/// A node that reports what its containers have can change it.
fn is_supported(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut running =
        statuses.filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    running.next().is_none_or(|status| status.resources.is_some())
}

fn pod_level(munged: &mut PodSpec, spec: &PodSpec, was: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let set = |own: &Option<ResourceRequirements>| {
        let filled = |amounts: &Option<Amounts>| amounts.as_ref().is_some_and(|own| !own.is_empty());
        own.as_ref().is_some_and(|own| filled(&own.requests) || filled(&own.limits))
    };
    if !set(&spec.resources) && !set(&was.resources) {
        return;
    }
    let at_resources = at.child("resources");
    let (Some(own), before) = (munged.resources.as_mut(), was.resources.as_ref()) else {
        errors.push(FieldError::forbidden(&at_resources, "pod-level resources cannot be removed"));
        return;
    };
    let none = ResourceRequirements::default();
    let old = before.unwrap_or(&none);
    for (field, now, then) in
        [("requests", &own.requests, &old.requests), ("limits", &own.limits, &old.limits)]
    {
        if removed(now.as_ref(), then.as_ref()) {
            let message = format!("pod-level resource {field} cannot be removed");
            errors.push(FieldError::forbidden(&at_resources.child(field), message));
        }
    }
    restore(&mut own.requests, old.requests.as_ref());
    restore(&mut own.limits, old.limits.as_ref());
    if before.is_none() && !set(&munged.resources) {
        munged.resources = None;
    }
    if munged.resources != was.resources {
        let message = "only cpu and memory resources are mutable at pod-level";
        errors.push(FieldError::forbidden(at, message));
    }
}

/// Containers stay in their order; whether they did.
fn same_order(spec: &PodSpec, was: &PodSpec, at: &Path, errors: &mut FieldErrors) -> bool {
    let before = errors.len();
    let lists = [
        ("containers", Some(&spec.containers), Some(&was.containers)),
        ("initContainers", spec.init_containers.as_ref(), was.init_containers.as_ref()),
    ];
    for (field, now, then) in lists {
        let (now, then) = (now.map_or(&[][..], Vec::as_slice), then.map_or(&[][..], Vec::as_slice));
        let at = at.child(field);
        if now.len() != then.len() {
            let message = format!("{field} may not be added or removed on resize");
            errors.push(FieldError::forbidden(&at, message));
            continue;
        }
        for (i, _) in now.iter().zip(then).enumerate().filter(|(_, (now, then))| now.name != then.name) {
            let message = format!("{field} may not be renamed or reordered on resize");
            errors.push(FieldError::forbidden(&at.index(i).child("name"), message));
        }
    }
    errors.len() == before
}

fn containers(munged: &mut PodSpec, was: &PodSpec, at: &Path, errors: &mut FieldErrors) {
    let before = was.init_containers.as_deref().unwrap_or_default();
    for (i, (own, old)) in munged.init_containers.iter_mut().flatten().zip(before).enumerate() {
        amounts_stay(own, old, &at.child("initContainers").index(i), errors);
    }
    for (i, (own, old)) in munged.containers.iter_mut().zip(&was.containers).enumerate() {
        amounts_stay(own, old, &at.child("containers").index(i), errors);
    }
    for (own, old) in munged.containers.iter_mut().zip(&was.containers) {
        mask(own, old);
        if own != old {
            errors.push(FieldError::forbidden(at, MUTABLE));
        }
    }
    for (i, (own, old)) in munged.init_containers.iter_mut().flatten().zip(before).enumerate() {
        let changed = own != old;
        let at = at.child("initContainers").index(i);
        mask(own, old);
        if own != old {
            let message = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.push(FieldError::forbidden(&at, message));
        }
        let restarts = |own: &Container| {
            own.resize_policy.iter().flatten().any(|policy| policy.restart_policy == "RestartContainer")
        };
        if changed && own.restart_policy.as_deref() != Some("Always") && restarts(own) {
            let message =
                "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errors.push(FieldError::forbidden(&at, message));
        }
    }
}

/// What a container asked for or was limited to is not taken away.
fn amounts_stay(own: &Container, old: &Container, at: &Path, errors: &mut FieldErrors) {
    let none = ResourceRequirements::default();
    let (own, old) = (own.resources.as_ref().unwrap_or(&none), old.resources.as_ref().unwrap_or(&none));
    let lists = [("requests", &own.requests, &old.requests), ("limits", &own.limits, &old.limits)];
    for (field, _, _) in lists.into_iter().filter(|(_, now, then)| removed(now.as_ref(), then.as_ref())) {
        let message = format!("resource {field} cannot be removed");
        errors.push(FieldError::forbidden(&at.child("resources").child(field), message));
    }
}

fn removed(new: Option<&Amounts>, old: Option<&Amounts>) -> bool {
    old.into_iter().flatten().any(|(name, _)| new.is_none_or(|new| !new.contains_key(name)))
}

/// Puts the old CPU and memory in the place of the new.
fn restore(new: &mut Option<Amounts>, old: Option<&Amounts>) {
    if new.is_none() && old.is_none() {
        return;
    }
    let amounts = new.get_or_insert_default();
    for name in RESIZED {
        match old.and_then(|old| old.get(name)) {
            Some(amount) => amounts.insert(name.into(), amount.clone()),
            None => amounts.remove(name),
        };
    }
    if amounts.is_empty() && old.is_none() {
        *new = None;
    }
}

/// Makes a container the old one but for what a resize may not change.
fn mask(own: &mut Container, old: &Container) {
    let none = ResourceRequirements::default();
    let was = old.resources.as_ref().unwrap_or(&none);
    let now = own.resources.get_or_insert_default();
    restore(&mut now.requests, was.requests.as_ref());
    restore(&mut now.limits, was.limits.as_ref());
    if old.resources.is_none() && *now == none {
        own.resources = None;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(resources: Value, extra: Value) -> Pod {
        let mut spec = json!({"containers": [{"name": "c", "resources": resources}]});
        for (field, value) in extra.as_object().unwrap() {
            spec[field] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn problems(new: &Pod, old: &Pod) -> Vec<String> {
        let mut errors = FieldErrors::new();
        resize(new, old, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_resize_changes_amounts_of_cpu_and_memory() {
        let of = |resources: Value| pod(resources, json!({}));
        let old = of(json!({"requests": {"cpu": "1", "memory": "1Gi"}}));
        assert!(problems(&of(json!({"requests": {"cpu": "2", "memory": "1Gi"}})), &old).is_empty());
        let limited = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}});
        assert!(problems(&of(limited), &old).is_empty(), "a limit may be added");
        let kept = "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed";
        assert_eq!(problems(&of(json!({"requests": {"cpu": "2"}})), &old), [kept]);
        assert_eq!(
            problems(&of(json!({})), &old),
            ["spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing", kept]
        );
        let other = of(json!({"requests": {"cpu": "1", "memory": "1Gi", "example.com/a": "1"}}));
        assert_eq!(problems(&other, &old), [format!("spec: Forbidden: {MUTABLE}")]);
    }

    #[test]
    fn pods_stay_what_they_are() {
        let own = json!({"requests": {"cpu": "1"}});
        let old = pod(own.clone(), json!({"initContainers": [{"name": "i"}]}));
        for (extra, expected) in [
            (
                json!({}),
                "spec.initContainers: Forbidden: initContainers may not be added or removed on resize",
            ),
            (
                json!({"initContainers": [{"name": "j"}]}),
                "spec.initContainers[0].name: Forbidden: initContainers may not be renamed or reordered on resize",
            ),
            (
                json!({"initContainers": [{"name": "i"}], "hostname": "h"}),
                "spec: Forbidden: only cpu and memory resources are mutable",
            ),
            (
                json!({"initContainers": [{"name": "i", "image": "x"}]}),
                "spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable",
            ),
        ] {
            assert_eq!(problems(&pod(own.clone(), extra.clone()), &old), [expected], "{extra}");
        }
        let windows = pod(own.clone(), json!({"os": {"name": "windows"}}));
        assert_eq!(problems(&windows, &windows), [": Forbidden: windows pods cannot be resized"]);
    }

    #[test]
    fn amounts_of_the_whole_pod_may_change_and_not_go() {
        let whole = |cpu: &str| pod(json!({}), json!({"resources": {"requests": {"cpu": cpu}}}));
        assert!(problems(&whole("2"), &whole("1")).is_empty());
        let found = problems(&pod(json!({}), json!({})), &whole("1"));
        assert!(
            found.contains(&"spec.resources: Forbidden: pod-level resources cannot be removed".into()),
            "{found:?}"
        );
    }
}
