//! The supervised containerd for real: images without a registry, pods with a network, adoption after a kill.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube_lite::cni::{self, PodNetwork};
use kube_lite::cri::{Client, Runtime, v1};
use kube_lite::host::Host;
use kube_lite::host::cgroups::Driver;
use kube_lite::host::processes::{ProcessId, Signal};
use kube_lite::kubelet::containerd::{Containerd, ContainerdConfig, stop_all};
use kube_lite::kubelet::images::archive::Image;
use kube_lite::kubelet::images::import::{ImportConfig, Importer};
use kube_lite::network::{self, NetworkConfig};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use crate::isolation::{Place, isolated};

const LIMIT: Duration = Duration::from_secs(60);
const IMAGE: &str = "docker.io/library/busybox:test";

/// A node's runtime, as the agent puts it together.
struct Node {
    host: Host,
    config: ContainerdConfig,
    containerd: Containerd,
    client: Client,
    importer: Importer,
    stop: CancellationToken,
    cgroup_parent: String,
}

impl Node {
    async fn start(place: &Place) -> Self {
        let host = Host::real([]);
        let config = ContainerdConfig::new(place.directory.join("agent"), place.directory.join("run"));
        let stop = CancellationToken::new();
        let begun = Instant::now();
        let containerd = Containerd::start(config.clone(), &host, stop.clone()).await.unwrap();
        assert!(tokio::time::timeout(LIMIT, containerd.ready()).await.unwrap());
        println!("containerd serves after {} ms", begun.elapsed().as_millis());
        let client = Client::connect(&containerd.endpoint()).unwrap();
        let import = ImportConfig {
            images_dir: config.agent_dir.join("images"),
            record: config.root().join("imported.json"),
            containerd_socket: containerd.socket().to_owned(),
            snapshotter: containerd.snapshotter().to_owned(),
        };
        let importer = Importer::new(import, host.processes.clone(), Arc::new(client.clone()));
        let cgroup_parent = place.cgroup.child("pod").directory(containerd.cgroup_driver());
        Self { host, config, containerd, client, importer, stop, cgroup_parent }
    }

    /// Images and network, so that pods can be run.
    async fn prepare(&self) {
        let begun = Instant::now();
        self.importer.ensure_pause().await.unwrap();
        println!("pause image is there after {} ms", begun.elapsed().as_millis());
        std::fs::write(self.config.agent_dir.join("images/busybox.tar"), busybox()).unwrap();
        let report = self.importer.scan().await;
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        let again = self.importer.scan().await;
        assert_eq!((again.imported.len(), again.unchanged), (0, 1));
        network::setup(&network_config(), &self.host).await.unwrap();
        let pods = PodNetwork {
            pod_cidrs: vec!["10.42.0.0/24".to_owned()],
            mtu: 1500,
            state_dir: self.config.run_dir.join("cni"),
        };
        assert!(cni::write(&self.config.cni_conf_dir(), &pods).unwrap());
        until("the network is ready", || async {
            let status = self.client.status(false).await.unwrap().status.unwrap();
            status.conditions.iter().all(|condition| condition.status)
        })
        .await;
    }

    fn sandbox(&self, name: &str) -> v1::PodSandboxConfig {
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: self.config.agent_dir.join("logs").display().to_string(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_parent.clone(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Runs a pod with one container that runs a shell script; the ids of both.
    async fn run(&self, name: &str, script: &str) -> (String, String) {
        let begun = Instant::now();
        let sandbox = self.sandbox(name);
        let pod = self.client.run_pod_sandbox(sandbox.clone(), "").await.unwrap();
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log"),
            ..Default::default()
        };
        let container = self.client.create_container(&pod, config, sandbox).await.unwrap();
        self.client.start_container(&container).await.unwrap();
        println!("pod {name} runs after {} ms", begun.elapsed().as_millis());
        (pod, container)
    }

    async fn exec(&self, container: &str, script: &str) -> v1::ExecSyncResponse {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        self.client.exec_sync(container, &command, LIMIT).await.unwrap()
    }

    async fn status(&self, container: &str) -> v1::ContainerStatus {
        self.client.container_status(container, false).await.unwrap().status.unwrap()
    }

    fn containerd_process(&self) -> ProcessId {
        let text = std::fs::read_to_string(self.config.state().join("containerd.pid")).unwrap();
        self.host.processes.identify(text.split(' ').next().unwrap().parse().unwrap()).unwrap()
    }

    /// Processes that containerd or a shim of it are.
    fn daemons(&self) -> Vec<ProcessId> {
        let ours = self.config.agent_dir.parent().unwrap().display().to_string();
        let processes = self.host.processes.list().into_iter();
        let ours = processes.filter(|process| {
            process.command_line.first().is_some_and(|program| program.contains("containerd"))
                && process.command_line.iter().any(|word| word.contains(&ours))
        });
        ours.map(|process| process.id).collect()
    }
}

fn network_config() -> NetworkConfig {
    NetworkConfig { cluster_cidrs: vec!["10.42.0.0/16".to_owned()], dns: "10.43.0.10".parse().unwrap() }
}

/// A static busybox with a shell.
fn busybox() -> Vec<u8> {
    let program =
        ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| std::fs::read(path).ok()).unwrap();
    let mut image = Image::new("busybox:test").file("bin/busybox", 0o755, program).directory("tmp", 0o1777);
    for applet in ["sh", "sleep", "cat", "nc", "echo", "hostname", "timeout"] {
        image = image.link(&format!("bin/{applet}"), "busybox");
    }
    image.environment("PATH=/bin").command(&["sh"]).archive().unwrap()
}

/// Waits for a condition of the world.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "{what}");
}

/// What a container printed, without times and streams.
fn logged(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect::<Vec<_>>().join("\n")
}

#[test]
fn pods_run_without_a_registry_on_a_containerd_of_our_own() {
    isolated("runtime::pods_run_without_a_registry_on_a_containerd_of_our_own", |place| async move {
        let node = Node::start(&place).await;
        node.prepare().await;
        let (pod, container) =
            node.run("web", "trap 'exit 3' TERM; echo hello from $(hostname); sleep 1000 & wait").await;

        let status = node.client.pod_sandbox_status(&pod, false).await.unwrap().status.unwrap();
        let ip = status.network.unwrap().ip;
        assert!(ip.starts_with("10.42.0."), "{ip}");
        let log = node.config.agent_dir.join("logs/web.log");
        until("the log is written", || async { logged(&log) == "hello from web" }).await;
        let answer = node.exec(&container, "echo out; echo err >&2; exit 7").await;
        assert_eq!(
            (answer.stdout.as_slice(), answer.stderr.as_slice()),
            (b"out\n".as_slice(), b"err\n".as_slice())
        );
        assert_eq!(answer.exit_code, 7);
        reaches_the_dns_address(&node, &container).await;
        limits_hold(&node, &place).await;

        node.client.stop_container(&container, Duration::from_secs(20)).await.unwrap();
        let ended = node.status(&container).await;
        assert_eq!((ended.state(), ended.exit_code), (v1::ContainerState::ContainerExited, 3));
        for _ in 0..2 {
            node.client.stop_pod_sandbox(&pod).await.unwrap();
            node.client.remove_pod_sandbox(&pod).await.unwrap();
        }
        assert!(node.client.list_pod_sandboxes(None).await.unwrap().is_empty());
        everything_can_be_stopped(node).await;
    });
}

/// A listener on the address of cluster DNS is reached from a pod.
async fn reaches_the_dns_address(node: &Node, container: &str) {
    let address = SocketAddr::new(network_config().dns, 53);
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let answer = async {
        let (mut stream, from) = listener.accept().await.unwrap();
        stream.write_all(b"answer\n").await.unwrap();
        from.ip()
    };
    let ask = node.exec(container, "timeout 20 nc 10.43.0.10 53 < /dev/null");
    let (from, asked) = tokio::join!(answer, ask);
    assert_eq!(String::from_utf8_lossy(&asked.stdout), "answer\n");
    assert!(from.to_string().starts_with("10.42.0."), "a pod keeps its address towards its node: {from}");
    assert_ne!(from, IpAddr::from([10, 42, 0, 1]));
}

/// The pod's processes are in the cgroup that they were given.
async fn limits_hold(node: &Node, place: &Place) {
    if node.containerd.cgroup_driver() == Driver::Cgroupfs {
        let inside = node.host.cgroups.processes(&place.cgroup).unwrap();
        assert!(inside.len() >= 2, "pause and shell: {inside:?}");
        assert!(node.host.cgroups.usage(&place.cgroup.child("pod")).unwrap().memory > 0);
    }
}

async fn everything_can_be_stopped(node: Node) {
    let (_pod, container) = node.run("left", "sleep 1000").await;
    assert_eq!(node.status(&container).await.state(), v1::ContainerState::ContainerRunning);
    assert!(node.daemons().len() >= 2);
    node.stop.cancel();
    stop_all(&node.config, &node.host).await;
    assert_eq!(node.daemons(), []);
    network::teardown(&network_config(), &node.host).await.unwrap();
    let mounts = node.host.mounts.list().unwrap();
    let left = mounts.iter().filter(|mount| mount.target.starts_with(&node.config.run_dir)).count();
    assert_eq!(left, 0, "mounts are left");
    let links = node.host.netlink.links().await.unwrap();
    assert!(links.iter().all(|link| link.name != "cni0"), "{links:?}");
    node.containerd.join().await;
}

const ADOPTION: &str = "runtime::containers_survive_kill_of_us_and_of_containerd";

#[test]
fn containers_survive_kill_of_us_and_of_containerd() {
    isolated(ADOPTION, |place| async move {
        if place.role == "victim" {
            let node = Node::start(&place).await;
            node.prepare().await;
            let (_, container) = node.run("web", "sleep 1000").await;
            println!("container={container}");
            std::future::pending::<()>().await;
        }
        let mut victim = place.again(ADOPTION, "victim").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
        let container = lines
            .inspect(|line| println!("{line}"))
            .find_map(|line| line.split_once("container=").map(|(_, id)| id.to_owned()))
            .unwrap();
        victim.kill().unwrap();
        victim.wait().unwrap();

        let node = Node::start(&place).await;
        let before = node.status(&container).await;
        assert_eq!(before.state(), v1::ContainerState::ContainerRunning);
        assert_eq!(node.daemons().len(), 2, "the same containerd and one shim");

        let first = node.containerd_process();
        node.host.processes.signal(first, Signal::Kill).unwrap();
        until("containerd is started again", || async {
            node.host.processes.identify(first.pid) != Some(first) && node.client.status(false).await.is_ok()
        })
        .await;
        assert_ne!(node.containerd_process(), first);
        let after = node.status(&container).await;
        assert_eq!((after.state(), after.started_at), (before.state(), before.started_at));
        assert_eq!(node.exec(&container, "echo alive").await.stdout, b"alive\n");
        node.stop.cancel();
        stop_all(&node.config, &node.host).await;
        assert_eq!(node.daemons(), []);
        node.containerd.join().await;
    });
}
