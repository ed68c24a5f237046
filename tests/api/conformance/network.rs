//! `[sig-network]`: Services, endpoints, Ingresses and addresses as API objects, and what the controllers make of them.

use serde_json::{Value, json};

use super::crud::{Life, includes};
use super::{controlled, count, patch, post, put, until};
use crate::server::TestServer;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const NETWORKING: &str = "/apis/networking.k8s.io/v1";

async fn lives(group: &str, resource: &str, object: Value, change: Value, status: Value) {
    let server = TestServer::start().await;
    Life { group, resource, object, change, status }.play(&server, "network").await;
}

#[tokio::test]
async fn endpoints_run_through_their_lifecycle() {
    let subset = |ip: &str, name: &str, port: u16| json!({"subsets": [{"addresses": [{"ip": ip}], "ports": [{"name": name, "port": port, "protocol": "TCP"}]}]});
    let (object, change) = (subset("10.0.0.24", "http", 80), subset("10.0.0.25", "http-test", 8080));
    lives("/api/v1", "namespaces/default/endpoints", object, change, Value::Null).await;
}

#[tokio::test]
async fn endpoint_slices_support_api_operations() {
    let object = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4", "5.6.7.8"]}]});
    let change = json!({"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
    let path = "namespaces/default/endpointslices";
    lives("/apis/discovery.k8s.io/v1", path, object, change, Value::Null).await;
}

#[tokio::test]
async fn ingresses_support_api_operations() {
    let backend = json!({"service": {"name": "default-backend", "port": {"number": 80}}});
    let object = json!({"spec": {"defaultBackend": backend}});
    let change = json!({"spec": {"ingressClassName": "e2e"}});
    let status = json!({"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}});
    lives(NETWORKING, "namespaces/default/ingresses", object, change, status).await;
}

#[tokio::test]
async fn ingress_classes_support_api_operations() {
    let object = json!({"spec": {"controller": "e2e.example.com/controller"}});
    let reference =
        json!({"apiGroup": "k8s.example.com", "kind": "IngressParameters", "name": "p", "scope": "Cluster"});
    lives(NETWORKING, "ingressclasses", object, json!({"spec": {"parameters": reference}}), Value::Null)
        .await;
}

#[tokio::test]
async fn ip_addresses_run_through_their_lifecycle() {
    let server = TestServer::start().await;
    let parent = json!({"group": "mygroup", "resource": "myresources", "namespace": "foo", "name": "bar"});
    let object = json!({"spec": {"parentRef": parent}});
    let life =
        Life { group: NETWORKING, resource: "ipaddresses", object, change: Value::Null, status: Value::Null };
    life.play_as(&server, |i| format!("fe80::42:1dff:fe84:f9e{i}")).await;
}

#[tokio::test]
async fn the_default_service_range_is_there() {
    let server = TestServer::start().await;
    let path = format!("{NETWORKING}/servicecidrs");
    let range = until(async || {
        let (code, range) = server.send("GET", &format!("{path}/kubernetes"), None).await;
        (code == 200).then_some(range)
    })
    .await;
    let (_, status) = server.send("GET", &format!("{path}/kubernetes/status"), None).await;
    assert_eq!(
        (&status["kind"], &status["apiVersion"]),
        (&json!("ServiceCIDR"), &json!("networking.k8s.io/v1"))
    );
    assert_eq!(status["metadata"]["uid"], range["metadata"]["uid"]);
    assert!(count(&server, &path).await > 0);
}

#[tokio::test]
async fn a_service_completes_its_status_lifecycle() {
    let server = TestServer::start().await;
    let ports = json!([{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}]);
    let object = json!({"metadata": {"name": "test-service", "labels": {"test-service-static": "true"}},
        "spec": {"type": "LoadBalancer", "ports": ports, "loadBalancerClass": "example.com/internal-vip"}});
    post(&server, SERVICES, object).await;
    let (one, status) = (format!("{SERVICES}/test-service"), format!("{SERVICES}/test-service/status"));
    let (_, read) = server.send("GET", &status, None).await;
    assert_eq!(read["kind"], "Service");
    let balancer = json!({"ingress": [{"ip": "203.0.113.1"}]});
    let change =
        json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"loadBalancer": balancer}});
    let mut patched = patch(&server, &status, change).await;
    assert!(includes(&patched["status"]["loadBalancer"], &balancer), "{patched}");
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    patched["status"]["conditions"] = json!([condition]);
    let updated = put(&server, &status, patched).await;
    assert_eq!(updated["status"]["conditions"], json!([condition]));
    let labelled = patch(&server, &one, json!({"metadata": {"labels": {"test-service": "patched"}}})).await;
    assert_eq!(labelled["metadata"]["labels"]["test-service"], "patched");
    let version = labelled["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(server.send("DELETE", &one, None).await.0, 200);
    let query = format!(
        "{SERVICES}?watch=1&resourceVersion={version}&timeoutSeconds=1&labelSelector=test-service-static%3Dtrue"
    );
    let (_, events) = server.send("GET", &query, None).await;
    let event: Value = serde_json::from_str(events.as_str().unwrap_or(&events.to_string())).unwrap();
    assert_eq!(event["type"], "DELETED");
}

#[tokio::test]
async fn services_are_found_in_all_namespaces_and_deleted_as_a_collection() {
    let server = TestServer::start().await;
    let object = |name: &str| json!({"metadata": {"name": name, "labels": {"e2e": "1"}}, "spec": {"ports": [{"port": 80}]}});
    for name in ["e2e-svc-a", "e2e-svc-b", "e2e-svc-c"] {
        post(&server, SERVICES, object(name)).await;
    }
    patch(&server, &format!("{SERVICES}/e2e-svc-c"), json!({"metadata": {"labels": {"e2e": "2"}}})).await;
    let (_, all) = server.send("GET", "/api/v1/services", None).await;
    let names: Vec<_> =
        all["items"].as_array().unwrap().iter().map(|s| s["metadata"]["name"].clone()).collect();
    assert!(names.contains(&json!("e2e-svc-a")) && names.contains(&json!("kubernetes")), "{names:?}");
    let (code, _) = server.send("DELETE", &format!("{SERVICES}?labelSelector=e2e%3D1"), None).await;
    assert_eq!((code, count(&server, &format!("{SERVICES}?labelSelector=e2e")).await), (200, 1));
}

/// `[sig-network] Services should be able to change the type …`: what the API makes of the addresses and ports.
#[tokio::test]
async fn a_services_type_changes_to_and_from_an_external_name() {
    let server = TestServer::start().await;
    let one = format!("{SERVICES}/changes");
    let external = json!({"metadata": {"name": "changes"}, "spec": {"type": "ExternalName", "externalName": "example.com"}});
    let made = post(&server, SERVICES, external).await;
    assert!(made["spec"]["clusterIP"].is_null(), "{made}");
    let mut object = made;
    for (kind, node_port) in
        [("ClusterIP", false), ("ExternalName", false), ("NodePort", true), ("ExternalName", false)]
    {
        let spec = object["spec"].as_object_mut().unwrap();
        spec.insert("type".to_owned(), kind.into());
        if kind == "ExternalName" {
            spec.insert("externalName".to_owned(), "example.com".into());
            // The suite's client empties the address itself.
            spec.insert("clusterIP".to_owned(), "".into());
        } else {
            spec.remove("externalName");
            spec.insert(
                "ports".to_owned(),
                json!([{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 9376}]),
            );
        }
        object = put(&server, &one, object).await;
        let spec = &object["spec"];
        assert_eq!(spec["clusterIP"].is_string(), kind != "ExternalName", "{kind}: {spec}");
        assert_eq!(spec["ports"][0]["nodePort"].is_number(), node_port, "{kind}: {spec}");
    }
}

/// `[sig-network] API Server should provide secure master service` and `should have Endpoints and EndpointSlices …`.
#[tokio::test]
async fn the_api_servers_own_service_has_its_addresses() {
    let server = TestServer::start().await;
    let (_, service) = server.send("GET", &format!("{SERVICES}/kubernetes"), None).await;
    assert!(
        includes(&service["spec"], &json!({"ports": [{"name": "https", "port": 443, "protocol": "TCP"}]})),
        "{service}"
    );
}

/// `[sig-network] EndpointSlice` and `EndpointsController`: slices and Endpoints of selectors that match nothing, one
/// pod, and pods by the names of their ports.
#[tokio::test]
async fn services_with_selectors_have_endpoints_and_slices_that_go_with_them() {
    let server = controlled().await;
    until(async || {
        let (code, _) = server.send("GET", "/api/v1/namespaces/default/serviceaccounts/default", None).await;
        (code == 200).then_some(())
    })
    .await;
    let pods = "/api/v1/namespaces/default/pods";
    let node = json!({"metadata": {"name": "node-1"}});
    post(&server, "/api/v1/nodes", node).await;
    for (name, ip, ports) in [
        ("pod1", "10.42.0.11", json!([{"name": "example-name", "containerPort": 3000}])),
        (
            "pod2",
            "10.42.0.12",
            json!([{"name": "example-name", "containerPort": 3001}, {"name": "other-port", "containerPort": 3002}]),
        ),
    ] {
        let object = json!({"metadata": {"name": name, "labels": {name: "on", "shared12": "on"}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "nginx", "ports": ports}]}});
        post(&server, pods, object).await;
        let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}]});
        patch(&server, &format!("{pods}/{name}/status"), json!({"status": status})).await;
    }
    let service = |name: &str, label: &str, target: Value| {
        json!({"metadata": {"name": name}, "spec": {"selector": {label: "on"}, "publishNotReadyAddresses": true,
            "ports": [{"name": "http", "port": 80, "targetPort": target, "protocol": "TCP"}]}})
    };
    post(&server, SERVICES, service("example-int-port", "pod1", json!(3000))).await;
    post(&server, SERVICES, service("example-named-port", "shared12", json!("example-name"))).await;
    post(&server, SERVICES, service("example-no-match", "nothing", json!(3000))).await;
    for (name, wanted) in [
        ("example-int-port", json!([["10.42.0.11", 3000]])),
        ("example-named-port", json!([["10.42.0.11", 3000], ["10.42.0.12", 3001]])),
        ("example-no-match", json!([])),
    ] {
        until(async || {
            let (code, endpoints) =
                server.send("GET", &format!("/api/v1/namespaces/default/endpoints/{name}"), None).await;
            (code == 200 && pairs(&endpoints["subsets"], |s| &s["addresses"], |a| &a["ip"]) == wanted)
                .then_some(())
        })
        .await;
        let slices = format!(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
        );
        until(async || {
            let (_, slices) = server.send("GET", &slices, None).await;
            let found = slices["items"].as_array().unwrap();
            let own = found.iter().all(|s| s["metadata"]["ownerReferences"][0]["name"] == *name);
            let managed = "endpointslice.kubernetes.io/managed-by";
            let labels =
                found.iter().all(|s| s["metadata"]["labels"][managed] == "endpointslice-controller.k8s.io");
            let there = pairs(&slices["items"], |s| &s["endpoints"], |e| &e["addresses"][0]) == wanted;
            (!found.is_empty() && own && labels && there).then_some(())
        })
        .await;
        assert_eq!(server.send("DELETE", &format!("{SERVICES}/{name}"), None).await.0, 200);
        until(async || {
            let (code, _) =
                server.send("GET", &format!("/api/v1/namespaces/default/endpoints/{name}"), None).await;
            (code == 404 && count(&server, &slices).await == 0).then_some(())
        })
        .await;
    }
}

/// Every address with every port of its own subset, in order.
fn pairs(subsets: &Value, addresses: fn(&Value) -> &Value, ip: fn(&Value) -> &Value) -> Value {
    let mut out: Vec<(String, i64)> = Vec::new();
    for subset in subsets.as_array().into_iter().flatten() {
        for address in addresses(subset).as_array().into_iter().flatten() {
            for port in subset["ports"].as_array().into_iter().flatten() {
                out.push((
                    ip(address).as_str().unwrap_or_default().to_owned(),
                    port["port"].as_i64().unwrap_or(0),
                ));
            }
        }
    }
    out.sort();
    json!(out)
}

#[tokio::test]
async fn custom_endpoints_are_mirrored_through_create_update_and_delete() {
    let server = controlled().await;
    let service = json!({"metadata": {"name": "example-custom-endpoints"}, "spec": {"ports": [{"name": "example", "port": 80, "protocol": "TCP"}]}});
    post(&server, SERVICES, service).await;
    let path = "/api/v1/namespaces/default/endpoints";
    let one = format!("{path}/example-custom-endpoints");
    let subsets = |ip: &str| json!([{"addresses": [{"ip": ip}], "ports": [{"name": "http", "port": 80}]}]);
    let object = json!({"metadata": {"name": "example-custom-endpoints"}, "subsets": subsets("10.1.2.3")});
    let mut object = post(&server, path, object).await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dexample-custom-endpoints";
    for ip in ["10.1.2.3", "10.2.3.4"] {
        object["subsets"] = subsets(ip);
        object = put(&server, &one, object).await;
        until(async || {
            let (_, slices) = server.send("GET", slices, None).await;
            let wanted = json!([{"addresses": [ip]}]);
            let found = slices["items"].as_array().unwrap();
            (found.len() == 1
                && includes(&found[0]["endpoints"], &wanted)
                && found[0]["ports"][0]["port"] == 80)
                .then_some(())
        })
        .await;
    }
    assert_eq!(server.send("DELETE", &one, None).await.0, 200);
    until(async || (count(&server, slices).await == 0).then_some(())).await;
}
