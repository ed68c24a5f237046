//! Links, addresses and routes of this network namespace.

use std::net::{IpAddr, Ipv4Addr};

use async_trait::async_trait;

mod real;

pub use real::RealNetlink;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Largest packet it carries.
    pub mtu: u32,
    /// Whether it has been brought up.
    pub up: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// What kind of virtual interface it is (`bridge`, `veth`, `vxlan`); `None` for hardware.
    pub kind: Option<String>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Index of the link that has it.
    pub link: u32,
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Whether it is meant to be reached from other hosts.
    pub global: bool,
}

/// A route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; the unspecified address with prefix 0 is the default route.
    pub destination: IpAddr,
    /// Length of the destination's prefix.
    pub prefix: u8,
    /// Next hop, unless the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Index of the link it goes through.
    pub link: u32,
    /// Routes with a lower metric win.
    pub metric: u32,
}

impl Route {
    /// Whether it leads everywhere.
    pub fn is_default(&self) -> bool {
        self.prefix == 0
    }
}

/// A request to the kernel's routing that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused.
    #[error("{operation}")]
    Request {
        /// What was asked, with its subject.
        operation: String,
        /// The kernel's reason.
        #[source]
        source: Box<rtnetlink::Error>,
    },
    /// There is no connection to the kernel.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// There is no link of that name.
    #[error("there is no network interface {0}")]
    NoLink(String),
}

/// Routing of this network namespace.
#[async_trait]
pub trait Netlink: Send + Sync {
    /// All links.
    async fn links(&self) -> Result<Vec<Link>, NetlinkError>;
    /// All addresses.
    async fn addresses(&self) -> Result<Vec<Address>, NetlinkError>;
    /// The unicast routes of the main table.
    async fn routes(&self) -> Result<Vec<Route>, NetlinkError>;
    /// Gives a link an address; one that it has is left alone. On the loopback link its scope is this host.
    async fn add_address(&self, link: u32, ip: IpAddr, prefix: u8) -> Result<(), NetlinkError>;
    /// Takes an address from a link; one that it has not is no error.
    async fn delete_address(&self, link: u32, ip: IpAddr, prefix: u8) -> Result<(), NetlinkError>;
    /// Sets a route, in the place of one to the same destination.
    async fn replace_route(&self, route: Route) -> Result<(), NetlinkError>;
    /// Removes a route; one that is not there is no error.
    async fn delete_route(&self, route: Route) -> Result<(), NetlinkError>;
    /// Brings a link up.
    async fn set_up(&self, link: u32) -> Result<(), NetlinkError>;
    /// Deletes a link by name; one that is not there is no error.
    async fn delete_link(&self, name: &str) -> Result<(), NetlinkError>;
    /// The link of that name.
    async fn link(&self, name: &str) -> Result<Link, NetlinkError> {
        let found = self.links().await?.into_iter().find(|link| link.name == name);
        found.ok_or_else(|| NetlinkError::NoLink(name.to_owned()))
    }
}

/// How this node is reached by others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The node's address.
    pub ip: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Name of the interface that has it.
    pub interface: String,
    /// Largest packet the interface carries.
    pub mtu: u32,
}

/// Picks the node's address: that of the interface with the best default route; without a default route the first
/// global address of an interface that is up, hardware before virtual ones; at last a loopback address, so that a
/// node without any network works by itself. Interfaces of pods and bridges made for them are never picked.
pub fn choose_uplink(links: &[Link], addresses: &[Address], routes: &[Route]) -> Option<Uplink> {
    let address_of = |link: &Link, global: bool| {
        let fits = |a: &&Address| a.link == link.index && a.ip.is_ipv4() && a.global == global;
        addresses.iter().find(fits).map(|a| uplink(link, a))
    };
    let mut defaults: Vec<_> = routes.iter().filter(|r| r.is_default() && r.destination.is_ipv4()).collect();
    defaults.sort_by_key(|route| route.metric);
    let routed = defaults
        .iter()
        .filter_map(|route| links.iter().find(|link| link.index == route.link))
        .find_map(|link| address_of(link, true));
    let candidate = |link: &&Link| link.up && !link.loopback && !made_for_pods(link);
    let first = |virtual_too: bool| {
        links
            .iter()
            .filter(candidate)
            .filter(|link| virtual_too || link.kind.is_none())
            .find_map(|link| address_of(link, true))
    };
    let lonely = || {
        let link = links.iter().find(|link| link.loopback)?;
        address_of(link, true).or_else(|| address_of(link, false)).or_else(|| {
            let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
            Some(Uplink { ip, prefix: 8, interface: link.name.clone(), mtu: link.mtu })
        })
    };
    routed.or_else(|| first(false)).or_else(|| first(true)).or_else(lonely)
}

fn uplink(link: &Link, address: &Address) -> Uplink {
    Uplink { ip: address.ip, prefix: address.prefix, interface: link.name.clone(), mtu: link.mtu }
}

/// Bridges and tunnels that container networks make.
fn made_for_pods(link: &Link) -> bool {
    ["cni", "docker", "br-", "virbr", "flannel", "kube-", "cali", "cilium", "lxc"]
        .iter()
        .any(|prefix| link.name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Option<&str>) -> Link {
        Link {
            index,
            name: name.into(),
            mtu: 1500,
            up: true,
            loopback: name == "lo",
            kind: kind.map(Into::into),
        }
    }

    fn address(link: u32, ip: &str) -> Address {
        let ip: IpAddr = ip.parse().unwrap();
        Address { link, ip, prefix: 24, global: !ip.is_loopback() }
    }

    fn default_route(link: u32, metric: u32) -> Route {
        Route { destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0, gateway: None, link, metric }
    }

    fn machine() -> (Vec<Link>, Vec<Address>) {
        let links = vec![
            link(1, "lo", None),
            link(2, "cni0", Some("bridge")),
            link(3, "veth1", Some("veth")),
            link(4, "eth0", None),
            link(5, "eth1", None),
        ];
        let addresses = vec![
            address(1, "127.0.0.1"),
            address(2, "10.42.0.1"),
            address(3, "172.30.0.2"),
            address(4, "192.168.0.4"),
            address(5, "192.168.0.5"),
        ];
        (links, addresses)
    }

    fn chosen(links: &[Link], addresses: &[Address], routes: &[Route]) -> String {
        choose_uplink(links, addresses, routes).unwrap().ip.to_string()
    }

    #[test]
    fn the_best_default_route_decides() {
        let (links, addresses) = machine();
        let routes = [default_route(4, 200), default_route(5, 100)];
        assert_eq!(chosen(&links, &addresses, &routes), "192.168.0.5");
    }

    #[test]
    fn without_a_default_route_hardware_comes_first_then_virtual_links() {
        let (links, addresses) = machine();
        assert_eq!(chosen(&links, &addresses, &[]), "192.168.0.4");
        let few: Vec<_> = links.into_iter().filter(|link| link.index < 4).collect();
        assert_eq!(chosen(&few, &addresses, &[]), "172.30.0.2");
    }

    #[test]
    fn a_node_without_network_has_its_loopback_address() {
        let links = [link(1, "lo", None), link(2, "cni0", Some("bridge"))];
        assert_eq!(chosen(&links, &[address(1, "127.0.0.1"), address(2, "10.42.0.1")], &[]), "127.0.0.1");
        assert_eq!(chosen(&links, &[], &[]), "127.0.0.1");
        assert_eq!(choose_uplink(&[], &[], &[]), None);
    }
}
