//! The main job on a node of its own: what a user does in the first ten minutes, with the real kubectl.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::node::{Node, text, unavailable};

/// Where an old kubectl is unpacked.
const OLD_KUBECTL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/kubectl-old/usr/bin");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples");

/// An empty configuration, and the image of the example.
pub fn prepare(node: &Node) {
    std::fs::create_dir_all(node.images()).unwrap();
    std::fs::write(node.dir().join("config.yaml"), "").unwrap();
    let built = Command::new(format!("{EXAMPLES}/hello-image.sh"))
        .arg(node.images().join("hello.tar"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", text(&built));
}

/// A one-node cluster whose node is Ready; nothing where such a test cannot run.
pub fn ready_node() -> Option<Node> {
    if let Some(reason) = unavailable() {
        eprintln!("skipped: {reason}");
        return None;
    }
    let mut node = Node::new();
    prepare(&node);
    node.start_server();
    node.wait_for_kubectl("the node is Ready", "get nodes --no-headers", |out| {
        out.split_whitespace().nth(1) == Some("Ready")
    });
    Some(node)
}

/// Applies the example and waits until it is rolled out.
pub fn apply_hello(node: &Node) {
    node.kubectl(&["apply", "-f", &format!("{EXAMPLES}/hello.yaml")]);
    node.kubectl(&["rollout", "status", "deployment/hello", "--timeout=90s"]);
}

/// The names of the example's pods.
pub fn hello_pods(node: &Node) -> Vec<String> {
    let names = node.kubectl(&["get", "pods", "-l", "app=hello", "-o", "jsonpath={.items[*].metadata.name}"]);
    names.split_whitespace().map(str::to_owned).collect()
}

/// Asks until every one of the pods has answered.
pub fn reaches_all(node: &Node, what: &str, ask: &str, pods: &[String]) {
    let script = format!("for turn in $(seq 40); do {ask}; done");
    let wanted: BTreeSet<_> = pods.iter().map(|pod| format!("hello from {pod}")).collect();
    node.wait_for(what, &script, |out| {
        let seen: BTreeSet<_> = out.lines().map(str::to_owned).collect();
        seen.is_superset(&wanted)
    });
}

#[test]
fn main_job_works_with_stock_kubectl() {
    let Some(mut node) = ready_node() else { return };
    apply_hello(&node);
    listings_show_what_users_expect(&node);
    services_reach_every_pod(&node);
    logs_and_exec_work(&node);
    workload_commands_work(&node);
    // A kubectl of many years ago, where there is one.
    if node.use_kubectl_of(OLD_KUBECTL) {
        three_pods_are_left(&node);
        listings_show_what_users_expect(&node);
        logs_and_exec_work(&node);
        workload_commands_work(&node);
        node.use_own_kubectl();
    }
    failures_are_repaired(&node);
    cluster_survives_kill(&mut node);
    deletion_leaves_nothing(&node);
}

fn listings_show_what_users_expect(node: &Node) {
    let pods = node.kubectl(&["get", "pods", "-l", "app=hello", "-o", "wide"]);
    assert_eq!(
        pods.lines().filter(|line| line.contains("1/1") && line.contains("Running")).count(),
        3,
        "{pods}"
    );
    assert_eq!(pods.lines().filter(|line| line.contains(" 10.42.")).count(), 3, "{pods}");
    let all = node.kubectl(&["get", "nodes,deploy,rs,pods,svc,endpointslices,events", "-A", "-o", "wide"]);
    for expected in [
        "node-1",
        "deployment.apps/hello",
        "3/3",
        "service/hello-node",
        "80:30080/TCP",
        "service/kubernetes",
        "Scheduled",
        "Pulled",
        "Started",
    ] {
        assert!(all.contains(expected), "{expected} is not in:\n{all}");
    }
    let described = node.kubectl(&["describe", "pods", "-l", "app=hello"]);
    for expected in ["Conditions:", "Ready ", "Events:", "Successfully assigned default/hello-", "Started "] {
        assert!(described.contains(expected), "{expected} is not in:\n{described}");
    }
    let info = node.kubectl(&["cluster-info"]);
    assert!(info.contains("https://"), "{info}");
    let resources = node.kubectl(&["api-resources"]);
    for expected in ["deployments", "endpointslices", "leases", "rolebindings"] {
        assert!(resources.contains(expected), "{expected} is not in:\n{resources}");
    }
    let explained = node.kubectl(&["explain", "pod.spec"]);
    assert!(explained.contains("containers") && explained.contains("-required-"), "{explained}");
    let output = node.finish(node.inside("kubectl").args(["-v=8", "get", "pods"]));
    assert!(output.status.success(), "{}", text(&output));
}

fn services_reach_every_pod(node: &Node) {
    let pods = hello_pods(node);
    let cluster_ip = node.kubectl(&["get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}"]);
    reaches_all(
        node,
        "the ClusterIP reaches every pod",
        &format!("curl -sS --max-time 5 http://{cluster_ip}/"),
        &pods,
    );
    reaches_all(
        node,
        "the NodePort reaches every pod",
        "curl -sS --max-time 5 http://10.99.0.2:30080/",
        &pods,
    );
    let ask = "exec 3<>/dev/tcp/hello.default.svc.cluster.local/80; printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3; tail -n 1 <&3";
    let inside = format!("kubectl exec {} -- bash -c 'for turn in $(seq 40); do {ask}; done'", pods[0]);
    let wanted: BTreeSet<_> = pods.iter().map(|pod| format!("hello from {pod}")).collect();
    node.wait_for("the DNS name reaches every pod from inside a pod", &inside, |out| {
        out.lines().map(str::to_owned).collect::<BTreeSet<_>>().is_superset(&wanted)
    });
}

fn logs_and_exec_work(node: &Node) {
    let pod = &hello_pods(node)[0];
    node.wait_for_kubectl("the log holds requests", &format!("logs {pod} --tail=1"), |out| {
        out.contains("response:200")
    });
    let followed = node.shell(&format!("timeout 20 kubectl logs -f {pod} | head -n 3"));
    assert_eq!(String::from_utf8_lossy(&followed.stdout).lines().count(), 3, "{}", text(&followed));
    let status = node.shell(&format!("kubectl exec {pod} -- sh -c 'exit 7'"));
    assert_eq!(status.status.code(), Some(7), "{}", text(&status));
    let piped = node.shell(&format!("printf 'one\\ntwo\\n' | kubectl exec -i {pod} -- wc -l"));
    assert_eq!(String::from_utf8_lossy(&piped.stdout).trim(), "2", "stdin that ends: {}", text(&piped));
    let terminal = node.shell(&format!(
        "script -qec \"kubectl exec -it {pod} -- sh -c 'tty; stty size; exit 5'\" /dev/null < /dev/null; echo code=$?"
    ));
    let seen = String::from_utf8_lossy(&terminal.stdout).into_owned();
    assert!(seen.contains("/dev/pts/") && seen.contains("code=5"), "a terminal: {}", text(&terminal));
}

fn workload_commands_work(node: &Node) {
    node.kubectl(&["scale", "deployment/hello", "--replicas=1"]);
    node.wait_for_kubectl("scaled down", "get pods -l app=hello --no-headers", |out| {
        out.lines().count() == 1
    });
    node.kubectl(&["scale", "deployment/hello", "--replicas=3"]);
    node.kubectl(&["rollout", "status", "deployment/hello", "--timeout=90s"]);
    node.kubectl(&["set", "env", "deployment/hello", "ROUND=2"]);
    node.kubectl(&["rollout", "status", "deployment/hello", "--timeout=90s"]);
    let env = "get deployment hello -o jsonpath={.spec.template.spec.containers[0].env}";
    node.wait_for_kubectl("the new template is there", env, |out| out.contains("ROUND"));
    node.kubectl(&["rollout", "undo", "deployment/hello"]);
    node.kubectl(&["rollout", "status", "deployment/hello", "--timeout=90s"]);
    node.wait_for_kubectl("the old template is back", env, |out| !out.contains("ROUND"));
    let watched = node.shell(
        "timeout 5 kubectl get pods -l app=hello --watch --output-watch-events --no-headers | head -n 3",
    );
    assert_eq!(String::from_utf8_lossy(&watched.stdout).lines().count(), 3, "{}", text(&watched));
}

/// Waits until the pods of earlier rounds are gone.
fn three_pods_are_left(node: &Node) {
    node.wait_for_kubectl("three pods again", "get pods -l app=hello --no-headers", |out| {
        out.lines().count() == 3 && out.lines().all(|line| line.contains("1/1") && line.contains("Running"))
    });
}

fn failures_are_repaired(node: &Node) {
    three_pods_are_left(node);
    let pods = hello_pods(node);
    // A container that dies is started again in its pod.
    let kill =
        "for pid in $(pgrep httpd); do grep -qz ^HOSTNAME=NAME$ /proc/$pid/environ && kill -9 $pid; done";
    node.shell(&kill.replace("NAME$", &format!("{}$", pods[0])));
    let restarts = format!(
        "get pod {} -o jsonpath={{.status.containerStatuses[0].restartCount}}:{{.status.containerStatuses[0].ready}}",
        pods[0]
    );
    node.wait_for_kubectl("the container was restarted", &restarts, |out| out == "1:true");
    let previous = node.kubectl(&["logs", &pods[0], "--previous", "--tail=2"]);
    assert!(!previous.is_empty(), "the log of the container before");
    // A pod that is deleted is replaced by another.
    node.kubectl(&["delete", "pod", &pods[1]]);
    node.wait_for_kubectl("the pod was replaced", "get pods -l app=hello --no-headers", |out| {
        !out.contains(&pods[1]) && out.lines().filter(|line| line.contains("1/1")).count() == 3
    });
    // A pod that is not ready leaves the Service, and comes back.
    let addresses = "get endpointslices -l kubernetes.io/service-name=hello -o jsonpath={.items[*].endpoints[*].conditions.ready}";
    node.kubectl(&["exec", &pods[2], "--", "mv", "/www/healthz", "/www/away"]);
    node.wait_for_kubectl("the unready pod left the Service", addresses, |out| {
        let ready = |state: &str| out.split_whitespace().filter(|word| *word == state).count();
        ready("true") == 2 && ready("false") == 1
    });
    node.kubectl(&["exec", &pods[2], "--", "mv", "/www/away", "/www/healthz"]);
    node.wait_for_kubectl("the pod is in the Service again", addresses, |out| out == "true true true");
}

fn cluster_survives_kill(node: &mut Node) {
    let identity = "get pods -l app=hello --sort-by=.metadata.name -o jsonpath={range.items[*]}{.metadata.name}={.status.containerStatuses[0].containerID}={.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let script =
        format!("kubectl {}", identity.replace("jsonpath=", "jsonpath='").replace("{end}", "{end}'"));
    let before = node.wait_for("three containers", &script, |out| out.lines().count() == 3);
    node.kill();
    let answer = node.shell("curl -sS --max-time 5 http://10.99.0.2:30080/");
    assert!(
        String::from_utf8_lossy(&answer.stdout).contains("hello from"),
        "the data path stays: {}",
        text(&answer)
    );
    node.start_server();
    node.wait_for_kubectl("the node is Ready again", "get nodes --no-headers", |out| {
        out.split_whitespace().nth(1) == Some("Ready")
    });
    let after = node.wait_for("the pods after the restart", &script, |out| out.lines().count() == 3);
    assert_eq!(before, after, "the same containers run, none was restarted");
    node.kubectl(&["scale", "deployment/hello", "--replicas=4"]);
    node.kubectl(&["rollout", "status", "deployment/hello", "--timeout=90s"]);
}

fn deletion_leaves_nothing(node: &Node) {
    node.kubectl(&["delete", "-f", &format!("{EXAMPLES}/hello.yaml")]);
    node.wait_for_kubectl("no pod is left", "get pods,rs,endpointslices -l app=hello -o name", str::is_empty);
    node.wait_for(
        "no container is left",
        "find /proc -maxdepth 2 -name exe -lname '*/busybox' 2>/dev/null | wc -l",
        |out| out == "0",
    );
    let refused = node.shell("curl -s --max-time 5 http://10.99.0.2:30080/");
    assert!(!refused.status.success(), "the NodePort is closed: {}", text(&refused));
}

#[test]
fn secrets_on_disk_are_private() {
    let Some(node) = ready_node() else { return };
    use std::os::unix::fs::PermissionsExt;
    for file in [
        "kube-lite.yaml",
        "data/server/token",
        "data/server/tls/server-ca.key",
        "data/server/tls/client-ca.key",
        "data/server/tls/service.key",
    ] {
        let mode = std::fs::metadata(Path::new(node.dir()).join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
}
