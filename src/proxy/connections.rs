//! Tracked UDP connections outlive the rules that made them: those to endpoints that are gone are forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use tracing::warn;

use super::model::ServicePort;
use crate::host::firewall::{Connections, Firewall};

/// The UDP ports as they were at the last sync: where clients send to, and who served them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Served {
    endpoints: BTreeMap<Entry, BTreeSet<SocketAddr>>,
}

/// Where a client sends to: an address and port, or a node port on any address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    address: Option<IpAddr>,
    port: u16,
}

impl Served {
    pub(super) fn of(ports: &[ServicePort]) -> Self {
        let mut endpoints: BTreeMap<Entry, BTreeSet<SocketAddr>> = BTreeMap::new();
        for port in ports.iter().filter(|port| port.protocol == "udp") {
            let addresses = port.cluster_ips.iter().chain(&port.external_ips).chain(&port.load_balancer_ips);
            let entries = addresses.map(|ip| Entry { address: Some(*ip), port: port.port });
            let node_port = port.node_port.map(|port| Entry { address: None, port });
            for entry in entries.chain(node_port) {
                endpoints
                    .entry(entry)
                    .or_default()
                    .extend(port.endpoints.iter().map(|target| target.address));
            }
        }
        Served { endpoints }
    }

    /// What must be forgotten on the way from `self` to `now`: connections to endpoints that left, and those that
    /// began when there was no endpoint and so go nowhere.
    pub(super) fn stale(&self, now: &Served) -> Vec<Connections> {
        let nobody = BTreeSet::new();
        let mut stale = Vec::new();
        for entry in self.endpoints.keys().chain(now.endpoints.keys()).collect::<BTreeSet<_>>() {
            let before = self.endpoints.get(entry).unwrap_or(&nobody);
            let after = now.endpoints.get(entry).unwrap_or(&nobody);
            let forget = |to: Option<IpAddr>| Connections {
                protocol: "udp".to_owned(),
                original_destination: entry.address,
                destination_port: Some(entry.port),
                translated_destination: to,
            };
            stale.extend(before.difference(after).map(|gone| forget(Some(gone.ip()))));
            if before.is_empty() && !after.is_empty() {
                stale.push(forget(None));
            }
        }
        stale
    }
}

/// Forgets what the last sync made stale, and remembers the present.
pub(super) async fn clean(last: &mut Served, ports: &[ServicePort], firewall: &dyn Firewall) {
    let now = Served::of(ports);
    for connections in last.stale(&now) {
        if let Err(error) = firewall.forget(&connections).await {
            warn!(error = &error as &dyn std::error::Error, "stale UDP connections stay tracked");
        }
    }
    *last = now;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::model::tests::port;

    fn udp(endpoints: &[&str]) -> Served {
        let mut port = port("default/dns:dns", endpoints);
        port.protocol = "udp".to_owned();
        port.node_port = Some(30053);
        Served::of(&[port])
    }

    fn words(stale: &[Connections]) -> Vec<String> {
        let text = |c: &Connections| {
            let address = |a: Option<IpAddr>| a.map_or("*".to_owned(), |a| a.to_string());
            let port = c.destination_port.unwrap();
            format!("{}:{port}->{}", address(c.original_destination), address(c.translated_destination))
        };
        stale.iter().map(text).collect()
    }

    #[test]
    fn connections_to_gone_endpoints_are_forgotten() {
        let stale = udp(&["10.42.0.7:53", "10.42.0.8:53"]).stale(&udp(&["10.42.0.8:53"]));
        assert_eq!(words(&stale), ["*:30053->10.42.0.7", "10.43.0.20:80->10.42.0.7"]);
    }

    #[test]
    fn first_endpoint_frees_clients_that_waited() {
        let stale = udp(&[]).stale(&udp(&["10.42.0.7:53"]));
        assert_eq!(words(&stale), ["*:30053->*", "10.43.0.20:80->*"]);
    }

    #[test]
    fn tcp_and_unchanged_are_left_alone() {
        assert!(udp(&["10.42.0.7:53"]).stale(&udp(&["10.42.0.7:53"])).is_empty());
        let tcp = |endpoints: &[&str]| Served::of(&[port("default/web:http", endpoints)]);
        assert!(tcp(&["10.42.0.7:80"]).stale(&tcp(&[])).is_empty());
    }
}
