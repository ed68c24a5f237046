//! The cgroup hierarchy of this machine, read and written as files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

use super::{CgroupError, CgroupPath, Cgroups, Driver, Limits, Usage, Version, systemd};
use crate::host::mounts::{MountInfo, parse_mountinfo};
use crate::host::processes::Processes;

const DEFAULT_PERIOD: u64 = 100_000;

/// The hierarchy as found when kube-lite started.
pub struct RealCgroups {
    processes: Arc<dyn Processes>,
    driver: Driver,
    /// The driver of the runtime, where that is another one.
    told: OnceLock<Driver>,
    hierarchy: Hierarchy,
    /// Hierarchies without controllers, such as systemd's own in the hybrid layout. We make nothing there, but the
    /// runtime does below our cgroups, and it has to go with them.
    others: Vec<PathBuf>,
}

/// Where the controllers are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hierarchy {
    /// Mount point of each controller.
    V1(BTreeMap<String, PathBuf>),
    /// The one mount point.
    V2(PathBuf),
}

impl RealCgroups {
    /// Looks at what is mounted and whether systemd runs the machine.
    pub fn detect(processes: Arc<dyn Processes>) -> Self {
        let mounts = parse_mountinfo(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        let systemd = Path::new("/run/systemd/system").is_dir();
        let driver = if systemd { Driver::Systemd } else { Driver::Cgroupfs };
        let hierarchy = hierarchy(&mounts);
        let others = without_controllers(&mounts, &hierarchy);
        Self { processes, driver, told: OnceLock::new(), hierarchy, others }
    }

    /// The directory of a cgroup in each hierarchy.
    fn directories(&self, path: &CgroupPath) -> Vec<PathBuf> {
        let relative = path.directory(self.driver());
        let below = |root: &PathBuf| root.join(relative.trim_start_matches('/'));
        match &self.hierarchy {
            Hierarchy::V2(root) => vec![below(root)],
            Hierarchy::V1(controllers) => {
                let mut all: Vec<_> = controllers.values().map(below).collect();
                all.sort();
                all.dedup();
                all
            }
        }
    }

    /// A file of one controller; with version 2 all controllers share a directory.
    fn file(&self, controller: &str, path: &CgroupPath, name: &str) -> Option<PathBuf> {
        let root = match &self.hierarchy {
            Hierarchy::V2(root) => root,
            Hierarchy::V1(controllers) => controllers.get(controller)?,
        };
        Some(root.join(path.directory(self.driver()).trim_start_matches('/')).join(name))
    }

    fn read(&self, controller: &str, path: &CgroupPath, name: &str) -> Result<String, CgroupError> {
        let file = self.file(controller, path, name).ok_or(CgroupError::NotMounted)?;
        fs::read_to_string(&file).map_err(|source| CgroupError::File {
            operation: "read",
            path: file,
            source,
        })
    }

    fn make_directories(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        for directory in self.directories(path) {
            fs::create_dir_all(&directory).map_err(|source| CgroupError::File {
                operation: "make cgroup",
                path: directory.clone(),
                source,
            })?;
        }
        match &self.hierarchy {
            Hierarchy::V2(root) => enable_controllers(root, &path.directory(self.driver())),
            Hierarchy::V1(controllers) => {
                if let Some(root) = controllers.get("cpuset") {
                    fill_cpuset(root, &path.directory(self.driver()))?;
                }
                Ok(())
            }
        }
    }

    fn write_limits(&self, path: &CgroupPath, limits: &Limits) -> Result<(), CgroupError> {
        let version = self.version();
        for (controller, name, value) in limit_files(version, limits) {
            // A machine without a controller has no limits of that kind.
            let Some(file) = self.file(controller, path, name) else { continue };
            write(&file, &value)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Cgroups for RealCgroups {
    fn version(&self) -> Version {
        match self.hierarchy {
            Hierarchy::V1(_) => Version::V1,
            Hierarchy::V2(_) => Version::V2,
        }
    }

    fn driver(&self) -> Driver {
        self.told.get().copied().unwrap_or(self.driver)
    }

    fn use_driver(&self, driver: Driver) {
        // The first word counts: what has been made by then has names of that driver.
        self.told.get_or_init(|| driver);
    }

    fn controllers(&self) -> Vec<String> {
        match &self.hierarchy {
            Hierarchy::V1(controllers) => controllers.keys().cloned().collect(),
            Hierarchy::V2(root) => {
                let text = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
                text.split_whitespace().map(str::to_owned).collect()
            }
        }
    }

    async fn ensure(&self, path: &CgroupPath, limits: &Limits) -> Result<(), CgroupError> {
        match self.driver() {
            Driver::Systemd => systemd::ensure(self.processes.as_ref(), &path.slice(), limits).await,
            Driver::Cgroupfs => {
                self.make_directories(path)?;
                self.write_limits(path, limits)
            }
        }
    }

    async fn remove(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        if self.driver() == Driver::Systemd
            && self.directories(path).iter().any(|directory| directory.exists())
        {
            systemd::remove(self.processes.as_ref(), &path.slice()).await?;
        }
        let relative = path.directory(self.driver());
        let others = self.others.iter().map(|root| root.join(relative.trim_start_matches('/')));
        self.directories(path).into_iter().chain(others).try_for_each(|directory| remove_tree(&directory))
    }

    fn children(&self, path: &CgroupPath) -> Result<Vec<CgroupPath>, CgroupError> {
        let mut found = Vec::new();
        for directory in self.directories(path) {
            for entry in subdirectories(&directory)? {
                let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.extend(path.child_from_entry(&name, self.driver()));
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn usage(&self, path: &CgroupPath) -> Result<Usage, CgroupError> {
        let number = |text: &str| text.trim().parse::<u64>().unwrap_or(0);
        let pids = self.read("pids", path, "pids.current").map_or(0, |text| number(&text));
        match self.version() {
            Version::V1 => {
                let stat = self.read("memory", path, "memory.stat")?;
                let memory = number(&self.read("memory", path, "memory.usage_in_bytes")?);
                let usage = Usage {
                    cpu: number(&self.read("cpuacct", path, "cpuacct.usage")?),
                    pids,
                    ..Usage::default()
                };
                Ok(with_memory(
                    usage,
                    memory,
                    &stat,
                    ["total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault"],
                ))
            }
            Version::V2 => {
                let stat = self.read("memory", path, "memory.stat")?;
                let memory = number(&self.read("memory", path, "memory.current")?);
                let cpu = field(&self.read("cpu", path, "cpu.stat")?, "usage_usec") * 1000;
                let usage = Usage { cpu, pids, ..Usage::default() };
                Ok(with_memory(usage, memory, &stat, ["inactive_file", "anon", "pgfault", "pgmajfault"]))
            }
        }
    }

    fn limits_swap(&self, path: &CgroupPath) -> bool {
        self.file("memory", path, super::swap_file(self.version())).is_some_and(|file| file.exists())
    }

    fn processes(&self, path: &CgroupPath) -> Result<Vec<i32>, CgroupError> {
        let mut found = Vec::new();
        for directory in self.directories(path) {
            collect_processes(&directory, &mut found)?;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

fn hierarchy(mounts: &[MountInfo]) -> Hierarchy {
    let mut controllers = BTreeMap::new();
    for mount in mounts.iter().filter(|mount| mount.fstype == "cgroup") {
        for option in mount.super_options.split(',') {
            let known = !matches!(option, "rw" | "ro" | "relatime" | "nosuid" | "xattr" | "clone_children")
                && !option.contains('=');
            if known {
                controllers.insert(option.to_owned(), mount.target.clone());
            }
        }
    }
    if !controllers.is_empty() {
        return Hierarchy::V1(controllers);
    }
    let v2 = mounts.iter().find(|mount| mount.fstype == "cgroup2").map(|mount| mount.target.clone());
    Hierarchy::V2(v2.unwrap_or_else(|| PathBuf::from("/sys/fs/cgroup")))
}

/// The hierarchies of a machine with version 1 that have no controller.
fn without_controllers(mounts: &[MountInfo], hierarchy: &Hierarchy) -> Vec<PathBuf> {
    let Hierarchy::V1(controllers) = hierarchy else { return Vec::new() };
    let cgroups = mounts.iter().filter(|mount| matches!(mount.fstype.as_str(), "cgroup" | "cgroup2"));
    let targets = cgroups.map(|mount| mount.target.clone());
    targets.filter(|target| !controllers.values().any(|used| used == target)).collect()
}

/// The same share of processor time in version 2's scale.
pub(super) fn weight_from_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Which files get which values: controller, file, value.
fn limit_files(version: Version, limits: &Limits) -> Vec<(&'static str, &'static str, String)> {
    let period = limits.cpu_period.unwrap_or(DEFAULT_PERIOD);
    let max = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    let mut files = Vec::new();
    match version {
        Version::V1 => {
            files.extend(limits.cpu_shares.map(|shares| ("cpu", "cpu.shares", shares.max(2).to_string())));
            if let Some(quota) = limits.cpu_quota {
                files.push(("cpu", "cpu.cfs_period_us", period.to_string()));
                files.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
            }
            files.extend(limits.memory.map(|bytes| ("memory", "memory.limit_in_bytes", bytes.to_string())));
        }
        Version::V2 => {
            files.extend(
                limits.cpu_shares.map(|shares| ("cpu", "cpu.weight", weight_from_shares(shares).to_string())),
            );
            files
                .extend(limits.cpu_quota.map(|quota| ("cpu", "cpu.max", format!("{} {period}", max(quota)))));
            files.extend(limits.memory.map(|bytes| ("memory", "memory.max", max(bytes))));
        }
    }
    files.extend(limits.pids.map(|pids| ("pids", "pids.max", max(pids))));
    files
}

fn with_memory(usage: Usage, memory: u64, stat: &str, names: [&str; 4]) -> Usage {
    let [inactive, rss, faults, major] = names;
    Usage {
        memory,
        working_set: memory.saturating_sub(field(stat, inactive)),
        rss: field(stat, rss),
        page_faults: field(stat, faults),
        major_page_faults: field(stat, major),
        ..usage
    }
}

/// The number after a key in a file of `key number` lines.
fn field(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn write(file: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(file, value).map_err(|source| CgroupError::File {
        operation: "write",
        path: file.to_owned(),
        source,
    })
}

/// Controllers work in a directory only if every directory above passes them on.
fn enable_controllers(root: &Path, directory: &str) -> Result<(), CgroupError> {
    let available = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let wanted: Vec<_> = available
        .split_whitespace()
        .filter(|name| matches!(*name, "cpu" | "cpuset" | "memory" | "pids" | "io" | "hugetlb"))
        .map(|name| format!("+{name}"))
        .collect();
    let names: Vec<_> = directory.split('/').filter(|name| !name.is_empty()).collect();
    let mut at = root.to_owned();
    for name in std::iter::once("").chain(names) {
        at = if name.is_empty() { at } else { at.join(name) };
        write(&at.join("cgroup.subtree_control"), &wanted.join(" "))?;
    }
    Ok(())
}

/// A cpuset of version 1 is empty, and holds no process, until it is told its processors and memory nodes.
fn fill_cpuset(root: &Path, directory: &str) -> Result<(), CgroupError> {
    let mut parent = root.to_owned();
    for name in directory.split('/').filter(|name| !name.is_empty()) {
        let child = parent.join(name);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = fs::read_to_string(child.join(file)).unwrap_or_default();
            if own.trim().is_empty() {
                let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
                write(&child.join(file), inherited.trim())?;
            }
        }
        parent = child;
    }
    Ok(())
}

fn subdirectories(directory: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let failed = |source| CgroupError::File { operation: "list", path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let directories = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir());
    Ok(directories.collect())
}

/// Only directories can be removed in a cgroup hierarchy, the innermost first.
fn remove_tree(directory: &Path) -> Result<(), CgroupError> {
    for child in subdirectories(directory)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CgroupError::File { operation: "remove cgroup", path: directory.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

fn collect_processes(directory: &Path, found: &mut Vec<i32>) -> Result<(), CgroupError> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    subdirectories(directory)?.iter().try_for_each(|child| collect_processes(child, found))
}

#[cfg(test)]
mod tests;
