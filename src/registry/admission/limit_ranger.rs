//! `LimitRanger`: containers get a namespace's default requests and limits, and nothing is bigger or smaller than it
//! may be.

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use super::{Operation, Plugin, Request};
use crate::api::error::ApiError;
use crate::api::quantity::Quantity;
use crate::api::quota::{self, Amounts, pods::Which};
use crate::registry::object::Object;

pub(super) struct LimitRanger;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

#[async_trait]
impl Plugin for LimitRanger {
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
        let mut changed = false;
        for range in request.registry.read_all_latest::<LimitRange>(request.namespace).await? {
            changed |= apply_defaults(pod, &range);
        }
        Ok(changed)
    }

    async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&dyn Object>,
        _: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let creates_pod = request.operation == Operation::Create && request.is("", "pods");
        let resizes_pod = request.operation == Operation::Update
            && request.resource.plural == "pods"
            && request.subresource == "resize";
        let claims = request.operation != Operation::Delete && request.is("", "persistentvolumeclaims");
        let Some(object) = object.filter(|_| creates_pod || resizes_pod || claims) else { return Ok(()) };
        let mut problems = Vec::new();
        for range in request.registry.read_all_latest::<LimitRange>(request.namespace).await? {
            for item in range.spec.iter().flat_map(|spec| &spec.limits) {
                if let Some(spec) = object.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref()) {
                    check_pod(item, spec, &mut problems);
                } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
                    check_claim(item, claim, &mut problems);
                }
            }
        }
        match problems.len() {
            0 => Ok(()),
            1 => Err(request.forbid(&problems[0])),
            _ => Err(request.forbid(format!("[{}]", problems.join(", ")))),
        }
    }
}

/// Fills in what containers do not say; the result says whether anything was.
fn apply_defaults(pod: &mut Pod, range: &LimitRange) -> bool {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let items = range.spec.iter().flat_map(|spec| &spec.limits);
    for item in items.filter(|item| item.type_ == "Container") {
        requests.extend(item.default_request.clone().unwrap_or_default());
        limits.extend(item.default.clone().unwrap_or_default());
    }
    let spec = pod.spec.get_or_insert_default();
    let mut notes = Vec::new();
    let lists =
        [("container", Some(&mut spec.containers)), ("init container", spec.init_containers.as_mut())];
    for (kind, containers) in lists {
        for container in containers.into_iter().flatten() {
            fill(container, kind, &requests, &limits, &mut notes);
        }
    }
    if notes.is_empty() {
        return false;
    }
    let text = format!("LimitRanger plugin set: {}", notes.join("; "));
    pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.into(), text);
    true
}

type Raw = BTreeMap<String, RawQuantity>;

fn fill(container: &mut Container, kind: &str, requests: &Raw, limits: &Raw, notes: &mut Vec<String>) {
    let resources = container.resources.get_or_insert_with(ResourceRequirements::default);
    for (what, defaults, own) in
        [("request", requests, &mut resources.requests), ("limit", limits, &mut resources.limits)]
    {
        let missing: Vec<&String> =
            defaults.keys().filter(|name| own.as_ref().is_none_or(|own| !own.contains_key(*name))).collect();
        if missing.is_empty() {
            continue;
        }
        let names: Vec<&str> = missing.iter().map(|name| name.as_str()).collect();
        notes.push(format!("{} {what} for {kind} {}", names.join(", "), container.name));
        let own = own.get_or_insert_default();
        missing.into_iter().for_each(|name| drop(own.insert(name.clone(), defaults[name].clone())));
    }
}

fn check_pod(item: &LimitRangeItem, spec: &PodSpec, problems: &mut Vec<String>) {
    match item.type_.as_str() {
        "Container" => {
            for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                let resources = container.resources.as_ref();
                let requests = quota::parse(resources.and_then(|resources| resources.requests.as_ref()));
                let limits = quota::parse(resources.and_then(|resources| resources.limits.as_ref()));
                check(item, &requests, &limits, problems);
            }
        }
        "Pod" => {
            let requests = quota::pods::total(spec, Which::Requests);
            let limits = quota::pods::total(spec, Which::Limits);
            check(item, &requests, &limits, problems);
        }
        _ => {}
    }
}

fn check_claim(item: &LimitRangeItem, claim: &PersistentVolumeClaim, problems: &mut Vec<String>) {
    if item.type_ != "PersistentVolumeClaim" {
        return;
    }
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = quota::parse(resources.and_then(|resources| resources.requests.as_ref()));
    let kind = &item.type_;
    for (name, min) in quota::parse(item.min.as_ref()) {
        match requests.get(&name) {
            None => {
                problems.push(format!("minimum {name} usage per {kind} is {min}.  No request is specified"))
            }
            Some(request) if *request < min => {
                problems.push(format!("minimum {name} usage per {kind} is {min}, but request is {request}"));
            }
            Some(_) => {}
        }
    }
    for (name, max) in quota::parse(item.max.as_ref()) {
        match requests.get(&name) {
            None => {
                problems.push(format!("maximum {name} usage per {kind} is {max}.  No request is specified"))
            }
            Some(request) if *request > max => {
                problems.push(format!("maximum {name} usage per {kind} is {max}, but request is {request}"));
            }
            Some(_) => {}
        }
    }
}

fn check(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
    let kind = &item.type_;
    for (name, min) in quota::parse(item.min.as_ref()) {
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => {
                problems.push(format!("minimum {name} usage per {kind} is {min}.  No request is specified"));
            }
            (Some(request), _) if *request < min => {
                problems.push(format!("minimum {name} usage per {kind} is {min}, but request is {request}"));
            }
            (_, Some(limit)) if *limit < min => {
                problems.push(format!("minimum {name} usage per {kind} is {min}, but limit is {limit}"));
            }
            _ => {}
        }
    }
    for (name, max) in quota::parse(item.max.as_ref()) {
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => {
                problems.push(format!("maximum {name} usage per {kind} is {max}.  No limit is specified"));
            }
            (_, Some(limit)) if *limit > max => {
                problems.push(format!("maximum {name} usage per {kind} is {max}, but limit is {limit}"));
            }
            (Some(request), _) if *request > max => {
                problems.push(format!("maximum {name} usage per {kind} is {max}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, most) in quota::parse(item.max_limit_request_ratio.as_ref()) {
        ratio(&name, most, kind, requests.get(&name), limits.get(&name), problems);
    }
}

fn ratio(
    name: &str,
    most: Quantity,
    kind: &str,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
    problems: &mut Vec<String>,
) {
    let start = format!("{name} max limit to request ratio per {kind} is {most}");
    let (Some(request), Some(limit)) = (request.filter(|r| !r.is_zero()), limit.filter(|l| !l.is_zero()))
    else {
        let what = if request.is_none_or(Quantity::is_zero) { "request" } else { "limit" };
        problems.push(format!("{start}, but no {what} is specified or {what} is 0"));
        return;
    };
    let found = limit.as_f64() / request.as_f64();
    if found > most.as_f64() {
        problems.push(format!("{start}, but provided ratio is {found:.6}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn range(item: Value) -> LimitRange {
        serde_json::from_value(json!({"metadata": {"name": "l"}, "spec": {"limits": [item]}})).unwrap()
    }

    fn pod(resources: Value) -> Pod {
        let containers = json!([{"name": "c", "resources": resources}]);
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}}))
            .unwrap()
    }

    #[test]
    fn defaults_fill_what_is_missing_and_are_noted() {
        let mut object = pod(json!({"requests": {"cpu": "1"}}));
        let defaults = range(json!({"type": "Container", "default": {"memory": "1Gi"},
            "defaultRequest": {"cpu": "2", "memory": "1Mi"}}));
        assert!(apply_defaults(&mut object, &defaults));
        let resources = object.spec.as_ref().unwrap().containers[0].resources.clone();
        let resources = serde_json::to_value(resources).unwrap();
        assert_eq!(
            resources,
            json!({"limits": {"memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Mi"}})
        );
        assert_eq!(
            object.metadata.annotations.as_ref().unwrap()[ANNOTATION],
            "LimitRanger plugin set: memory request for container c; memory limit for container c"
        );
        assert!(!apply_defaults(&mut object, &defaults));
    }

    #[test]
    fn sizes_stay_within_their_bounds() {
        let full = |cpu: &str, limit: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": limit}});
        for (item, resources, expected) in [
            (json!({"min": {"cpu": "1"}}), full("1", "1"), None),
            (
                json!({"min": {"cpu": "1"}}),
                full("500m", "1"),
                Some("minimum cpu usage per Container is 1, but request is 500m"),
            ),
            (
                json!({"max": {"cpu": "1"}}),
                json!({}),
                Some("maximum cpu usage per Container is 1.  No limit is specified"),
            ),
            (
                json!({"max": {"cpu": "1"}}),
                full("1", "2"),
                Some("maximum cpu usage per Container is 1, but limit is 2"),
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                full("1", "3"),
                Some("cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"),
            ),
        ] {
            let mut item = item;
            item["type"] = "Container".into();
            let item: LimitRangeItem = serde_json::from_value(item).unwrap();
            let mut problems = Vec::new();
            check_pod(&item, pod(resources).spec.as_ref().unwrap(), &mut problems);
            assert_eq!(problems.first().map(String::as_str), expected);
        }
    }
}
