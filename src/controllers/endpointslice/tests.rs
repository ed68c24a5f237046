//! Plans of slices as tables, and a simulated service over many changes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use serde_json::{Value, json};

use super::hints::Policy;
use super::plan::{HEADLESS, MAX_ENDPOINTS, Plan, TRIGGER_TIME, Topology, plan};
use super::select::{self, Family};
use crate::controllers::workload::pods::tests::at;

fn service(patch: Value) -> Service {
    let mut body = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"team": "a"}},
        "spec": {
            "clusterIP": "10.43.0.5", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    });
    json_patch::merge(&mut body, &patch);
    serde_json::from_value(body).unwrap()
}

fn pod(index: usize, ready: bool, patch: Value) -> Arc<Pod> {
    let name = format!("web-{index}");
    let mut body = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {
            "phase": "Running", "podIPs": [{"ip": format!("10.42.{}.{}", index / 250, index % 250 + 1)}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    });
    json_patch::merge(&mut body, &patch);
    Arc::new(serde_json::from_value(body).unwrap())
}

fn make(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Plan {
    make_with(service, pods, slices, Policy::None)
}

fn make_with(
    service: &Service,
    pods: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
    policy: Policy<'_>,
) -> Plan {
    let zone_of = |node: &str| Some(format!("zone-of-{node}"));
    plan(service, pods, slices, Some(at(0)), &Topology { zone_of, policy })
}

/// Carries the plan out on the slices.
fn apply(slices: &mut Vec<Arc<EndpointSlice>>, plan: Plan) -> usize {
    let writes = plan.create.len() + plan.update.len() + plan.delete.len();
    for gone in plan.delete {
        slices.retain(|slice| slice.metadata.name != gone.metadata.name);
    }
    for updated in plan.update {
        let place = slices.iter_mut().find(|slice| slice.metadata.name == updated.metadata.name).unwrap();
        *place = Arc::new(updated);
    }
    for mut created in plan.create {
        created.metadata.name = Some(format!("web-{}", slices.len() + 1000 * writes));
        slices.push(Arc::new(created));
    }
    writes
}

/// Plans and carries out; returns the number of writes.
fn sync(slices: &mut Vec<Arc<EndpointSlice>>, service: &Service, pods: &[Arc<Pod>]) -> usize {
    let plan = make(service, pods, slices);
    apply(slices, plan)
}

fn endpoints(slices: &[Arc<EndpointSlice>]) -> Vec<Endpoint> {
    slices.iter().flat_map(|slice| slice.endpoints.clone().unwrap_or_default()).collect()
}

#[test]
fn a_slice_says_everything_about_its_pods() {
    let plan = make(&service(json!({})), &[pod(0, true, json!({}))], &[]);
    let body = serde_json::to_value(&plan.create[0]).unwrap();
    assert_eq!(body["metadata"]["generateName"], "web-");
    assert_eq!(
        body["metadata"]["labels"],
        json!({"team": "a", "kubernetes.io/service-name": "web",
               "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    assert_eq!(body["metadata"]["annotations"][TRIGGER_TIME], at(0).to_string());
    let owner = &body["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"], &owner["controller"]),
        (&json!("Service"), &json!("s"), &json!(true))
    );
    assert_eq!(body["addressType"], "IPv4");
    assert_eq!(body["ports"], json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        body["endpoints"],
        json!([{
            "addresses": ["10.42.0.1"], "nodeName": "n1", "zone": "zone-of-n1",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "web-0", "uid": "web-0"},
        }])
    );
}

#[test]
fn conditions_tell_ready_serving_and_terminating_apart() {
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let publish = json!({"spec": {"publishNotReadyAddresses": true}});
    for (service_patch, ready, pod_patch, expected) in [
        (json!({}), true, json!({}), Some((true, true, false))),
        (json!({}), false, json!({}), Some((false, false, false))),
        (json!({}), true, deleting.clone(), Some((false, true, true))),
        (publish.clone(), false, json!({}), Some((true, false, false))),
        (publish, false, deleting, Some((true, false, true))),
        (json!({}), false, json!({"status": {"phase": "Succeeded"}}), None),
        (json!({}), true, json!({"status": {"podIPs": null}}), None),
    ] {
        let plan = make(&service(service_patch), &[pod(0, ready, pod_patch.clone())], &[]);
        let found = plan.create[0].endpoints.as_ref().unwrap().first().map(|endpoint| {
            let conditions = endpoint.conditions.as_ref().unwrap();
            (conditions.ready.unwrap(), conditions.serving.unwrap(), conditions.terminating.unwrap())
        });
        assert_eq!(found, expected, "{pod_patch}");
    }
}

#[test]
fn a_service_without_endpoints_has_one_empty_slice() {
    let (service, mut slices) = (service(json!({})), Vec::new());
    assert_eq!(sync(&mut slices, &service, &[]), 1);
    assert_eq!((slices.len(), endpoints(&slices).len()), (1, 0));
    assert_eq!(sync(&mut slices, &service, &[]), 0, "and that is enough");
    let pods = [pod(0, true, json!({}))];
    assert_eq!(sync(&mut slices, &service, &pods), 1, "the empty slice is used");
    assert_eq!((slices.len(), endpoints(&slices).len()), (1, 1));
    assert_eq!(sync(&mut slices, &service, &[]), 1);
    assert_eq!((slices.len(), endpoints(&slices).len()), (1, 0));
}

#[test]
fn many_endpoints_fill_slices_of_a_hundred() {
    let service = service(json!({}));
    let mut pods: Vec<_> = (0..250).map(|i| pod(i, true, json!({}))).collect();
    let mut slices = Vec::new();
    assert_eq!(sync(&mut slices, &service, &pods), 3);
    assert!(slices.iter().all(|slice| slice.endpoints.as_ref().unwrap().len() <= MAX_ENDPOINTS));
    assert_eq!(endpoints(&slices).len(), 250);
    assert_eq!(sync(&mut slices, &service, &pods), 0, "nothing changed");
    pods[17] = pod(17, false, json!({}));
    assert_eq!(sync(&mut slices, &service, &pods), 1, "one pod's readiness is one write");
    pods.remove(3);
    pods.push(pod(300, true, json!({})));
    assert_eq!(sync(&mut slices, &service, &pods), 1, "the new pod takes the place of the old one");
    pods.truncate(100);
    sync(&mut slices, &service, &pods);
    let mut addresses: Vec<_> = endpoints(&slices).into_iter().map(|e| e.addresses[0].clone()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 100, "each pod once");
}

#[test]
fn named_target_ports_may_differ_between_pods() {
    let service = service(json!({"spec": {"ports": [{"name": "web", "port": 80, "targetPort": "http"}]}}));
    let other = pod(
        1,
        true,
        json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 9090}]}]}}),
    );
    let none = pod(2, true, json!({"spec": {"containers": [{"name": "c", "ports": []}]}}));
    let plan = make(&service, &[pod(0, true, json!({})), other, none], &[]);
    let mut ports: Vec<_> = plan
        .create
        .iter()
        .map(|slice| {
            (slice.ports.as_ref().unwrap()[0].port.unwrap(), slice.endpoints.as_ref().unwrap().len())
        })
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [(8080, 1), (9090, 1)]);
}

#[test]
fn a_changed_target_port_reuses_the_slice() {
    let pods = [pod(0, true, json!({}))];
    let mut slices = Vec::new();
    sync(&mut slices, &service(json!({})), &pods);
    let changed = service(json!({"spec": {"ports": [{"port": 80, "targetPort": 9999}]}}));
    let plan = make(&changed, &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    apply(&mut slices, plan);
    assert_eq!((slices.len(), slices[0].ports.as_ref().unwrap()[0].port), (1, Some(9999)));
}

#[test]
fn headless_services_need_no_ports_and_publish_hostnames() {
    let headless = service(json!({"spec": {"clusterIP": "None", "ports": null}}));
    let named = pod(0, true, json!({"spec": {"hostname": "web-0", "subdomain": "web"}}));
    let slice = make(&headless, &[named], &[]).create.remove(0);
    assert_eq!(slice.endpoints.unwrap()[0].hostname.as_deref(), Some("web-0"));
    assert_eq!(slice.ports, Some(vec![]));
    assert!(slice.metadata.labels.unwrap().contains_key(HEADLESS));
}

#[test]
fn dual_stack_services_have_slices_of_each_family() {
    let dual = service(json!({"spec": {"ipFamilies": ["IPv4", "IPv6"]}}));
    let both = pod(0, true, json!({"status": {"podIPs": [{"ip": "10.42.0.1"}, {"ip": "fd00::1"}]}}));
    let mut slices = Vec::new();
    sync(&mut slices, &dual, std::slice::from_ref(&both));
    let mut found: Vec<_> = slices
        .iter()
        .map(|slice| (slice.address_type.clone(), slice.endpoints.as_ref().unwrap()[0].addresses[0].clone()))
        .collect();
    found.sort();
    assert_eq!(found, [("IPv4".into(), "10.42.0.1".into()), ("IPv6".into(), "fd00::1".into())]);
    let plan = make(&service(json!({})), &[both], &slices);
    assert_eq!((plan.delete.len(), plan.delete[0].address_type.as_str()), (1, "IPv6"), "no longer dual");
}

#[test]
fn families_come_from_the_spec_or_the_address() {
    for (patch, expected) in [
        (json!({}), vec![Family::V4]),
        (json!({"spec": {"ipFamilies": ["IPv6", "IPv4"]}}), vec![Family::V6, Family::V4]),
        (json!({"spec": {"ipFamilies": null, "clusterIP": "fd00::5"}}), vec![Family::V6]),
        (json!({"spec": {"ipFamilies": null, "clusterIP": "None"}}), vec![Family::V4]),
    ] {
        assert_eq!(select::families(&service(patch.clone())), expected, "{patch}");
    }
}

#[test]
fn only_changes_that_matter_are_looked_at() {
    let before = pod(0, true, json!({}));
    for (patch, matters) in [
        (json!({"metadata": {"annotations": {"a": "b"}}}), false),
        (json!({"status": {"containerStatuses": []}}), false),
        (json!({"metadata": {"labels": {"x": "y"}}}), true),
        (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), true),
        (json!({"status": {"podIPs": [{"ip": "10.42.9.9"}]}}), true),
        (json!({"status": {"phase": "Failed"}}), true),
    ] {
        assert_eq!(select::matters(&before, &pod(0, true, patch.clone())), matters, "{patch}");
    }
    assert!(select::matters(&before, &pod(0, false, json!({}))));
}

#[test]
fn hints_come_and_go_with_the_services_traffic_distribution() {
    let (service, pods, mut slices) = (service(json!({})), [pod(1, true, json!({}))], Vec::new());
    let zone = |slices: &[Arc<EndpointSlice>]| {
        let hints = slices[0].endpoints.as_ref().unwrap()[0].hints.clone();
        hints.and_then(|hints| hints.for_zones).map(|zones| zones[0].name.clone())
    };
    apply(&mut slices, make(&service, &pods, &[]));
    assert_eq!(zone(&slices), None);
    let writes = apply(&mut slices.clone(), make_with(&service, &pods, &slices, Policy::SameZone));
    assert_eq!(writes, 1);
    let plan = make_with(&service, &pods, &slices, Policy::SameZone);
    apply(&mut slices, plan);
    assert_eq!(zone(&slices).as_deref(), Some("zone-of-n1"));
    assert_eq!(apply(&mut slices.clone(), make_with(&service, &pods, &slices, Policy::SameZone)), 0);
    let plan = make(&service, &pods, &slices);
    apply(&mut slices, plan);
    assert_eq!(zone(&slices), None);
}
