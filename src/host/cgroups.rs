//! Cgroups of pods: which version and driver the machine has, creating parents with limits, reading what they use.
//!
//! Containers' own cgroups are made by the runtime below the parents made here. With the `cgroupfs` driver a parent is
//! a directory in every hierarchy; with the `systemd` driver it is a slice that systemd makes when asked.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;

mod layout;
mod real;
mod systemd;

pub use layout::CgroupPath;
pub use real::RealCgroups;

use super::processes::ProcessError;

/// Which interface the kernel offers for limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller; also the hybrid layout, where version 2 has no controllers.
    V1,
    /// One hierarchy.
    V2,
}

/// Who owns the hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// systemd; everybody else must ask it.
    Systemd,
    /// Nobody; directories are made directly.
    Cgroupfs,
}

impl Driver {
    /// The name as in kubelet's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Systemd => "systemd",
            Driver::Cgroupfs => "cgroupfs",
        }
    }
}

/// Limits of a cgroup; what is absent is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Weight against siblings, in version 1's shares (1024 per processor).
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time per period; -1 for no limit.
    pub cpu_quota: Option<i64>,
    /// Length of the period in microseconds; 100000 when absent.
    pub cpu_period: Option<u64>,
    /// Bytes of memory; -1 for no limit.
    pub memory: Option<i64>,
    /// Number of processes; -1 for no limit.
    pub pids: Option<i64>,
}

/// What a controller's file is called that limits swap.
pub(super) fn swap_file(version: Version) -> &'static str {
    match version {
        Version::V1 => "memory.memsw.limit_in_bytes",
        Version::V2 => "memory.swap.max",
    }
}

/// What a cgroup with everything below it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time since it was made, in nanoseconds.
    pub cpu: u64,
    /// Bytes of memory including caches.
    pub memory: u64,
    /// Bytes of memory that cannot be reclaimed easily: usage less inactive file pages.
    pub working_set: u64,
    /// Bytes of anonymous memory.
    pub rss: u64,
    /// Page faults, and those that needed the disk.
    pub page_faults: u64,
    /// Page faults that needed the disk.
    pub major_page_faults: u64,
    /// Number of processes and threads.
    pub pids: u64,
}

/// A cgroup operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file or directory of the hierarchy.
    #[error("{operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// systemd did not do what it was asked.
    #[error("ask systemd for slice {slice}")]
    Systemd {
        /// Name of the slice.
        slice: String,
        /// What `busctl` said.
        #[source]
        source: ProcessError,
    },
    /// No hierarchy is mounted.
    #[error("no cgroup hierarchy is mounted below /sys/fs/cgroup")]
    NotMounted,
}

/// The cgroup hierarchy of the machine.
#[async_trait]
pub trait Cgroups: Send + Sync {
    /// Which version of the interface.
    fn version(&self) -> Version;
    /// Which driver suits this machine, or what it was told to use.
    fn driver(&self) -> Driver;
    /// Uses the driver of a runtime that is there already; before anything is made.
    fn use_driver(&self, driver: Driver);
    /// Names of the controllers that can be used.
    fn controllers(&self) -> Vec<String>;
    /// Makes a cgroup and its ancestors, then sets the limits; one that exists only gets the limits.
    async fn ensure(&self, path: &CgroupPath, limits: &Limits) -> Result<(), CgroupError>;
    /// Removes a cgroup with everything below it; one that does not exist is no error. Fails while processes are in it.
    async fn remove(&self, path: &CgroupPath) -> Result<(), CgroupError>;
    /// The cgroups directly below one, by name.
    fn children(&self, path: &CgroupPath) -> Result<Vec<CgroupPath>, CgroupError>;
    /// What a cgroup uses.
    fn usage(&self, path: &CgroupPath) -> Result<Usage, CgroupError>;
    /// Whether the swap of what is in a cgroup can be limited.
    fn limits_swap(&self, path: &CgroupPath) -> bool;
    /// Numbers of the processes in a cgroup and below it.
    fn processes(&self, path: &CgroupPath) -> Result<Vec<i32>, CgroupError>;
}
