//! Behaviours that upstream's conformance suite asks of a node, in its words, on one node: what a pod spec says of
//! volumes, hooks and failures, proxied pods, a CSI driver from registration to detachment, a registry with a password.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use kube_lite::plugins::csi::Capability;
use kube_lite::plugins::fake::{Effect, FakeDriver};
use tokio_util::sync::CancellationToken;

use crate::main_job::prepare;
use crate::node::{Node, text, unavailable};

const REGISTRY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/registry.py");
const REGISTRIES: &str = r#"
mirrors:
  registry.example: {endpoint: ["http://127.0.0.1:5000"]}
configs:
  "127.0.0.1:5000": {auth: {username: jane, password: secret}}
"#;
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sub-path-of-another-user}
spec:
  restartPolicy: Never
  securityContext: {runAsUser: 1000, runAsNonRoot: true}
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: a
    image: localhost/hello:1
    command: [sh, -c, "echo mine > /v/file && cat /whole/made/web/file"]
    env: [{name: NAME, value: web}]
    volumeMounts: [{name: v, mountPath: /v, subPathExpr: made/$(NAME)}, {name: v, mountPath: /whole}]
---
apiVersion: v1
kind: Pod
metadata: {name: sub-path-that-is-mended}
spec:
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: a
    image: localhost/hello:1
    command: [sh, -c, "test -d /whole/mended/x"]
    env: [{name: PLACE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['place']"}}}]
    volumeMounts: [{name: v, mountPath: /v, subPathExpr: $(PLACE)/x}, {name: v, mountPath: /whole}]
---
apiVersion: v1
kind: Pod
metadata: {name: sub-path-with-dots}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: a
    image: localhost/hello:1
    env: [{name: PLACE, value: ".."}]
    volumeMounts: [{name: v, mountPath: /v, subPathExpr: "$(PLACE)"}]
---
apiVersion: v1
kind: Pod
metadata: {name: memory}
spec:
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {medium: Memory}}]
  containers:
  - name: a
    image: localhost/hello:1
    command: [sh, -c, "stat -c %a /v && grep ' /v tmpfs ' /proc/mounts | grep -o 'size=[^,]*'"]
    resources: {limits: {memory: 32Mi}}
    volumeMounts: [{name: v, mountPath: /v}]
---
apiVersion: v1
kind: Pod
metadata: {name: root-that-must-not}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - {name: a, image: "localhost/hello:1", securityContext: {runAsNonRoot: true}}
---
apiVersion: v1
kind: Pod
metadata: {name: optional}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, configMap: {name: later, optional: true}}]
  containers:
  - {name: a, image: "localhost/hello:1", command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /v}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: a
    image: localhost/hello:1
    command: [sh, -c, "mkdir /www && echo '<a href=\"/x\">test</a>' > /www/index.html && exec httpd -f -p 80 -h /www"]
    readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}
  # By the time that this one has started the other one listens, and knows no such path.
  - {name: b, image: "localhost/hello:1", command: [sleep, "1000"], lifecycle: {postStart: {httpGet: {path: /missing, port: 80}}}}
---
apiVersion: v1
kind: Pod
metadata: {name: pulled}
spec:
  restartPolicy: Never
  containers:
  - {name: a, image: "registry.example/team/hello:1", command: [sh, -c, "echo pulled"]}
---
apiVersion: v1
kind: Pod
metadata: {name: image-volume}
spec:
  restartPolicy: Never
  volumes: [{name: v, image: {reference: "registry.example/team/hello:1", pullPolicy: Always}}]
  containers:
  - {name: a, image: "localhost/hello:1", command: [sh, -c, "ls /v/etc"], volumeMounts: [{name: v, mountPath: /v}]}
"#;

const CSI: &str = r#"
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: test.csi}
spec: {attachRequired: true, podInfoOnMount: true, fsGroupPolicy: File}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: vol}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: ""
  claimRef: {namespace: default, name: claim}
  csi: {driver: test.csi, volumeHandle: handle-1}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim}
spec: {accessModes: [ReadWriteOnce], storageClassName: "", volumeName: vol, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: stateful}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {fsGroup: 4321}
  volumes: [{name: v, persistentVolumeClaim: {claimName: claim}}]
  containers:
  - {name: a, image: "localhost/hello:1", command: [sh, -c, "echo kept > /v/file; exec sleep 1000"], volumeMounts: [{name: v, mountPath: /v}]}
"#;

#[test]
fn a_node_does_what_the_conformance_suite_asks() {
    if let Some(reason) = unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut node = Node::new();
    prepare(&node);
    std::fs::write(node.dir().join("registries.yaml"), REGISTRIES).unwrap();
    let mut registry = registry(&node);
    node.start_server();
    node.wait_for_kubectl("the node is Ready and shows its role", "get nodes --no-headers", |out| {
        let words: Vec<_> = out.split_whitespace().collect();
        words.get(1..3) == Some(&["Ready", "control-plane"])
    });
    apply(&node, PODS);
    let node = Arc::new(node);
    volumes_are_as_the_spec_says(&node);
    failures_are_told_in_upstreams_words(&node);
    optional_objects_appear_when_they_are_made(&node);
    a_proxied_page_leads_through_the_proxy(&node);
    log_collectors_find_logs_by_name(&node);
    an_image_comes_from_the_mirror_with_the_password(&node);
    images_of_volumes_are_pulled_again(&node);
    a_driver_registers_and_its_volume_is_attached_mounted_and_detached(&node);
    drop(node);
    registry.wait().unwrap();
}

fn registry(node: &Node) -> Child {
    let archive = node.images().join("hello.tar");
    let mut command: Command = node.inside("python3");
    command.args([REGISTRY, archive.to_str().unwrap(), "5000"]).stdin(Stdio::null());
    command.spawn().unwrap()
}

fn apply(node: &Node, manifests: &str) {
    let file = node.dir().join("manifests.yaml");
    std::fs::write(&file, manifests).unwrap();
    node.kubectl(&["apply", "-f", file.to_str().unwrap()]);
}

fn phase(node: &Node, pod: &str, wanted: &str) {
    let query = format!("get pod {pod} -o jsonpath={{.status.phase}}");
    node.wait_for_kubectl(&format!("{pod} is {wanted}"), &query, |out| out == wanted);
}

fn logs(node: &Node, pod: &str) -> String {
    node.kubectl(&["logs", pod]).trim().to_owned()
}

/// `[sig-storage] EmptyDir volumes … tmpfs …`, `[sig-node] Variable Expansion …`.
fn volumes_are_as_the_spec_says(node: &Node) {
    phase(node, "sub-path-of-another-user", "Succeeded");
    assert_eq!(logs(node, "sub-path-of-another-user"), "mine");
    phase(node, "memory", "Succeeded");
    assert_eq!(logs(node, "memory"), "777\nsize=32768k");
    waiting(node, "sub-path-that-is-mended", "CreateContainerConfigError");
    node.kubectl(&["annotate", "pod", "sub-path-that-is-mended", "place=mended"]);
    phase(node, "sub-path-that-is-mended", "Succeeded");
}

fn waiting(node: &Node, pod: &str, reason: &str) -> String {
    let query = format!(
        "get pod {pod} -o 'jsonpath={{.status.containerStatuses[0].state.waiting.reason}} {{.status.containerStatuses[0].state.waiting.message}}'"
    );
    node.wait_for_kubectl(&format!("{pod} waits"), &query, |out| out.starts_with(reason))
}

/// `[sig-node] Variable Expansion should fail …`, `[sig-node] Security Context … runAsNonRoot`.
fn failures_are_told_in_upstreams_words(node: &Node) {
    waiting(node, "sub-path-with-dots", "CreateContainerConfigError");
    let told = waiting(node, "root-that-must-not", "CreateContainerConfigError");
    assert!(told.contains("container has runAsNonRoot and image will run as root"), "{told}");
    node.kubectl(&["delete", "pod", "sub-path-with-dots", "root-that-must-not"]);
}

/// `[sig-storage] ConfigMap optional updates should be reflected in volume`.
fn optional_objects_appear_when_they_are_made(node: &Node) {
    node.kubectl(&["wait", "pod/optional", "--for=condition=Ready", "--timeout=90s"]);
    node.kubectl(&["create", "configmap", "later", "--from-literal=key=value"]);
    node.wait_for_kubectl("the file is there", "exec optional -- cat /v/key", |out| out == "value");
    node.kubectl(&["delete", "configmap", "later"]);
    node.wait_for("the file is gone", "kubectl exec optional -- ls /v; true", |out| out.is_empty());
}

/// `[sig-network] Proxy version v1 should proxy through a service and a pod`, and
/// `[sig-node] Container Lifecycle Hook … poststart http hook` with a server that knows no such path.
fn a_proxied_page_leads_through_the_proxy(node: &Node) {
    node.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=90s"]);
    let path = "/api/v1/namespaces/default/pods/web:80/proxy";
    let page = node.kubectl(&["get", "--raw", &format!("{path}/")]);
    assert_eq!(page.trim(), format!("<a href=\"{path}/x\">test</a>"));
    node.kubectl(&["expose", "pod", "web", "--port=80"]);
    let path = "/api/v1/namespaces/default/services/http:web:/proxy/";
    let query = format!("get --raw {path}");
    node.wait_for_kubectl("the service is proxied", &query, |out| out.contains("services/http:web:/proxy/x"));
}

fn log_collectors_find_logs_by_name(node: &Node) {
    let links = node.dir().join("containers");
    let names: Vec<_> = std::fs::read_dir(&links)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("memory_default_a-"))
        .collect();
    let [name] = names.as_slice() else { panic!("{names:?}") };
    assert!(std::fs::read_to_string(links.join(name)).unwrap().contains("777"));
}

fn an_image_comes_from_the_mirror_with_the_password(node: &Node) {
    phase(node, "pulled", "Succeeded");
    assert_eq!(logs(node, "pulled"), "pulled");
}

/// `[sig-node] ImageVolume should succeed with pod and pull policy of Always`.
fn images_of_volumes_are_pulled_again(node: &Node) {
    phase(node, "image-volume", "Succeeded");
    assert!(logs(node, "image-volume").contains("passwd"));
}

/// Upstream's `csi mock volume` tests, with a driver in this process whose mounts are made on the node.
fn a_driver_registers_and_its_volume_is_attached_mounted_and_detached(node: &Arc<Node>) {
    let root = node.dir().join("data/agent/kubelet");
    let disk = node.dir().join("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let machine = node.clone();
    let act = move |effect: Effect| machine_does(&machine, &disk, effect);
    let capabilities = [Capability::StageUnstageVolume];
    let driver = FakeDriver::new("test.csi", &root.join("plugins/test.sock"), &capabilities, act);
    let (runtime, stop) = (tokio::runtime::Runtime::new().unwrap(), CancellationToken::new());
    let registry = root.join("plugins_registry/test.csi-reg.sock");
    let served = runtime.spawn(driver.clone().serve(Some(registry.clone()), stop.clone()));
    let drivers = "get csinode node-1 -o 'jsonpath={.spec.drivers[*].name} {.spec.drivers[*].nodeID} {.spec.drivers[*].allocatable.count}'";
    node.wait_for_kubectl("the driver is shown", drivers, |out| out == "test.csi id-of-node 7");
    let label = "get node node-1 -o 'jsonpath={.metadata.labels.topology\\.test/zone}'";
    node.wait_for_kubectl("the node has the driver's topology", label, |out| out == "a");
    apply(node, CSI);
    let attachment = "get volumeattachments -o jsonpath={.items[*].metadata.name}";
    let name = node.wait_for_kubectl("it is to be attached", attachment, |out| out.starts_with("csi-"));
    let attached = r#"{"status":{"attached":true,"attachmentMetadata":{"disk":"sda"}}}"#;
    node.kubectl(&[
        "patch",
        "volumeattachment",
        &name,
        "--subresource=status",
        "--type=merge",
        "-p",
        attached,
    ]);
    node.kubectl(&["wait", "pod/stateful", "--for=condition=Ready", "--timeout=90s"]);
    assert_eq!(driver.calls(), ["registered true", "stage handle-1 [sda] []", "publish handle-1"]);
    assert_eq!(driver.contexts()[0]["csi.storage.k8s.io/pod.name"], "stateful");
    let file = "exec stateful -- sh -c 'cat /v/file; stat -c %g /v'";
    node.wait_for_kubectl("it is written, and the group's", file, |out| out == "kept\n4321");
    let shown = "get node node-1 -o 'jsonpath={.status.volumesInUse} {.status.volumesAttached[*].name}'";
    let own = "kubernetes.io/csi/test.csi^handle-1";
    node.wait_for_kubectl("the node shows it", shown, |out| out == format!("[\"{own}\"] {own}"));
    node.kubectl(&["delete", "pod", "stateful"]);
    node.wait_for_kubectl("it is detached", attachment, |out| out.is_empty());
    assert_eq!(driver.calls()[3..], ["unpublish handle-1", "unstage handle-1"]);
    assert_eq!(std::fs::read_to_string(node.dir().join("disk/handle-1/file")).unwrap(), "kept\n");
    // The node forgets a driver whose socket is gone.
    stop.cancel();
    runtime.block_on(served).unwrap().unwrap();
    std::fs::remove_file(registry).unwrap();
    node.wait_for_kubectl("the driver is no longer shown", drivers, |out| out.is_empty());
}

/// What the driver does, in the mounts of the node.
fn machine_does(node: &Node, disk: &Path, effect: Effect) -> Result<(), String> {
    let script = match effect {
        Effect::Mount { volume, target, .. } => {
            let (source, target) = (disk.join(volume), target.display().to_string());
            format!("mkdir -p {0} {target} && mount --bind {0} {target}", source.display())
        }
        Effect::Unmount { target, remove } => {
            let target = target.display();
            let rest = if remove { format!("; rmdir {target}") } else { String::new() };
            format!("umount {target}{rest}")
        }
    };
    let output = node.shell(&script);
    if output.status.success() { Ok(()) } else { Err(text(&output)) }
}
