//! A real etcd of one or more members, each a child process of the test, that can be killed and cut off from each other.
//!
//! Members reach each other through connections that the test carries (`Fabric`): it looks up which member made a
//! connection, so that it can stop what passes between two of them in both directions, while clients still reach both.

use std::net::TcpListener as Port;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube_lite::store::Store;
use kube_lite::store::etcd::{EtcdOptions, EtcdStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::server::TestServer;

/// The members; they end with the test.
pub struct Members {
    all: Vec<Member>,
    /// As `--initial-cluster` has it.
    initial: String,
    more: Vec<String>,
    fabric: Arc<Fabric>,
    folder: tempfile::TempDir,
}

struct Member {
    client: String,
    /// Where it listens for the others.
    peer: String,
    /// Where the others think that it listens.
    advertised: String,
    child: Option<Child>,
}

impl Members {
    /// Starts so many members; they may need a moment to elect a leader.
    pub async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// Starts members with more arguments.
    pub async fn start_with(count: usize, more: &[&str]) -> Self {
        let more = more.iter().map(|&word| word.to_owned()).collect();
        // Held together until all are known, so that no port is given twice.
        let ports: Vec<_> = (0..count * 2).map(|_| Port::bind("127.0.0.1:0").unwrap()).collect();
        let fabric = Arc::new(Fabric { cut: watch::channel(Vec::new()).0, pids: Mutex::new(vec![0; count]) });
        let mut all = Vec::new();
        for member in 0..count {
            let address = |port: usize| ports[member * 2 + port].local_addr().unwrap();
            let carried = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let advertised = format!("http://{}", carried.local_addr().unwrap());
            tokio::spawn(fabric.clone().carry_all(carried, member, address(1)));
            let client = format!("http://{}", address(0));
            all.push(Member { client, peer: format!("http://{}", address(1)), advertised, child: None });
        }
        drop(ports);
        let initial: Vec<_> =
            all.iter().enumerate().map(|(i, member)| format!("m{i}={}", member.advertised)).collect();
        let initial = initial.join(",");
        let mut members = Self { all, initial, more, fabric, folder: tempfile::tempdir().unwrap() };
        (0..count).for_each(|member| members.revive(member));
        members
    }

    /// `kill -9`.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.all[member].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts a member, with the data that it had.
    pub fn revive(&mut self, member: usize) {
        let Member { client, peer, advertised, child } = &mut self.all[member];
        let name = format!("m{member}");
        let started = Command::new("setpriv")
            // Ends with the test even when the test is killed.
            .args(["--pdeathsig", "KILL", "etcd", "--name", &name, "--logger", "zap"])
            .arg("--data-dir")
            .arg(self.folder.path().join(&name))
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", advertised])
            .args(["--initial-cluster", &self.initial])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd runs: apt-get install etcd-server");
        self.fabric.pids.lock().unwrap()[member] = started.id();
        *child = Some(started);
    }

    /// Nothing passes between this member and the others until [`Self::heal`]; clients reach it.
    pub fn isolate(&self, member: usize) {
        let others = (0..self.all.len()).filter(|other| *other != member);
        self.fabric.cut.send_replace(others.flat_map(|other| [(member, other), (other, member)]).collect());
    }

    pub fn heal(&self) {
        self.fabric.cut.send_replace(Vec::new());
    }

    /// As `--datastore-endpoint` has them.
    pub fn endpoints(&self) -> String {
        let all: Vec<_> = self.all.iter().map(|member| member.client.clone()).collect();
        all.join(",")
    }

    /// A store of its own on these members.
    pub async fn store(&self) -> Arc<EtcdStore> {
        let options = EtcdOptions {
            attempt_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(30),
            ..EtcdOptions::new(self.all.iter().map(|member| member.client.clone()).collect())
        };
        EtcdStore::connect(options).await.unwrap()
    }

    /// One more server on this etcd.
    pub async fn server(&self) -> TestServer {
        let store: Arc<dyn Store> = self.store().await;
        TestServer::over(store, tempfile::tempdir().unwrap()).await
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        (0..self.all.len()).for_each(|member| self.kill(member));
    }
}

/// Carries what members say to each other.
struct Fabric {
    /// From whom to whom nothing passes.
    cut: watch::Sender<Vec<(usize, usize)>>,
    pids: Mutex<Vec<u32>>,
}

impl Fabric {
    /// Carries all connections to a member.
    async fn carry_all(self: Arc<Self>, listener: TcpListener, to: usize, address: std::net::SocketAddr) {
        while let Ok((stream, from)) = listener.accept().await {
            // One that is gone already needs no carrying.
            let Some(from) = self.maker_of(from.port(), stream.local_addr().unwrap().port()) else {
                continue;
            };
            let cut = self.cut.subscribe();
            tokio::spawn(async move { carry(stream, (from, to), address, cut).await });
        }
    }

    /// Which member made a connection, by its ports: the process that holds the other end.
    fn maker_of(&self, from: u16, to: u16) -> Option<usize> {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
        let inode = table.lines().skip(1).find_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let ours = port(words[1]) == Some(from) && port(words[2]) == Some(to);
            ours.then(|| format!("socket:[{}]", words[9]))
        })?;
        let pids = self.pids.lock().unwrap().clone();
        pids.iter().position(|pid| {
            let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            open.into_iter().any(|file| {
                std::fs::read_link(file.path()).is_ok_and(|link| link.to_str() == Some(inode.as_str()))
            })
        })
    }
}

/// Carries one connection until an end closes it. While its way is cut nothing passes, and both ends wait; it is closed
/// when the way is free again, as what was lost cannot be brought back.
async fn carry(
    mut stream: TcpStream,
    way: (usize, usize),
    to: std::net::SocketAddr,
    mut cut: watch::Receiver<Vec<(usize, usize)>>,
) {
    let is_cut = |ways: &Vec<(usize, usize)>| ways.contains(&way);
    let mut watched = cut.clone();
    let passing = async {
        if let Ok(mut member) = TcpStream::connect(to).await {
            // Either end may go at any time.
            tokio::io::copy_bidirectional(&mut stream, &mut member).await.ok();
        }
    };
    let was_cut = tokio::select! {
        biased;
        gone = watched.wait_for(is_cut) => gone.is_ok(),
        () = passing => false,
    };
    if was_cut {
        cut.wait_for(|ways| !is_cut(ways)).await.ok();
    }
}
