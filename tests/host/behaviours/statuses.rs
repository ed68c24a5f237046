//! `[sig-node] Container Runtime`, `InitContainer` and `Kubelet … always fails`: what the status says of containers that
//! ended, and of those that wait for others.

use serde_json::{Value, json};

use super::{Cluster, IMAGE, Wrong, pod, shell, with};

/// Fails the first time, succeeds the second, and stays the third.
const RESTARTED: &str = "f=/restart-count/f; echo hello >> $f; count=$(wc -l < $f); [ $count -eq 1 ] && exit 1; [ $count -eq 2 ] && exit 0; while true; do sleep 1; done";

fn restarted(name: &str, policy: &str) -> Value {
    let container = with(
        shell("a", RESTARTED),
        json!({"volumeMounts": [{"name": "restart-count", "mountPath": "/restart-count"}]}),
    );
    let volumes = json!([{"name": "restart-count", "emptyDir": {}}]);
    pod(
        name,
        json!({"restartPolicy": policy, "containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0}),
    )
}

/// Name, script, fields of the container, and the message and phase at the end.
fn messages() -> Vec<(&'static str, &'static str, Value, &'static str, &'static str)> {
    let fallback = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let own = json!({"terminationMessagePath": "/dev/termination-custom-log", "securityContext": {"runAsUser": 1000}});
    vec![
        ("message-from-log", "printf DONE; /bin/false", fallback.clone(), "DONE", "Failed"),
        ("message-empty", "printf DONE; /bin/true", fallback.clone(), "", "Succeeded"),
        (
            "message-from-file",
            "printf OK > /dev/termination-log; printf DONE; /bin/true",
            fallback,
            "OK",
            "Succeeded",
        ),
        ("message-own-path", "printf DONE > /dev/termination-custom-log", own, "DONE", "Succeeded"),
    ]
}

fn inits(name: &str, policy: &str, second: &str, main: &str) -> Value {
    let first = if name == "init-fails-always" { "false" } else { "true" };
    let container = |name: &str, word: &str| json!({"name": name, "image": IMAGE, "command": [word]});
    let main = with(
        container("run1", main),
        json!({"command": if main == "sleep" { json!(["sleep", "1000"]) } else { json!([main]) },
        "resources": {"limits": {"cpu": "100m"}}}),
    );
    pod(
        name,
        json!({"restartPolicy": policy, "initContainers": [container("init1", first), container("init2", second)],
        "containers": [main], "terminationGracePeriodSeconds": 0}),
    )
}

pub fn begin(cluster: &Cluster) {
    let mut objects = vec![
        restarted("terminate-always", "Always"),
        restarted("terminate-on-failure", "OnFailure"),
        restarted("terminate-never", "Never"),
        inits("init-never", "Never", "true", "true"),
        inits("init-always", "Always", "true", "sleep"),
        inits("init-fails-always", "Always", "true", "true"),
        inits("init-fails-never", "Never", "false", "true"),
        pod(
            "always-fails",
            json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": IMAGE, "command": ["/bin/false"]}]}),
        ),
        pod(
            "always-fails-again",
            json!({"containers": [{"name": "a", "image": IMAGE, "command": ["/bin/false"]}]}),
        ),
    ];
    for (name, script, more, _, _) in messages() {
        objects.push(pod(
            name,
            json!({"restartPolicy": "Never", "containers": [with(shell("a", script), more)]}),
        ));
    }
    cluster.create(&objects);
}

fn condition(pod: &Value, kind: &str) -> Value {
    let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|c| c["type"] == kind).unwrap_or_default()
}

pub fn statuses_say_how_containers_ended(cluster: &Cluster, wrong: &mut Wrong) {
    for (name, _, _, message, phase) in messages() {
        let pod = cluster.ended(name);
        let said = &pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"];
        let right = said.as_str().unwrap_or_default() == message && pod["status"]["phase"] == phase;
        wrong.unless(right, &format!("Container Runtime blackbox test … {name}"), &pod["status"]);
    }
    containers_that_exit_have_the_expected_status(cluster, wrong);
    init_containers_run_first_and_in_order(cluster, wrong);
    failing_init_containers_keep_the_others_back(cluster, wrong);
    containers_that_always_fail_have_a_reason_and_are_deleted(cluster, wrong);
}

fn containers_that_exit_have_the_expected_status(cluster: &Cluster, wrong: &mut Wrong) {
    for (name, phase, state, restarts, ready) in [
        ("terminate-always", "Running", "running", 2, true),
        ("terminate-on-failure", "Succeeded", "terminated", 1, false),
        ("terminate-never", "Failed", "terminated", 0, false),
    ] {
        let seen = cluster.until(&format!("pod {name}"), |pod| {
            let status = &pod["status"]["containerStatuses"][0];
            pod["status"]["phase"] == phase
                && status["restartCount"] == restarts
                && status["ready"] == ready
                && status["state"][state].is_object()
        });
        let behaviour = "Container Runtime … should run with the expected status";
        wrong.if_never(seen, behaviour);
    }
}

fn init_containers_run_first_and_in_order(cluster: &Cluster, wrong: &mut Wrong) {
    let behaviour = "InitContainer should invoke init containers";
    for pod in [cluster.ended("init-never"), cluster.ready("init-always")] {
        let status = &pod["status"];
        wrong.unless(condition(&pod, "Initialized")["status"] == "True", behaviour, status);
        for init in status["initContainerStatuses"].as_array().into_iter().flatten() {
            let end = &init["state"]["terminated"];
            wrong.unless(
                init["ready"] == true && end["exitCode"] == 0 && end["reason"] == "Completed",
                behaviour,
                init,
            );
        }
        let times: Vec<_> = ["initContainerStatuses", "containerStatuses"]
            .iter()
            .flat_map(|list| status[list].as_array().cloned().unwrap_or_default())
            .map(|c| {
                let state = c["state"].as_object().unwrap().values().next().unwrap().clone();
                state["startedAt"].as_str().unwrap_or_default().to_owned()
            })
            .collect();
        wrong.unless(times.len() == 3 && times.is_sorted(), behaviour, format!("{times:?}"));
    }
    let phase = cluster.ended("init-never")["status"]["phase"].clone();
    wrong.unless(phase == "Succeeded", behaviour, phase);
}

fn failing_init_containers_keep_the_others_back(cluster: &Cluster, wrong: &mut Wrong) {
    let seen = cluster.until("pod init-fails-always", |pod| {
        pod["status"]["initContainerStatuses"][0]["restartCount"].as_i64() >= Some(3)
    });
    let behaviour =
        "InitContainer should not start app containers if init containers fail on a RestartAlways pod";
    let pod = seen.unwrap_or_else(|seen| seen);
    let status = &pod["status"];
    let first = &status["initContainerStatuses"][0];
    wrong.unless(first["restartCount"].as_i64() >= Some(3) && first["ready"] == false, behaviour, first);
    let ended = [&first["state"]["terminated"], &first["lastState"]["terminated"]];
    wrong.unless(ended.iter().any(|end| end["exitCode"].as_i64() > Some(0)), behaviour, first);
    let waits = [&status["initContainerStatuses"][1], &status["containerStatuses"][0]];
    wrong.unless(
        waits.iter().all(|c| c["state"]["waiting"]["reason"] == "PodInitializing" && c["restartCount"] == 0),
        behaviour,
        status,
    );
    wrong.unless(status["phase"] == "Pending", behaviour, &status["phase"]);
    let told = condition(&pod, "Initialized");
    let right = told["status"] == "False"
        && told["reason"] == "ContainersNotInitialized"
        && told["message"] == "containers with incomplete status: [init1 init2]";
    wrong.unless(right, behaviour, told);

    let pod = cluster.ended("init-fails-never");
    let behaviour = "InitContainer should not start app containers and fail the pod if init containers fail on a RestartNever pod";
    let status = &pod["status"];
    let (good, bad, main) = (
        &status["initContainerStatuses"][0],
        &status["initContainerStatuses"][1],
        &status["containerStatuses"][0],
    );
    wrong.unless(status["phase"] == "Failed", behaviour, status);
    wrong.unless(good["state"]["terminated"]["exitCode"] == 0 && good["ready"] == true, behaviour, good);
    wrong.unless(bad["state"]["terminated"]["exitCode"] == 1 && bad["ready"] == false, behaviour, bad);
    wrong.unless(main["state"]["waiting"].is_object() && main["started"] != true, behaviour, main);
    let told = condition(&pod, "Initialized");
    let right = told["status"] == "False" && told["message"] == "containers with incomplete status: [init2]";
    wrong.unless(right, behaviour, told);
}

fn containers_that_always_fail_have_a_reason_and_are_deleted(cluster: &Cluster, wrong: &mut Wrong) {
    let pod = cluster.ended("always-fails");
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    wrong.unless(
        end["exitCode"] == 1 && end["reason"] == "Error",
        "Kubelet … should have an terminated reason",
        end,
    );
    cluster.node.kubectl(&["delete", "pod", "always-fails-again", "--timeout=60s"]);
}
