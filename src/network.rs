//! The node's part in the cluster network: kernel settings, forwarding and masquerading for pods, routes to the pods
//! of other nodes, and the address that cluster DNS answers at.
//!
//! Works on a host without a default route, without bridge netfilter and without `dummy` devices. Rules live in chains
//! of our own, which [`teardown`] removes again.

use std::io;
use std::net::IpAddr;

use tracing::{debug, warn};

use crate::host::Host;
use crate::host::firewall::{Family, FirewallError};
use crate::host::netlink::{NetlinkError, Route, Uplink, choose_uplink};

mod routes;
mod rules;

pub use routes::{PeerNode, sync_routes};
pub use rules::{Rules, render, render_removal};

/// Settings without which packets of pods are not forwarded.
const REQUIRED: &[(&str, &str)] = &[("net/ipv4/ip_forward", "1")];
/// Settings that matter only where the kernel has them: bridged packets must pass the Service rules, and NodePorts are
/// answered on the loopback address.
const WANTED: &[(&str, &str)] = &[
    ("net/bridge/bridge-nf-call-iptables", "1"),
    ("net/bridge/bridge-nf-call-ip6tables", "1"),
    ("net/ipv4/conf/all/route_localnet", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
];

/// What the network of a node depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Ranges of all pods of the cluster.
    pub cluster_cidrs: Vec<String>,
    /// Address of cluster DNS.
    pub dns: IpAddr,
}

/// What kept the node's network from being set up.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A kernel setting.
    #[error("set kernel setting {name} to {value}")]
    Sysctl {
        /// Which.
        name: &'static str,
        /// To what.
        value: &'static str,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// Firewall rules.
    #[error("set forwarding rules")]
    Firewall(#[from] FirewallError),
    /// Links, addresses, routes.
    #[error("set up addresses and routes")]
    Netlink(#[from] NetlinkError),
    /// The host has no interface at all.
    #[error("the host has no network interface with an address; set --node-ip")]
    NoUplink,
}

/// Finds the address and interface by which this node is reached: those of `wanted` if given and present, otherwise
/// of the default route, otherwise the best guess.
pub async fn uplink(host: &Host, wanted: Option<IpAddr>) -> Result<Uplink, NetworkError> {
    let (links, addresses, routes) =
        tokio::try_join!(host.netlink.links(), host.netlink.addresses(), host.netlink.routes())?;
    let chosen = match wanted {
        None => choose_uplink(&links, &addresses, &routes),
        Some(ip) => addresses.iter().find(|address| address.ip == ip).and_then(|address| {
            let link = links.iter().find(|link| link.index == address.link)?;
            Some(Uplink { ip, prefix: address.prefix, interface: link.name.clone(), mtu: link.mtu })
        }),
    };
    // An address that is on no interface may be one that others translate to us.
    let fallback = || {
        choose_uplink(&links, &addresses, &routes)
            .map(|uplink| Uplink { ip: wanted.unwrap_or(uplink.ip), ..uplink })
    };
    chosen.or_else(fallback).ok_or(NetworkError::NoUplink)
}

/// Sets up what does not depend on other nodes. May be repeated.
pub async fn setup(config: &NetworkConfig, host: &Host) -> Result<(), NetworkError> {
    sysctls(host)?;
    for family in [Family::V4, Family::V6] {
        let cidrs: Vec<_> =
            config.cluster_cidrs.iter().filter(|cidr| family_of(cidr) == family).cloned().collect();
        if cidrs.is_empty() {
            continue;
        }
        let filter = host.firewall.save(family, "filter").await?;
        let nat = host.firewall.save(family, "nat").await?;
        let rules = render(&Rules { cluster_cidrs: &cidrs, filter: &filter, nat: &nat });
        host.firewall.restore(family, &rules).await?;
    }
    dns_address(host, config.dns).await
}

/// Gives the host itself a way to Service addresses where it has no default route: the kernel looks for a route before
/// the Service rules replace the address, and without any the connection would fail at once.
pub async fn service_route(host: &Host, uplink: &Uplink, service_cidr: &str) -> Result<(), NetworkError> {
    let routes = host.netlink.routes().await?;
    let network = service_cidr.split_once('/').and_then(|(a, p)| Some((a.parse().ok()?, p.parse().ok()?)));
    let Some((destination, prefix)) = network else { return Ok(()) };
    if routes
        .iter()
        .any(|route| route.prefix == 0 && route.destination.is_ipv4() == IpAddr::is_ipv4(&destination))
    {
        return Ok(());
    }
    let link = host.netlink.link(&uplink.interface).await?.index;
    let route = Route { destination, prefix, gateway: None, link, metric: 0 };
    host.netlink.replace_route(route).await?;
    debug!(service_cidr, "host without default route reaches Services");
    Ok(())
}

/// Makes the address of cluster DNS one of this node's own, so that a listener can be bound to it: pods reach it
/// through their default gateway, which is this node, and the host itself directly. It is an address of the loopback
/// interface with host scope, never announced to anybody.
pub async fn dns_address(host: &Host, dns: IpAddr) -> Result<(), NetworkError> {
    let lo = host.netlink.link("lo").await?;
    if !lo.up {
        host.netlink.set_up(lo.index).await?;
    }
    host.netlink.add_address(lo.index, dns, host_prefix(dns)).await?;
    debug!(%dns, "address of cluster DNS is on this node");
    Ok(())
}

/// Removes rules, the address of cluster DNS and the pods' bridge. What is not there is no error.
pub async fn teardown(config: &NetworkConfig, host: &Host) -> Result<(), NetworkError> {
    for family in [Family::V4, Family::V6] {
        let filter = host.firewall.save(family, "filter").await?;
        let nat = host.firewall.save(family, "nat").await?;
        let removal = render_removal(&filter, &nat);
        if !removal.is_empty() {
            host.firewall.restore(family, &removal).await?;
        }
    }
    let lo = host.netlink.link("lo").await?;
    host.netlink.delete_address(lo.index, config.dns, host_prefix(config.dns)).await?;
    host.netlink.delete_link(rules::BRIDGE).await?;
    Ok(())
}

fn sysctls(host: &Host) -> Result<(), NetworkError> {
    for &(name, value) in REQUIRED {
        ensure(host, name, value).map_err(|source| NetworkError::Sysctl { name, value, source })?;
    }
    for &(name, value) in WANTED {
        match ensure(host, name, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                debug!(setting = name, "the kernel has no such setting");
            }
            Err(error) => warn!(%error, setting = name, value, "kernel setting not made"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// A setting that is right already is not written: it may be read-only for us.
fn ensure(host: &Host, name: &str, value: &str) -> io::Result<()> {
    if host.sysctls.get(name)? == value {
        return Ok(());
    }
    host.sysctls.set(name, value)
}

fn family_of(cidr: &str) -> Family {
    if cidr.contains(':') { Family::V6 } else { Family::V4 }
}

fn host_prefix(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests;
