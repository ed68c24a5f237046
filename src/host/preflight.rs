//! What a node needs from the machine, looked at before anything is started.
//!
//! Each thing that is missing gives one line that says what, why and what to do. Missing kernel features are found by
//! what the running kernel shows, not by its configuration; modules that can still be loaded count as present.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Host;
use super::processes::Processes;

/// What a node will do, and so what it needs.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Supervise a containerd of our own.
    pub containerd: bool,
    /// Write service and masquerading rules.
    pub firewall: bool,
    /// Directories where network plugins may be.
    pub cni_directories: Vec<PathBuf>,
}

/// One thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is missing.
    pub what: String,
    /// What cannot work without it.
    pub why: &'static str,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is missing, without which {}: {}", self.what, self.why, self.remedy)
    }
}

/// Programs, the package that Debian and Ubuntu have them in, and what they are for.
const CONTAINERD_PROGRAMS: &[(&str, &str, &str)] = &[
    ("containerd", "containerd", "no container can run"),
    ("ctr", "containerd", "no image archive can be imported"),
    ("containerd-shim-runc-v2", "containerd", "no container can run"),
    ("runc", "runc", "no container can run"),
];
const FIREWALL_PROGRAMS: &[(&str, &str, &str)] = &[
    ("iptables-restore", "iptables", "Services have no addresses"),
    ("iptables-save", "iptables", "Services have no addresses"),
    ("conntrack", "conntrack", "UDP clients of a Service keep talking to pods that are gone"),
];
/// The network plugins that our configuration names.
pub const CNI_PLUGINS: &[&str] = &["bridge", "host-local", "portmap", "loopback"];

/// Kernel features: a file that shows it, the module that brings it, and what it is for.
const KERNEL_FEATURES: &[(&str, &str, &str)] = &[
    ("/sys/module/bridge", "bridge", "pods have no network"),
    ("/sys/module/veth", "veth", "pods have no network"),
];

/// Everything that is missing, most important first.
pub fn check(host: &Host, needs: &Needs) -> Vec<Problem> {
    check_with(host.processes.as_ref(), &Kernel::running(), needs)
}

/// What the kernel shows of itself.
#[derive(Debug, Clone, Default)]
struct Kernel {
    /// Text of `/proc/filesystems`.
    filesystems: String,
    /// Names of loaded or built-in modules that were found.
    modules: Vec<String>,
    /// Directory with the modules that can be loaded.
    loadable: Option<PathBuf>,
    /// Any hierarchy is mounted at `/sys/fs/cgroup`.
    cgroups: bool,
}

impl Kernel {
    fn running() -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let loadable = PathBuf::from("/lib/modules").join(release.trim());
        let shows =
            |(file, module, _): &(&str, &str, &str)| Path::new(file).exists().then(|| (*module).to_owned());
        Self {
            filesystems: std::fs::read_to_string("/proc/filesystems").unwrap_or_default(),
            modules: KERNEL_FEATURES.iter().filter_map(shows).collect(),
            loadable: loadable.join("modules.dep").exists().then_some(loadable),
            cgroups: std::fs::read_dir("/sys/fs/cgroup").is_ok_and(|mut entries| entries.next().is_some()),
        }
    }

    fn has_filesystem(&self, name: &str) -> bool {
        self.filesystems.lines().any(|line| line.split_whitespace().last() == Some(name))
    }

    /// Loaded, or there to be loaded by whoever needs it first. A kernel without loadable modules may have the feature
    /// built in without showing it, so its absence proves nothing.
    fn has_module(&self, name: &str) -> bool {
        self.modules.iter().any(|module| module == name)
            || self.loadable.as_ref().is_none_or(|directory| {
                ["modules.dep", "modules.builtin"].iter().any(|list| {
                    let text = std::fs::read_to_string(directory.join(list)).unwrap_or_default();
                    text.contains(&format!("/{name}.ko"))
                })
            })
    }
}

fn check_with(processes: &dyn Processes, kernel: &Kernel, needs: &Needs) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut programs = |list: &[(&str, &str, &'static str)]| {
        for (program, package, why) in list {
            if processes.find(program).is_none() {
                problems.push(Problem {
                    what: format!("the program {program}"),
                    why,
                    remedy: format!("install the package {package} or put it on PATH"),
                });
            }
        }
    };
    if needs.containerd {
        programs(CONTAINERD_PROGRAMS);
    }
    if needs.firewall {
        programs(FIREWALL_PROGRAMS);
    }
    problems.extend(missing_plugins(&needs.cni_directories));
    problems.extend(missing_features(kernel));
    problems
}

fn missing_plugins(directories: &[PathBuf]) -> Option<Problem> {
    if directories.is_empty() {
        return None;
    }
    let installed = |plugin: &&&str| directories.iter().any(|directory| directory.join(plugin).is_file());
    let missing: Vec<_> = CNI_PLUGINS.iter().filter(|plugin| !installed(plugin)).copied().collect();
    let places: Vec<_> = directories.iter().map(|directory| directory.display().to_string()).collect();
    (!missing.is_empty()).then(|| Problem {
        what: format!("the CNI plugin {}", missing.join(", ")),
        why: "pods have no network",
        remedy: format!(
            "install the package containernetworking-plugins or put them into {}",
            places.join(" or ")
        ),
    })
}

fn missing_features(kernel: &Kernel) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !kernel.cgroups {
        problems.push(Problem {
            what: "a cgroup hierarchy at /sys/fs/cgroup".to_owned(),
            why: "no container can run",
            remedy: "mount cgroup2 there".to_owned(),
        });
    }
    for (_, module, why) in KERNEL_FEATURES {
        if !kernel.has_module(module) {
            problems.push(Problem {
                what: format!("the kernel feature {module}"),
                why,
                remedy: format!("install the kernel's full module package, then `modprobe {module}`"),
            });
        }
    }
    problems
}

/// Whether layers of images can be stacked by the kernel.
pub fn has_overlay() -> bool {
    let kernel = Kernel::running();
    kernel.has_filesystem("overlay") || (kernel.loadable.is_some() && kernel.has_module("overlay"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeProcesses;

    fn kernel() -> Kernel {
        Kernel {
            filesystems: "nodev\tproc\nnodev\toverlay\n\text4\n".into(),
            modules: vec!["bridge".into(), "veth".into()],
            loadable: None,
            cgroups: true,
        }
    }

    fn all_programs() -> FakeProcesses {
        let fake = FakeProcesses::default();
        for (program, _, _) in CONTAINERD_PROGRAMS.iter().chain(FIREWALL_PROGRAMS) {
            fake.install(program);
        }
        fake
    }

    fn plugins(present: &[&str]) -> (tempfile::TempDir, Needs) {
        let dir = tempfile::tempdir().unwrap();
        for plugin in present {
            std::fs::write(dir.path().join(plugin), "").unwrap();
        }
        let needs = Needs { containerd: true, firewall: true, cni_directories: vec![dir.path().to_owned()] };
        (dir, needs)
    }

    #[test]
    fn a_complete_machine_has_no_problems() {
        let (_dir, needs) = plugins(CNI_PLUGINS);
        assert_eq!(check_with(&all_programs(), &kernel(), &needs), []);
    }

    #[test]
    fn each_missing_thing_gives_one_line_with_a_remedy() {
        let (_dir, needs) = plugins(&["bridge", "loopback"]);
        let programs = all_programs();
        programs.uninstall("runc");
        let kernel = Kernel { modules: Vec::new(), loadable: Some("/no/such/dir".into()), ..kernel() };
        let lines: Vec<_> = check_with(&programs, &kernel, &needs).iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(
            lines[0],
            "the program runc is missing, without which no container can run: install the package runc or put it on PATH"
        );
        assert!(lines[1].starts_with("the CNI plugin host-local, portmap is missing"), "{}", lines[1]);
        assert!(lines[2].contains("modprobe bridge") && lines[3].contains("modprobe veth"));
        assert!(lines.iter().all(|line| !line.contains('\n')));
    }

    #[test]
    fn what_is_not_needed_is_not_asked_for() {
        assert_eq!(check_with(&FakeProcesses::default(), &kernel(), &Needs::default()), []);
    }

    #[test]
    fn kernel_lists_are_read_by_whole_names() {
        assert!(kernel().has_filesystem("overlay") && kernel().has_filesystem("ext4"));
        assert!(!kernel().has_filesystem("over"));
    }
}
