//! `[sig-node] Pods`, `Pod InPlace Resize`, `Ephemeral Containers`, `Pod Generation`: one pod from its start to its end.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Cluster, IMAGE, Wrong, once, pod, shell, with};

const API: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/api.py");
const PODS: &str = "/api/v1/namespaces/default/pods";

pub fn pods_are_shown_changed_and_removed(cluster: &Cluster, wrong: &mut Wrong) {
    let stays = |name: &str| {
        pod(
            name,
            json!({"containers": [shell("main", "echo container is alive; trap 'exit 0' TERM; sleep 600 & wait")]}),
        )
    };
    cluster.create(&["alive", "deadline", "generation", "debugged"].map(stays));
    cluster.create(&sized());
    for name in ["alive", "deadline", "generation", "debugged"] {
        cluster.ready(name);
    }
    a_pod_has_its_addresses(cluster, wrong);
    web_sockets_carry_output_and_logs(cluster, wrong);
    the_deadline_is_updated(cluster, wrong);
    ephemeral_containers_start(cluster, wrong);
    services_are_in_the_environment(cluster, wrong);
    pods_are_resized_in_place(cluster, wrong);
    the_observed_generation_converges(cluster, wrong);
    a_pod_is_removed_after_its_grace(cluster, wrong);
}

fn a_pod_has_its_addresses(cluster: &Cluster, wrong: &mut Wrong) {
    let status = cluster.get("pod alive")["status"].clone();
    let right = status["hostIP"] == "10.99.0.2"
        && status["hostIPs"] == json!([{"ip": "10.99.0.2"}])
        && status["podIPs"][0]["ip"] == status["podIP"];
    wrong.unless(right && status["podIP"].is_string(), "Pods should get a host IP", &status);
}

fn api(cluster: &Cluster, words: &[&str]) -> String {
    let kubeconfig = cluster.node.kubeconfig();
    let mut command = cluster.node.inside("python3");
    let output = cluster.node.finish(command.args([API, kubeconfig.to_str().unwrap()]).args(words));
    crate::node::text(&output)
}

fn web_sockets_carry_output_and_logs(cluster: &Cluster, wrong: &mut Wrong) {
    let path = format!(
        "{PODS}/alive/exec?stderr=1&stdout=1&container=main&command=echo&command=remote+execution+test"
    );
    let said = api(cluster, &["messages", "channel.k8s.io", &path]);
    // Every message names its channel, and only that of the output says more than its name.
    let foreign = said.lines().any(|line| {
        line.starts_with("message b'\\x0")
            && !line.starts_with("message b'\\x01")
            && line.len() > "message b'\\x00'".len()
    });
    let right = said.contains("protocol channel.k8s.io")
        && said.contains("message b'\\x01remote execution test\\n'")
        && !foreign;
    wrong.unless(right, "Pods should support remote command execution over websockets", &said);
    let said = api(cluster, &["messages", "binary.k8s.io", &format!("{PODS}/alive/log?container=main")]);
    let right = said.contains("protocol binary.k8s.io") && said.contains("message b'container is alive\\n'");
    wrong.unless(right, "Pods should support retrieving logs from the container over websockets", &said);
}

fn the_deadline_is_updated(cluster: &Cluster, wrong: &mut Wrong) {
    cluster.node.kubectl(&["patch", "pod", "deadline", "-p", r#"{"spec":{"activeDeadlineSeconds":5}}"#]);
    let status = cluster.ended("deadline")["status"].clone();
    let right = status["phase"] == "Failed" && status["reason"] == "DeadlineExceeded";
    wrong.unless(right, "Pods should allow activeDeadlineSeconds to be updated", &status);
}

fn ephemeral_containers_start(cluster: &Cluster, wrong: &mut Wrong) {
    let behaviour = "Ephemeral Containers will start an ephemeral container in an existing pod";
    for (name, count) in [("debugger", 1), ("debugger2", 2)] {
        let script = "while true; do echo polo; sleep 1; done";
        cluster.node.kubectl(&[
            "debug",
            "debugged",
            &format!("--image={IMAGE}"),
            "-c",
            name,
            "--target=main",
            "--profile=general",
            "--",
            "sh",
            "-c",
            script,
        ]);
        let seen = cluster.until("pod debugged", |pod| {
            let list =
                pod["status"]["ephemeralContainerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
            list.len() == count && list.iter().all(|c| c["state"]["running"].is_object())
        });
        wrong.if_never(seen, behaviour);
        let script = format!(
            "for turn in $(seq 50); do kubectl logs debugged -c {name} | grep -m1 polo && exit 0; done; exit 1"
        );
        let said = cluster.node.shell(&script);
        wrong.unless(said.status.success(), behaviour, crate::node::text(&said));
    }
}

fn services_are_in_the_environment(cluster: &Cluster, wrong: &mut Wrong) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "fooservice"},
        "spec": {"ports": [{"port": 8765, "targetPort": 8080}], "selector": {"name": "alive"}}});
    cluster.create(&[service]);
    let address = cluster.get("service fooservice")["spec"]["clusterIP"].as_str().unwrap().to_owned();
    // The kubelet may not know of the Service yet: the suite tries three times.
    for turn in 0..3 {
        let name = format!("client-envvars-{turn}");
        cluster.create(&[once(&name, "env", json!({}))]);
        cluster.ended(&name);
        let printed = cluster.logs(&name, "a");
        let wanted = [
            format!("FOOSERVICE_SERVICE_HOST={address}"),
            "FOOSERVICE_SERVICE_PORT=8765".to_owned(),
            format!("FOOSERVICE_PORT=tcp://{address}:8765"),
            "FOOSERVICE_PORT_8765_TCP_PORT=8765".to_owned(),
            "FOOSERVICE_PORT_8765_TCP_PROTO=tcp".to_owned(),
            format!("FOOSERVICE_PORT_8765_TCP=tcp://{address}:8765"),
            format!("FOOSERVICE_PORT_8765_TCP_ADDR={address}"),
        ];
        let seen: BTreeSet<_> = printed.lines().collect();
        if wanted.iter().all(|line| seen.contains(line.as_str())) {
            return;
        }
        wrong.unless(turn < 2, "Pods should contain environment variables for services", printed);
    }
}

/// Requests and limits of CPU and memory; an empty text is none.
type Amounts = [&'static str; 4];

fn resources([cpu, cpu_limit, memory, memory_limit]: Amounts) -> Value {
    let mut out = json!({});
    for (list, name, amount) in [
        ("requests", "cpu", cpu),
        ("limits", "cpu", cpu_limit),
        ("requests", "memory", memory),
        ("limits", "memory", memory_limit),
    ] {
        if !amount.is_empty() {
            out[list][name] = amount.into();
        }
    }
    out
}

/// Name of the pod, and for each container what it has first and then.
const RESIZES: [(&str, &[(Amounts, Amounts)]); 6] = [
    (
        "net-increase",
        &[
            (["20m", "20m", "35Mi", "35Mi"], ["25m", "25m", "40Mi", "40Mi"]),
            (["22m", "22m", "37Mi", "37Mi"], ["27m", "27m", "42Mi", "42Mi"]),
            (["24m", "24m", "39Mi", "39Mi"], ["19m", "19m", "34Mi", "34Mi"]),
        ],
    ),
    (
        "net-decrease",
        &[
            (["20m", "20m", "35Mi", "35Mi"], ["25m", "25m", "40Mi", "40Mi"]),
            (["22m", "22m", "37Mi", "37Mi"], ["17m", "17m", "32Mi", "32Mi"]),
            (["24m", "24m", "39Mi", "39Mi"], ["19m", "19m", "34Mi", "34Mi"]),
        ],
    ),
    (
        "mixed",
        &[
            (["20m", "20m", "35Mi", "35Mi"], ["25m", "25m", "35Mi", "35Mi"]),
            (["22m", "22m", "37Mi", "37Mi"], ["17m", "17m", "42Mi", "42Mi"]),
            (["24m", "24m", "39Mi", "39Mi"], ["29m", "29m", "44Mi", "44Mi"]),
        ],
    ),
    (
        "six-containers",
        &[
            (["20m", "", "", ""], ["25m", "35m", "", ""]),
            (["", "", "35Mi", ""], ["", "", "30Mi", "50Mi"]),
            (["20m", "", "35Mi", ""], ["20m", "", "30Mi", ""]),
            (["20m", "", "", ""], ["15m", "", "35Mi", ""]),
            (["", "", "35Mi", ""], ["20m", "", "40Mi", ""]),
        ],
    ),
    ("equivalents", &[(["2m", "10m", "", ""], ["1m", "5m", "", ""])]),
    ("replaced", &[(["20m", "30m", "35Mi", "45Mi"], ["25m", "35m", "40Mi", "50Mi"])]),
];

fn sized() -> Vec<Value> {
    let make = |(name, containers): &(&str, &[(Amounts, Amounts)])| {
        let containers: Vec<_> = containers
            .iter()
            .enumerate()
            .map(|(i, (first, _))| {
                with(shell(&format!("c{}", i + 1), "sleep 10000"), json!({"resources": resources(*first)}))
            })
            .collect();
        pod(
            name,
            json!({"os": {"name": "linux"}, "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 0, "containers": containers}),
        )
    };
    RESIZES.iter().map(make).collect()
}

fn pods_are_resized_in_place(cluster: &Cluster, wrong: &mut Wrong) {
    for (name, containers) in RESIZES {
        cluster.ready(name);
        let (first, then): (Vec<_>, Vec<_>) = containers.iter().copied().unzip();
        has_resources(cluster, wrong, name, &first);
        // Limits and requests that were added stay; everything else goes back to what it was.
        let rounds = if name == "six-containers" { vec![then] } else { vec![then, first] };
        for wanted in rounds {
            resize(cluster, name, &wanted);
            has_resources(cluster, wrong, name, &wanted);
        }
        cluster.node.kubectl(&["delete", "pod", name, "--wait=false"]);
    }
}

fn resize(cluster: &Cluster, name: &str, wanted: &[Amounts]) {
    let list = |amounts: &[Amounts]| {
        let one = |(i, amounts): (usize, &Amounts)| json!({"name": format!("c{}", i + 1), "resources": resources(*amounts)});
        amounts.iter().enumerate().map(one).collect::<Vec<_>>()
    };
    if name != "replaced" {
        let change = json!({"spec": {"containers": list(wanted)}}).to_string();
        cluster.node.kubectl(&["patch", "pod", name, "--subresource=resize", "-p", &change]);
        return;
    }
    let mut object = cluster.get(&format!("pod {name}"));
    object["spec"]["containers"][0]["resources"] = resources(wanted[0]);
    let file = cluster.node.dir().join("resized.json");
    std::fs::write(&file, object.to_string()).unwrap();
    cluster.node.kubectl(&["replace", "--subresource=resize", "-f", file.to_str().unwrap()]);
}

/// The status shows exactly these resources, nothing is left to do, nothing was restarted, and the kernel knows them.
fn has_resources(cluster: &Cluster, wrong: &mut Wrong, name: &str, wanted: &[Amounts]) {
    let behaviour = format!("Pod InPlace Resize Container: {name}");
    let seen = cluster.until(&format!("pod {name}"), |pod| {
        let status = &pod["status"];
        let list = status["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let same = list.len() == wanted.len()
            && list
                .iter()
                .zip(wanted)
                .all(|(c, amounts)| c["resources"] == resources(*amounts) && c["restartCount"] == 0);
        let text = status["conditions"].to_string();
        same && super::is_ready(pod) && !text.contains("PodResize")
    });
    wrong.if_never(seen, &behaviour);
    for (i, amounts) in wanted.iter().enumerate() {
        let (shares, quota, memory) = kernel(*amounts);
        let (one, two) = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            (
                "cat cpu.weight cpu.max memory.max",
                [
                    weight(shares),
                    if quota < 0 { "max 100000".to_owned() } else { format!("{quota} 100000") },
                    memory.map_or("max".to_owned(), |m| m.to_string()),
                ],
            )
        } else {
            let limit = memory.map_or("any".to_owned(), |m| m.to_string());
            (
                "cat cpu/cpu.shares cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes",
                [shares.to_string(), quota.to_string(), limit],
            )
        };
        let script = format!("cd /sys/fs/cgroup && {one}");
        let words = ["exec", name, "-c", &format!("c{}", i + 1), "--", "sh", "-c", &script];
        let output = cluster.node.finish(cluster.node.inside("kubectl").args(words));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<_> = text.lines().collect();
        let same = lines.len() == 3
            && lines.iter().zip(&two).all(|(seen, wanted)| wanted == "any" || *seen == wanted);
        wrong.unless(same, &behaviour, format!("c{}: {lines:?}, not {two:?}", i + 1));
    }
}

/// CPU shares, CPU quota of 100 ms and memory limit, as upstream derives them.
fn kernel([cpu, cpu_limit, _, memory]: Amounts) -> (i64, i64, Option<i64>) {
    let milli = |text: &str| text.trim_end_matches('m').parse::<i64>().unwrap_or(0);
    let asked = if cpu.is_empty() { milli(cpu_limit) } else { milli(cpu) };
    let shares = (asked * 1024 / 1000).max(2);
    // Runtimes that round a quota do it up to whole hundredths of a CPU; those here do not.
    let quota = if cpu_limit.is_empty() { -1 } else { (milli(cpu_limit) * 100).max(1000) };
    let memory = memory.trim_end_matches("Mi").parse::<i64>().ok().map(|mi| mi << 20);
    (shares, quota, memory)
}

fn weight(shares: i64) -> String {
    (1 + ((shares - 2) * 9999) / 262_142).to_string()
}

fn the_observed_generation_converges(cluster: &Cluster, wrong: &mut Wrong) {
    let behaviour = "Pod Generation issue 500 podspec updates and verify generation and observedGeneration eventually converge";
    let said = api(cluster, &["tolerations", &format!("{PODS}/generation"), "500"]);
    wrong.unless(said.contains("done"), behaviour, said);
    let seen = cluster.until("pod generation", |pod| {
        let generation = pod["metadata"]["generation"].as_i64();
        generation == Some(501) && pod["status"]["observedGeneration"].as_i64() == generation
    });
    wrong.if_never(seen, behaviour);
}

fn a_pod_is_removed_after_its_grace(cluster: &Cluster, wrong: &mut Wrong) {
    let behaviour = "Pods should be submitted and removed";
    let version = cluster.get("pod alive")["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    cluster.node.kubectl(&["delete", "pod", "alive", "--grace-period=30", "--timeout=60s"]);
    // What happened since: the mark of the deletion, then the deletion.
    let query =
        format!("{PODS}?watch=1&labelSelector=name%3Dalive&resourceVersion={version}&timeoutSeconds=1");
    let text = cluster.node.kubectl(&["get", "--raw", &query]);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = events.last().cloned().unwrap_or_default();
    let meta = &last["object"]["metadata"];
    let right = last["type"] == "DELETED"
        && meta["deletionTimestamp"].is_string()
        && meta["deletionGracePeriodSeconds"] == 30;
    wrong.unless(right, behaviour, &last);
    let left = cluster.get("pods -l name=alive");
    wrong.unless(left["items"] == json!([]), behaviour, left);
}
