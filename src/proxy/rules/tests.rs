//! The rules of Services, as text.

use super::*;
use crate::proxy::model::tests::port;

const PODS: &str = "10.42.0.0/16";

fn rules(port: &ServicePort) -> Rules {
    render(std::slice::from_ref(port), Family::V4, &[PODS.to_owned()])
}

/// The rules of a chain without comments.
fn chain(chains: &Chains, name: &str) -> Vec<String> {
    let plain = |rule: &String| {
        let mut parts: Vec<_> = rule.split('"').collect();
        if parts.len() == 3 {
            parts.remove(1);
        }
        parts
            .concat()
            .replace("-m comment --comment  ", "")
            .replace("-m comment --comment ", "")
            .trim()
            .to_owned()
    };
    chains
        .get(name)
        .unwrap_or_else(|| panic!("no chain {name} in {:?}", chains.keys()))
        .iter()
        .map(plain)
        .collect()
}

fn only(chains: &Chains, prefix: &str) -> String {
    let found: Vec<_> = chains.keys().filter(|chain| chain.starts_with(prefix)).collect();
    assert_eq!(found.len(), 1, "{prefix} in {:?}", chains.keys());
    found[0].clone()
}

#[test]
fn chain_names_are_upstreams() {
    // The chain of the cluster's own Service is the same in every cluster of upstream's.
    assert_eq!(short_hash(&["default/kubernetes:https", "tcp"]), "NPX46M4PTMTKRN6Y");
}

#[test]
fn cluster_address_is_balanced_over_all_endpoints() {
    let rules = rules(&port("default/web:http", &["10.42.0.7:8080", "10.42.1.8:8080", "10.42.1.9:8080"]));
    let service = only(&rules.nat, "KUBE-SVC-");
    assert_eq!(
        chain(&rules.nat, "KUBE-SERVICES")[0],
        format!("-p tcp -m tcp -d 10.43.0.20 --dport 80 -j {service}")
    );
    let picked = chain(&rules.nat, &service);
    assert_eq!(picked[0], "-p tcp -m tcp -d 10.43.0.20 --dport 80 ! -s 10.42.0.0/16 -j KUBE-MARK-MASQ");
    assert!(picked[1].contains("--probability 0.3333333333 "), "{}", picked[1]);
    assert!(picked[2].contains("--probability 0.5000000000 "), "{}", picked[2]);
    let last = picked[3].strip_prefix("-j ").unwrap();
    assert_eq!(
        chain(&rules.nat, last),
        ["-s 10.42.1.9 -j KUBE-MARK-MASQ", "-p tcp -m tcp -j DNAT --to-destination 10.42.1.9:8080"]
    );
    assert_eq!(rules.nat.keys().filter(|chain| chain.starts_with("KUBE-SEP-")).count(), 3);
}

#[test]
fn node_ports_are_the_last_rule() {
    let mut port = port("default/web:http", &["10.42.0.7:8080"]);
    port.node_port = Some(30080);
    let rules = rules(&port);
    let external = only(&rules.nat, "KUBE-EXT-");
    let services = chain(&rules.nat, "KUBE-SERVICES");
    assert_eq!(services.last().unwrap(), "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS");
    assert_eq!(chain(&rules.nat, "KUBE-NODEPORTS"), [format!("-p tcp -m tcp --dport 30080 -j {external}")]);
    let service = only(&rules.nat, "KUBE-SVC-");
    assert_eq!(chain(&rules.nat, &external), ["-j KUBE-MARK-MASQ".to_owned(), format!("-j {service}")]);
}

#[test]
fn nobody_there_is_refused() {
    let mut port = port("default/web:http", &[]);
    port.node_port = Some(30080);
    port.external_ips = vec!["192.0.2.7".parse().unwrap()];
    let rules = rules(&port);
    assert_eq!(chain(&rules.filter, "KUBE-SERVICES"), ["-p tcp -m tcp -d 10.43.0.20 --dport 80 -j REJECT"]);
    assert_eq!(
        chain(&rules.filter, "KUBE-EXTERNAL-SERVICES"),
        [
            "-p tcp -m tcp -d 192.0.2.7 --dport 80 -j REJECT",
            "-m addrtype --dst-type LOCAL -p tcp -m tcp --dport 30080 -j REJECT"
        ]
    );
    assert!(!rules.nat.keys().any(|chain| chain.starts_with("KUBE-SVC-")));
}

#[test]
fn local_policy_keeps_outside_traffic_on_the_node_and_its_source() {
    let mut port = port("default/web:http", &["10.42.0.7:8080", "10.42.1.8:8080"]);
    port.node_port = Some(30080);
    port.external_local = true;
    let rules = rules(&port);
    let (all, local) = (only(&rules.nat, "KUBE-SVC-"), only(&rules.nat, "KUBE-SVL-"));
    let external = chain(&rules.nat, &only(&rules.nat, "KUBE-EXT-"));
    assert_eq!(
        external,
        [
            format!("-s {PODS} -j {all}"),
            "-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ".to_owned(),
            format!("-m addrtype --src-type LOCAL -j {all}"),
            format!("-j {local}"),
        ]
    );
    assert_eq!(chain(&rules.nat, &local).len(), 1, "one endpoint is on this node");
}

#[test]
fn local_policy_without_local_endpoint_drops() {
    let mut port = port("default/web:http", &["10.42.0.7:8080"]);
    port.endpoints[0].local = false;
    port.internal_local = true;
    port.external_local = true;
    port.node_port = Some(30080);
    let rules = rules(&port);
    assert_eq!(chain(&rules.filter, "KUBE-SERVICES"), ["-p tcp -m tcp -d 10.43.0.20 --dport 80 -j DROP"]);
    assert_eq!(
        chain(&rules.filter, "KUBE-EXTERNAL-SERVICES"),
        ["-m addrtype --dst-type LOCAL -p tcp -m tcp --dport 30080 -j DROP"]
    );
}

#[test]
fn affinity_remembers_the_endpoint_of_a_client() {
    let mut port = port("default/web:http", &["10.42.0.7:8080", "10.42.1.8:8080"]);
    port.affinity = Some(600);
    let rules = rules(&port);
    let picked = chain(&rules.nat, &only(&rules.nat, "KUBE-SVC-"));
    let remembered = picked.iter().filter(|rule| rule.contains("--rcheck --seconds 600 --reap")).count();
    assert_eq!(remembered, 2, "{picked:?}");
    let endpoint = rules.nat.keys().find(|chain| chain.starts_with("KUBE-SEP-")).unwrap();
    assert!(chain(&rules.nat, endpoint)[1].contains(&format!("-m recent --name {endpoint} --set")));
}

#[test]
fn balancer_lets_in_only_its_source_ranges() {
    let mut port = port("default/web:http", &["10.42.0.7:8080"]);
    port.load_balancer_ips = vec!["192.0.2.9".parse().unwrap()];
    port.source_ranges = vec!["198.51.100.0/24".to_owned(), "2001:db8::/32".to_owned()];
    let rules = rules(&port);
    let external = only(&rules.nat, "KUBE-EXT-");
    assert_eq!(
        chain(&rules.nat, &only(&rules.nat, "KUBE-FW-")),
        [format!("-s 198.51.100.0/24 -j {external}")]
    );
    assert_eq!(
        chain(&rules.filter, "KUBE-PROXY-FIREWALL"),
        ["-p tcp -m tcp -d 192.0.2.9 --dport 80 -j DROP"]
    );
}

#[test]
fn families_do_not_mix() {
    let mut port = port("default/web:http", &["10.42.0.7:8080", "[fd00::7]:8080"]);
    port.cluster_ips.push("fd00::20".parse().unwrap());
    let v6 = render(&[port], Family::V6, &[PODS.to_owned(), "fd42::/56".to_owned()]);
    let text = format!("{v6:?}");
    assert!(text.contains("fd00::20") && text.contains("fd42::/56") && !text.contains("10.4"), "{text}");
    assert_eq!(v6.nat.keys().filter(|chain| chain.starts_with("KUBE-SEP-")).count(), 1);
}

#[test]
fn own_chains_are_told_from_others() {
    assert!(is_ours("KUBE-SERVICES") && is_ours("KUBE-SEP-ABC"));
    assert!(!is_ours("KUBE-ROUTER-INPUT") && !is_ours("CNI-HOSTPORT-DNAT") && !is_ours("INPUT"));
}
