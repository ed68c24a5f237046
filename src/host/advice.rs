//! What a node can do without, and what it then cannot do: for `kube-lite check-config`.

use super::Host;
use super::preflight::Problem;

/// Bit of `CAP_SYS_RESOURCE` in the capability sets of `/proc/<pid>/status`.
const SYS_RESOURCE: u32 = 24;

/// Controllers of control groups and what they are for.
const CONTROLLERS: &[(&str, &str)] = &[
    ("cpu", "CPU requests and limits do nothing"),
    ("memory", "memory limits do nothing, and one pod can take all memory"),
    ("pids", "one pod can take all process ids"),
    ("cpuset", "containers cannot be kept to processors"),
];

/// Programs, their packages, and what they are for.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("mount.nfs", "nfs-common", "volumes of NFS servers cannot be mounted"),
    ("mkfs.ext4", "e2fsprogs", "fresh block devices cannot be formatted"),
];

/// What the process is allowed, as the kernel writes it.
fn may_set_oom_scores(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_none_or(|bits| bits & (1 << SYS_RESOURCE) != 0)
}

/// What this host lacks that a node would like to have.
pub fn check(host: &Host) -> Vec<Problem> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    missing(host, &status, &filesystems)
}

fn missing(host: &Host, status: &str, filesystems: &str) -> Vec<Problem> {
    let mut out = Vec::new();
    let mut note = |what: String, why: &'static str, remedy: String| out.push(Problem { what, why, remedy });
    let controllers = host.cgroups.controllers();
    for (name, why) in CONTROLLERS {
        if !controllers.iter().any(|own| own == name) {
            let remedy = format!("enable it in the kernel or on its command line (cgroup_enable={name})");
            note(format!("the control group controller {name}"), why, remedy);
        }
    }
    if !may_set_oom_scores(status) {
        let why = "guaranteed pods are not spared when memory runs out";
        note("the capability CAP_SYS_RESOURCE".to_owned(), why, "run kube-lite with it".to_owned());
    }
    if !filesystems.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
        let why = "every container has a full copy of its image";
        note("the file system overlay".to_owned(), why, "load the kernel module overlay".to_owned());
    }
    for (program, package, why) in PROGRAMS {
        if host.processes.find(program).is_none() {
            note(format!("the program {program}"), why, format!("install the package {package}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;

    #[test]
    fn what_is_missed_is_named_with_its_consequence() {
        let host = FakeHost::default();
        let whole = missing(&host.host(), "CapEff:\t000001ffffffffff\n", "nodev\toverlay\n");
        assert!(whole.iter().all(|p| p.what.starts_with("the program")), "{whole:?}");
        let poor = missing(&host.host(), "CapEff:\t000001fffeffffff\n", "nodev\ttmpfs\n");
        let text: Vec<String> = poor.iter().map(ToString::to_string).collect();
        assert!(
            text.iter().any(|line| line.contains("CAP_SYS_RESOURCE is missing, without which guaranteed"))
        );
        assert!(text.iter().any(|line| line.contains("overlay")), "{text:?}");
    }
}
