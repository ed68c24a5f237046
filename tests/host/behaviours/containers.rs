//! `[sig-node]`: commands, environment, variable expansion, security, sysctls, hosts files: what a container that runs
//! once prints.

use kube_lite::kubelet::images::archive::Image;
use serde_json::{Value, json};

use super::{Cluster, IMAGE, Wrong, once, pod, shell, with};

const ENTRY: &str = "localhost/entry:1";

/// An image with a program and arguments of its own.
pub fn entry_image() -> Vec<u8> {
    let program =
        ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| std::fs::read(path).ok()).unwrap();
    let image = Image::new(ENTRY)
        .file("bin/busybox", 0o755, program)
        .link("bin/echo", "busybox")
        .link("bin/printf", "busybox");
    image
        .environment("PATH=/bin")
        .entrypoint(&["/bin/echo", "entry"])
        .command(&["default", "arguments"])
        .archive()
        .unwrap()
}

/// What a pod's first container must print: every part, and none of those after `!`.
struct Case {
    behaviour: &'static str,
    pod: Value,
    parts: Vec<String>,
}

fn case(behaviour: &'static str, pod: Value, parts: &[&str]) -> Case {
    Case { behaviour, pod, parts: parts.iter().map(|part| (*part).to_owned()).collect() }
}

fn entry(name: &str, more: Value) -> Value {
    let container = with(json!({"name": "a", "image": ENTRY}), more);
    pod(name, json!({"restartPolicy": "Never", "containers": [container]}))
}

fn env(name: &str, script: &str, env: Value, more: Value) -> Value {
    let container = with(with(shell("a", script), json!({"env": env})), more);
    once(name, script, json!({"containers": [container]}))
}

fn commands() -> Vec<Case> {
    vec![
        case(
            "Containers should use the image defaults if command and args are blank",
            entry("entry-0", json!({})),
            &["entry default arguments"],
        ),
        case(
            "… override the image's default arguments (container cmd)",
            entry("entry-1", json!({"args": ["override", "arguments"]})),
            &["entry override arguments"],
        ),
        case(
            "… override the image's default command (container entrypoint)",
            entry("entry-2", json!({"command": ["/bin/printf", "%s\n", "own"]})),
            &["own", "!default"],
        ),
        case(
            "… override the image's default command and arguments",
            entry("entry-3", json!({"command": ["/bin/echo"], "args": ["both"]})),
            &["both", "!entry"],
        ),
        case(
            "Kubelet … should print the output to logs",
            once("to-logs", "echo 'Hello World'; echo err >&2", json!({})),
            &["Hello World", "err"],
        ),
        case(
            "Kubelet … should not write to root filesystem",
            once(
                "read-only",
                "echo test > /file; true",
                json!({"containers": [with(shell("a", "echo test > /file; true"), json!({"securityContext": {"readOnlyRootFilesystem": true}}))]}),
            ),
            &["Read-only file system"],
        ),
        case(
            "Security Context … writable rootfs when readOnlyRootFilesystem=false",
            once(
                "writable",
                "",
                json!({"containers": [with(shell("a", "touch checkfile && echo written"), json!({"securityContext": {"readOnlyRootFilesystem": false}}))]}),
            ),
            &["written"],
        ),
    ]
}

fn environment() -> Vec<Case> {
    let from = |path: &str| json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}});
    let resource = |name: &str| json!({"resourceFieldRef": {"resource": name}});
    let fields = json!([
        {"name": "POD_NAME", "valueFrom": from("metadata.name")}, {"name": "POD_NAMESPACE", "valueFrom": from("metadata.namespace")},
        {"name": "POD_IP", "valueFrom": from("status.podIP")}, {"name": "POD_UID", "valueFrom": from("metadata.uid")},
        {"name": "HOST_IP", "valueFrom": from("status.hostIP")}, {"name": "HOST_IPS", "valueFrom": from("status.hostIPs")},
    ]);
    let amounts = json!([
        {"name": "CPU_LIMIT", "valueFrom": resource("limits.cpu")}, {"name": "MEMORY_LIMIT", "valueFrom": resource("limits.memory")},
        {"name": "CPU_REQUEST", "valueFrom": resource("requests.cpu")}, {"name": "MEMORY_REQUEST", "valueFrom": resource("requests.memory")},
    ]);
    let resources = json!({"resources": {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}});
    let key = |kind: &str, name: &str| json!({kind: {"name": name, "key": "data-1"}});
    let prefixed = |prefix: &str, kind: &str, name: &str| json!({"prefix": prefix, kind: {"name": name}});
    // A shell would not pass on names that are none of its own variables.
    let prefixes = |kind: &str, name: &str| json!({"command": ["env"], "envFrom": [prefixed("", kind, name), prefixed("p-", kind, name), prefixed("#", kind, name)]});
    let seen = ["data-1=value-1", "p-data-1=value-1", "#data-1=value-1"];
    vec![
        case(
            "Downward API should provide pod name, namespace, IP, UID, host IPs",
            env("fields", "env", fields, json!({})),
            &[
                "POD_NAME=fields",
                "POD_NAMESPACE=default",
                "POD_IP=10.42.",
                "HOST_IP=10.99.0.2",
                "HOST_IPS=10.99.0.2",
                "POD_UID=",
            ],
        ),
        case(
            "Downward API should provide container's limits and requests",
            env("amounts", "env", amounts.clone(), resources),
            &["CPU_LIMIT=2", "MEMORY_LIMIT=67108864", "CPU_REQUEST=1", "MEMORY_REQUEST=33554432"],
        ),
        case(
            "Downward API should provide default limits.cpu/memory from node allocatable",
            env(
                "defaults",
                "test $CPU_LIMIT -gt 0 && test $MEMORY_LIMIT -gt 0 && echo positive",
                amounts,
                json!({}),
            ),
            &["positive"],
        ),
        case(
            "ConfigMap should be consumable via environment variable",
            env(
                "configmap-key",
                "env",
                json!([{"name": "CONFIG_DATA_1", "valueFrom": key("configMapKeyRef", "configmap-test")}]),
                json!({}),
            ),
            &["CONFIG_DATA_1=value-1"],
        ),
        case(
            "ConfigMap should be consumable via the environment, with various prefixes",
            env("configmap-env", "env", json!([]), prefixes("configMapRef", "configmap-test")),
            &seen,
        ),
        case(
            "Secrets should be consumable from pods in env vars",
            env(
                "secret-key",
                "env",
                json!([{"name": "SECRET_DATA", "valueFrom": key("secretKeyRef", "secret-test")}]),
                json!({}),
            ),
            &["SECRET_DATA=value-1"],
        ),
        case(
            "Secrets should be consumable via the environment, with various prefixes",
            env("secret-env", "env", json!([]), prefixes("secretRef", "secret-test")),
            &seen,
        ),
        case(
            "Variable Expansion should allow composing env vars into new env vars",
            env(
                "compose",
                "env",
                json!([{"name": "FOO", "value": "foo-value"}, {"name": "BAR", "value": "bar-value"}, {"name": "FOOBAR", "value": "$(FOO);;$(BAR)"}]),
                json!({}),
            ),
            &["FOO=foo-value", "BAR=bar-value", "FOOBAR=foo-value;;bar-value"],
        ),
        case(
            "Variable Expansion should allow substituting values in a container's command",
            env(
                "in-command",
                "TEST_VAR=wrong echo \"$(TEST_VAR)\"",
                json!([{"name": "TEST_VAR", "value": "test-value"}]),
                json!({}),
            ),
            &["test-value"],
        ),
        case(
            "Variable Expansion should allow substituting values in a container's args",
            env(
                "in-args",
                "",
                json!([{"name": "TEST_VAR", "value": "test-value"}]),
                json!({"command": ["sh", "-c"], "args": ["TEST_VAR=wrong echo \"$(TEST_VAR)\""]}),
            ),
            &["test-value"],
        ),
    ]
}

fn security() -> Vec<Case> {
    let own = |name: &str, script: &str, pod_security: Value, container: Value| {
        let container = with(shell("a", script), json!({"securityContext": container}));
        once(name, script, json!({"containers": [container], "securityContext": pod_security}))
    };
    let dummy = "ip link add dummy0 type dummy || true";
    vec![
        case(
            "Security Context … should run the container with uid 65534",
            own("user", "id -u", json!({}), json!({"runAsUser": 65534})),
            &["65534"],
        ),
        case(
            "… container.SecurityContext.RunAsUser And RunAsGroup",
            own("group", "id", json!({}), json!({"runAsUser": 1001, "runAsGroup": 2002})),
            &["uid=1001", "gid=2002"],
        ),
        case(
            "… pod.Spec.SecurityContext.RunAsUser And RunAsGroup",
            own("pod-group", "id", json!({"runAsUser": 1001, "runAsGroup": 2002}), json!({})),
            &["uid=1001", "gid=2002"],
        ),
        case(
            "… should run the container as unprivileged when false",
            own("unprivileged", dummy, json!({}), json!({"privileged": false})),
            &["Operation not permitted"],
        ),
        case(
            "… should not allow privilege escalation when false",
            own(
                "no-escalation",
                "grep NoNewPrivs /proc/self/status; id -u",
                json!({}),
                json!({"allowPrivilegeEscalation": false, "runAsUser": 1000}),
            ),
            &["NoNewPrivs:\t1", "1000"],
        ),
        case(
            "Sysctls should support sysctls",
            own(
                "sysctls",
                "sysctl kernel.shm_rmid_forced",
                json!({"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}),
                json!({}),
            ),
            &["kernel.shm_rmid_forced = 1"],
        ),
    ]
}

fn hosts() -> Vec<Case> {
    let aliases = json!([{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]);
    let managed = "# Kubernetes-managed hosts file.";
    let etc = json!([{"name": "etc-hosts", "hostPath": {"path": "/etc/hosts", "type": "File"}}]);
    let own = with(
        shell("a", "cat /etc/hosts; echo end"),
        json!({"volumeMounts": [{"name": "etc-hosts", "mountPath": "/etc/hosts"}]}),
    );
    let dns = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"]}});
    vec![
        case(
            "Kubelet … hostAliases should write entries to /etc/hosts",
            once("aliases", "cat /etc/hosts", json!({"hostAliases": aliases})),
            &["123.45.67.89\tfoo\tbar", managed],
        ),
        case(
            "KubeletManagedEtcHosts … hostNetwork=true is not managed",
            once("host-hosts", "cat /etc/hosts", json!({"hostNetwork": true})),
            &["localhost", "!# Kubernetes-managed hosts file."],
        ),
        case(
            "KubeletManagedEtcHosts … a container that specifies /etc/hosts mount",
            once("own-hosts", "", json!({"containers": [own], "volumes": etc})),
            &["end", "!# Kubernetes-managed"],
        ),
        case(
            "DNS should support configurable pod DNS nameservers",
            once("own-dns", "cat /etc/resolv.conf", dns),
            &["nameserver 1.1.1.1", "search resolv.conf.local", "!10.43."],
        ),
        case(
            "DNS should provide /etc/hosts entries for the cluster",
            once(
                "subdomain",
                "cat /etc/hosts",
                json!({"hostname": "dns-querier-1", "subdomain": "dns-test-service"}),
            ),
            &["dns-querier-1.dns-test-service.default.svc.cluster.local\tdns-querier-1"],
        ),
    ]
}

/// `[sig-node] Variable Expansion … subpath` and `ImageVolume`.
fn mounts() -> Vec<Case> {
    let volumes = json!([{"name": "workdir", "emptyDir": {}}]);
    let mounts = json!([{"name": "workdir", "mountPath": "/logscontainer", "subPathExpr": "$(POD_NAME)"}, {"name": "workdir", "mountPath": "/testcontainer"}]);
    let name = json!([{"name": "POD_NAME", "value": "foo"}]);
    let script = "test -d /testcontainer/foo && test -d /logscontainer && echo there";
    let expanded = with(shell("a", script), json!({"env": name, "volumeMounts": mounts}));
    let image = json!([{"name": "image", "image": {"reference": IMAGE, "pullPolicy": "IfNotPresent"}}]);
    let whole = with(
        shell("a", "test -x /volume/bin/busybox && ls /part"),
        json!({"volumeMounts": [{"name": "image", "mountPath": "/volume"}, {"name": "image", "mountPath": "/part", "subPath": "etc"}]}),
    );
    vec![
        case(
            "Variable Expansion should allow substituting values in a volume subpath",
            once("sub-path", "", json!({"containers": [expanded], "volumes": volumes})),
            &["there"],
        ),
        case(
            "ImageVolume should succeed with pod and pull policy",
            once("image-volume", "", json!({"containers": [whole], "volumes": image})),
            &["passwd"],
        ),
    ]
}

fn all() -> Vec<Case> {
    [commands(), environment(), security(), hosts(), mounts()].into_iter().flatten().collect()
}

pub fn begin(cluster: &Cluster) {
    cluster.create(&all().into_iter().map(|case| case.pod).collect::<Vec<_>>());
}

pub fn containers_run_as_their_specs_say(cluster: &Cluster, wrong: &mut Wrong) {
    for case in all() {
        let name = case.pod["metadata"]["name"].as_str().unwrap();
        let status = cluster.ended(name)["status"].clone();
        let printed = cluster.logs(name, "a");
        for part in &case.parts {
            let right = match part.strip_prefix('!') {
                Some(absent) => !printed.contains(absent),
                None => printed.contains(part.as_str()),
            };
            wrong.unless(right, case.behaviour, format!("{part:?} in {printed:?}"));
        }
        wrong.unless(status["phase"] == "Succeeded", case.behaviour, &status);
    }
}
