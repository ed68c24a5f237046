//! A "kind-like" node: the real binary in its own network, mount and process namespaces, with its own directories.
//!
//! Nothing outlives it: the process namespace's first process ends when this process does, and the kernel then ends
//! everything inside; mounts and links go with their namespaces, files with the temporary directory. What runs on the
//! host is neither seen nor touched.

// The benches take this file from elsewhere.
#[path = "command.rs"]
mod command;

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use command::{LIMIT, finish};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Prepares the namespaces, says so, and stays as the first process, which collects the orphans of the others.
const FIRST_PROCESS: &str = r#"
set -e
for directory in /run /var/lib/cni /var/lib/kubelet /var/log/pods /etc/kube-lite; do
  if [ -d "$directory" ]; then mount -t tmpfs tmpfs "$directory"; fi
done
mkdir -p /run/netns /run/lock
ip link set lo up
ip link add eth0 type veth peer name uplink
ip address add "$1/24" dev eth0
ip link set eth0 up
ip link set uplink up
echo ready
exec 3<&0
sh -c 'read -r end <&3' &
wait $!
"#;

/// Why host tests cannot run here, if they cannot.
pub fn unavailable() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    let needed =
        ["containerd", "runc", "iptables-restore", "conntrack", "ip", "nsenter", "kubectl", "busybox"];
    let absent: Vec<_> = needed.into_iter().filter(|program| !installed(program)).collect();
    if absent.is_empty() { None } else { Some(format!("{} not installed", absent.join(", "))) }
}

fn installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    found.is_ok_and(|output| output.status.success())
}

/// Gives the far end of this host's only cable to the process `$1`, whose host has the address `$2` there. A switch in
/// the namespace of one of the two would show its firewall every packet twice.
const CABLE: &str = r#"
set -e
nsenter --target "$1" --net ip link delete eth0
ip link set uplink netns "$1"
nsenter --target "$1" --net sh -ec '
  ip link set uplink name eth0
  ip address add "$0/24" dev eth0
  ip link set eth0 up
' "$2"
"#;

/// The namespaces and directories of a node, and the server or agent in it.
pub struct Node {
    first: Child,
    dir: TempDir,
    daemon: Option<Child>,
    address: &'static str,
    name: &'static str,
    path: OsString,
    eviction: String,
    kubelet_args: Vec<String>,
}

/// The memory of a server from a moment on.
pub struct MemoryWatch<'a> {
    node: &'a Node,
    kib: u64,
}

impl MemoryWatch<'_> {
    /// By so many MiB its peak since then is above what it was then.
    pub fn grown(&self) -> u64 {
        self.node.memory("VmHWM:").saturating_sub(self.kib) / 1024
    }
}

impl Node {
    /// Makes the namespaces of `node-1` at 10.99.0.2; nothing runs in them yet.
    pub fn new() -> Self {
        Self::at("node-1", "10.99.0.2")
    }

    /// Another host, `node-2` at 10.99.0.3, at the other end of this one's cable.
    pub fn neighbour(&self) -> Self {
        let other = Self::at("node-2", "10.99.0.3");
        // Seen from outside both: a process namespace does not know the processes of its neighbour.
        let plugged = Command::new("nsenter")
            .args(["--target", &self.first_inside(), "--net", "sh", "-c", CABLE, "sh"])
            .args([&other.first_inside(), other.address])
            .output()
            .unwrap();
        assert!(plugged.status.success(), "{}", text(&plugged));
        other
    }

    fn at(name: &'static str, address: &'static str) -> Self {
        let dir = tempfile::Builder::new().prefix("kl").tempdir_in("/tmp").unwrap();
        let mut first = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "sh", "-c", FIRST_PROCESS, "sh", address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "the node's namespaces");
        // The disk of the host that tests run on may be as full as it likes.
        let eviction = "memory.available<50Mi".to_owned();
        Node { first, dir, daemon: None, address, name, path: own_path(), eviction, kubelet_args: Vec::new() }
    }

    /// Below it lies everything that the node keeps.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Control group of the node's pods: groups are the host's, so every node has one of its own.
    pub fn cgroup(&self) -> String {
        let name = self.dir().file_name().unwrap().to_string_lossy();
        format!("/{}", name.trim_start_matches('.'))
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kube-lite.yaml")
    }

    /// Where image archives are imported from.
    pub fn images(&self) -> PathBuf {
        self.dir().join("data/agent/images")
    }

    /// Its address on the network between the hosts.
    pub fn address(&self) -> &str {
        self.address
    }

    /// Starts the server; its log is `kube-lite.log`.
    pub fn start_server(&mut self) {
        let kubeconfig = self.kubeconfig().display().to_string();
        self.start(&["server", "--write-kubeconfig", &kubeconfig]);
    }

    /// Starts an agent that joins `server` with the token of its `node-token` file.
    pub fn start_agent(&mut self, server: &Node) {
        let token = server.dir().join("data/server/node-token").display().to_string();
        self.start(&[
            "agent",
            "--server",
            &format!("https://{}:6443", server.address),
            "--token-file",
            &token,
        ]);
    }

    fn start(&mut self, arguments: &[&str]) {
        assert!(self.daemon.is_none(), "it is running");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let place = |name: &str| self.dir().join(name).display().to_string();
        let child = self
            .inside(env!("CARGO_BIN_EXE_kube-lite"))
            .args(arguments)
            .args(["--node-name", self.name, "--config", &place("config.yaml")])
            .args(["--data-dir", &place("data"), "--run-dir", &place("run"), "--pod-log-dir", &place("logs")])
            .args(["--kubelet-arg", &format!("root-dir={}", place("data/agent/kubelet"))])
            .args(self.kubelet_args.iter().flat_map(|argument| ["--kubelet-arg", argument]))
            .args(["--private-registry", &place("registries.yaml")])
            .args(["--eviction-hard", &self.eviction, "--cgroup-root", &self.cgroup()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(child);
    }

    /// When pods of the next start are ended.
    pub fn evict_when(&mut self, thresholds: &str) {
        self.eviction = thresholds.to_owned();
    }

    /// One more `--kubelet-arg` of the next start.
    pub fn kubelet_arg(&mut self, argument: &str) {
        self.kubelet_args.push(argument.to_owned());
    }

    /// The process of the server, in the numbers of the host.
    fn process(&self) -> String {
        let nsenter = self.daemon.as_ref().unwrap().id();
        children(nsenter).trim().to_owned()
    }

    /// How many files the server has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process())).unwrap().count()
    }

    /// Watches the server's memory from now on.
    pub fn memory_watch(&self) -> MemoryWatch<'_> {
        // The peak so far is forgotten.
        std::fs::write(format!("/proc/{}/clear_refs", self.process()), "5").unwrap();
        MemoryWatch { node: self, kib: self.memory("VmRSS:") }
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// What kube-lite printed.
    pub fn log(&self) -> PathBuf {
        self.dir().join("kube-lite.log")
    }

    /// Kills kube-lite with SIGKILL and collects it.
    pub fn kill(&mut self) {
        let mut child = self.daemon.take().unwrap();
        // The process that is waited for is nsenter, whose only child is kube-lite.
        for pid in children(child.id()).split_whitespace().map(|pid| pid.parse().unwrap()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        }
        child.wait().unwrap();
    }

    /// The first process of the namespaces, in the numbers of the host.
    fn first_inside(&self) -> String {
        children(self.first.id()).trim().to_owned()
    }

    /// A command inside the node's namespaces.
    pub fn inside(&self, program: &str) -> Command {
        let first = self.first_inside();
        let mut command = Command::new("nsenter");
        command.args(["--target", &first, "--net", "--mount", "--pid", "--ipc", "--uts", "--", program]);
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir()).env("PATH", &self.path);
        command
    }

    /// From here on the kubectl of that directory is used, if there is one; says whether there is.
    pub fn use_kubectl_of(&mut self, directory: &str) -> bool {
        let there = Path::new(directory).join("kubectl").is_file();
        if there {
            self.prefer_programs_of(directory);
        }
        there
    }

    /// From here on programs of that directory come first.
    pub fn prefer_programs_of(&mut self, directory: &str) {
        let mut path = OsString::from(format!("{directory}:"));
        path.push(own_path());
        self.path = path;
    }

    /// The host's own kubectl again.
    pub fn use_own_kubectl(&mut self) {
        self.path = own_path();
    }

    /// Runs a shell command inside and returns what it printed.
    pub fn shell(&self, script: &str) -> Output {
        self.finish(self.inside("sh").args(["-c", script]))
    }

    /// Waits for a command inside, but not for ever.
    pub fn finish(&self, command: &mut Command) -> Output {
        let hung = match finish(command, LIMIT) {
            Ok(output) => return output,
            Err(hung) => text(&hung),
        };
        panic!("{command:?} hangs: {hung}\n{}", self.log_tail())
    }

    /// Runs kubectl, which must succeed, and returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.finish(self.inside("kubectl").args(arguments));
        assert!(output.status.success(), "kubectl {arguments:?}: {}\n{}", text(&output), self.log_tail());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until a shell command inside prints what is accepted, and returns that.
    pub fn wait_for(&self, what: &str, script: &str, accept: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let output = self.shell(script);
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && accept(printed.trim()) {
                return printed.trim().to_owned();
            }
            if begin.elapsed() > PATIENCE {
                let state = self.shell("kubectl get pods,events -A -o wide; kubectl describe nodes");
                panic!("{what}: last seen {}\n{}\n{}", text(&output), text(&state), self.log_tail());
            }
            // Each turn is a process of its own, so this is no busy loop.
        }
    }

    /// Waits for `kubectl get` with that output.
    pub fn wait_for_kubectl(&self, what: &str, arguments: &str, accept: impl Fn(&str) -> bool) -> String {
        self.wait_for(what, &format!("kubectl {arguments}"), accept)
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(60).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Ends the first process of the namespace, and with it every other one.
        self.first.kill().ok();
        self.first.wait().ok();
        if let Some(mut daemon) = self.daemon.take() {
            daemon.wait().ok();
        }
        // What was in the groups has ended with the namespaces.
        let remove = format!(
            "find /sys/fs/cgroup -depth -type d -path '*{}*' -exec rmdir {{}} + 2>/dev/null",
            self.cgroup()
        );
        Command::new("sh").args(["-c", &remove]).status().ok();
    }
}

fn own_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// The children of a process, as the kernel lists them.
fn children(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
}

/// What a command printed, for a failure's message.
pub fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}{err}", output.status)
}
