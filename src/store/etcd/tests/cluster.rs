//! A real etcd of one or more members, each a child process of the test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The members; stopped and removed when dropped.
pub(super) struct Cluster {
    folder: tempfile::TempDir,
    members: Vec<Member>,
    initial: String,
    /// More arguments of each member.
    more: Vec<String>,
}

struct Member {
    name: String,
    client: String,
    peer: String,
    child: Option<Child>,
}

impl Cluster {
    /// Starts so many members; they may need a moment to elect a leader.
    pub(super) fn start(count: usize) -> Self {
        Self::start_with(count, "http", Vec::new())
    }

    /// Starts members whose clients use TLS; `more` names the certificates.
    pub(super) fn start_with(count: usize, scheme: &str, more: Vec<String>) -> Self {
        // Held together until all are known, so that no port is given twice.
        let ports: Vec<_> = (0..count * 2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let url = |i: usize| {
            format!(
                "{}://{}",
                if i.is_multiple_of(2) { scheme } else { "http" },
                ports[i].local_addr().unwrap()
            )
        };
        let members: Vec<_> = (0..count)
            .map(|i| Member { name: format!("m{i}"), client: url(i * 2), peer: url(i * 2 + 1), child: None })
            .collect();
        drop(ports);
        let initial: Vec<_> = members.iter().map(|m| format!("{}={}", m.name, m.peer)).collect();
        let initial = initial.join(",");
        let mut cluster = Self { folder: tempfile::tempdir().unwrap(), members, initial, more };
        for i in 0..count {
            cluster.revive(i);
        }
        cluster
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|m| m.client.clone()).collect()
    }

    /// Starts a member, again if it was killed; its data is what it had.
    pub(super) fn revive(&mut self, i: usize) {
        let data = self.folder.path().join(&self.members[i].name);
        let log = self.folder.path().join(format!("{}.log", self.members[i].name));
        let member = &mut self.members[i];
        // Ends with the test even when the test is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--name", &member.name, "--logger", "zap"])
            .args(["--log-outputs", log.to_str().unwrap(), "--data-dir", data.to_str().unwrap()])
            .args(["--listen-client-urls", &member.client, "--advertise-client-urls", &member.client])
            .args(["--listen-peer-urls", &member.peer, "--initial-advertise-peer-urls", &member.peer])
            .args(["--initial-cluster", &self.initial, "--initial-cluster-state", "new"])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(&self.more)
            .args(["--experimental-watch-progress-notify-interval", "1s"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd runs: apt-get install etcd-server");
        member.child = Some(child);
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self, i: usize) {
        if let Some(mut child) = self.members[i].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Cuts a member off: it keeps its connections and says nothing.
    pub(super) fn pause(&self, i: usize) {
        self.signal(i, Signal::SIGSTOP);
    }

    pub(super) fn resume(&self, i: usize) {
        self.signal(i, Signal::SIGCONT);
    }

    fn signal(&self, i: usize, signal: Signal) {
        let child = self.members[i].child.as_ref().expect("the member runs");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for i in 0..self.members.len() {
            self.kill(i);
        }
    }
}
