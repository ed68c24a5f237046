//! Routing in memory.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::host::netlink::{Address, Link, Netlink, NetlinkError, Route};

#[derive(Debug)]
struct State {
    links: Vec<Link>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
}

/// A network namespace in memory, with a loopback link that is up.
#[derive(Debug)]
pub struct FakeNetlink(Mutex<State>);

impl Default for FakeNetlink {
    fn default() -> Self {
        let lo = Link { index: 1, name: "lo".to_owned(), mtu: 65536, up: true, loopback: true, kind: None };
        Self(Mutex::new(State { links: vec![lo], addresses: Vec::new(), routes: Vec::new() }))
    }
}

impl FakeNetlink {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a link that is up; its index.
    pub fn add_link(&self, name: &str, kind: Option<&str>) -> u32 {
        let mut state = self.lock();
        let index = state.links.iter().map(|link| link.index).max().unwrap_or(0) + 1;
        let kind = kind.map(str::to_owned);
        state.links.push(Link { index, name: name.to_owned(), mtu: 1500, up: true, loopback: false, kind });
        index
    }
}

#[async_trait]
impl Netlink for FakeNetlink {
    async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        Ok(self.lock().links.clone())
    }

    async fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        Ok(self.lock().addresses.clone())
    }

    async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        Ok(self.lock().routes.clone())
    }

    async fn add_address(&self, link: u32, ip: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        let mut state = self.lock();
        let loopback = state.links.iter().any(|l| l.index == link && l.loopback);
        let address = Address { link, ip, prefix, global: !loopback };
        if !state.addresses.contains(&address) {
            state.addresses.push(address);
        }
        Ok(())
    }

    async fn delete_address(&self, link: u32, ip: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        self.lock().addresses.retain(|a| (a.link, a.ip, a.prefix) != (link, ip, prefix));
        Ok(())
    }

    async fn replace_route(&self, route: Route) -> Result<(), NetlinkError> {
        let mut state = self.lock();
        state.routes.retain(|r| {
            (r.destination, r.prefix, r.metric) != (route.destination, route.prefix, route.metric)
        });
        state.routes.push(route);
        Ok(())
    }

    async fn delete_route(&self, route: Route) -> Result<(), NetlinkError> {
        self.lock().routes.retain(|r| (r.destination, r.prefix) != (route.destination, route.prefix));
        Ok(())
    }

    async fn set_up(&self, link: u32) -> Result<(), NetlinkError> {
        if let Some(link) = self.lock().links.iter_mut().find(|l| l.index == link) {
            link.up = true;
        }
        Ok(())
    }

    async fn delete_link(&self, name: &str) -> Result<(), NetlinkError> {
        let mut state = self.lock();
        let gone: Vec<u32> = state.links.iter().filter(|l| l.name == name).map(|l| l.index).collect();
        state.links.retain(|link| link.name != name);
        state.addresses.retain(|address| !gone.contains(&address.link));
        state.routes.retain(|route| !gone.contains(&route.link));
        Ok(())
    }
}
