//! What a KubeletConfiguration says, on a real node: processors of their own, restarts without much waiting, a shutdown
//! of the machine that waits for pods. systemd-logind is played by two programs.

use std::os::unix::fs::PermissionsExt;

use kube_lite::host::cpus::CpuSet;
use kube_lite::plugins::channel;
use kube_lite::plugins::pod_resources::GetPodResourcesRequest;
use kube_lite::plugins::pod_resources::pod_resources_lister_client::PodResourcesListerClient;

use crate::main_job::prepare;
use crate::node::{Node, text, unavailable};

const CONFIG: &str = r#"
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cpuManagerPolicy: static
reservedSystemCPUs: "0"
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
nodeStatusUpdateFrequency: 1s
shutdownGracePeriod: 20s
shutdownGracePeriodCriticalPods: 5s
"#;

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: shared}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: a, image: "localhost/hello:1", command: [sleep, "1000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: own}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: a, image: "localhost/hello:1", command: [sleep, "1000"], resources: {limits: {cpu: "1", memory: 32Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: crashing}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: a, image: "localhost/hello:1", command: ["false"]}]
"#;

const LATE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  nodeName: node-1
  containers: [{name: a, image: "localhost/hello:1"}]
"#;

/// What `busctl monitor` prints when the machine is about to go down.
const SIGNAL: &str = r#"  Sender=:1.3  Path=/org/freedesktop/login1  Interface=org.freedesktop.login1.Manager  Member=PrepareForShutdown
  MESSAGE "b" {
          BOOLEAN true;
  };
"#;

#[test]
fn a_node_does_what_its_configuration_says() {
    if let Some(reason) = unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut node = Node::new();
    prepare(&node);
    play_logind(&mut node);
    let config = node.dir().join("kubelet.yaml");
    std::fs::write(&config, CONFIG).unwrap();
    node.kubelet_arg(&format!("config={}", config.display()));
    start(&mut node);
    apply(&node, PODS);
    let restarts = "get pod crashing -o jsonpath={.status.containerStatuses[0].restartCount}";
    node.wait_for_kubectl("it is tried again and again", restarts, |out| {
        out.parse::<u32>().is_ok_and(|count| count >= 5)
    });
    let own = processors_are_their_own(&node);
    monitors_see_whose_they_are(&node, &own);
    node.kill();
    // The monitor of the one that was killed waits for a signal yet, and must not take the next one's.
    renew_signals(&node);
    start(&mut node);
    assert_eq!(processors_are_their_own(&node).to_string(), own.to_string(), "the same after a restart");
    a_shutdown_waits_for_the_pods(&node);
}

fn start(node: &mut Node) {
    node.start_server();
    node.wait_for_kubectl("the node is Ready", "get nodes --no-headers", |out| {
        out.split_whitespace().nth(1) == Some("Ready")
    });
}

fn apply(node: &Node, manifest: &str) {
    let file = node.dir().join("manifest.yaml");
    std::fs::write(&file, manifest).unwrap();
    node.kubectl(&["apply", "-f", file.to_str().unwrap()]);
}

fn renew_signals(node: &Node) {
    let made =
        node.shell(&format!("cd {}/tools && rm -f signals holder && mkfifo signals", node.dir().display()));
    assert!(made.status.success(), "{}", text(&made));
}

fn play_logind(node: &mut Node) {
    let place = node.dir().join("tools");
    std::fs::create_dir(&place).unwrap();
    let here = place.display().to_string();
    renew_signals(node);
    for (name, script) in [
        (
            "busctl",
            format!("case $2 in get-property) echo t 30000000;; monitor) exec cat {here}/signals;; esac"),
        ),
        ("systemd-inhibit", format!("shift 4; echo $$ > {here}/holder; exec \"$@\"")),
    ] {
        std::fs::write(place.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(place.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    node.prefer_programs_of(&here);
}

/// What the pod that asks for a whole processor has, which the others no longer use.
fn processors_are_their_own(node: &Node) -> CpuSet {
    node.kubectl(&["wait", "pod/own", "pod/shared", "--for=condition=Ready", "--timeout=90s"]);
    let of = |pod: &str| {
        format!(
            "exec {pod} -- sh -c 'cat /sys/fs/cgroup/cpuset/cpuset.cpus 2>/dev/null || cat /sys/fs/cgroup/cpuset.cpus'"
        )
    };
    let set = |text: &str| text.trim().parse::<CpuSet>().unwrap();
    let own = set(&node.wait_for_kubectl("one processor", &of("own"), |out| set(out).len() == 1));
    assert!(!own.0.contains(&0), "that one is reserved");
    node.wait_for_kubectl("the others make room", &of("shared"), |out| {
        set(out).0.contains(&0) && set(out).0.is_disjoint(&own.0)
    });
    own
}

fn monitors_see_whose_they_are(node: &Node, own: &CpuSet) {
    let socket = node.dir().join("data/agent/kubelet/pod-resources/kubelet.sock");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer = runtime.block_on(async {
        let request = GetPodResourcesRequest { pod_name: "own".into(), pod_namespace: "default".into() };
        PodResourcesListerClient::new(channel(&socket)).get(request).await.unwrap().into_inner()
    });
    let shown = answer.pod_resources.unwrap().containers.remove(0).cpu_ids;
    assert_eq!(shown, own.0.iter().map(|id| i64::from(*id)).collect::<Vec<_>>());
}

fn a_shutdown_waits_for_the_pods(node: &Node) {
    let tools = node.dir().join("tools");
    let holder =
        node.wait_for("the lock is held", &format!("cat {}/holder", tools.display()), |out| !out.is_empty());
    std::fs::write(tools.join("signal"), SIGNAL).unwrap();
    // The bus stays, so that the lock is not taken again.
    let said = node
        .shell(&format!("(cat {0}/signal; exec sleep 1000) > {0}/signals 2>/dev/null &", tools.display()));
    assert!(said.status.success(), "{}", text(&said));
    let ready = "get node node-1 -o 'jsonpath={.status.conditions[?(@.type==\"Ready\")].status} {.status.conditions[?(@.type==\"Ready\")].message}'";
    node.wait_for_kubectl("the node says so", ready, |out| out == "False node is shutting down");
    for pod in ["own", "shared"] {
        let status =
            format!("get pod {pod} -o jsonpath={{.status.phase}}/{{.status.reason}}/{{.status.message}}");
        let told = node.wait_for_kubectl("it has ended", &status, |out| out.starts_with("Failed/"));
        assert_eq!(told, "Failed/Terminated/Pod was terminated in response to imminent node shutdown.");
    }
    node.wait_for("the lock is released", &format!("kill -0 {holder} 2>/dev/null || echo gone"), |out| {
        out == "gone"
    });
    apply(node, LATE);
    let status = "get pod late -o jsonpath={.status.phase}/{.status.reason}/{.status.message}";
    let told = node.wait_for_kubectl("it is turned away", status, |out| out.starts_with("Failed/"));
    assert_eq!(told, "Failed/NodeShutdown/Pod was rejected: Pod was rejected as the node is shutting down.");
}
