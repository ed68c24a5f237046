//! Endpoints and EndpointSlices against a real API server: the behaviours of the conformance tests.

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;

use super::cluster::Cluster;

const MIRRORED: &str = "endpointslicemirroring-controller.k8s.io";
const MANAGED: &str = "endpointslice-controller.k8s.io";

async fn create_service(cluster: &Cluster, name: &str, spec: Value) -> Service {
    let body = json!({"metadata": {"name": name}, "spec": spec});
    let service: Service = serde_json::from_value(body).unwrap();
    cluster.api::<Service>().create(&PostParams::default(), &service).await.unwrap()
}

async fn create_pod(cluster: &Cluster, name: &str, labels: Value, ports: Value) {
    let containers = json!([{"name": "c", "image": "v1", "ports": ports}]);
    let body = json!({"metadata": {"name": name, "labels": labels}, "spec": {"containers": containers}});
    let pod: Pod = serde_json::from_value(body).unwrap();
    cluster.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
}

/// The slices of a service that `manager` looks after.
fn of(slices: &[Arc<EndpointSlice>], service: &str, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let label = |slice: &EndpointSlice, key: &str| {
        slice.metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default()
    };
    let ours = |slice: &&Arc<EndpointSlice>| {
        label(slice, "kubernetes.io/service-name") == service
            && label(slice, "endpointslice.kubernetes.io/managed-by") == manager
    };
    slices.iter().filter(ours).cloned().collect()
}

/// Addresses and the first port's number.
fn content(slice: &EndpointSlice) -> (Vec<String>, Option<i32>) {
    let endpoints = slice.endpoints.iter().flatten();
    let port = slice.ports.iter().flatten().next().and_then(|port| port.port);
    (endpoints.flat_map(|endpoint| endpoint.addresses.clone()).collect(), port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_mirror_a_custom_endpoints_resource_through_create_update_and_delete() {
    let cluster = Cluster::start(0).await;
    create_service(&cluster, "custom", json!({"ports": [{"name": "example", "port": 80}]})).await;
    let endpoints = |ip: &str| -> Endpoints {
        let subsets = json!([{"addresses": [{"ip": ip}], "ports": [{"port": 80}]}]);
        serde_json::from_value(json!({"metadata": {"name": "custom"}, "subsets": subsets})).unwrap()
    };
    let api = cluster.api::<Endpoints>();
    api.create(&PostParams::default(), &endpoints("10.1.2.3")).await.unwrap();
    let holds = |ip: &str| {
        let expected = (vec![ip.to_owned()], Some(80));
        move |all: &[Arc<EndpointSlice>]| {
            let slices = of(all, "custom", MIRRORED);
            slices.len() == 1 && content(&slices[0]) == expected
        }
    };
    cluster.eventually::<EndpointSlice>("a mirror", holds("10.1.2.3")).await;
    let patch = Patch::Merge(json!({"subsets": endpoints("10.2.3.4").subsets}));
    api.patch("custom", &PatchParams::default(), &patch).await.unwrap();
    cluster.eventually::<EndpointSlice>("a mirror of the update", holds("10.2.3.4")).await;
    api.delete("custom", &DeleteParams::default()).await.unwrap();
    cluster.eventually::<EndpointSlice>("no mirror", |all| of(all, "custom", MIRRORED).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_create_and_delete_endpoints_and_endpoint_slices_for_a_service_with_a_selector_specified() {
    let cluster = Cluster::start(0).await;
    let spec = json!({"selector": {"matches": "nothing"}, "ports": [{"name": "example", "port": 80}]});
    create_service(&cluster, "empty", spec).await;
    let has = |all: &[Arc<Endpoints>]| all.iter().any(|e| e.metadata.name.as_deref() == Some("empty"));
    cluster.eventually::<Endpoints>("endpoints", has).await;
    cluster
        .eventually::<EndpointSlice>("one empty slice", |all| {
            let slices = of(all, "empty", MANAGED);
            slices.len() == 1 && content(&slices[0]).0.is_empty()
        })
        .await;
    assert!(of(&cluster.list::<EndpointSlice>(), "empty", MIRRORED).is_empty(), "nothing to mirror");
    cluster.api::<Service>().delete("empty", &DeleteParams::default()).await.unwrap();
    cluster.eventually::<Endpoints>("no endpoints", |all| !has(all)).await;
    cluster.eventually::<EndpointSlice>("no slices", |all| of(all, "empty", MANAGED).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_create_endpoints_and_endpoint_slices_for_pods_matching_a_service() {
    let cluster = Cluster::start(1).await;
    cluster.furnished().await;
    let named = |port: i32| json!([{"name": "example-name", "containerPort": port}]);
    create_pod(&cluster, "pod1", json!({"pod1": "on", "shared": "on"}), named(3000)).await;
    create_pod(&cluster, "pod2", json!({"pod2": "on", "shared": "on"}), named(3001)).await;
    let service = |selector: Value, target: Value| {
        json!({"selector": selector, "publishNotReadyAddresses": true,
               "ports": [{"name": "http", "port": 80, "targetPort": target}]})
    };
    create_service(&cluster, "one", service(json!({"pod1": "on"}), json!(3000))).await;
    create_service(&cluster, "two", service(json!({"shared": "on"}), json!("example-name"))).await;
    create_service(&cluster, "none", service(json!({"pod3": "on"}), json!(8080))).await;
    let ports = |service: &'static str, expected: Vec<Option<i32>>| {
        move |all: &[Arc<EndpointSlice>]| {
            let slices = of(all, service, MANAGED);
            let mut ports: Vec<_> = slices.iter().map(|slice| content(slice)).collect();
            ports.sort_by_key(|(_, port)| *port);
            let one_each = ports.iter().all(|(ips, port)| ips.len() == usize::from(port.is_some()));
            one_each && ports.iter().map(|(_, port)| *port).collect::<Vec<_>>() == expected
        }
    };
    cluster.eventually("a slice with one pod", ports("one", vec![Some(3000)])).await;
    cluster.eventually("a slice for each number", ports("two", vec![Some(3000), Some(3001)])).await;
    cluster.eventually("one empty slice", ports("none", vec![None])).await;
    let labels = ListParams::default().labels("kubernetes.io/service-name=two");
    cluster.api::<EndpointSlice>().delete_collection(&DeleteParams::default(), &labels).await.unwrap();
    cluster.eventually("slices made again", ports("two", vec![Some(3000), Some(3001)])).await;
    cluster
        .eventually::<Endpoints>("two subsets", |all| {
            let two = all.iter().find(|endpoints| endpoints.metadata.name.as_deref() == Some("two"));
            two.is_some_and(|two| two.subsets.as_ref().is_some_and(|subsets| subsets.len() == 2))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_service_addresses_is_ready_and_stays_while_an_address_depends_on_it() {
    let cluster = Cluster::start(0).await;
    let ranges: Api<ServiceCIDR> = Api::all(cluster.admin());
    let create = async |name: &str, cidr: &str| {
        let body = json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}});
        ranges.create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap()
    };
    create("extra", "10.99.0.0/24").await;
    let ready = |all: &[Arc<ServiceCIDR>], status: &str, reason: Option<&str>| {
        let extra = all.iter().find(|range| range.metadata.name.as_deref() == Some("extra"));
        let conditions =
            extra.and_then(|extra| extra.status.as_ref()?.conditions.clone()).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        ready
            .is_some_and(|ready| ready.status == status && reason.is_none_or(|reason| ready.reason == reason))
    };
    cluster.eventually_anywhere("a ready range", |all| ready(all, "True", None)).await;
    cluster
        .eventually_anywhere::<ServiceCIDR>("finalizers", |all| {
            let finalizers = |range: &ServiceCIDR| range.metadata.finalizers.clone().unwrap_or_default();
            all.iter().all(|range| finalizers(range) == ["networking.k8s.io/service-cidr-finalizer"])
        })
        .await;
    let service =
        json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.99.0.7", "ports": [{"port": 80}]}});
    let services = cluster.api::<Service>();
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    cluster
        .eventually_anywhere::<IPAddress>("its address", |all| {
            all.iter().any(|address| address.metadata.name.as_deref() == Some("10.99.0.7"))
        })
        .await;
    ranges.delete("extra", &DeleteParams::default()).await.unwrap();
    cluster.eventually_anywhere("a blocked range", |all| ready(all, "False", Some("Terminating"))).await;
    create("parent", "10.99.0.0/16").await;
    cluster
        .eventually_anywhere::<ServiceCIDR>("no such range", |all| {
            all.iter().all(|range| range.metadata.name.as_deref() != Some("extra"))
        })
        .await;
}
