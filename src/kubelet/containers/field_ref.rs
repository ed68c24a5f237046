//! Values that a container may take from its own pod: `fieldRef` and `resourceFieldRef`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};

use super::resources;
use crate::kubelet::spec;

/// Facts about the pod that only the node knows.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// The pod's addresses, empty before its sandbox exists.
    pub pod_ips: Vec<String>,
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// The node's name.
    pub node_name: String,
    /// The node's allocatable CPU, in thousandths.
    pub allocatable_milli_cpu: i64,
    /// The node's allocatable memory, in bytes.
    pub allocatable_memory: i64,
}

/// A reference that names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The path is not one that pods offer.
    #[error("unsupported fieldPath: {0}")]
    Path(String),
    /// The resource is not one that containers have.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    /// The container named is not in the pod.
    #[error("container {0} not found")]
    Container(String),
}

/// Value of a `fieldRef`.
pub fn field(pod: &Pod, facts: &NodeFacts, selector: &ObjectFieldSelector) -> Result<String, FieldError> {
    let path = selector.field_path.as_str();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => return Err(FieldError::Path(path.to_owned())),
        };
        return Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let spec = spec::pod_spec(pod);
    Ok(match path {
        "metadata.name" => spec::name(pod).to_owned(),
        "metadata.namespace" => spec::namespace(pod).to_owned(),
        "metadata.uid" => spec::uid(pod).to_owned(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_else(|| facts.node_name.clone()),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.podIP" => pod_ips(pod, facts).first().cloned().unwrap_or_default(),
        "status.podIPs" => pod_ips(pod, facts).join(","),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        _ => return Err(FieldError::Path(path.to_owned())),
    })
}

fn pod_ips<'a>(pod: &Pod, facts: &'a NodeFacts) -> &'a [String] {
    if spec::host_network(pod) { &facts.host_ips } else { &facts.pod_ips }
}

/// `metadata.labels['key']` as map and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// A map as a file shows it: sorted `key="escaped value"` lines.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut out = String::new();
    for (key, value) in map.into_iter().flatten() {
        if !out.is_empty() {
            out.push('\n');
        }
        // A JSON string escapes what Go's %q escapes in ordinary text.
        let quoted = serde_json::Value::from(value.as_str()).to_string();
        write!(out, "{key}={quoted}").expect("a String takes every write");
    }
    out
}

/// Value of a `resourceFieldRef`; `own` is the container that refers when the selector names none.
pub fn resource(
    pod: &Pod,
    facts: &NodeFacts,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
) -> Result<String, FieldError> {
    let named = match selector.container_name.as_deref() {
        Some(name) if !name.is_empty() => {
            let found = spec::find_container(pod, name).map(|(_, c)| c.into_owned());
            Some(found.ok_or_else(|| FieldError::Container(name.to_owned()))?)
        }
        _ => own.cloned(),
    };
    let container = named.unwrap_or_default();
    let amount = |limit: bool, name: &str| resources::amount(&container, limit, name);
    let bad = || FieldError::Resource(selector.resource.clone());
    let (list, name) = selector.resource.split_once('.').ok_or_else(bad)?;
    let limit = match list {
        "limits" => true,
        "requests" => false,
        _ => return Err(bad()),
    };
    let milli = match name {
        "cpu" if limit => amount(true, name).unwrap_or(facts.allocatable_milli_cpu),
        "memory" if limit => {
            amount(true, name).unwrap_or_else(|| facts.allocatable_memory.saturating_mul(1000))
        }
        "cpu" | "memory" | "ephemeral-storage" => amount(limit, name).unwrap_or(0),
        other if other.starts_with("hugepages-") => amount(limit, other).unwrap_or(0),
        _ => return Err(bad()),
    };
    let divisor = selector.divisor.as_ref().map_or(1000, resources::milli).max(0);
    let divisor = if divisor == 0 { 1000 } else { divisor };
    Ok(((i128::from(milli) + i128::from(divisor) - 1) / i128::from(divisor)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    fn facts() -> NodeFacts {
        NodeFacts {
            pod_ips: vec!["10.42.0.5".into(), "fd00::5".into()],
            host_ips: vec!["192.168.0.7".into()],
            node_name: "n1".into(),
            allocatable_milli_cpu: 2000,
            allocatable_memory: 1 << 30,
        }
    }

    fn field_of(pod: &Pod, path: &str) -> Result<String, FieldError> {
        field(pod, &facts(), &ObjectFieldSelector { field_path: path.into(), api_version: None })
    }

    #[test]
    fn every_path_has_its_value() {
        let mut pod = fixture::pod(json!({"serviceAccountName": "sa", "containers": []}));
        pod.metadata.labels = Some([("a".into(), "x \"y\"".into()), ("b".into(), "z".into())].into());
        for (path, want) in [
            ("metadata.name", "web"),
            ("metadata.namespace", "default"),
            ("metadata.uid", "u1"),
            ("metadata.labels['b']", "z"),
            ("metadata.annotations['none']", ""),
            ("metadata.labels", "a=\"x \\\"y\\\"\"\nb=\"z\""),
            ("spec.nodeName", "n1"),
            ("spec.serviceAccountName", "sa"),
            ("status.podIP", "10.42.0.5"),
            ("status.podIPs", "10.42.0.5,fd00::5"),
            ("status.hostIP", "192.168.0.7"),
        ] {
            assert_eq!(field_of(&pod, path).unwrap(), want, "{path}");
        }
        assert_eq!(field_of(&pod, "spec.x"), Err(FieldError::Path("spec.x".into())));
    }

    #[test]
    fn host_network_pods_have_the_hosts_address() {
        let pod = fixture::pod(json!({"hostNetwork": true, "containers": []}));
        assert_eq!(field_of(&pod, "status.podIP").unwrap(), "192.168.0.7");
    }

    #[test]
    fn resources_divide_rounding_up_and_default_to_the_node() {
        let pod = fixture::pod(json!({"containers": [{"name": "a", "resources": {
            "limits": {"cpu": "1500m"}, "requests": {"memory": "100Mi"}}}]}));
        for (resource_name, divisor, want) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("requests.memory", None, "104857600"),
            ("requests.memory", Some("1Mi"), "100"),
            ("limits.memory", Some("1Gi"), "1"),
            ("requests.cpu", None, "0"),
        ] {
            let selector = ResourceFieldSelector {
                container_name: Some("a".into()),
                divisor: divisor.map(|d| Quantity(d.into())),
                resource: resource_name.into(),
            };
            assert_eq!(resource(&pod, &facts(), None, &selector).unwrap(), want, "{resource_name}");
        }
        let unknown = ResourceFieldSelector { resource: "limits.x".into(), ..Default::default() };
        assert!(resource(&pod, &facts(), None, &unknown).is_err());
    }
}
