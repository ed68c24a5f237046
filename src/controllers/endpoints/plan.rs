//! The legacy Endpoints object of a service: all addresses, grouped by the ports that they have. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use crate::controllers::endpointslice::plan::{HEADLESS, TRIGGER_TIME, pod_reference};
use crate::controllers::endpointslice::select::{self, Port};
use crate::controllers::workload::pods;

/// Label with the name of who looks after the object.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// This controller, in [`MANAGED_BY`].
pub const CONTROLLER: &str = "endpoint-controller";
/// Annotation of an object that does not hold all addresses.
pub const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Most addresses in one object.
pub const CAPACITY: usize = 1000;

/// The object to write, or `None` if `existing` says it all.
pub fn plan(
    service: &Service,
    selected: &[Arc<Pod>],
    existing: Option<&Endpoints>,
    trigger: Option<Timestamp>,
) -> Option<Endpoints> {
    let (subsets, truncated) = subsets(service, selected);
    let labels = labels(service);
    let known_over = existing
        .and_then(|e| e.metadata.annotations.as_ref())
        .is_some_and(|annotations| annotations.contains_key(OVER_CAPACITY));
    if let Some(existing) = existing
        && existing.subsets.as_deref().unwrap_or_default() == subsets
        && existing.metadata.labels.clone().unwrap_or_default() == labels
        && known_over == truncated
    {
        return None;
    }
    let mut metadata = existing.map_or_else(
        || ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        |existing| existing.metadata.clone(),
    );
    metadata.labels = Some(labels);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.remove(TRIGGER_TIME);
    annotations.remove(OVER_CAPACITY);
    annotations.extend(trigger.map(|at| (TRIGGER_TIME.to_owned(), at.to_string())));
    annotations.extend(truncated.then(|| (OVER_CAPACITY.to_owned(), "truncated".to_owned())));
    Some(Endpoints { metadata, subsets: Some(subsets) })
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if select::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    labels
}

/// Addresses by ports, both sorted; true if some had to be left out.
fn subsets(service: &Service, selected: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let publish = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
    let Some(family) = select::families(service).first().copied() else { return (Vec::new(), false) };
    let mut groups: BTreeMap<Vec<Port>, [Vec<EndpointAddress>; 2]> = BTreeMap::new();
    let candidates =
        selected.iter().filter(|pod| select::is_candidate(pod) && (publish || !pods::is_deleting(pod)));
    let mut addresses: Vec<_> =
        candidates.filter_map(|pod| Some((select::address(pod, family)?.to_owned(), pod))).collect();
    addresses.sort_by(|a, b| (&a.0, &a.1.metadata.name).cmp(&(&b.0, &b.1.metadata.name)));
    for (ip, pod) in addresses {
        let ports = select::ports(service, pod);
        if ports.is_empty() && !select::is_headless(service) {
            continue;
        }
        let address = EndpointAddress {
            ip,
            hostname: select::published_hostname(service, pod).map(str::to_owned),
            node_name: pods::node_name(pod).map(str::to_owned),
            target_ref: Some(pod_reference(pod)),
        };
        let ready = publish || pods::is_ready(pod);
        groups.entry(ports).or_default()[usize::from(!ready)].push(address);
    }
    let truncated = truncate(&mut groups);
    let some = |addresses: Vec<EndpointAddress>| (!addresses.is_empty()).then_some(addresses);
    let subset = |(ports, [ready, not_ready]): (Vec<Port>, [Vec<EndpointAddress>; 2])| EndpointSubset {
        addresses: some(ready),
        not_ready_addresses: some(not_ready),
        ports: (!ports.is_empty()).then(|| ports.iter().map(api_port).collect()),
    };
    (groups.into_iter().map(subset).collect(), truncated)
}

/// Cuts down to the capacity: not-ready addresses go first, and each group gives up its part. True if some had to go.
fn truncate(groups: &mut BTreeMap<Vec<Port>, [Vec<EndpointAddress>; 2]>) -> bool {
    let count = |groups: &BTreeMap<_, [Vec<EndpointAddress>; 2]>, which: usize| -> usize {
        groups.values().map(|group| group[which].len()).sum()
    };
    let (ready, not_ready) = (count(groups, 0), count(groups, 1));
    if ready + not_ready <= CAPACITY {
        return false;
    }
    let room = [CAPACITY.min(ready), CAPACITY.saturating_sub(ready)];
    for (which, total) in [ready, not_ready].into_iter().enumerate() {
        let mut left = room[which];
        for group in groups.values_mut() {
            let part = (group[which].len() * room[which]).div_ceil(total.max(1)).min(left);
            group[which].truncate(part);
            left -= group[which].len();
        }
    }
    true
}

fn api_port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()).filter(|name| !name.is_empty()),
        protocol: Some(port.protocol.clone()),
        port: port.port,
        app_protocol: port.app_protocol.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::workload::pods::tests::at;
    use serde_json::{Value, json};

    fn service(patch: Value) -> Service {
        let mut body = json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"team": "a"}},
            "spec": {"clusterIP": "10.43.0.5", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        });
        json_patch::merge(&mut body, &patch);
        serde_json::from_value(body).unwrap()
    }

    fn pod(name: &str, ip: &str, ready: bool, patch: Value) -> Arc<Pod> {
        let mut body = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        json_patch::merge(&mut body, &patch);
        Arc::new(serde_json::from_value(body).unwrap())
    }

    #[test]
    fn addresses_are_grouped_by_readiness_and_sorted() {
        let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let pods = [
            pod("b", "10.0.0.2", true, json!({})),
            pod("c", "10.0.0.3", false, json!({})),
            pod("a", "10.0.0.1", true, json!({})),
            pod("d", "10.0.0.4", true, deleting),
        ];
        let endpoints = plan(&service(json!({})), &pods, None, Some(at(0))).unwrap();
        let body = serde_json::to_value(&endpoints).unwrap();
        let subset = &body["subsets"][0];
        assert_eq!(subset["addresses"][0]["ip"], "10.0.0.1");
        assert_eq!(subset["addresses"].as_array().unwrap().len(), 2);
        assert_eq!(subset["notReadyAddresses"][0]["targetRef"]["name"], "c");
        assert_eq!(subset["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
        assert_eq!(
            body["metadata"]["labels"],
            json!({"team": "a", "endpoints.kubernetes.io/managed-by": "endpoint-controller"})
        );
        assert_eq!(plan(&service(json!({})), &pods, Some(&endpoints), None), None, "nothing to write");
        let fewer = plan(&service(json!({})), &pods[..1], Some(&endpoints), None).unwrap();
        assert_eq!(fewer.metadata.annotations, Some(BTreeMap::new()), "the old trigger time is gone");
    }

    #[test]
    fn a_service_without_pods_has_an_object_without_subsets() {
        let empty = plan(&service(json!({})), &[], None, None).unwrap();
        assert_eq!(empty.subsets, Some(vec![]));
        let stored = Endpoints { subsets: None, ..empty };
        assert_eq!(plan(&service(json!({})), &[], Some(&stored), None), None);
    }

    #[test]
    fn too_many_addresses_are_cut_off_and_marked() {
        let pods: Vec<_> = (0..CAPACITY + 5)
            .map(|i| pod(&format!("p{i}"), &format!("10.1.{}.{}", i / 250, i % 250), true, json!({})))
            .collect();
        let endpoints = plan(&service(json!({})), &pods, None, None).unwrap();
        assert_eq!(endpoints.subsets.as_ref().unwrap()[0].addresses.as_ref().unwrap().len(), CAPACITY);
        assert_eq!(endpoints.metadata.annotations.unwrap()[OVER_CAPACITY], "truncated");
        let ready_last: Vec<_> = (0..CAPACITY + 5)
            .map(|i| pod(&format!("p{i}"), &format!("10.1.{}.{}", i / 250, i % 250), i >= 900, json!({})))
            .collect();
        let subset = plan(&service(json!({})), &ready_last, None, None).unwrap().subsets.unwrap().remove(0);
        let lengths = [subset.addresses, subset.not_ready_addresses].map(|list| list.unwrap().len());
        assert_eq!(lengths, [105, CAPACITY - 105], "addresses that are ready stay");
    }
}
