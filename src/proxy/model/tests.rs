//! What is read out of Services and EndpointSlices.

use serde_json::{Value, json};

use super::*;

/// A TCP port 80 on 10.43.0.20 with those endpoints; the first is on this node.
pub(in crate::proxy) fn port(name: &str, endpoints: &[&str]) -> ServicePort {
    let target =
        |(index, address): (usize, &&str)| Target { address: address.parse().unwrap(), local: index == 0 };
    ServicePort {
        name: name.to_owned(),
        protocol: "tcp".to_owned(),
        cluster_ips: vec!["10.43.0.20".parse().unwrap()],
        port: 80,
        node_port: None,
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        affinity: None,
        internal_local: false,
        external_local: false,
        endpoints: endpoints.iter().enumerate().map(target).collect(),
    }
}

fn service(spec: Value) -> Arc<Service> {
    let object = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn slice(endpoints: Value) -> Arc<EndpointSlice> {
    let object = json!({"metadata": {"name": "web-1", "namespace": "default", "labels": {SERVICE_NAME: "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn simple() -> Arc<Service> {
    service(json!({"clusterIP": "10.43.0.20", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}))
}

fn used(endpoints: Value) -> Vec<String> {
    let ports = service_ports(&[simple()], &[slice(endpoints)], "here");
    let text = |t: &Target| format!("{}{}", t.address, if t.local { " here" } else { "" });
    ports[0].endpoints.iter().map(text).collect()
}

#[test]
fn port_has_upstreams_name_and_all_addresses() {
    let spec = json!({"clusterIP": "10.43.0.20", "clusterIPs": ["10.43.0.20", "fd00::20"], "externalIPs": ["192.0.2.7"],
        "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]});
    let ports = service_ports(&[service(spec)], &[], "here");
    let names: Vec<_> = ports.iter().map(|port| (port.name.as_str(), port.protocol.as_str())).collect();
    assert_eq!(names, [("default/web", "udp"), ("default/web:http", "tcp")]);
    assert_eq!(ports[1].cluster_ips.len(), 2);
    assert_eq!(ports[1].external_ips.len(), 1);
    assert_eq!((ports[1].node_port, ports[0].node_port), (Some(30080), None));
    assert_eq!(ports[1].affinity, Some(10800));
    assert!(ports[1].external_local && !ports[1].internal_local);
}

#[test]
fn services_without_a_cluster_address_are_skipped() {
    for spec in [
        json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"clusterIP": "", "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "a.example"}),
    ] {
        assert!(service_ports(&[service(spec.clone())], &[], "here").is_empty(), "{spec}");
    }
}

#[test]
fn ready_endpoints_are_used_and_unknown_counts_as_ready() {
    let endpoints = json!([
        {"addresses": ["10.42.0.7"], "nodeName": "here", "conditions": {"ready": true}},
        {"addresses": ["10.42.1.8"], "nodeName": "there"},
        {"addresses": ["10.42.1.9"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.42.1.10"], "conditions": {"ready": false}},
    ]);
    assert_eq!(used(endpoints), ["10.42.0.7:8080 here", "10.42.1.8:8080"]);
}

#[test]
fn terminating_endpoints_serve_when_nobody_is_ready() {
    let endpoints = json!([
        {"addresses": ["10.42.1.9"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.42.1.10"], "conditions": {"ready": false, "serving": false, "terminating": true}},
    ]);
    assert_eq!(used(endpoints), ["10.42.1.9:8080"]);
}
