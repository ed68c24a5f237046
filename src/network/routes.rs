//! Routes to the pods of other nodes, straight through their addresses where both are on one network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tracing::{info, warn};

use crate::host::Host;
use crate::host::netlink::{NetlinkError, Route, Uplink};

/// Another node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerNode {
    /// Its name, for the log.
    pub name: String,
    /// Its internal address.
    pub ip: IpAddr,
    /// The ranges of its pods, such as `10.42.1.0/24`.
    pub pod_cidrs: Vec<String>,
}

/// Makes the routes those that the peers need: sets what is missing or leads elsewhere, removes what leads to pods of
/// no node. Routes outside `cluster_cidrs` are never touched. Peers on another network are left out with a warning.
pub async fn sync_routes(
    host: &Host,
    uplink: &Uplink,
    cluster_cidrs: &[String],
    own_cidrs: &[String],
    peers: &[PeerNode],
) -> Result<(), NetlinkError> {
    let link = host.netlink.link(&uplink.interface).await?.index;
    let current = host.netlink.routes().await?;
    let plan = plan(&current, uplink, link, cluster_cidrs, own_cidrs, peers);
    for name in &plan.unreachable {
        warn!(node = %name, "node is on another network, its pods cannot be reached from here");
    }
    for route in plan.delete {
        info!(destination = %route.destination, prefix = route.prefix, "route to pods removed");
        host.netlink.delete_route(route).await?;
    }
    for route in plan.set {
        info!(destination = %route.destination, prefix = route.prefix, via = ?route.gateway, "route to pods set");
        host.netlink.replace_route(route).await?;
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    set: Vec<Route>,
    delete: Vec<Route>,
    unreachable: Vec<String>,
}

fn plan(
    current: &[Route],
    uplink: &Uplink,
    link: u32,
    cluster_cidrs: &[String],
    own_cidrs: &[String],
    peers: &[PeerNode],
) -> Plan {
    let mut plan = Plan::default();
    let mut wanted = BTreeMap::new();
    for peer in peers {
        if peer.ip == uplink.ip {
            continue;
        }
        if !within(peer.ip, uplink.ip, uplink.prefix) {
            plan.unreachable.push(peer.name.clone());
            continue;
        }
        for (destination, prefix) in peer.pod_cidrs.iter().filter_map(|cidr| parse(cidr)) {
            if destination.is_ipv4() == peer.ip.is_ipv4() {
                let route = Route { destination, prefix, gateway: Some(peer.ip), link, metric: 0 };
                wanted.insert((destination, prefix), route);
            }
        }
    }
    let own: Vec<_> = own_cidrs.iter().filter_map(|cidr| parse(cidr)).collect();
    let cluster: Vec<_> = cluster_cidrs.iter().filter_map(|cidr| parse(cidr)).collect();
    for route in current {
        let key = (route.destination, route.prefix);
        let of_pods =
            cluster.iter().any(|(net, bits)| route.prefix >= *bits && within(route.destination, *net, *bits));
        match wanted.get(&key) {
            Some(right) if right == route => drop(wanted.remove(&key)),
            Some(_) => {}
            // Only what goes through a gateway was made here; the bridge's own route does not.
            None if of_pods && route.gateway.is_some() && !own.contains(&key) => plan.delete.push(*route),
            None => {}
        }
    }
    plan.set = wanted.into_values().collect();
    plan
}

fn parse(cidr: &str) -> Option<(IpAddr, u8)> {
    let (ip, prefix) = cidr.split_once('/')?;
    Some((ip.parse().ok()?, prefix.parse().ok()?))
}

/// Whether an address lies in the network of another one.
fn within(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (a, b, width) = match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a)), u128::from(u32::from(b)), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
        _ => return false,
    };
    let host_bits = width - u32::from(prefix).min(width);
    (a ^ b).checked_shr(host_bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn uplink() -> Uplink {
        Uplink { ip: ip("192.168.0.1"), prefix: 24, interface: "eth0".into(), mtu: 1500 }
    }

    fn peer(name: &str, address: &str, cidr: &str) -> PeerNode {
        PeerNode { name: name.into(), ip: ip(address), pod_cidrs: vec![cidr.into()] }
    }

    fn route(destination: &str, prefix: u8, via: Option<&str>) -> Route {
        Route { destination: ip(destination), prefix, gateway: via.map(ip), link: 2, metric: 0 }
    }

    fn planned(current: &[Route], peers: &[PeerNode]) -> Plan {
        plan(current, &uplink(), 2, &["10.42.0.0/16".into()], &["10.42.0.0/24".into()], peers)
    }

    #[test]
    fn peers_on_our_network_get_routes_and_others_do_not() {
        let peers = [
            peer("self", "192.168.0.1", "10.42.0.0/24"),
            peer("near", "192.168.0.2", "10.42.1.0/24"),
            peer("far", "192.168.9.2", "10.42.2.0/24"),
        ];
        let plan = planned(&[], &peers);
        assert_eq!(plan.set, [route("10.42.1.0", 24, Some("192.168.0.2"))]);
        assert_eq!(plan.unreachable, ["far"]);
    }

    #[test]
    fn what_is_right_stays_and_what_leads_nowhere_goes() {
        let right = route("10.42.1.0", 24, Some("192.168.0.2"));
        let stale = route("10.42.7.0", 24, Some("192.168.0.7"));
        let current = [
            right,
            stale,
            route("10.42.0.0", 24, None),
            route("10.50.0.0", 24, Some("192.168.0.9")),
            route("0.0.0.0", 0, Some("192.168.0.254")),
        ];
        let peers = [peer("near", "192.168.0.2", "10.42.1.0/24")];
        let plan = planned(&current, &peers);
        assert_eq!((plan.set, plan.delete), (vec![], vec![stale]));
    }

    #[test]
    fn a_node_that_changed_its_address_gets_another_route() {
        let current = [route("10.42.1.0", 24, Some("192.168.0.2"))];
        let plan = planned(&current, &[peer("near", "192.168.0.3", "10.42.1.0/24")]);
        assert_eq!(plan.set, [route("10.42.1.0", 24, Some("192.168.0.3"))]);
        assert!(plan.delete.is_empty());
    }

    #[test]
    fn networks_are_compared_by_their_prefix() {
        assert!(within(ip("192.168.0.200"), ip("192.168.0.1"), 24));
        assert!(!within(ip("192.168.1.1"), ip("192.168.0.1"), 24));
        assert!(within(ip("8.8.8.8"), ip("1.1.1.1"), 0));
        assert!(!within(ip("fd00::1"), ip("1.1.1.1"), 0));
        assert!(within(ip("fd00::ffff"), ip("fd00::1"), 64));
    }
}
