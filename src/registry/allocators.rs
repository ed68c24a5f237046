//! Numbers that objects draw from a common pool: Service addresses and node ports.
//!
//! The pools live in memory and are filled from the stored Services before the first draw. What a write draws is held
//! by a [`Reservation`] and given back unless the write succeeds.

pub mod cluster_ips;
pub mod node_ports;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster_ips::ClusterIps;
use node_ports::NodePorts;

/// The pools of one registry.
#[derive(Clone)]
pub struct Allocators(Arc<Mutex<Pools>>);

/// The pools themselves.
pub struct Pools {
    /// Service addresses.
    pub ips: ClusterIps,
    /// Node ports.
    pub ports: NodePorts,
}

impl Allocators {
    /// Empty pools over a CIDR and a port range.
    pub fn new(ips: ClusterIps, ports: NodePorts) -> Self {
        Self(Arc::new(Mutex::new(Pools { ips, ports })))
    }

    /// The pools, to draw from.
    pub fn lock(&self) -> MutexGuard<'_, Pools> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one write has drawn, and what it gives back once it has succeeded.
pub struct Reservation {
    pools: Allocators,
    taken_ips: Vec<IpAddr>,
    taken_ports: Vec<u16>,
    freed_ips: Vec<IpAddr>,
    freed_ports: Vec<u16>,
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

    /// The write succeeded.
    pub fn keep(mut self) {
        self.kept = true;
    }
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
