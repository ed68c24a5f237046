//! `[sig-node] Container Lifecycle Hook`, `PreStop` and `Probing container`, against a server that notes what it hears.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Cluster, Wrong, pod, shell, with};

fn hooked(cluster: &Cluster, name: &str, lifecycle: Value) -> Value {
    let mut pod = cluster.agnhost(name, &["pause"]);
    pod["spec"]["containers"][0]["lifecycle"] = lifecycle;
    pod["spec"]["terminationGracePeriodSeconds"] = 15.into();
    pod
}

fn hooks(cluster: &Cluster, server: &str) -> Vec<(&'static str, Value)> {
    let exec = |words: &str| {
        let url = format!("http://{server}:8080/{words}");
        json!({"exec": {"command": [cluster.python[0], "/agnhost.py", "ask", "1", url]}})
    };
    let http = |message: &str| json!({"httpGet": {"path": format!("/echo?msg={message}"), "host": server, "port": 8080}});
    vec![
        ("poststart-exec", json!({"postStart": exec("echo?msg=poststart-exec")})),
        ("poststart-http", json!({"postStart": http("poststart-http")})),
        ("prestop-exec", json!({"preStop": exec("echo?msg=prestop-exec")})),
        ("prestop-http", json!({"preStop": http("prestop-http")})),
        ("tester", json!({"preStop": exec("write?source=prestop")})),
    ]
}

/// Name, script, the probe's field and the probe, and whether it is restarted.
fn probed() -> Vec<(&'static str, &'static str, Value, bool)> {
    let exec = json!({"exec": {"command": ["cat", "/tmp/health"]}, "initialDelaySeconds": 4, "periodSeconds": 1, "failureThreshold": 1});
    let tcp = json!({"tcpSocket": {"port": 8080}, "initialDelaySeconds": 2, "periodSeconds": 1, "failureThreshold": 1});
    let http = json!({"httpGet": {"path": "/healthz", "port": 8080}, "initialDelaySeconds": 2, "periodSeconds": 1, "failureThreshold": 3});
    let serve = "mkdir /www; echo ok > /www/healthz; exec httpd -f -p 8080 -h /www";
    let fails =
        "mkdir /www; echo ok > /www/healthz; httpd -p 8080 -h /www; sleep 4; rm /www/healthz; sleep 600";
    vec![
        (
            "live-exec-fails",
            "echo ok > /tmp/health; sleep 5; rm /tmp/health; sleep 600",
            json!({"livenessProbe": exec}),
            true,
        ),
        ("live-exec", "echo ok > /tmp/health; sleep 600", json!({"livenessProbe": exec}), false),
        ("live-tcp", serve, json!({"livenessProbe": tcp}), false),
        ("live-http", serve, json!({"livenessProbe": http}), false),
        ("live-http-fails", fails, json!({"livenessProbe": http}), true),
        (
            "ready-late",
            serve,
            json!({"readinessProbe": with(http, json!({"initialDelaySeconds": 10}))}),
            false,
        ),
        (
            "ready-never",
            "sleep 600",
            json!({"readinessProbe": {"exec": {"command": ["/bin/false"]}, "initialDelaySeconds": 2, "periodSeconds": 1}}),
            false,
        ),
    ]
}

pub fn hooks_and_probes_do_what_they_should(cluster: &Cluster, wrong: &mut Wrong) {
    let probes = probed().into_iter().map(|(name, script, probe, _)| {
        pod(
            name,
            json!({"containers": [with(shell("a", script), probe)], "terminationGracePeriodSeconds": 1}),
        )
    });
    cluster.create(&probes.collect::<Vec<_>>());
    cluster.create(&[cluster.agnhost("pod-handle-http-request", &["netexec", "8080", "8081"])]);
    let server = cluster.ready("pod-handle-http-request")["status"]["podIP"].as_str().unwrap().to_owned();
    let pods: Vec<_> = hooks(cluster, &server)
        .into_iter()
        .map(|(name, lifecycle)| hooked(cluster, name, lifecycle))
        .collect();
    cluster.create(&pods);
    for (name, _) in hooks(cluster, &server) {
        cluster.ready(name);
    }
    hooks_are_heard(cluster, wrong);
    probes_restart_what_fails_and_nothing_else(cluster, wrong);
}

fn hooks_are_heard(cluster: &Cluster, wrong: &mut Wrong) {
    // The server's log is read behind the hooks, as the suite does.
    let heard = |messages: [&str; 2]| {
        let begin = std::time::Instant::now();
        loop {
            let log = cluster.logs("pod-handle-http-request", "agnhost");
            let all = messages.iter().all(|message| log.contains(&format!("received {message}")));
            if all || begin.elapsed() > crate::node::PATIENCE / 3 {
                return (all, log);
            }
        }
    };
    let (all, early) = heard(["poststart-exec", "poststart-http"]);
    let right = all && !early.contains("received prestop");
    wrong.unless(right, "Container Lifecycle Hook … poststart", &early);
    cluster.node.kubectl(&[
        "delete",
        "pod",
        "prestop-exec",
        "prestop-http",
        "tester",
        "poststart-exec",
        "poststart-http",
        "--timeout=60s",
    ]);
    let (all, late) = heard(["prestop-exec", "prestop-http"]);
    wrong.unless(all, "Container Lifecycle Hook … prestop", &late);
    let read = "/api/v1/namespaces/default/pods/pod-handle-http-request:8080/proxy/read";
    let told = cluster.node.kubectl(&["get", "--raw", read]);
    wrong.unless(told.contains("\"prestop\": 1"), "PreStop should call prestop when killing a pod", told);
}

fn probes_restart_what_fails_and_nothing_else(cluster: &Cluster, wrong: &mut Wrong) {
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_i64();
    for (name, _, _, restarted) in probed().into_iter().filter(|case| case.3) {
        let seen = cluster.until(&format!("pod {name}"), |pod| restarts(pod) >= Some(1));
        wrong.unless(seen.is_ok() == restarted, "Probing container should be restarted", name);
    }
    let pod = cluster.ready("ready-late");
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let ready = pod["status"]["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|c| c["type"] == "Ready").cloned());
    let began = time(&pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]);
    let waited = time(&ready.unwrap_or_default()["lastTransitionTime"])
        .zip(began)
        .map(|(ready, began)| ready.duration_since(began).as_secs());
    // Both times are whole seconds.
    wrong.unless(
        waited >= Some(9),
        "readiness probe should not be ready before initial delay",
        format!("{waited:?}"),
    );
    for (name, _, _, _) in probed().into_iter().filter(|case| !case.3) {
        let pod = cluster.get(&format!("pod {name}"));
        wrong.unless(
            restarts(&pod) == Some(0),
            "Probing container should *not* be restarted",
            format!("{name} {}", pod["status"]),
        );
        wrong.unless(
            super::is_ready(&pod) == (name != "ready-never"),
            "Probing container … ready",
            format!("{name} {}", pod["status"]),
        );
    }
}
