//! A node with much to do and a node without room: a hundred pods at once that leave nothing behind, pods that start
//! while containerd is killed, two hundred streams, a large copy both ways, and a disk that is full.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::main_job::{prepare, ready_node};
use crate::node::{Node, PATIENCE, text, unavailable};

const PODS: usize = 100;
/// So many are being started when containerd is killed.
const PODS_OF_THE_KILLED: usize = 50;
const STREAMS: usize = 200;
/// Size of the copied file in MiB; a release is tested with 1024.
const COPY: &str = "KUBE_LITE_TEST_COPY_MIB";
/// By so many MiB streams and copies may raise the peak of the whole server's memory.
const ROOM: u64 = 160;

const MANY: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: PODS
  progressDeadlineSeconds: 900
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: a, image: "localhost/hello:1", command: [sleep, "10000"]}]
"#;

const TARGET: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: target}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: a, image: "localhost/hello:1", command: [sleep, "10000"]}]
"#;

fn apply(node: &Node, manifest: &str) {
    let file = node.dir().join("manifest.yaml");
    std::fs::write(&file, manifest).unwrap();
    node.kubectl(&["apply", "-f", file.to_str().unwrap()]);
}

#[test]
fn a_hundred_pods_two_hundred_streams_and_a_large_copy() {
    let Some(node) = ready_node() else { return };
    apply(&node, TARGET);
    node.kubectl(&["wait", "pod/target", "--for=condition=Ready", "--timeout=90s"]);
    a_hundred_pods_leave_nothing_behind(&node);
    pods_get_ready_though_containerd_is_killed(&node);
    two_hundred_streams_at_once(&node);
    a_large_file_is_copied_both_ways(&node);
    node.kubectl(&["delete", "pod", "target"]);
}

/// Prints what pods hold of a host, a line for each thing.
const HELD: &str = r#"
cd DIR
grep -lx containerd-shim /proc/[0-9]*/comm
cut -d' ' -f5 /proc/self/mountinfo | sed 's/^/mount /'
ip netns list | sed 's/^/network namespace /'
ip -o link | cut -d: -f2 | cut -d@ -f1 | sed 's/^/link /'
find data/agent/kubelet/pods logs -mindepth 1
find data/agent/containerd/io.containerd.grpc.v1.cri run/containerd -type d
find /var/lib/cni /var/log/containers -name '*.*' 2>/dev/null
find /sys/fs/cgroup -type d -path '*GROUP/*'
true
"#;

/// What is held now.
fn held(node: &Node) -> HashSet<String> {
    let script = HELD.replace("DIR", node.dir().to_str().unwrap()).replace("GROUP", &node.cgroup());
    let output = node.shell(&script);
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What is held now and was not then.
fn new_since(node: &Node, then: &HashSet<String>) -> String {
    let mut new: Vec<_> = held(node).into_iter().filter(|line| !then.contains(line)).collect();
    new.sort();
    new.join("\n")
}

fn a_hundred_pods_leave_nothing_behind(node: &Node) {
    let before = held(node);
    let begun = Instant::now();
    apply(node, &MANY.replace("PODS", &PODS.to_string()));
    node.kubectl(&["rollout", "status", "deployment/many", "--timeout=600s"]);
    println!("{PODS} pods are Ready after {} s", begun.elapsed().as_secs());
    assert!(new_since(node, &before).lines().count() > 10 * PODS, "what pods hold is seen");
    delete_many(node);
    let begun = Instant::now();
    while !new_since(node, &before).is_empty() {
        // Each turn is some processes, so this is no busy loop.
        assert!(begun.elapsed() < PATIENCE, "deleted pods leave behind:\n{}", new_since(node, &before));
    }
}

fn delete_many(node: &Node) {
    node.kubectl(&["delete", "deployment", "many", "--wait=false"]);
    node.kubectl(&["wait", "--for=delete", "pod", "-l", "app=many", "--timeout=600s"]);
}

/// A containerd that is killed while it makes sandboxes does not know all of them afterwards, so what they leave is
/// not looked at.
fn pods_get_ready_though_containerd_is_killed(node: &Node) {
    apply(node, &MANY.replace("PODS", &PODS_OF_THE_KILLED.to_string()));
    let running = "kubectl get pods -l app=many -o jsonpath='{range .items[?(@.status.phase==\"Running\")]}{.metadata.name} {.status.containerStatuses[0].containerID}{\"\\n\"}{end}'";
    let early = node.wait_for("some run", running, |out| out.lines().count() >= 10);
    let pids = node.shell("cat /proc/[0-9]*/stat | grep ' (containerd) ' | cut -d' ' -f1");
    let pids = String::from_utf8(pids.stdout).unwrap();
    assert_eq!(pids.lines().count(), 1, "one containerd: {pids}");
    // Inside the namespaces only that process has the number.
    node.shell(&format!("kill -9 {}", pids.trim()));
    node.kubectl(&["rollout", "status", "deployment/many", "--timeout=600s"]);
    let late = String::from_utf8(node.shell(running).stdout).unwrap();
    assert_eq!(late.lines().count(), PODS_OF_THE_KILLED);
    for line in early.lines() {
        assert!(late.lines().any(|other| other == line), "{line} was started again");
    }
    // They are gone while the streams run, so that both have room.
    delete_many(node);
}

/// Streams through `kubectl proxy`, which leaves the protocol to its clients: `cat` with an input and an output each.
fn two_hundred_streams_at_once(node: &Node) {
    let socket = node.dir().join("proxy.sock");
    let mut proxy = node.inside("kubectl");
    proxy.args(["proxy", "--disable-filter", "--unix-socket", socket.to_str().unwrap()]);
    let proxy =
        Ended(proxy.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    node.wait_for("the proxy listens", &format!("test -S {} && echo yes", socket.display()), |out| {
        out == "yes"
    });
    let (files, memory) = (node.open_files(), node.memory_watch());
    let begun = Instant::now();
    let open = |_| {
        let socket = socket.clone();
        std::thread::spawn(move || Stream::open(&socket))
    };
    let opened: Vec<_> = (0..STREAMS).map(open).collect();
    let mut streams: Vec<Stream> = opened.into_iter().map(|thread| thread.join().unwrap()).collect();
    println!("{STREAMS} streams are open after {} s", begun.elapsed().as_secs());
    let cats = "grep -lx cat /proc/[0-9]*/comm 2>/dev/null | wc -l";
    node.wait_for("all of them run", cats, |out| out == STREAMS.to_string());
    println!("{STREAMS} commands run after {} s", begun.elapsed().as_secs());
    for (i, stream) in streams.iter_mut().enumerate() {
        stream.send(0, format!("hello {i}\n").as_bytes());
    }
    for (i, stream) in streams.iter_mut().enumerate() {
        assert_eq!(stream.output_until_newline(), format!("hello {i}\n"));
    }
    // The end of the input ends every one of them, with success.
    streams.iter_mut().for_each(|stream| stream.send(255, &[0]));
    for stream in &mut streams {
        let status = stream.status();
        assert!(status.contains("Success"), "{status}");
    }
    drop(streams);
    let grown = memory.grown();
    assert!(grown < ROOM, "memory grew by {grown} MiB");
    drop(proxy);
    let most = files + 20;
    node.wait_for("no connection is left", "echo", |_| node.open_files() <= most);
}

fn a_large_file_is_copied_both_ways(node: &Node) {
    let size = std::env::var_os(COPY).and_then(|text| text.to_str()?.parse().ok()).unwrap_or(256);
    let memory = node.memory_watch();
    let begun = Instant::now();
    let script = format!(
        "set -e; cd {}; dd if=/dev/urandom of=large bs=1M count={size} 2>/dev/null\n\
         kubectl cp large target:/tmp/large; kubectl cp target:/tmp/large back >/dev/null; cmp large back; echo same",
        node.dir().display()
    );
    let copied = node.shell(&script);
    assert!(String::from_utf8_lossy(&copied.stdout).contains("same"), "{}", text(&copied));
    println!("{size} MiB were copied both ways in {} s", begun.elapsed().as_secs());
    let grown = memory.grown();
    assert!(grown < ROOM, "memory grew by {grown} MiB");
}

/// A process that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // The child is nsenter, which waits for the process inside.
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).ok();
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// One `exec` over a WebSocket with the fifth version of the protocol.
struct Stream(UnixStream);

impl Stream {
    fn open(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(240))).unwrap();
        let request = "GET /api/v1/namespaces/default/pods/target/exec?container=a&command=cat&stdin=true&stdout=true HTTP/1.1\r\n\
                       Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self(stream)
    }

    /// A message to one of the channels. A mask of zeros changes nothing.
    fn send(&mut self, channel: u8, data: &[u8]) {
        let length = u8::try_from(data.len() + 1).unwrap();
        assert!(length < 126);
        let mut frame = vec![0x82, 0x80 | length, 0, 0, 0, 0, channel];
        frame.extend(data);
        self.0.write_all(&frame).unwrap();
    }

    /// The next message that has data: channel and data.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).unwrap();
            let length = match head[1] & 0x7f {
                126 => {
                    let mut length = [0; 2];
                    self.0.read_exact(&mut length).unwrap();
                    usize::from(u16::from_be_bytes(length))
                }
                127 => panic!("a frame of this size is not expected"),
                length => usize::from(length),
            };
            let mut data = vec![0; length];
            self.0.read_exact(&mut data).unwrap();
            if head[0] & 0x0f == 2 && length > 1 {
                return (data[0], data[1..].to_vec());
            }
            assert_ne!(head[0] & 0x0f, 8, "closed: {data:?}");
        }
    }

    fn output_until_newline(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let (channel, data) = self.receive();
            assert_eq!(channel, 1, "{}", String::from_utf8_lossy(&data));
            line.extend(data);
        }
        String::from_utf8(line).unwrap()
    }

    fn status(&mut self) -> String {
        let (channel, data) = self.receive();
        assert_eq!(channel, 3);
        String::from_utf8(data).unwrap()
    }
}

const LATE: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {word: later}
---
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, configMap: {name: words}}]
  containers: [{name: a, image: "localhost/hello:1", command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /v}]}]
"#;

const GREEDY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - {name: a, image: "localhost/hello:1", command: [sh, -c, "dd if=/dev/zero of=/v/f bs=1M count=52; exec sleep 1000"], volumeMounts: [{name: v, mountPath: /v}]}
"#;

#[test]
fn a_full_disk_is_told_of_and_lived_through() {
    if let Some(reason) = unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut node = Node::new();
    prepare(&node);
    let root = node.dir().join("data/agent/kubelet").display().to_string();
    let mounted = node.shell(&format!("mkdir -p {root} && mount -t tmpfs -o size=64m tmpfs {root}"));
    assert!(mounted.status.success(), "{}", text(&mounted));
    node.start_server();
    node_is_ready(&node);
    files_of_a_pod_wait_for_room(&node, &root);
    // The same again, with thresholds.
    node.kill();
    node.evict_when("memory.available<50Mi,nodefs.available<25%");
    node.kubelet_arg("eviction-pressure-transition-period=5s");
    node.start_server();
    node_is_ready(&node);
    who_fills_the_disk_is_evicted_and_the_node_recovers(&node);
}

fn node_is_ready(node: &Node) {
    node.wait_for_kubectl("the node is Ready", "get nodes --no-headers", |out| {
        out.split_whitespace().nth(1) == Some("Ready")
    });
}

fn files_of_a_pod_wait_for_room(node: &Node, root: &str) {
    node.shell(&format!("dd if=/dev/zero of={root}/filler bs=64k 2>/dev/null"));
    apply(node, &LATE.replace("NAME", "late"));
    let events = "get events --field-selector involvedObject.name=late -o jsonpath={.items[*].message}";
    node.wait_for_kubectl("the event says why", events, |out| out.contains("No space left on device"));
    let state =
        "get pod late -o jsonpath={.status.phase}/{.status.containerStatuses[0].state.waiting.reason}";
    node.wait_for_kubectl("it waits", state, |out| out == "Pending/ContainerCreating");
    node.shell(&format!("rm {root}/filler"));
    node.kubectl(&["wait", "pod/late", "--for=condition=Ready", "--timeout=90s"]);
    assert_eq!(node.kubectl(&["exec", "late", "--", "cat", "/v/word"]), "later");
}

fn who_fills_the_disk_is_evicted_and_the_node_recovers(node: &Node) {
    apply(node, GREEDY);
    let pressure = "get node node-1 -o 'jsonpath={.status.conditions[?(@.type==\"DiskPressure\")].status} {.spec.taints[*].key}'";
    node.wait_for_kubectl("the node says so", pressure, |out| out == "True node.kubernetes.io/disk-pressure");
    let status = "get pod greedy -o jsonpath={.status.phase}/{.status.reason}/{.status.message}";
    let told = node.wait_for_kubectl("it is evicted", status, |out| out.starts_with("Failed/Evicted/"));
    assert!(told.contains("The node was low on resource: ephemeral-storage."), "{told}");
    node.wait_for_kubectl("the node has room again", pressure, |out| out == "False");
    apply(node, &LATE.replace("NAME", "after"));
    node.kubectl(&["wait", "pod/after", "pod/late", "--for=condition=Ready", "--timeout=90s"]);
}
