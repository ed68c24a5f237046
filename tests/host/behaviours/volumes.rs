//! `[sig-storage]`: ConfigMap, Secret, downward API, projected and emptyDir volumes, and sub paths of them.

use serde_json::{Value, json};

use super::{Cluster, Wrong, pod, shell, with};

/// Reads `/v/$1`: its mode and its content.
const READ: &str = "stat -Lc %a /v/FILE; cat /v/FILE";

/// One container with a volume of its own at `/v`.
struct Case {
    behaviour: &'static str,
    volume: Value,
    /// Of the container.
    security: Value,
    script: String,
    expected: &'static str,
}

fn case(behaviour: &'static str, volume: Value, file: &str, expected: &'static str) -> Case {
    Case { behaviour, volume, security: Value::Null, script: READ.replace("FILE", file), expected }
}

fn as_user(mut case: Case, user: u32) -> Case {
    case.security = json!({"runAsUser": user, "runAsNonRoot": true});
    case
}

/// The cases in one pod, a container each.
fn gather(name: &str, cases: &[Case], security: Value) -> Value {
    let (mut volumes, mut containers) = (Vec::new(), Vec::new());
    for (i, case) in cases.iter().enumerate() {
        let volume = format!("v{i}");
        volumes.push(with(json!({"name": volume}), case.volume.clone()));
        let mounts = json!([{"name": volume, "mountPath": "/v"}]);
        let resources = json!({"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}});
        let mut container = with(shell(&format!("c{i}"), &case.script), json!({"volumeMounts": mounts}));
        if !case.security.is_null() {
            container["securityContext"] = case.security.clone();
        }
        if case.script.contains("resources") {
            container["resources"] = resources;
        }
        containers.push(container);
    }
    let spec = json!({"restartPolicy": "Never", "volumes": volumes, "containers": containers, "securityContext": security});
    pod(name, spec)
}

fn items(file: &str, path: &str, mode: Option<u32>) -> Value {
    match mode {
        Some(mode) => json!([{"key": file, "path": path, "mode": mode}]),
        None => json!([{"key": file, "path": path}]),
    }
}

/// A volume of an object, by itself or projected.
fn object(kind: &str, projected: bool, mode: Option<u32>, items: Option<Value>) -> Value {
    let name = if kind == "secret" && !projected { "secretName" } else { "name" };
    let mut source = json!({name: if kind == "secret" { "secret-test" } else { "configmap-test" }});
    if let Some(items) = items {
        source["items"] = items;
    }
    let (mut volume, field) =
        if projected { (json!({"sources": [{kind: source}]}), "projected") } else { (source, kind) };
    if let Some(mode) = mode {
        volume["defaultMode"] = mode.into();
    }
    json!({field: volume})
}

fn config_maps(projected: bool) -> Vec<Case> {
    let volume = |mode, items| object("configMap", projected, mode, items);
    let mapped = |mode| Some(items("data-2", "path/to/data-2", mode));
    let (plain, path) = ("data-1", "path/to/data-2");
    let mut cases = vec![
        case("ConfigMap should be consumable from pods in volume", volume(None, None), plain, "644\nvalue-1"),
        as_user(case("ConfigMap … as non-root", volume(None, None), plain, "644\nvalue-1"), 1000),
        case("ConfigMap … with defaultMode set", volume(Some(0o400), None), plain, "400\nvalue-1"),
        case("ConfigMap … with mappings", volume(None, mapped(None)), path, "644\nvalue-2"),
        as_user(
            case("ConfigMap … with mappings as non-root", volume(None, mapped(None)), path, "644\nvalue-2"),
            1000,
        ),
        case(
            "ConfigMap … with mappings and Item mode set",
            volume(None, mapped(Some(0o400))),
            path,
            "400\nvalue-2",
        ),
    ];
    let mut binary =
        case("ConfigMap binary data should be reflected in volume", volume(None, None), plain, "");
    binary.script = "xxd -p /v/dump.bin".to_owned();
    binary.expected = "decafebad0feff";
    cases.push(binary);
    cases
}

fn secrets(projected: bool) -> Vec<Case> {
    let volume = |mode, items| object("secret", projected, mode, items);
    let mapped = |mode| Some(items("data-1", "new-path-data-1", mode));
    vec![
        // The namespace `other` has a secret of the same name that says something else.
        case(
            "Secrets should be consumable from pods in volume",
            volume(None, None),
            "data-1",
            "644\nvalue-1",
        ),
        case("Secrets … with defaultMode set", volume(Some(0o400), None), "data-1", "400\nvalue-1"),
        case("Secrets … with mappings", volume(None, mapped(None)), "new-path-data-1", "644\nvalue-1"),
        case(
            "Secrets … with mappings and Item Mode set",
            volume(None, mapped(Some(0o400))),
            "new-path-data-1",
            "400\nvalue-1",
        ),
    ]
}

fn downward(projected: bool) -> Vec<Case> {
    let volume = |item: Value, mode: Option<u32>| {
        let mut source = json!({"items": [item]});
        if projected {
            source = json!({"sources": [{"downwardAPI": source}]});
        }
        if let Some(mode) = mode {
            source["defaultMode"] = mode.into();
        }
        json!({(if projected { "projected" } else { "downwardAPI" }): source})
    };
    let field = |path: &str| json!({"path": "podinfo", "fieldRef": {"fieldPath": path}});
    let resource = |container: &str, name: &str| json!({"path": "podinfo", "resourceFieldRef": {"containerName": container, "resource": name}});
    let name = if projected { "400\nprojected-downward" } else { "400\ndownward" };
    let mut cases = vec![
        case(
            "Downward API volume should provide podname only",
            volume(field("metadata.name"), None),
            "podinfo",
            &name[4..],
        ),
        case(
            "… should set DefaultMode on files",
            volume(field("metadata.name"), Some(0o400)),
            "podinfo",
            name,
        ),
        case(
            "… should set mode on item file",
            volume(with(field("metadata.name"), json!({"mode": 0o400})), None),
            "podinfo",
            name,
        ),
    ];
    cases[0].script = "cat /v/podinfo".to_owned();
    for (i, (behaviour, resource_name, expected)) in [
        ("… container's cpu limit", "limits.cpu", "2"),
        ("… container's memory limit", "limits.memory", "67108864"),
        ("… container's cpu request", "requests.cpu", "1"),
        ("… container's memory request", "requests.memory", "33554432"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut one = case(
            behaviour,
            volume(resource(&format!("c{}", 3 + i), resource_name), None),
            "podinfo",
            expected,
        );
        one.script = ": resources; cat /v/podinfo".to_owned();
        cases.push(one);
    }
    for (i, name) in ["limits.cpu", "limits.memory"].into_iter().enumerate() {
        let behaviour = "… node allocatable as default limit if the limit is not set";
        let mut one =
            case(behaviour, volume(resource(&format!("c{}", 7 + i), name), None), "podinfo", "positive");
        one.script = "test $(cat /v/podinfo) -gt 0 && echo positive".to_owned();
        cases.push(one);
    }
    cases
}

fn empty_dirs() -> Vec<Case> {
    let mut cases = Vec::new();
    for (medium, kind) in [("", "default"), ("Memory", "tmpfs")] {
        let volume = json!({"emptyDir": {"medium": medium}});
        let mut one = case("EmptyDir volumes … should have the correct mode", volume.clone(), "", "777");
        one.script = "stat -c %a /v".to_owned();
        cases.push(one);
        for (mode, expected) in [
            ("0644", "644\nmount-tester new file"),
            ("0666", "666\nmount-tester new file"),
            ("0777", "777\nmount-tester new file"),
        ] {
            for user in [0, 1001] {
                let mut one =
                    case("EmptyDir volumes should support (user,mode,medium)", volume.clone(), "f", expected);
                let memory = if kind == "tmpfs" { "grep -q ' /v tmpfs ' /proc/mounts && " } else { "" };
                one.script = format!(
                    "{memory}printf 'mount-tester new file' > /v/f && chmod {mode} /v/f && {}",
                    READ.replace("FILE", "f")
                );
                cases.push(if user == 0 { one } else { as_user(one, user) });
            }
        }
    }
    cases
}

/// Several volumes in one pod, as the suite has them: the same object twice, everything in one projected volume, a
/// volume that two containers share, sub paths.
fn together() -> Vec<(&'static str, Value, &'static str)> {
    let twice = |name: &str, kind: &str, projected| {
        let volumes = json!([
            with(json!({"name": "a"}), object(kind, projected, None, None)),
            with(json!({"name": "b"}), object(kind, projected, None, None))
        ]);
        let mounts = json!([{"name": "a", "mountPath": "/a", "readOnly": true}, {"name": "b", "mountPath": "/b", "readOnly": true}]);
        let container = with(
            shell("a", "cat /a/data-1 /b/data-1; ! touch /a/x 2>/dev/null"),
            json!({"volumeMounts": mounts}),
        );
        pod(name, json!({"restartPolicy": "Never", "volumes": volumes, "containers": [container]}))
    };
    let sources = json!([{"configMap": {"name": "configmap-test"}}, {"secret": {"name": "secret-test", "items": [{"key": "data-1", "path": "secret"}]}},
        {"downwardAPI": {"items": [{"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}}]}}]);
    let all = with(
        shell("a", "cat /all/podname /all/secret /all/data-1"),
        json!({"volumeMounts": [{"name": "all", "mountPath": "/all"}]}),
    );
    let projected = pod(
        "all-in-one",
        json!({"restartPolicy": "Never", "containers": [all], "volumes": [{"name": "all", "projected": {"sources": sources}}]}),
    );
    let fs_group = |name: &str, projected| {
        let one = as_user(case("", object("secret", projected, Some(0o440), None), "data-1", ""), 1000);
        gather(name, &[one], json!({"fsGroup": 1001}))
    };
    let shared = json!([{"name": "share", "mountPath": "/usr/share/volumeshare"}]);
    let writer = with(
        shell(
            "a",
            "until test -e /usr/share/volumeshare/f; do usleep 10000; done; cat /usr/share/volumeshare/f",
        ),
        json!({"volumeMounts": shared}),
    );
    let reader = with(
        shell(
            "b",
            "printf 'Hello from the busy-box sub-container' > /usr/share/volumeshare/g; mv /usr/share/volumeshare/g /usr/share/volumeshare/f",
        ),
        json!({"volumeMounts": shared}),
    );
    let two = pod(
        "two-share",
        json!({"restartPolicy": "Never", "containers": [writer, reader], "volumes": [{"name": "share", "emptyDir": {}}]}),
    );
    vec![
        (
            "ConfigMap should be consumable in multiple volumes in the same pod",
            twice("configmap-twice", "configMap", false),
            "value-1value-1",
        ),
        (
            "Projected configMap should be consumable in multiple volumes in the same pod",
            twice("projected-configmap-twice", "configMap", true),
            "value-1value-1",
        ),
        (
            "Secrets should be consumable in multiple volumes in a pod",
            twice("secret-twice", "secret", false),
            "value-1value-1",
        ),
        (
            "Projected secret should be consumable in multiple volumes in a pod",
            twice("projected-secret-twice", "secret", true),
            "value-1value-1",
        ),
        ("Projected combined should project all components", projected, "all-in-onevalue-1value-1"),
        (
            "Secrets … as non-root with defaultMode and fsGroup set",
            fs_group("secret-group", false),
            "440\nvalue-1",
        ),
        (
            "Projected secret … as non-root with defaultMode and fsGroup set",
            fs_group("projected-secret-group", true),
            "440\nvalue-1",
        ),
        (
            "EmptyDir volumes pod should support shared volumes between containers",
            two,
            "Hello from the busy-box sub-container",
        ),
        ("Subpath Atomic writer volumes", sub_paths(), "value-1 value-1 sub-paths value-1 value-1"),
        ("EmptyDir wrapper volumes should not conflict", wrapped(), "value-1value-1"),
    ]
}

fn sub_paths() -> Value {
    let podname = json!({"path": "downward/podname", "fieldRef": {"fieldPath": "metadata.name"}});
    let volumes = json!([
        with(json!({"name": "configmap"}), object("configMap", false, None, None)),
        with(json!({"name": "secret"}), object("secret", false, None, None)),
        {"name": "downward", "downwardAPI": {"items": [podname]}},
        with(json!({"name": "projected"}), object("configMap", true, None, Some(items("data-1", "projected/key", None)))),
    ]);
    let mounts = json!([
        {"name": "configmap", "mountPath": "/one", "subPath": "data-1"}, {"name": "secret", "mountPath": "/two", "subPath": "data-1"},
        {"name": "downward", "mountPath": "/three", "subPath": "downward/podname"}, {"name": "projected", "mountPath": "/four", "subPath": "projected"},
        {"name": "configmap", "mountPath": "/etc/resolv.conf", "subPath": "data-1"},
    ]);
    let script = "echo $(cat /one) $(cat /two) $(cat /three) $(cat /four/key) $(cat /etc/resolv.conf)";
    let container = with(shell("a", script), json!({"volumeMounts": mounts}));
    pod("sub-paths", json!({"restartPolicy": "Never", "volumes": volumes, "containers": [container]}))
}

fn wrapped() -> Value {
    let volumes = json!([with(json!({"name": "s"}), object("secret", false, None, None)), with(json!({"name": "c"}), object("configMap", false, None, None)),
        {"name": "e", "emptyDir": {}}]);
    let mounts = json!([{"name": "s", "mountPath": "/e/s"}, {"name": "c", "mountPath": "/e/c"}, {"name": "e", "mountPath": "/e"}]);
    let container = with(shell("a", "cat /e/s/data-1 /e/c/data-1"), json!({"volumeMounts": mounts}));
    pod("wrapped", json!({"restartPolicy": "Never", "volumes": volumes, "containers": [container]}))
}

/// Pods with a case in each container.
fn gathered() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("configmaps", config_maps(false)),
        ("projected-configmaps", config_maps(true)),
        ("secrets", secrets(false)),
        ("projected-secrets", secrets(true)),
        ("downward", downward(false)),
        ("projected-downward", downward(true)),
        ("empty-dirs", empty_dirs()),
    ]
}

const RACERS: usize = 3;
const RACED: usize = 50;

/// Makes the objects and pods; they run while the first cases are looked at.
pub fn begin(cluster: &Cluster) {
    let data = json!({"data-1": "value-1", "data-2": "value-2", "data-3": "value-3"});
    let secret = |namespace: &str, value: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret-test", "namespace": namespace}, "stringData": {"data-1": value}});
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}),
        secret("other", "this should not match"),
        secret("default", "value-1"),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "configmap-test"}, "data": data, "binaryData": {"dump.bin": "3sr+utD+/w=="}}),
    ];
    objects.extend(gathered().into_iter().map(|(name, cases)| gather(name, &cases, json!({}))));
    objects.extend(together().into_iter().map(|(_, pod, _)| pod));
    cluster.create(&objects);
    let maps: Vec<_> = (0..RACED)
        .map(|i| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("racey-{i}")}, "data": {"data-1": "value-1"}}))
        .collect();
    cluster.create(&maps);
    let (volumes, mounts): (Vec<_>, Vec<_>) = (0..RACED)
        .map(|i| {
            let name = format!("racey-{i}");
            (json!({"name": name, "configMap": {"name": name, "items": [{"key": "data-1", "path": "data-1"}]}}), json!({"name": name, "mountPath": format!("/etc/config-{i}")}))
        })
        .unzip();
    let container = with(shell("a", "sleep 10000"), json!({"volumeMounts": mounts}));
    let template = json!({"metadata": {"labels": {"name": "race"}}, "spec": {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0}});
    cluster.create(&[json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "race"}, "spec": {"replicas": RACERS, "selector": {"name": "race"}, "template": template}})]);
}

/// Every case, and pods with fifty volumes each.
pub fn volumes_hold_what_their_sources_say(cluster: &Cluster, wrong: &mut Wrong) {
    for (name, cases) in gathered() {
        cluster.ended(name);
        for (i, case) in cases.iter().enumerate() {
            let printed = cluster.logs(name, &format!("c{i}"));
            wrong.unless(
                printed.trim() == case.expected,
                &format!("{name}: {} {}", case.behaviour, case.script),
                printed,
            );
        }
    }
    for (behaviour, pod, expected) in together() {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let status = cluster.ended(name)["status"].clone();
        let printed = cluster.logs(name, pod["spec"]["containers"][0]["name"].as_str().unwrap());
        let right = printed.trim() == expected && status["phase"] == "Succeeded";
        wrong.unless(right, behaviour, format!("{printed} {status}"));
    }
    let raced = cluster.until("pods -l name=race", |list| {
        let pods = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        pods.len() == RACERS && pods.iter().all(super::is_ready)
    });
    wrong
        .if_never(raced, "EmptyDir wrapper volumes should not cause race condition when used for configmaps");
    cluster.node.kubectl(&["delete", "rc", "race"]);
}
