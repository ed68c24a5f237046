//! What the kubelet costs beyond the runtime itself: pods one at a time, a hundred at once, memory and processor time
//! with 110 pods, and the way of a command into a container.
//!
//! `cargo bench --bench kubelet` (as root) prints a table; `docs/benchmarks.md` keeps the figures. The node is an agent
//! in namespaces of its own, so that memory and time are the node's alone; the control plane is another one. The bare
//! client talks CRI to the same containerd.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, Config};
use kube_lite::cri::{self, Runtime as _, v1};
use serde_json::{Value, json};

#[path = "../tests/host/node.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod node;

use node::{Node, text, unavailable};

const IMAGE: &str = "localhost/hello:1";
const ONE_BY_ONE: usize = 20;
const AT_ONCE: usize = 100;
const MANY: usize = 110;
const COMMANDS: usize = 50;
const IDLE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(600);

fn main() {
    if let Some(reason) = unavailable() {
        println!("skipped: {reason}");
        return;
    }
    let (server, agent) = cluster();
    let socket = agent.dir().join("run/containerd/containerd.sock");
    let files = agent.dir().join("bare");
    let kubeconfig = std::fs::read_to_string(server.kubeconfig()).unwrap();
    let url = format!("https://{}:6443", server.address());
    let (mut inside, network) = network_of(&agent);
    // The API is reached from where the agent is: namespaces belong to threads, and so does this runtime.
    let measured = std::thread::spawn(move || {
        nix::sched::setns(std::fs::File::open(network).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET)
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(pods(&kubeconfig, &url, &socket, &files))
    });
    let figures = measured.join().unwrap();
    inside.kill().unwrap();
    inside.wait().unwrap();
    let (cpu, memory) = idle(&agent);
    println!("| what | must reach | reached |");
    println!("| --- | --- | --- |");
    println!(
        "| pod created to Running, p50 of {ONE_BY_ONE}, beyond a bare CRI client's {:.0} ms | 40 ms | {:.0} ms |",
        figures.bare_one,
        figures.one - figures.bare_one
    );
    println!(
        "| {AT_ONCE} pods created at once to all Ready, over a bare CRI client's {:.1} s | 1.15 times | {:.2} times |",
        figures.bare_all / 1000.0,
        figures.all / figures.bare_all
    );
    println!(
        "| a command in a container, p50 of {COMMANDS}, beyond the runtime's own {:.0} ms | 10 ms | {:.1} ms |",
        figures.bare_command,
        figures.command - figures.bare_command
    );
    println!("| resident memory of the agent with {MANY} pods | 40 MiB | {memory:.1} MiB |");
    println!(
        "| CPU of the agent, idle, {MANY} pods with a 10 s probe each, over {} s | 3 % | {cpu:.2} % |",
        IDLE.as_secs()
    );
}

/// Medians and sums in milliseconds.
#[derive(Default)]
struct Figures {
    bare_one: f64,
    one: f64,
    bare_all: f64,
    all: f64,
    bare_command: f64,
    command: f64,
}

/// A process on the node, and the file that stands for the node's network as long as it lives.
fn network_of(node: &Node) -> (Child, String) {
    let mut inside = node.inside("cat");
    let inside = inside.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // The process that is known is nsenter, whose only child is on the node.
    let children = format!("/proc/{0}/task/{0}/children", inside.id());
    let pid = loop {
        let child = std::fs::read_to_string(&children).unwrap();
        match child.split_whitespace().next() {
            Some(pid) => break pid.to_owned(),
            None => std::thread::yield_now(),
        }
    };
    (inside, format!("/proc/{pid}/ns/net"))
}

/// A server without a node, and a node that has joined it.
fn cluster() -> (Node, Node) {
    let mut server = Node::new();
    std::fs::write(server.dir().join("config.yaml"), "disable-agent: true\n").unwrap();
    server.start_server();
    server.wait_for("the API answers", "kubectl get --raw /readyz", |out| out == "ok");
    let mut agent = server.neighbour();
    std::fs::create_dir_all(agent.images()).unwrap();
    std::fs::write(agent.dir().join("config.yaml"), "max-pods: 200\n").unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/hello-image.sh");
    let built = Command::new(script).arg(agent.images().join("hello.tar")).output().unwrap();
    assert!(built.status.success(), "{}", text(&built));
    agent.start_agent(&server);
    server.wait_for_kubectl("the node is Ready", "get nodes --no-headers", |out| {
        out.split_whitespace().nth(1) == Some("Ready")
    });
    server.wait_for_kubectl("its image is there", "get nodes -o jsonpath={.items[0].status.images}", |out| {
        out.contains(IMAGE)
    });
    (server, agent)
}

async fn pods(kubeconfig: &str, url: &str, socket: &Path, files: &Path) -> Figures {
    let mut kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig).unwrap();
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        cluster.server = Some(url.to_owned());
    }
    let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let api: Api<Pod> = Api::namespaced(client.clone(), "default");
    let runtime = cri::Client::connect(&socket.display().to_string()).unwrap();
    let mut figures = Figures { bare_one: bare_one_by_one(&runtime, files).await, ..Figures::default() };
    figures.one = one_by_one(&api).await;
    figures.bare_all = bare_at_once(&runtime, files).await;
    figures.all = at_once(&api).await;
    (figures.bare_command, figures.command) = commands(&client, &api, &runtime).await;
    many(&api).await;
    figures
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1000.0
}

/// What the runtime is asked for by a client that knows nothing else: the same sandbox and container that the node agent
/// wants of it for the pod of `one_by_one`, with the same groups, files, profiles and log.
struct Bare {
    sandbox: v1::PodSandboxConfig,
    container: v1::ContainerConfig,
}

impl Bare {
    /// `files` is a directory for what is mounted and for the log.
    fn new(name: &str, files: &Path) -> Self {
        let own = files.join(name);
        std::fs::create_dir_all(own.join("a")).unwrap();
        let mount = |to: &str, file: &str| {
            let from = own.join(file);
            std::fs::write(&from, "").unwrap();
            v1::Mount {
                container_path: to.to_owned(),
                host_path: from.display().to_string(),
                ..Default::default()
            }
        };
        let profile = |kind: v1::security_profile::ProfileType| v1::SecurityProfile {
            profile_type: kind.into(),
            ..Default::default()
        };
        let namespaces =
            v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let labels = [("io.kubernetes.pod.name", name), ("io.kubernetes.pod.namespace", "bare")];
        let labels: std::collections::BTreeMap<_, _> =
            labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let sandbox = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.to_owned(),
                uid: name.to_owned(),
                namespace: "bare".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: own.display().to_string(),
            dns_config: Some(v1::DnsConfig {
                servers: words(&["10.43.0.10"]),
                searches: words(&["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]),
                options: words(&["ndots:5"]),
            }),
            labels: labels.clone(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: format!("/kubepods/besteffort/pod{name}"),
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces.clone()),
                    seccomp: Some(profile(v1::security_profile::ProfileType::RuntimeDefault)),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let container = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "a".to_owned(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
            command: words(&["sleep", "1000"]),
            mounts: vec![mount("/etc/hosts", "hosts"), mount("/dev/termination-log", "termination-log")],
            labels,
            log_path: "a/0.log".to_owned(),
            linux: Some(v1::LinuxContainerConfig {
                resources: Some(v1::LinuxContainerResources {
                    cpu_period: 100_000,
                    cpu_shares: 2,
                    oom_score_adj: 1000,
                    ..Default::default()
                }),
                security_context: Some(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces),
                    masked_paths: words(&["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"]),
                    readonly_paths: words(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"]),
                    seccomp: Some(profile(v1::security_profile::ProfileType::Unconfined)),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        };
        Self { sandbox, container }
    }

    /// Runs it; the sandbox's id.
    async fn run(self, runtime: &cri::Client) -> String {
        let id = runtime.run_pod_sandbox(self.sandbox.clone(), "").await.unwrap();
        let container = runtime.create_container(&id, self.container, self.sandbox).await.unwrap();
        runtime.start_container(&container).await.unwrap();
        id
    }
}

async fn end_bare(runtime: &cri::Client, sandbox: &str) {
    runtime.stop_pod_sandbox(sandbox).await.unwrap();
    runtime.remove_pod_sandbox(sandbox).await.unwrap();
}

async fn bare_one_by_one(runtime: &cri::Client, files: &Path) -> f64 {
    let mut times = Vec::new();
    for n in 0..ONE_BY_ONE {
        let bare = Bare::new(&format!("one-{n}"), files);
        let begin = Instant::now();
        let sandbox = bare.run(runtime).await;
        times.push(since(begin));
        end_bare(runtime, &sandbox).await;
    }
    median(times)
}

async fn bare_at_once(runtime: &cri::Client, files: &Path) -> f64 {
    let all: Vec<Bare> = (0..AT_ONCE).map(|n| Bare::new(&format!("all-{n}"), files)).collect();
    let begin = Instant::now();
    let sandboxes = join_all(all.into_iter().map(|bare| bare.run(runtime))).await;
    let took = since(begin);
    join_all(sandboxes.iter().map(|sandbox| end_bare(runtime, sandbox))).await;
    took
}

fn pod(name: &str, more: Value) -> Pod {
    let mut container = json!({"name": "a", "image": IMAGE, "command": ["sleep", "1000"]});
    container.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "containers": [container]}}))
    .unwrap()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// Creates pods together and waits until each of them is as wanted.
async fn create_and_wait(api: &Api<Pod>, pods: Vec<Pod>, good: fn(&Pod) -> bool) -> f64 {
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut changes = api.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    let mut waiting: BTreeSet<String> = pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
    let begin = Instant::now();
    let creating =
        join_all(pods.iter().map(|pod| async { api.create(&PostParams::default(), pod).await.unwrap() }));
    let watching = async {
        while !waiting.is_empty() {
            if let Some(Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod))) = changes.next().await
                && good(&pod)
            {
                waiting.remove(pod.metadata.name.as_deref().unwrap_or_default());
            }
        }
        since(begin)
    };
    let both = async { tokio::join!(creating, watching).1 };
    tokio::time::timeout(PATIENCE, both).await.unwrap()
}

async fn delete_all(api: &Api<Pod>) {
    let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    drop(api.delete_collection(&params, &ListParams::default()).await.unwrap());
    let begin = Instant::now();
    while !api.list(&ListParams::default()).await.unwrap().items.is_empty() {
        assert!(begin.elapsed() < PATIENCE, "the pods go");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn one_by_one(api: &Api<Pod>) -> f64 {
    let mut times = Vec::new();
    for n in 0..ONE_BY_ONE {
        times.push(create_and_wait(api, vec![pod(&format!("one-{n}"), json!({}))], is_running).await);
        delete_all(api).await;
    }
    median(times)
}

async fn at_once(api: &Api<Pod>) -> f64 {
    let pods = (0..AT_ONCE).map(|n| pod(&format!("all-{n}"), json!({}))).collect();
    let took = create_and_wait(api, pods, is_ready).await;
    delete_all(api).await;
    took
}

/// A command by the runtime alone, and through API server and kubelet.
async fn commands(client: &Client, api: &Api<Pod>, runtime: &cri::Client) -> (f64, f64) {
    create_and_wait(api, vec![pod("target", json!({}))], is_ready).await;
    let target = api.get("target").await.unwrap();
    let status = target.status.unwrap().container_statuses.unwrap().remove(0);
    let id = status.container_id.unwrap().split("://").nth(1).unwrap().to_owned();
    let node = target.spec.unwrap().node_name.unwrap();
    let uri = format!("/api/v1/nodes/{node}/proxy/run/default/target/a?cmd=true");
    let (mut bare, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..COMMANDS {
        let begin = Instant::now();
        runtime.exec_sync(&id, &["true".to_owned()], Duration::from_secs(10)).await.unwrap();
        bare.push(since(begin));
        let begin = Instant::now();
        let request = http::Request::post(&uri).body(Vec::new()).unwrap();
        client.request_text(request).await.unwrap();
        whole.push(since(begin));
    }
    delete_all(api).await;
    (median(bare), median(whole))
}

/// Leaves as many pods running as a node takes by default, each with a probe.
async fn many(api: &Api<Pod>) {
    let probe = json!({"livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 10}});
    let pods = (0..MANY).map(|n| pod(&format!("many-{n}"), probe.clone())).collect();
    create_and_wait(api, pods, is_ready).await;
}

/// Processor time in percent of one core, and resident memory in MiB, of the agent over a quiet minute.
fn idle(agent: &Node) -> (f64, f64) {
    let output = agent.shell("pgrep -x kube-lite | head -n 1");
    let pid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let ticks = || -> f64 {
        let output = agent.shell(&format!("cut -d' ' -f14,15 /proc/{pid}/stat"));
        String::from_utf8_lossy(&output.stdout).split_whitespace().filter_map(|n| n.parse::<f64>().ok()).sum()
    };
    agent.shell("sleep 20");
    let before = ticks();
    agent.shell(&format!("sleep {}", IDLE.as_secs()));
    // The kernel counts 100 ticks a second: ticks over seconds are percent.
    let cpu = (ticks() - before) / IDLE.as_secs_f64();
    let output = agent.shell(&format!("awk '/VmRSS/ {{ print $2 }}' /proc/{pid}/status"));
    let memory = String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().unwrap_or(f64::NAN) / 1024.0;
    (cpu, memory)
}
