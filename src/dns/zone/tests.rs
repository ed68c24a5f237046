//! Which records the cluster's names have, over Services made by hand.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::*;
use crate::client::Informers;

/// A view over `web` (two ports, 10.43.0.20), `db` (headless, two hosts of which one is not ready), `all` (headless,
/// publishes hosts that are not ready), `elsewhere` (external), `empty` (headless, nobody), and the external names
/// `inside` → `again` → `web` and `circle` → `circle`, all in `default`.
pub(in crate::dns) fn view() -> View {
    let informers = Informers::detached();
    let services = [
        json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.43.0.20", "clusterIPs": ["10.43.0.20"], "ports": [
            {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}),
        json!({"metadata": {"name": "db"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"],
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}}),
        json!({"metadata": {"name": "all"}, "spec": {"clusterIP": "None", "publishNotReadyAddresses": true}}),
        json!({"metadata": {"name": "elsewhere"}, "spec": {"type": "ExternalName", "externalName": "www.example.com"}}),
        json!({"metadata": {"name": "empty"}, "spec": {"clusterIP": "None"}}),
        json!({"metadata": {"name": "inside"}, "spec": {"type": "ExternalName", "externalName": "again.default.svc.cluster.local"}}),
        json!({"metadata": {"name": "again"}, "spec": {"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}}),
        json!({"metadata": {"name": "circle"}, "spec": {"type": "ExternalName", "externalName": "circle.default.svc.cluster.local"}}),
    ];
    let writer = informers.writer::<Service>();
    writer.replace(services.into_iter().map(|service| typed(&service)).collect(), 1);
    let slice = |service: &str| {
        json!({"metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}], "endpoints": [
                {"addresses": ["10.42.0.7"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.42.0.8"], "conditions": {}},
                {"addresses": ["10.42.0.9"], "hostname": "db-2", "conditions": {"ready": false}}]})
    };
    let writer = informers.writer::<EndpointSlice>();
    writer.replace(vec![typed(&slice("db")), typed(&slice("all"))], 1);
    View::new(&informers)
}

fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    let mut value = value.clone();
    value["metadata"]["namespace"] = json!("default");
    serde_json::from_value(value).unwrap()
}

/// The answer as sorted `TYPE data` lines, or the word for a negative one.
fn ask(name: &str, wanted: RecordType) -> String {
    let zone = Zone::new("cluster.local").unwrap();
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    match zone.lookup(&view(), &name, wanted) {
        Lookup::NotOurs => "not ours".to_owned(),
        Lookup::NoName => "no name".to_owned(),
        Lookup::NoData => "no data".to_owned(),
        Lookup::Alias { target, .. } => format!("alias {target}"),
        Lookup::Found { answers, .. } => {
            let mut lines: Vec<_> =
                answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect();
            lines.sort();
            lines.join(", ")
        }
    }
}

#[test]
fn names_have_the_records_of_the_specification() {
    use RecordType::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
    let cases = [
        ("web.default.svc.cluster.local", A, "A 10.43.0.20"),
        ("WEB.Default.SVC.cluster.local", A, "A 10.43.0.20"),
        ("web.default.svc.cluster.local", AAAA, "no data"),
        (
            "web.default.svc.cluster.local",
            SRV,
            "SRV 0 100 53 web.default.svc.cluster.local., SRV 0 100 80 web.default.svc.cluster.local.",
        ),
        ("_http._tcp.web.default.svc.cluster.local", SRV, "SRV 0 100 80 web.default.svc.cluster.local."),
        ("_http._udp.web.default.svc.cluster.local", SRV, "no name"),
        ("_http._tcp.web.default.svc.cluster.local", A, "no data"),
        ("host.web.default.svc.cluster.local", A, "no name"),
        ("db.default.svc.cluster.local", A, "A 10.42.0.7, A 10.42.0.8"),
        ("db-0.db.default.svc.cluster.local", A, "A 10.42.0.7"),
        ("10-42-0-8.db.default.svc.cluster.local", A, "A 10.42.0.8"),
        ("db-2.db.default.svc.cluster.local", A, "no name"),
        (
            "_sql._tcp.db.default.svc.cluster.local",
            SRV,
            "SRV 0 100 5432 10-42-0-8.db.default.svc.cluster.local., SRV 0 100 5432 db-0.db.default.svc.cluster.local.",
        ),
        ("all.default.svc.cluster.local", A, "A 10.42.0.7, A 10.42.0.8, A 10.42.0.9"),
        ("empty.default.svc.cluster.local", A, "no data"),
        ("elsewhere.default.svc.cluster.local", A, "alias www.example.com."),
        ("elsewhere.default.svc.cluster.local", CNAME, "CNAME www.example.com."),
        ("missing.default.svc.cluster.local", A, "no name"),
        ("web.other.svc.cluster.local", A, "no name"),
        ("default.svc.cluster.local", A, "no data"),
        ("other.svc.cluster.local", A, "no name"),
        ("svc.cluster.local", A, "no data"),
        ("web.default.svc.cluster.local.default.svc.cluster.local", A, "no name"),
        ("10-42-0-99.default.pod.cluster.local", A, "A 10.42.0.99"),
        ("nonsense.default.pod.cluster.local", A, "no name"),
        ("dns-version.cluster.local", TXT, "TXT 1.1.0"),
        ("cluster.local", A, "no data"),
        ("20.0.43.10.in-addr.arpa", PTR, "PTR web.default.svc.cluster.local."),
        (
            "8.0.42.10.in-addr.arpa",
            PTR,
            "PTR 10-42-0-8.all.default.svc.cluster.local., PTR 10-42-0-8.db.default.svc.cluster.local.",
        ),
        ("1.2.0.192.in-addr.arpa", PTR, "not ours"),
        ("example.com", A, "not ours"),
        ("notcluster.local", A, "not ours"),
    ];
    for (name, wanted, expected) in cases {
        assert_eq!(ask(name, wanted), expected, "{wanted} {name}");
    }
    assert!(ask("cluster.local", SOA).starts_with("SOA ns.dns.cluster.local."));
}

#[test]
fn ipv6_reverse_names_are_read() {
    let name =
        Name::from_ascii("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa").unwrap();
    assert_eq!(reverse_address(&name), Some("fd00::1".parse().unwrap()));
    let short = Name::from_ascii("1.0.ip6.arpa").unwrap();
    assert_eq!(reverse_address(&short), None);
}

#[test]
fn only_names_are_domains() {
    assert!(Zone::new("example.org").is_some());
    assert!(Zone::new("").is_none());
    assert!(Zone::new("a..b").is_none());
}
