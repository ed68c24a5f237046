//! What a pod's spec says, on a real runtime: messages, volumes, limits and their change, static pods, eviction.

use std::path::Path;
use std::process::Command;

use crate::node::{Node, text, unavailable};

const BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/hello-image.sh");

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: words}
spec:
  restartPolicy: Never
  containers:
  - {name: a, image: "localhost/hello:1", command: [sh, -c, "printf DONE; exit 1"], terminationMessagePolicy: FallbackToLogsOnError}
---
apiVersion: v1
kind: Pod
metadata: {name: group}
spec:
  restartPolicy: Never
  securityContext: {runAsUser: 1000, fsGroup: 1001}
  volumes:
  - {name: s, secret: {secretName: s, defaultMode: 256}}
  - {name: i, image: {reference: "localhost/hello:1"}}
  - {name: p, persistentVolumeClaim: {claimName: c}}
  containers:
  - name: a
    image: localhost/hello:1
    command: [sh, -c, "cat /s/key && test -x /i/bin/busybox && ! touch /i/x 2>/dev/null && echo kept > /p/file && stat -c %g /p > /dev/termination-log"]
    volumeMounts:
    - {name: s, mountPath: /s}
    - {name: i, mountPath: /i}
    - {name: p, mountPath: /p}
---
apiVersion: v1
kind: Pod
metadata: {name: sized}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: a
    image: localhost/hello:1
    command: [sleep, "1000"]
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]
  containers:
  - {name: a, image: "localhost/hello:1", command: [sh, -c, "dd if=/dev/zero of=/v/f bs=1M count=3; sleep 1000"], volumeMounts: [{name: v, mountPath: /v}]}
"#;

const STATIC: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: fixed}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: a, image: "localhost/hello:1", command: [sleep, "1000"]}
"#;

#[test]
fn pods_get_what_their_specs_say() {
    if let Some(reason) = unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut node = Node::new();
    std::fs::create_dir_all(node.images()).unwrap();
    std::fs::write(node.dir().join("config.yaml"), "").unwrap();
    let built = Command::new(BUILD).arg(node.images().join("hello.tar")).output().unwrap();
    assert!(built.status.success(), "{}", text(&built));
    let manifests = node.dir().join("data/agent/pod-manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    std::fs::write(manifests.join("fixed.yaml"), STATIC).unwrap();
    node.start_server();
    node.wait_for_kubectl("the node is Ready", "get nodes --no-headers", |out| {
        out.split_whitespace().nth(1) == Some("Ready")
    });
    prepare_claim(&node);
    let specs = node.dir().join("pods.yaml");
    std::fs::write(&specs, PODS).unwrap();
    node.kubectl(&["apply", "-f", specs.to_str().unwrap()]);
    last_words_come_from_the_log(&node);
    volumes_are_where_they_should_be(&node);
    a_static_pod_has_a_mirror_that_cannot_be_deleted(&node, &manifests);
    limits_hold_and_change_in_place(&node);
    a_volume_above_its_limit_ends_the_pod(&node);
    use_is_told(&node);
}

/// A claim that is bound by hand: the test is about the node.
fn prepare_claim(node: &Node) {
    let data = node.dir().join("volume");
    std::fs::create_dir(&data).unwrap();
    let script = format!(
        r#"kubectl apply -f - <<END
apiVersion: v1
kind: Secret
metadata: {{name: s}}
stringData: {{key: word}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: c}}
spec: {{accessModes: [ReadWriteOnce], storageClassName: "", volumeName: pv, resources: {{requests: {{storage: 1Gi}}}}}}
END
uid=$(kubectl get pvc c -o 'jsonpath={{.metadata.uid}}')
kubectl apply -f - <<END
apiVersion: v1
kind: PersistentVolume
metadata: {{name: pv}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  claimRef: {{apiVersion: v1, kind: PersistentVolumeClaim, namespace: default, name: c, uid: $uid}}
  local: {{path: {}}}
  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: Exists}}]}}]}}}}
END
kubectl patch pvc c --subresource=status --type=merge -p '{{"status":{{"phase":"Bound"}}}}'"#,
        data.display()
    );
    let made = node.shell(&script);
    assert!(made.status.success(), "{}", text(&made));
}

fn last_words_come_from_the_log(node: &Node) {
    let ended = "get pod words -o jsonpath={.status.containerStatuses[0].state.terminated.message}";
    let message = node.wait_for_kubectl("it has ended", ended, |out| !out.is_empty());
    assert_eq!(message, "DONE");
}

fn volumes_are_where_they_should_be(node: &Node) {
    node.wait_for_kubectl("it has ended well", "get pod group -o jsonpath={.status.phase}", |out| {
        out == "Succeeded"
    });
    let ended = "get pod group -o jsonpath={.status.containerStatuses[0].state.terminated.message}";
    let group = node.wait_for_kubectl("it says what group it saw", ended, |out| !out.is_empty());
    assert_eq!(group, "1001");
    assert_eq!(node.kubectl(&["logs", "group"]).trim(), "word");
    assert_eq!(std::fs::read_to_string(node.dir().join("volume/file")).unwrap(), "kept\n");
}

fn a_static_pod_has_a_mirror_that_cannot_be_deleted(node: &Node, manifests: &Path) {
    let running = "get pod fixed-node-1 -o jsonpath={.status.phase},{.status.containerStatuses[0].containerID},{.metadata.uid}";
    let before =
        node.wait_for_kubectl("the mirror shows it running", running, |out| out.starts_with("Running,"));
    let log = node.kubectl(&["exec", "fixed-node-1", "--", "echo", "inside"]);
    assert_eq!(log.trim(), "inside");
    node.kubectl(&["delete", "pod", "fixed-node-1", "--wait=false"]);
    let after = node
        .wait_for_kubectl("the mirror is back", running, |out| out.starts_with("Running,") && out != before);
    let container = |line: &str| line.split(',').nth(1).map(str::to_owned);
    assert_eq!(container(&before), container(&after), "the container was left alone");
    std::fs::remove_file(manifests.join("fixed.yaml")).unwrap();
    node.wait_for_kubectl("the mirror is gone", "get pods -o name", |out| !out.contains("fixed-node-1"));
}

fn limits_hold_and_change_in_place(node: &Node) {
    let cgroup = |file: &str, v2: &str| {
        format!(
            "kubectl exec sized -- sh -c 'cat /sys/fs/cgroup/{file} 2>/dev/null || cat /sys/fs/cgroup/{v2}'"
        )
    };
    let memory = cgroup("memory/memory.limit_in_bytes", "memory.max");
    node.wait_for("the memory limit holds", &memory, |out| out == (64 << 20).to_string());
    let status = "get pod sized -o jsonpath={.status.containerStatuses[0].resources.limits},{.status.containerStatuses[0].restartCount}";
    node.kubectl(&[
        "patch", "pod", "sized", "--subresource=resize", "-p",
        r#"{"spec":{"containers":[{"name":"a","resources":{"requests":{"cpu":"150m","memory":"48Mi"},"limits":{"cpu":"300m","memory":"96Mi"}}}]}}"#,
    ]);
    let shown = node.wait_for_kubectl("the status shows the new limits", status, |out| out.contains("96Mi"));
    assert!(shown.contains("300m") && shown.ends_with(",0"), "{shown}");
    node.wait_for("the new memory limit holds", &memory, |out| out == (96 << 20).to_string());
    let cpu = cgroup("cpu/cpu.cfs_quota_us", "cpu.max");
    node.wait_for("the new CPU limit holds", &cpu, |out| out.starts_with("30000"));
    let conditions = "get pod sized -o jsonpath={.status.conditions[*].type}";
    node.wait_for_kubectl("nothing is left to do", conditions, |out| !out.contains("PodResize"));
}

fn a_volume_above_its_limit_ends_the_pod(node: &Node) {
    let status = "get pod greedy -o jsonpath={.status.phase}/{.status.reason}/{.status.message}";
    let shown = node.wait_for_kubectl("it is evicted", status, |out| out.starts_with("Failed/"));
    assert_eq!(shown, "Failed/Evicted/Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\".");
}

fn use_is_told(node: &Node) {
    node.wait_for_kubectl("kubectl top knows the node", "top nodes --no-headers", |out| {
        out.split_whitespace().next() == Some("node-1") && !out.contains("unknown")
    });
    node.wait_for_kubectl("kubectl top knows the pod", "top pods --containers --no-headers", |out| {
        out.lines().any(|line| line.split_whitespace().take(2).eq(["sized", "a"]))
    });
    let raw = |path: &str| node.kubectl(&["get", "--raw", &format!("/api/v1/nodes/node-1/proxy/{path}")]);
    assert!(
        raw("metrics/resource").contains(
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"default\",pod=\"sized\"}"
        )
    );
    assert!(raw("configz").contains("\"cgroupDriver\""));
    assert!(raw("stats/summary").contains("\"usageNanoCores\""));
}
