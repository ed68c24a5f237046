//! A second host joins with `kube-lite agent`: its pods are like those of the first, from everywhere.

use crate::main_job::{apply_hello, hello_pods, prepare, reaches_all, ready_node};
use crate::node::{Node, text};

fn nodes_are_ready(server: &Node) {
    server.wait_for_kubectl("both nodes are Ready", "get nodes --no-headers", |out| {
        out.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count() == 2
    });
}

/// The example's pods on that node.
fn pods_on(server: &Node, node: &str) -> Vec<String> {
    let selector = format!("spec.nodeName={node}");
    let names = "jsonpath={.items[*].metadata.name}";
    let printed =
        server.kubectl(&["get", "pods", "-l", "app=hello", "--field-selector", &selector, "-o", names]);
    printed.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn agent_on_another_host_joins_and_runs_pods() {
    let Some(server) = ready_node() else { return };
    let mut agent = server.neighbour();
    prepare(&agent);
    agent.start_agent(&server);
    nodes_are_ready(&server);
    apply_hello(&server);
    server.kubectl(&["scale", "deployment/hello", "--replicas=4"]);
    server.kubectl(&["rollout", "status", "deployment/hello", "--timeout=90s"]);
    let (here, there) = (pods_on(&server, "node-1"), pods_on(&server, "node-2"));
    assert!(!here.is_empty() && !there.is_empty(), "pods are spread: {here:?}, {there:?}");

    let pods = hello_pods(&server);
    let cluster_ip = server.kubectl(&["get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}"]);
    let by_address = format!("curl -sS --max-time 5 http://{cluster_ip}/");
    reaches_all(&server, "the ClusterIP, from the server's host", &by_address, &pods);
    reaches_all(&agent, "the ClusterIP, from the agent's host", &by_address, &pods);
    for node in [&server, &agent] {
        let by_port = format!("curl -sS --max-time 5 http://{}:30080/", node.address());
        reaches_all(&server, "either host's NodePort", &by_port, &pods);
    }
    let ask = "exec 3<>/dev/tcp/hello.default.svc.cluster.local/80; printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3; tail -n 1 <&3";
    let inside = format!("kubectl exec {} -- bash -c '{ask}'", there[0]);
    reaches_all(&server, "the DNS name, from a pod on the agent's host", &inside, &pods);

    let name = server.kubectl(&["exec", &there[0], "--", "hostname"]);
    assert_eq!(name.trim(), there[0], "exec reaches the agent's kubelet");
    server.wait_for_kubectl("its log is read", &format!("logs {} --tail=1", there[0]), |out| {
        out.contains("response:200")
    });
    agent_goes_on_after_a_kill(&server, &mut agent, &there[0]);
}

/// The agent comes back under the same name with the certificates that it keeps, to containers that went on.
fn agent_goes_on_after_a_kill(server: &Node, agent: &mut Node, pod: &str) {
    let container = format!(
        "get pod {pod} -o jsonpath={{.status.containerStatuses[0].containerID}}:{{.status.containerStatuses[0].restartCount}}"
    );
    let before = server.wait_for_kubectl("the container", &container, |out| out.ends_with(":0"));
    agent.kill();
    let alive = agent.shell("pgrep -c httpd");
    assert!(alive.status.success(), "the containers stay: {}", text(&alive));
    agent.start_agent(server);
    // Only a kubelet that serves again answers this.
    server.wait_for("exec works again", &format!("kubectl exec {pod} -- hostname"), |out| out == pod);
    let after = server.kubectl(&container.split(' ').collect::<Vec<_>>());
    assert_eq!(before, after.trim(), "the same container runs");
}
