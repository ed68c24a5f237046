//! Cgroups in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::host::cgroups::{CgroupError, CgroupPath, Cgroups, Driver, Limits, Usage, Version};

#[derive(Debug, Default)]
struct State {
    limits: BTreeMap<CgroupPath, Limits>,
    usage: BTreeMap<CgroupPath, Usage>,
    processes: BTreeMap<CgroupPath, Vec<i32>>,
}

/// A cgroup hierarchy in memory: version 2 with the cgroupfs driver.
#[derive(Debug, Default)]
pub struct FakeCgroups(Mutex<State>);

impl FakeCgroups {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits of a cgroup, if it exists.
    pub fn limits(&self, path: &CgroupPath) -> Option<Limits> {
        self.lock().limits.get(path).copied()
    }

    /// Sets what a cgroup uses.
    pub fn set_usage(&self, path: &CgroupPath, usage: Usage) {
        self.lock().usage.insert(path.clone(), usage);
    }

    /// Puts processes into a cgroup.
    pub fn set_processes(&self, path: &CgroupPath, processes: Vec<i32>) {
        self.lock().processes.insert(path.clone(), processes);
    }
}

fn below(path: &CgroupPath, ancestor: &CgroupPath) -> bool {
    ancestor.is_root() || path == ancestor || path.to_string().starts_with(&format!("{ancestor}/"))
}

fn missing(path: &CgroupPath) -> CgroupError {
    CgroupError::File {
        operation: "read",
        path: path.to_string().into(),
        source: io::ErrorKind::NotFound.into(),
    }
}

#[async_trait]
impl Cgroups for FakeCgroups {
    fn version(&self) -> Version {
        Version::V2
    }

    fn driver(&self) -> Driver {
        Driver::Cgroupfs
    }

    fn use_driver(&self, _driver: Driver) {}

    fn controllers(&self) -> Vec<String> {
        ["cpu", "cpuset", "memory", "pids"].map(str::to_owned).to_vec()
    }

    async fn ensure(&self, path: &CgroupPath, limits: &Limits) -> Result<(), CgroupError> {
        let mut state = self.lock();
        let text = path.to_string();
        let ends = text.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
        for end in ends.collect::<Vec<_>>() {
            state.limits.entry(CgroupPath::parse(&text[..end])).or_default();
        }
        let current = state.limits.entry(path.clone()).or_default();
        *current = Limits {
            cpu_shares: limits.cpu_shares.or(current.cpu_shares),
            cpu_quota: limits.cpu_quota.or(current.cpu_quota),
            cpu_period: limits.cpu_period.or(current.cpu_period),
            memory: limits.memory.or(current.memory),
            pids: limits.pids.or(current.pids),
        };
        Ok(())
    }

    async fn remove(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        let mut state = self.lock();
        state.limits.retain(|other, _| !below(other, path));
        state.usage.retain(|other, _| !below(other, path));
        state.processes.retain(|other, _| !below(other, path));
        Ok(())
    }

    fn children(&self, path: &CgroupPath) -> Result<Vec<CgroupPath>, CgroupError> {
        let state = self.lock();
        Ok(state.limits.keys().filter(|other| path.child(other.name()) == **other).cloned().collect())
    }

    fn usage(&self, path: &CgroupPath) -> Result<Usage, CgroupError> {
        let state = self.lock();
        match state.usage.get(path) {
            Some(usage) => Ok(*usage),
            None if path.is_root() || state.limits.contains_key(path) => Ok(Usage::default()),
            None => Err(missing(path)),
        }
    }

    fn limits_swap(&self, _path: &CgroupPath) -> bool {
        true
    }

    fn processes(&self, path: &CgroupPath) -> Result<Vec<i32>, CgroupError> {
        let state = self.lock();
        let inside = state.processes.iter().filter(|(other, _)| below(other, path));
        Ok(inside.flat_map(|(_, processes)| processes.iter().copied()).collect())
    }
}
