//! Routing by rtnetlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use futures::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use super::{Address, Link, Netlink, NetlinkError, Route};

/// The kernel's routing of the network namespace that the first call is made in.
#[derive(Debug)]
pub struct RealNetlink {
    handle: OnceCell<Handle>,
    /// A socket answers one listing at a time: the kernel refuses a second with EBUSY.
    listings: Semaphore,
}

impl Default for RealNetlink {
    fn default() -> Self {
        Self { handle: OnceCell::new(), listings: Semaphore::new(1) }
    }
}

impl RealNetlink {
    /// Held while the kernel lists something.
    async fn listing(&self) -> Option<SemaphorePermit<'_>> {
        // Fails only when the semaphore is closed, which nobody does.
        self.listings.acquire().await.ok()
    }

    async fn handle(&self) -> Result<Handle, NetlinkError> {
        let open = || async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Socket)?;
            // Ends by itself when the last handle is dropped.
            drop(tokio::spawn(connection));
            Ok(handle)
        };
        self.handle.get_or_try_init(open).await.cloned()
    }
}

fn failed(operation: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    let operation = operation.into();
    |source| NetlinkError::Request { operation, source: Box::new(source) }
}

/// Whether the kernel's reason is this error number.
fn is(error: &rtnetlink::Error, errno: nix::errno::Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -(errno as i32))
}

#[async_trait]
impl Netlink for RealNetlink {
    async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let _listing = self.listing().await;
        let messages = self.handle().await?.link().get().execute();
        messages.map_ok(link).try_collect().await.map_err(failed("list links"))
    }

    async fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        let _listing = self.listing().await;
        let messages = self.handle().await?.address().get().execute();
        let found: Vec<AddressMessage> = messages.try_collect().await.map_err(failed("list addresses"))?;
        Ok(found.iter().filter_map(address).collect())
    }

    async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let _listing = self.listing().await;
        let mut found = Vec::new();
        let handle = self.handle().await?;
        let requests =
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for request in requests {
            let messages: Vec<RouteMessage> =
                handle.route().get(request).execute().try_collect().await.map_err(failed("list routes"))?;
            found.extend(messages.iter().filter_map(route));
        }
        Ok(found)
    }

    async fn add_address(&self, link: u32, ip: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        let loopback = self.links().await?.iter().any(|l| l.index == link && l.loopback);
        let mut request = self.handle().await?.address().add(link, ip, prefix);
        if loopback {
            // Never used as the source of what leaves this machine.
            request.message_mut().header.scope = AddressScope::Host;
        }
        match request.execute().await {
            Err(error) if is(&error, nix::errno::Errno::EEXIST) => Ok(()),
            other => other.map_err(failed(format!("add address {ip}/{prefix}"))),
        }
    }

    async fn delete_address(&self, link: u32, ip: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        let handle = self.handle().await?;
        let listing = self.listing().await;
        let found: Vec<AddressMessage> =
            handle.address().get().execute().try_collect().await.map_err(failed("list addresses"))?;
        drop(listing);
        let same = |message: &&AddressMessage| {
            address(message).is_some_and(|a| (a.link, a.ip, a.prefix) == (link, ip, prefix))
        };
        let Some(message) = found.iter().find(same) else { return Ok(()) };
        let answer = handle.address().del(message.clone()).execute().await;
        answer.map_err(failed(format!("delete address {ip}/{prefix}")))
    }

    async fn replace_route(&self, route: Route) -> Result<(), NetlinkError> {
        let operation = format!("set route to {}/{}", route.destination, route.prefix);
        let request = self.handle().await?.route().add(message(&route)).replace();
        request.execute().await.map_err(failed(operation))
    }

    async fn delete_route(&self, route: Route) -> Result<(), NetlinkError> {
        let operation = format!("delete route to {}/{}", route.destination, route.prefix);
        match self.handle().await?.route().del(message(&route)).execute().await {
            Err(error) if is(&error, nix::errno::Errno::ESRCH) => Ok(()),
            other => other.map_err(failed(operation)),
        }
    }

    async fn set_up(&self, link: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(link).up().build();
        self.handle().await?.link().set(message).execute().await.map_err(failed("bring link up"))
    }

    async fn delete_link(&self, name: &str) -> Result<(), NetlinkError> {
        let link = match self.link(name).await {
            Err(NetlinkError::NoLink(_)) => return Ok(()),
            other => other?,
        };
        let answer = self.handle().await?.link().del(link.index).execute().await;
        answer.map_err(failed(format!("delete link {name}")))
    }
}

fn link(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        kind: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind_name(kind)),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}

fn kind_name(kind: &InfoKind) -> String {
    kind.to_string()
}

fn address(message: &AddressMessage) -> Option<Address> {
    // On point-to-point links `Address` is the other side's; our own is `Local`.
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    Some(Address {
        link: message.header.index,
        ip: own.or(any)?,
        prefix: message.header.prefix_len,
        global: message.header.scope == AddressScope::Universe,
    })
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let main = header.table == RouteHeader::RT_TABLE_MAIN;
    if !main || header.kind != RouteType::Unicast {
        return None;
    }
    let v4 = header.address_family == rtnetlink::packet_route::AddressFamily::Inet;
    let unspecified = if v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let mut route = Route {
        destination: unspecified,
        prefix: header.destination_prefix_length,
        gateway: None,
        link: 0,
        metric: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => route.destination = ip(to)?,
            RouteAttribute::Gateway(via) => route.gateway = ip(via),
            RouteAttribute::Oif(link) => route.link = *link,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    Some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn message(route: &Route) -> RouteMessage {
    match (route.destination, route.gateway) {
        (IpAddr::V4(to), gateway) => {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to, route.prefix)
                .output_interface(route.link);
            match gateway {
                Some(IpAddr::V4(via)) => builder.gateway(via).build(),
                _ => builder.scope(rtnetlink::packet_route::route::RouteScope::Link).build(),
            }
        }
        (IpAddr::V6(to), gateway) => {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to, route.prefix)
                .output_interface(route.link);
            match gateway {
                Some(IpAddr::V6(via)) => builder.gateway(via).build(),
                _ => builder.build(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_has_a_loopback_link() {
        let netlink = RealNetlink::default();
        let lo = netlink.link("lo").await.unwrap();
        assert!(lo.loopback && lo.mtu > 0);
        netlink.addresses().await.unwrap();
        netlink.routes().await.unwrap();
        let missing = netlink.link("no-such-link").await.unwrap_err();
        assert_eq!(missing.to_string(), "there is no network interface no-such-link");
        netlink.delete_link("no-such-link").await.unwrap();
    }

    #[test]
    fn routes_survive_the_way_to_a_message_and_back() {
        for (to, prefix, via) in [("10.42.1.0", 24, Some("192.168.0.2")), ("10.0.0.0", 8, None)] {
            let original = Route {
                destination: to.parse().unwrap(),
                prefix,
                gateway: via.map(|ip| ip.parse().unwrap()),
                link: 4,
                metric: 0,
            };
            assert_eq!(route(&message(&original)), Some(original));
        }
    }
}
