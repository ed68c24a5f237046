//! The only room that touches the machine: processes, mounts, cgroups, netlink, firewall, file systems, clock.
//!
//! Every seam is a small trait with a real implementation and a fake. [`Host`] bundles one of each and is handed to
//! whoever needs it; [`Host::real`] is the machine, [`fake::FakeHost`] is one in memory.

use std::path::PathBuf;
use std::sync::Arc;

pub mod advice;
pub mod cgroups;
pub mod clock;
pub mod cpus;
pub mod fake;
pub mod filesystems;
pub mod firewall;
pub mod logind;
pub mod machine;
pub mod mounts;
pub mod netlink;
pub mod preflight;
pub mod processes;
pub mod program;
pub mod sysctls;

/// Where programs are looked for unless told otherwise; a daemon's `PATH` often lacks the `sbin` directories.
const PROGRAM_DIRECTORIES: &[&str] =
    &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The machine, or what stands for it in a test. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    /// Processes: run, spawn, signal, find.
    pub processes: Arc<dyn processes::Processes>,
    /// Mounts.
    pub mounts: Arc<dyn mounts::Mounts>,
    /// Cgroups of pods and what they use.
    pub cgroups: Arc<dyn cgroups::Cgroups>,
    /// Links, addresses, routes.
    pub netlink: Arc<dyn netlink::Netlink>,
    /// iptables and conntrack.
    pub firewall: Arc<dyn firewall::Firewall>,
    /// Space on file systems.
    pub filesystems: Arc<dyn filesystems::Filesystems>,
    /// Kernel, processors, memory.
    pub machine: Arc<dyn machine::Machine>,
    /// Kernel settings below /proc/sys.
    pub sysctls: Arc<dyn sysctls::Sysctls>,
    /// Wall clock.
    pub clock: Arc<dyn clock::Clock>,
    /// Shutdowns of the machine.
    pub logind: Arc<dyn logind::Logind>,
}

impl Host {
    /// This machine, with programs looked for in `directories` first (for example those of `PATH`) and then in the
    /// usual ones.
    pub fn real(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut path: Vec<PathBuf> = directories.into_iter().collect();
        for usual in PROGRAM_DIRECTORIES.iter().map(PathBuf::from) {
            if !path.contains(&usual) {
                path.push(usual);
            }
        }
        let processes: Arc<dyn processes::Processes> = Arc::new(processes::RealProcesses::new(path));
        Self {
            mounts: Arc::new(mounts::RealMounts),
            cgroups: Arc::new(cgroups::RealCgroups::detect(Arc::clone(&processes))),
            netlink: Arc::new(netlink::RealNetlink::default()),
            firewall: Arc::new(firewall::Iptables::new(Arc::clone(&processes))),
            filesystems: Arc::new(filesystems::RealFilesystems),
            machine: Arc::new(machine::RealMachine),
            sysctls: Arc::new(sysctls::RealSysctls::default()),
            clock: Arc::new(clock::SystemClock),
            logind: Arc::new(logind::RealLogind::new(Arc::clone(&processes))),
            processes,
        }
    }
}
