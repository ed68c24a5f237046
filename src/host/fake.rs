//! A machine in memory. Fakes remember what was done to them and answer as the real ones do.

use std::sync::Arc;

mod cgroups;
mod firewall;
mod mounts;
mod netlink;
mod processes;

pub use super::clock::FakeClock;
pub use super::filesystems::FakeFilesystems;
pub use super::logind::FakeLogind;
pub use super::machine::FakeMachine;
pub use super::sysctls::FakeSysctls;
pub use cgroups::FakeCgroups;
pub use firewall::FakeFirewall;
pub use mounts::FakeMounts;
pub use netlink::FakeNetlink;
pub use processes::FakeProcesses;

use super::Host;

/// One fake of each seam, with access to what they remember.
#[derive(Default)]
pub struct FakeHost {
    /// Processes.
    pub processes: Arc<FakeProcesses>,
    /// Mounts.
    pub mounts: Arc<FakeMounts>,
    /// Cgroups.
    pub cgroups: Arc<FakeCgroups>,
    /// Links, addresses, routes.
    pub netlink: Arc<FakeNetlink>,
    /// Rules.
    pub firewall: Arc<FakeFirewall>,
    /// Space on file systems.
    pub filesystems: Arc<FakeFilesystems>,
    /// Kernel, processors, memory.
    pub machine: Arc<FakeMachine>,
    /// Kernel settings.
    pub sysctls: Arc<FakeSysctls>,
    /// Wall clock.
    pub clock: Arc<FakeClock>,
    /// Shutdowns.
    pub logind: Arc<FakeLogind>,
}

impl FakeHost {
    /// The bundle that components are given.
    pub fn host(&self) -> Host {
        Host {
            processes: self.processes.clone(),
            mounts: self.mounts.clone(),
            cgroups: self.cgroups.clone(),
            netlink: self.netlink.clone(),
            firewall: self.firewall.clone(),
            filesystems: self.filesystems.clone(),
            machine: self.machine.clone(),
            sysctls: self.sysctls.clone(),
            clock: self.clock.clone(),
            logind: self.logind.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
