//! The rules in a real kernel: two network namespaces, a node with the rules and its pods.
//!
//! Needs root, `ip` and iptables; where one is missing the tests say so and pass. The host's own tables are not touched.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::connections::{Served, clean};
use super::model::tests::port;
use super::model::{ServicePort, Target};
use super::remove;
use super::rules::render;
use super::sync::{Tables, anything_missing};
use crate::host::firewall::{Family, Firewall, Iptables};
use crate::host::processes::{
    Command, Output, ProcessError, ProcessId, ProcessInfo, Processes, RealProcesses, Running, Signal,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace that goes with the value.
struct Netns {
    name: String,
}

impl Netns {
    fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kl-{role}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&format!("netns add {name}"));
        let netns = Self { name };
        netns.ip("link set lo up");
        netns
    }

    fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.name));
    }

    fn run(&self, program: &str, arguments: &str) {
        ip(&format!("netns exec {} {program} {arguments}", self.name));
    }

    /// Runs `work` on a thread that lives in the namespace.
    fn inside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let namespace = std::fs::File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    fn firewall(&self) -> Iptables {
        let path = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from).to_vec();
        Iptables::new(Arc::new(Inside { real: RealProcesses::new(path), netns: self.name.clone() }))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        Program::new("ip").args(["netns", "delete", &self.name]).status().ok();
    }
}

fn ip(arguments: &str) {
    let output = Program::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs every program inside a network namespace.
struct Inside {
    real: RealProcesses,
    netns: String,
}

#[async_trait]
impl Processes for Inside {
    fn find(&self, program: &str) -> Option<PathBuf> {
        self.real.find(program)
    }
    async fn output(&self, command: Command, limit: Duration) -> Result<Output, ProcessError> {
        let program = command.program.display().to_string();
        let mut args = vec!["netns".into(), "exec".into(), self.netns.clone(), program];
        args.extend(command.args.clone());
        self.real.output(Command { program: "ip".into(), args, ..command }, limit).await
    }
    fn spawn(&self, command: &Command, log: &Path) -> Result<Box<dyn Running>, ProcessError> {
        self.real.spawn(command, log)
    }
    fn identify(&self, pid: i32) -> Option<ProcessId> {
        self.real.identify(pid)
    }
    fn adopt(&self, id: ProcessId) -> Option<Box<dyn Running>> {
        self.real.adopt(id)
    }
    fn signal(&self, id: ProcessId, signal: Signal) -> Result<(), ProcessError> {
        self.real.signal(id, signal)
    }
    fn list(&self) -> Vec<ProcessInfo> {
        self.real.list()
    }
}

/// Whether this machine can run these tests.
fn possible() -> bool {
    let can = nix::unistd::geteuid().is_root()
        && ["ip", "iptables-restore", "conntrack"]
            .iter()
            .all(|p| ["/usr/sbin", "/sbin", "/usr/bin"].iter().any(|d| Path::new(d).join(p).exists()))
        && {
            let name = format!("kl-probe-{}", std::process::id());
            let made = Program::new("ip").args(["netns", "add", &name]).output();
            Program::new("ip").args(["netns", "delete", &name]).output().ok();
            made.is_ok_and(|made| made.status.success())
        };
    if !can {
        eprintln!("skipped: needs root, ip, iptables, conntrack and network namespaces");
    }
    can
}

/// A node (10.42.0.1) and, behind it, two pods (10.42.0.7 and 10.42.0.8).
struct World {
    node: Netns,
    pods: Netns,
}

impl World {
    fn new() -> Self {
        let (node, pods) = (Netns::new("node"), Netns::new("pods"));
        node.ip(&format!("link add pods type veth peer name eth0 netns {}", pods.name));
        node.ip("address add 10.42.0.1/24 dev pods");
        node.ip("link set pods up");
        for address in ["10.42.0.7/24", "10.42.0.8/24"] {
            pods.ip(&format!("address add {address} dev eth0"));
        }
        pods.ip("link set eth0 up");
        pods.ip("route add default via 10.42.0.1");
        // A route, so that the node itself may send to Services.
        node.ip("route add 10.43.0.0/16 dev pods");
        node.run("sysctl", "-q -w net.ipv4.ip_forward=1");
        Self { node, pods }
    }

    /// Serves TCP on a pod: every client is told the pod's address and its own.
    fn serve(&self, address: &str) {
        let address = address.to_owned();
        let (ready, begun) = std::sync::mpsc::channel();
        // Ends with the test's process.
        self.pods.inside(move || {
            let listener = TcpListener::bind(&address).unwrap();
            ready.send(()).unwrap();
            for stream in listener.incoming().flatten() {
                let Ok(peer) = stream.peer_addr() else { continue };
                let mut stream = stream;
                stream.write_all(format!("{address} {}", peer.ip()).as_bytes()).ok();
            }
        });
        begun.recv_timeout(PATIENCE).unwrap();
    }

    async fn sync(&self, ports: &[ServicePort]) -> Iptables {
        let firewall = self.node.firewall();
        let wanted = render(ports, Family::V4, &["10.42.0.0/16".into()]);
        Tables::default().sync(Family::V4, wanted, &firewall).await.unwrap();
        firewall
    }
}

/// What the server at `to` says to a client in `from`.
fn ask(from: &Netns, to: &str) -> Result<String, ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    let client = from.inside(move || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|e| e.kind())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).map_err(|e| e.kind())?;
        Ok(said)
    });
    client.join().unwrap()
}

/// Ports that between them use every chain and every kind of rule.
fn everything() -> Vec<ServicePort> {
    let mut all = port("default/all:http", &["10.42.0.7:80", "10.42.0.8:80"]);
    all.node_port = Some(30080);
    all.external_ips = vec!["192.0.2.10".parse().unwrap()];
    all.load_balancer_ips = vec!["192.0.2.11".parse().unwrap()];
    all.source_ranges = vec!["198.51.100.0/24".into()];
    all.affinity = Some(60);
    let mut local = port("default/local:http", &["10.42.0.7:80", "10.42.0.8:80"]);
    local.cluster_ips = vec!["10.43.0.21".parse().unwrap()];
    (local.internal_local, local.external_local, local.node_port) = (true, true, Some(30081));
    let mut far = local.clone();
    far.name = "default/far:http".into();
    (far.cluster_ips, far.node_port) = (vec!["10.43.0.22".parse().unwrap()], Some(30082));
    far.endpoints.iter_mut().for_each(|target| target.local = false);
    let mut empty = port("default/empty:dns", &[]);
    (empty.protocol, empty.cluster_ips) = ("udp".into(), vec!["10.43.0.23".parse().unwrap()]);
    (empty.node_port, empty.external_ips) = (Some(30083), vec!["192.0.2.12".parse().unwrap()]);
    vec![all, local, far, empty]
}

async fn tables(firewall: &Iptables, family: Family) -> String {
    let mut text = String::new();
    for table in ["nat", "filter"] {
        let saved = firewall.save(family, table).await.unwrap();
        let shown = saved.lines().filter(|l| !l.starts_with('#')).map(|l| l.split(" [").next().unwrap_or(l));
        shown.for_each(|line| text.extend([line, "\n"]));
    }
    text
}

#[tokio::test]
async fn every_rule_is_taken_adopted_repaired_and_removed_by_the_real_iptables() {
    if !possible() {
        return;
    }
    let node = Netns::new("rules");
    let firewall = node.firewall();
    for (family, pods) in [(Family::V4, "10.42.0.0/16"), (Family::V6, "fd42::/56")] {
        let mut ports = everything();
        if family == Family::V6 {
            let mut v6 = port("default/six:http", &[]);
            v6.cluster_ips = vec!["fd43::20".parse().unwrap()];
            v6.node_port = Some(30084);
            v6.endpoints = vec![Target { address: "[fd42::7]:80".parse().unwrap(), local: true }];
            ports.push(v6);
        }
        let others = "*nat\n:OTHERS - [0:0]\n-A OTHERS -j ACCEPT\n-A PREROUTING -j OTHERS\nCOMMIT\n";
        firewall.restore(family, others).await.unwrap();
        let wanted = || render(&ports, family, &[pods.to_owned()]);
        let mut known = std::collections::BTreeMap::from([(family, Tables::default())]);
        known.get_mut(&family).unwrap().sync(family, wanted(), &firewall).await.unwrap();
        let first = tables(&firewall, family).await;
        assert!(first.contains("-A PREROUTING -j OTHERS"), "{first}");
        assert!(!anything_missing(&known, &firewall).await, "{first}");

        Tables::default().sync(family, wanted(), &firewall).await.unwrap();
        assert_eq!(tables(&firewall, family).await, first, "a new process changes nothing");

        firewall
            .restore(
                family,
                "*nat\n:KUBE-NODEPORTS - [0:0]\n:KUBE-SERVICES - [0:0]\n-X KUBE-NODEPORTS\nCOMMIT\n",
            )
            .await
            .unwrap();
        assert!(anything_missing(&known, &firewall).await);
        let tables_of = known.get_mut(&family).unwrap();
        tables_of.forget();
        tables_of.sync(family, wanted(), &firewall).await.unwrap();
        assert_eq!(tables(&firewall, family).await, first, "the repair restores everything");

        remove(&[family], &firewall).await.unwrap();
        let left = tables(&firewall, family).await;
        assert!(!left.contains("KUBE-"), "{left}");
        assert!(left.contains("-A PREROUTING -j OTHERS") && left.contains("-A OTHERS -j ACCEPT"), "{left}");
    }
}

#[tokio::test]
async fn traffic_reaches_every_endpoint_and_is_refused_where_there_is_none() {
    if !possible() {
        return;
    }
    let world = World::new();
    for address in ["10.42.0.7:80", "10.42.0.8:80"] {
        world.serve(address);
    }
    let mut web = port("default/web:http", &["10.42.0.7:80", "10.42.0.8:80"]);
    web.node_port = Some(30080);
    let mut empty = port("default/empty:http", &[]);
    empty.cluster_ips = vec!["10.43.0.21".parse().unwrap()];
    empty.node_port = Some(30081);
    world.sync(&[web, empty]).await;

    // Half of the clients go to each: that forty miss one happens once in 2^39 runs.
    for (from, to) in
        [(&world.node, "10.43.0.20:80"), (&world.node, "10.42.0.1:30080"), (&world.pods, "10.42.0.1:30080")]
    {
        let mut served: Vec<_> =
            (0..40).map(|_| ask(from, to).unwrap().split(' ').next().unwrap().to_owned()).collect();
        served.sort();
        served.dedup();
        assert_eq!(served, ["10.42.0.7:80", "10.42.0.8:80"], "through {to}");
    }
    for to in ["10.43.0.21:80", "10.42.0.1:30081"] {
        assert_eq!(ask(&world.node, to), Err(ErrorKind::ConnectionRefused), "{to}");
    }
}

#[tokio::test]
async fn a_pod_that_reaches_itself_through_its_service_sees_the_node() {
    if !possible() {
        return;
    }
    let world = World::new();
    world.serve("10.42.0.7:80");
    world.sync(&[port("default/web:http", &["10.42.0.7:80"])]).await;
    assert_eq!(ask(&world.pods, "10.43.0.20:80").unwrap(), "10.42.0.7:80 10.42.0.1");
}

#[tokio::test]
async fn a_client_with_affinity_stays_with_its_endpoint() {
    if !possible() {
        return;
    }
    let world = World::new();
    for address in ["10.42.0.7:80", "10.42.0.8:80"] {
        world.serve(address);
    }
    let mut web = port("default/web:http", &["10.42.0.7:80", "10.42.0.8:80"]);
    web.affinity = Some(60);
    world.sync(&[web]).await;
    let first = ask(&world.node, "10.43.0.20:80").unwrap();
    for _ in 0..20 {
        assert_eq!(ask(&world.node, "10.43.0.20:80").unwrap(), first);
    }
}

#[tokio::test]
async fn datagrams_of_a_known_client_follow_the_endpoint() {
    if !possible() {
        return;
    }
    let world = World::new();
    let bind =
        |address: &'static str| world.pods.inside(move || UdpSocket::bind(address).unwrap()).join().unwrap();
    let servers = [bind("10.42.0.7:53"), bind("10.42.0.8:53")];
    servers.iter().for_each(|s| s.set_read_timeout(Some(PATIENCE)).unwrap());
    let client = world.node.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap()).join().unwrap();
    let service = |endpoint: &str| {
        let mut dns = port("default/dns:dns", &[endpoint]);
        (dns.protocol, dns.port) = ("udp".into(), 53);
        dns
    };
    let to: (IpAddr, u16) = ("10.43.0.20".parse().unwrap(), 53);
    let mut served = Served::default();
    for (endpoint, server) in [("10.42.0.7:53", &servers[0]), ("10.42.0.8:53", &servers[1])] {
        let ports = [service(endpoint)];
        let firewall = world.sync(&ports).await;
        clean(&mut served, &ports, &firewall).await;
        // The same client port each time: without forgetting, the kernel would go on sending to the first endpoint.
        client.send_to(endpoint.as_bytes(), to).unwrap();
        let mut buffer = [0; 64];
        let length = server.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], endpoint.as_bytes());
    }
}
