//! The quality of service class of a pod: what happens to it when the node runs out of something.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::api::quantity;

type Amounts = BTreeMap<String, Quantity>;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    if let Some(resources) =
        spec.resources.as_ref().filter(|r| counts(r.requests.as_ref()) || counts(r.limits.as_ref()))
    {
        return if guaranteed(Some(resources)) { "Guaranteed" } else { "Burstable" };
    }
    let containers: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    let asks = |c: &&&Container| {
        c.resources.as_ref().is_some_and(|r| counts(r.requests.as_ref()) || counts(r.limits.as_ref()))
    };
    if !containers.iter().any(|c| asks(&c)) {
        return "BestEffort";
    }
    if containers.iter().all(|c| guaranteed(c.resources.as_ref())) { "Guaranteed" } else { "Burstable" }
}

fn amount(amounts: Option<&Amounts>, name: &str) -> Option<quantity::Quantity> {
    let parsed = quantity::Quantity::parse(&amounts?.get(name)?.0).ok()?;
    (parsed.milli_value() > 0).then_some(parsed)
}

fn counts(amounts: Option<&Amounts>) -> bool {
    ["cpu", "memory"].iter().any(|name| amount(amounts, name).is_some())
}

/// Limits for CPU and memory, and requests that are no less.
fn guaranteed(resources: Option<&ResourceRequirements>) -> bool {
    let Some(resources) = resources else { return false };
    ["cpu", "memory"].iter().all(|name| {
        let limit = amount(resources.limits.as_ref(), name);
        let request = amount(resources.requests.as_ref(), name).or(limit);
        limit.is_some() && limit == request
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_follow_requests_and_limits() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let cases = [
            (json!([{"name": "a"}]), "BestEffort"),
            (json!([{"name": "a", "resources": {"requests": {"cpu": "1"}}}]), "Burstable"),
            (json!([{"name": "a", "resources": full}]), "Guaranteed"),
            (json!([{"name": "a", "resources": full}, {"name": "b"}]), "Burstable"),
            (
                json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"},
                    "requests": {"cpu": "500m", "memory": "1Gi"}}}]),
                "Burstable",
            ),
        ];
        for (containers, expected) in cases {
            let pod: Pod = serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap();
            assert_eq!(class(&pod), expected, "{containers}");
        }
    }
}
