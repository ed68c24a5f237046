//! The slices of an Endpoints object against those that are there. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controllers::endpointslice::plan::{MANAGED_BY, SERVICE_NAME, TRIGGER_TIME};
use crate::controllers::endpointslice::select::Family;
use crate::controllers::workload::{ownership, template};

/// This controller, as the value of the label `managed-by`.
pub const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// Most addresses of one subset that are mirrored.
pub const CAPACITY: usize = 1000;

const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Writes to slices, and how many addresses were left out.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Slices to create.
    pub create: Vec<EndpointSlice>,
    /// Slices to write back.
    pub update: Vec<EndpointSlice>,
    /// Slices to delete.
    pub delete: Vec<Arc<EndpointSlice>>,
    /// Addresses that are none.
    pub invalid: usize,
    /// Addresses beyond [`CAPACITY`], and invalid ones.
    pub skipped: usize,
}

/// The object is mirrored, if its Service has no selector.
pub fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let leads = meta.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER));
    label(SKIP) != Some("true")
        && label(super::super::endpoints::plan::MANAGED_BY) != Some(super::super::endpoints::plan::CONTROLLER)
        && !leads
}

/// Ports and family of a slice, by which slices are compared.
type Kind = (String, &'static str);

fn kind(ports: &[EndpointPort], family: &'static str) -> Kind {
    let mut all: Vec<_> = ports
        .iter()
        .map(|port| {
            (
                port.name.clone().unwrap_or_default(),
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port.port,
                port.app_protocol.clone(),
            )
        })
        .collect();
    all.sort();
    (format!("{all:?}"), family)
}

/// What one slice is to hold.
#[derive(Debug, Default)]
struct Content {
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

/// Compares the Endpoints with their mirrored slices.
pub fn plan(endpoints: &Endpoints, slices: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut wanted: BTreeMap<Kind, Content> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        add(subset, &mut wanted, &mut plan);
    }
    let mut there: BTreeMap<Kind, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in slices {
        let family = if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" };
        there
            .entry(kind(slice.ports.as_deref().unwrap_or_default(), family))
            .or_default()
            .push(slice.clone());
    }
    let mut missing = Vec::new();
    for (kind, content) in wanted {
        let mut known = there.remove(&kind).unwrap_or_default().into_iter();
        match known.next() {
            None => missing.push((kind.1, content)),
            Some(first) => {
                let fresh = slice(endpoints, kind.1, content);
                if !same(&first, &fresh) {
                    plan.update.push(rewritten(&first, fresh));
                }
            }
        }
        plan.delete.extend(known);
    }
    plan.delete.extend(there.into_values().flatten());
    for (family, content) in missing {
        // The address family of a slice cannot change; its ports can.
        let free = plan.delete.iter().position(|slice| slice.address_type == family);
        let fresh = slice(endpoints, family, content);
        match free {
            Some(at) => {
                let free = plan.delete.remove(at);
                plan.update.push(rewritten(&free, fresh));
            }
            None => plan.create.push(fresh),
        }
    }
    plan
}

/// Sorts the addresses of a subset to the slices that they belong in.
fn add(subset: &EndpointSubset, wanted: &mut BTreeMap<Kind, Content>, plan: &mut Plan) {
    let ports: Vec<_> = subset.ports.iter().flatten().map(port).collect();
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    let mut added = 0;
    for (address, ready) in ready.chain(not_ready) {
        let Ok(ip) = address.ip.parse::<IpAddr>() else {
            plan.invalid += 1;
            plan.skipped += 1;
            continue;
        };
        if added == CAPACITY {
            plan.skipped += 1;
            continue;
        }
        added += 1;
        let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
        let content = wanted.entry(kind(&ports, family.as_str())).or_default();
        content.ports.clone_from(&ports);
        content.endpoints.push(endpoint(address, ip, ready));
    }
}

fn port(port: &k8s_openapi::api::core::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|hostname| !hostname.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice(endpoints: &Endpoints, family: &str, content: Content) -> EndpointSlice {
    let meta = &endpoints.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| key != TRIGGER_TIME && key != APPLIED);
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(template::name_prefix(&name)),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![ownership::controller_reference("v1", "Endpoints", meta)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(content.endpoints),
        ports: Some(content.ports),
    }
}

fn same(there: &EndpointSlice, fresh: &EndpointSlice) -> bool {
    let sorted = |slice: &EndpointSlice| {
        let mut all = slice.endpoints.clone().unwrap_or_default();
        all.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        all
    };
    let annotations = |slice: &EndpointSlice| slice.metadata.annotations.clone().unwrap_or_default();
    sorted(there) == sorted(fresh)
        && there.metadata.labels == fresh.metadata.labels
        && annotations(there) == annotations(fresh)
        && there.metadata.owner_references == fresh.metadata.owner_references
}

fn rewritten(there: &EndpointSlice, fresh: EndpointSlice) -> EndpointSlice {
    let metadata = ObjectMeta {
        labels: fresh.metadata.labels,
        annotations: fresh.metadata.annotations,
        owner_references: fresh.metadata.owner_references,
        ..there.metadata.clone()
    };
    EndpointSlice { metadata, ..fresh }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn endpoints(subsets: Value) -> Endpoints {
        let meta = json!({"name": "web", "namespace": "default", "uid": "e", "labels": {"a": "b"},
                          "annotations": {APPLIED: "{}", "mine": "kept"}});
        serde_json::from_value(json!({"metadata": meta, "subsets": subsets})).unwrap()
    }

    fn apply(slices: &mut Vec<Arc<EndpointSlice>>, plan: Plan) -> (usize, usize, usize) {
        let counts = (plan.create.len(), plan.update.len(), plan.delete.len());
        slices.retain(|slice| !plan.delete.contains(slice));
        for updated in plan.update {
            let place = slices.iter_mut().find(|s| s.metadata.name == updated.metadata.name).unwrap();
            *place = Arc::new(updated);
        }
        for mut created in plan.create {
            created.metadata.name = Some(format!("web-{}", slices.len()));
            slices.push(Arc::new(created));
        }
        counts
    }

    fn addresses(slices: &[Arc<EndpointSlice>]) -> Vec<String> {
        let all = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        all.flat_map(|endpoint| endpoint.addresses.clone()).collect()
    }

    #[test]
    fn a_subset_becomes_a_slice_for_each_family_and_is_rewritten_in_place() {
        let mut slices = Vec::new();
        let ports = json!([{"port": 80}]);
        let both = endpoints(json!([{"addresses": [{"ip": "10.1.2.3"}, {"ip": "fd00::1"}], "ports": ports}]));
        assert_eq!(apply(&mut slices, plan(&both, &[])), (2, 0, 0));
        let labels = slices[0].metadata.labels.clone().unwrap();
        assert_eq!((labels[MANAGED_BY].as_str(), labels["a"].as_str()), (CONTROLLER, "b"));
        assert_eq!(slices[0].metadata.annotations.clone().unwrap(), [("mine".into(), "kept".into())].into());
        assert_eq!(apply(&mut slices.clone(), plan(&both, &slices)), (0, 0, 0), "nothing to do");
        let moved = endpoints(json!([{"addresses": [{"ip": "10.2.3.4"}], "ports": ports}]));
        let next = plan(&moved, &slices);
        assert_eq!(apply(&mut slices, next), (0, 1, 1));
        assert_eq!(addresses(&slices), ["10.2.3.4"]);
        let other_port =
            endpoints(json!([{"notReadyAddresses": [{"ip": "10.2.3.4"}], "ports": [{"port": 81}]}]));
        let next = plan(&other_port, &slices);
        assert_eq!(apply(&mut slices, next), (0, 1, 0), "the slice is used for the other port");
        let conditions = slices[0].endpoints.as_ref().unwrap()[0].conditions.clone().unwrap();
        assert_eq!(conditions.ready, Some(false));
        let next = plan(&endpoints(json!([])), &slices);
        assert_eq!(apply(&mut slices, next), (0, 0, 1));
    }

    #[test]
    fn too_many_and_invalid_addresses_are_left_out_and_counted() {
        let mut all: Vec<_> =
            (0..CAPACITY + 3).map(|i| json!({"ip": format!("10.1.{}.{}", i / 250, i % 250)})).collect();
        all.push(json!({"ip": "nonsense"}));
        let plan = plan(&endpoints(json!([{"addresses": all, "ports": [{"port": 80}]}])), &[]);
        assert_eq!((plan.invalid, plan.skipped), (1, 4));
        assert_eq!(plan.create[0].endpoints.as_ref().unwrap().len(), CAPACITY);
    }

    #[test]
    fn objects_of_others_are_not_mirrored() {
        for (labels, annotations, expected) in [
            (json!({}), json!({}), true),
            (json!({SKIP: "true"}), json!({}), false),
            (json!({SKIP: "false"}), json!({}), true),
            (json!({"endpoints.kubernetes.io/managed-by": "endpoint-controller"}), json!({}), false),
            (json!({}), json!({LEADER: "{}"}), false),
        ] {
            let meta = json!({"name": "web", "labels": labels, "annotations": annotations});
            let endpoints: Endpoints = serde_json::from_value(json!({"metadata": meta})).unwrap();
            assert_eq!(is_mirrored(&endpoints), expected, "{meta}");
        }
    }
}
