//! What objects use of a ResourceQuota, and which objects a quota is about.
//!
//! Admission charges with it and the controller counts with it, so that both come to the same sums.

pub mod pods;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, ResourceQuota, ScopedResourceSelectorRequirement, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use super::quantity::{Format, Quantity};

/// Amounts by the name of the resource.
pub type Amounts = BTreeMap<String, Quantity>;

const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";

/// One object.
pub fn one() -> Quantity {
    Quantity::new(1, Format::DecimalSi)
}

/// Amounts as objects carry them; what does not parse is left out.
pub fn parse(raw: Option<&BTreeMap<String, RawQuantity>>) -> Amounts {
    let parsed = |(name, raw): (&String, &RawQuantity)| Some((name.clone(), Quantity::parse(&raw.0).ok()?));
    raw.into_iter().flatten().filter_map(parsed).collect()
}

/// Adds `more` to `sum`.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = entry.add(amount);
    }
}

/// The name under which objects of a kind are counted: `count/deployments.apps`.
pub fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

/// Kinds whose count has a name without prefix too.
fn has_short_count(group: &str, plural: &str) -> bool {
    group.is_empty()
        && matches!(
            plural,
            "configmaps"
                | "resourcequotas"
                | "replicationcontrollers"
                | "secrets"
                | "services"
                | "persistentvolumeclaims"
        )
}

/// What one more object of a kind uses, whatever it says.
pub fn count(group: &str, plural: &str) -> Amounts {
    let mut used = Amounts::from([(count_name(group, plural), one())]);
    if has_short_count(group, plural) {
        used.insert(plural.to_owned(), one());
    }
    used
}

/// What a claim uses.
pub fn claim_usage(claim: &PersistentVolumeClaim) -> Amounts {
    let mut used = count("", "persistentvolumeclaims");
    let spec = claim.spec.as_ref();
    let class = spec.and_then(|spec| spec.storage_class_name.as_deref()).filter(|class| !class.is_empty());
    let requests = spec.and_then(|spec| spec.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let allocated = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref());
    let wanted = parse(requests).get("storage").copied();
    let storage = wanted.max(parse(allocated).get("storage").copied());
    if let Some(class) = class {
        used.insert(format!("{class}{CLASS_SUFFIX}persistentvolumeclaims"), one());
    }
    if let Some(storage) = storage {
        used.insert("requests.storage".into(), storage);
        if let Some(class) = class {
            used.insert(format!("{class}{CLASS_SUFFIX}requests.storage"), storage);
        }
    }
    used
}

/// What a Service uses.
pub fn service_usage(service: &Service) -> Amounts {
    let mut used = count("", "services");
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (mut node_ports, mut balancers) = (0, 0);
    match spec.type_.as_deref() {
        Some("NodePort") => node_ports = ports.len(),
        Some("LoadBalancer") => {
            balancers = 1;
            node_ports = match spec.allocate_load_balancer_node_ports {
                Some(false) => ports.iter().filter(|port| port.node_port.unwrap_or(0) != 0).count(),
                _ => ports.len(),
            };
        }
        _ => {}
    }
    let number = |count: usize| Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi);
    used.insert("services.nodeports".into(), number(node_ports));
    used.insert("services.loadbalancers".into(), number(balancers));
    used
}

/// Whether a quota that names `resource` says something about objects of a kind.
pub fn concerns(resource: &str, group: &str, plural: &str) -> bool {
    if resource == count_name(group, plural) || has_short_count(group, plural) && resource == plural {
        return true;
    }
    match (group, plural) {
        ("", "pods") => pods::concerns(resource),
        ("", "services") => matches!(resource, "services.nodeports" | "services.loadbalancers"),
        ("", "persistentvolumeclaims") => {
            resource == "requests.storage"
                || resource
                    .split_once(CLASS_SUFFIX)
                    .is_some_and(|(_, rest)| matches!(rest, "persistentvolumeclaims" | "requests.storage"))
        }
        _ => false,
    }
}

/// The conditions under which a quota is about an object: its scopes, in the long form.
pub fn scopes(quota: &ResourceQuota) -> Vec<ScopedResourceSelectorRequirement> {
    let Some(spec) = &quota.spec else { return Vec::new() };
    let short = spec.scopes.iter().flatten().map(|scope| ScopedResourceSelectorRequirement {
        scope_name: scope.clone(),
        operator: "Exists".into(),
        values: None,
    });
    let long = spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    short.chain(long.cloned()).collect()
}

/// Whether a requirement on a named value (a class) holds.
pub fn selects(requirement: &ScopedResourceSelectorRequirement, value: Option<&str>) -> bool {
    let value = value.filter(|value| !value.is_empty());
    let listed = |value: &str| requirement.values.iter().flatten().any(|own| own == value);
    match requirement.operator.as_str() {
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        _ => false,
    }
}

/// Whether a quota with these scopes is about a claim.
pub fn scopes_select_claim(
    scopes: &[ScopedResourceSelectorRequirement],
    claim: &PersistentVolumeClaim,
) -> bool {
    let class = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    scopes.iter().all(|scope| scope.scope_name == "VolumeAttributesClass" && selects(scope, class))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(amounts: &Amounts) -> String {
        let parts: Vec<_> = amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        parts.join(",")
    }

    #[test]
    fn claims_use_storage_of_their_class() {
        let claim = serde_json::from_value(json!({"spec": {"storageClassName": "gold",
            "resources": {"requests": {"storage": "1Gi"}}}}))
        .unwrap();
        assert_eq!(
            shown(&claim_usage(&claim)),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             gold.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
        );
    }

    #[test]
    fn services_use_node_ports() {
        let service = |kind: &str| {
            serde_json::from_value(json!({"spec": {"type": kind, "ports": [{"port": 1}, {"port": 2}]}}))
                .unwrap()
        };
        let ports = |kind: &str| service_usage(&service(kind))["services.nodeports"].value();
        assert_eq!((ports("ClusterIP"), ports("NodePort"), ports("LoadBalancer")), (0, 2, 2));
    }

    #[test]
    fn names_belong_to_kinds() {
        for (resource, group, plural, expected) in [
            ("count/deployments.apps", "apps", "deployments", true),
            ("secrets", "", "secrets", true),
            ("pods", "", "secrets", false),
            ("limits.cpu", "", "pods", true),
            ("requests.nvidia.com/gpu", "", "pods", true),
            ("x.storageclass.storage.k8s.io/requests.storage", "", "persistentvolumeclaims", true),
        ] {
            assert_eq!(concerns(resource, group, plural), expected, "{resource} {plural}");
        }
    }
}
