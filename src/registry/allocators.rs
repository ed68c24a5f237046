//! Numbers that objects draw from a common pool: Service addresses and node ports.
//!
//! The pools live in memory and are filled from the stored Services before the first draw. What a write draws is held
//! by a [`Reservation`] and given back unless the write succeeds. Where several servers share a store, a draw counts
//! only once it is claimed there ([`claims`]).

pub mod claims;
pub mod cluster_ips;
pub mod node_ports;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claims::{Claims, Number};
use cluster_ips::ClusterIps;
use node_ports::NodePorts;

use crate::store::Revision;

/// The pools of one registry.
#[derive(Clone)]
pub struct Allocators {
    pools: Arc<Mutex<Pools>>,
    claims: Option<Claims>,
}

/// The pools themselves.
pub struct Pools {
    /// Service addresses.
    pub ips: ClusterIps,
    /// Node ports.
    pub ports: NodePorts,
}

impl Pools {
    /// Notes that a number is taken, by whomever.
    pub fn adopt(&mut self, number: Number) {
        match number {
            Number::Ip(ip) => self.ips.adopt(ip),
            Number::Port(port) => self.ports.adopt(port),
        }
    }

    /// Whether a number is taken.
    pub fn has(&self, number: Number) -> bool {
        match number {
            Number::Ip(ip) => self.ips.has(ip),
            Number::Port(port) => self.ports.has(port),
        }
    }

    /// Notes that exactly these are taken.
    pub fn replace(&mut self, numbers: &[Number]) {
        self.ips.clear();
        self.ports.clear();
        numbers.iter().for_each(|number| self.adopt(*number));
    }
}

impl Allocators {
    /// Empty pools over a CIDR and a port range, settled with other servers by `claims`.
    pub fn new(ips: ClusterIps, ports: NodePorts, claims: Option<Claims>) -> Self {
        Self { pools: Arc::new(Mutex::new(Pools { ips, ports })), claims }
    }

    /// The pools, to draw from.
    pub fn lock(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where draws are claimed, if there are other servers.
    pub fn claims(&self) -> Option<&Claims> {
        self.claims.as_ref()
    }
}

/// What one write has drawn, and what it gives back once it has succeeded.
pub struct Reservation {
    pools: Allocators,
    taken_ips: Vec<IpAddr>,
    taken_ports: Vec<u16>,
    freed_ips: Vec<IpAddr>,
    freed_ports: Vec<u16>,
    /// Claims that were made for it.
    made: Vec<(Number, Revision)>,
    kept: bool,
}

impl Reservation {
    /// Nothing drawn yet.
    pub fn new(pools: &Allocators) -> Self {
        Self {
            pools: pools.clone(),
            taken_ips: Vec::new(),
            taken_ports: Vec::new(),
            freed_ips: Vec::new(),
            freed_ports: Vec::new(),
            made: Vec::new(),
            kept: false,
        }
    }

    /// Remembers a drawn address.
    pub fn took_ip(&mut self, ip: IpAddr) {
        self.taken_ips.push(ip);
    }

    /// Remembers a drawn port.
    pub fn took_port(&mut self, port: u16) {
        self.taken_ports.push(port);
    }

    /// An address that is free once the write has succeeded.
    pub fn frees_ip(&mut self, ip: IpAddr) {
        self.freed_ips.push(ip);
    }

    /// A port that is free once the write has succeeded.
    pub fn frees_port(&mut self, port: u16) {
        self.freed_ports.push(port);
    }

    /// What has been drawn.
    pub fn taken(&self) -> Vec<Number> {
        numbers(&self.taken_ips, &self.taken_ports)
    }

    /// What is free once the write has succeeded.
    pub fn freed(&self) -> Vec<Number> {
        numbers(&self.freed_ips, &self.freed_ports)
    }

    /// Remembers the claims that were made for what has been drawn.
    pub fn claimed(&mut self, made: Vec<(Number, Revision)>) {
        self.made = made;
    }

    /// The claims that were made.
    pub fn made(&self) -> &[(Number, Revision)] {
        &self.made
    }

    /// The write succeeded.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

/// Addresses and ports as numbers.
pub fn numbers(ips: &[IpAddr], ports: &[u16]) -> Vec<Number> {
    ips.iter().map(|ip| Number::Ip(*ip)).chain(ports.iter().map(|port| Number::Port(*port))).collect()
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let (ips, ports) = if self.kept {
            (&self.freed_ips, &self.freed_ports)
        } else {
            (&self.taken_ips, &self.taken_ports)
        };
        if ips.is_empty() && ports.is_empty() {
            return;
        }
        let mut pools = self.pools.lock();
        ips.iter().for_each(|ip| pools.ips.release(*ip));
        ports.iter().for_each(|port| pools.ports.release(*port));
    }
}
