//! Runs a test in network, mount and process namespaces of its own, so that it can start daemons, mount and set rules
//! freely and nothing of it is left, however it ends: the kernel kills and unmounts what the namespaces hold.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;

use kube_lite::host::Host;
use kube_lite::host::cgroups::CgroupPath;

const DIRECTORY: &str = "KUBE_LITE_TEST_DIRECTORY";
const CGROUP: &str = "KUBE_LITE_TEST_CGROUP";
/// Where containerd, its shims and the network plugins keep things whatever they are told.
const PRELUDE: &str = r#"
for directory in /run /var/lib/cni; do
  if [ -d "$directory" ]; then mount -t tmpfs tmpfs "$directory"; fi
done
exec "$@"
"#;
const ROLE: &str = "KUBE_LITE_TEST_ROLE";

/// What a test inside its namespaces has to itself.
pub struct Place {
    /// A directory that is removed afterwards.
    pub directory: PathBuf,
    /// A cgroup that is removed afterwards.
    pub cgroup: CgroupPath,
    /// Which part of the test this process plays; empty for the main one.
    pub role: String,
}

impl Place {
    /// This same test again, in the same namespaces, in another part.
    pub fn again(&self, test: &str, role: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
        command
    }
}

/// Why such a test cannot run here, if it cannot.
fn unavailable() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let host = Host::real([]);
    ["containerd", "ctr", "runc", "iptables-restore", "unshare", "busybox"]
        .into_iter()
        .find(|program| host.processes.find(program).is_none())
        .map(|program| format!("{program} is not installed"))
}

/// Runs `body` in namespaces of its own. `test` is the full name of the calling test.
pub fn isolated<F: Future<Output = ()>>(test: &str, body: impl FnOnce(Place) -> F) {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let text = |name| std::env::var_os(name).unwrap_or_default().into_string().unwrap();
        let place =
            Place { directory: directory.into(), cgroup: CgroupPath::parse(&text(CGROUP)), role: text(ROLE) };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(body(place));
    }
    if let Some(reason) = unavailable() {
        println!("skipped: {reason}");
        return;
    }
    let directory = tempfile::Builder::new().prefix("kl").tempdir().unwrap();
    let cgroup = CgroupPath::root().child(&format!("kube-lite-test-{}", std::process::id()));
    let output = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            PRELUDE,
            "sh",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory.path())
        .env(CGROUP, cgroup.to_string())
        .output()
        .unwrap();
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    remove_cgroup(&cgroup);
    if !output.status.success() {
        print_log(&directory.path().join("agent/containerd/containerd.log"));
        panic!("failed inside its namespaces: {}", output.status);
    }
}

fn remove_cgroup(cgroup: &CgroupPath) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let removed = runtime.block_on(async { Host::real([]).cgroups.remove(cgroup).await });
    if let Err(error) = removed {
        println!("cgroup is left: {error}");
    }
}

fn print_log(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last: Vec<_> = text.lines().rev().take(40).collect();
    last.iter().rev().for_each(|line| println!("{line}"));
}
