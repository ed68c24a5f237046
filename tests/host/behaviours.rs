//! `[sig-node]`, `[sig-storage]` and `[sig-network]`: what upstream's conformance suite asserts of running pods, played
//! with the same specs on one cluster. Each case is named after its behaviour; all cases run before any failure is told.

mod containers;
mod hooks;
mod network;
mod pods;
mod statuses;
mod updates;
mod volumes;

use std::process::Command;

use serde_json::{Value, json};

use crate::main_job::prepare;
use crate::node::{Node, unavailable};

const AGNHOST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/agnhost.py");
/// The image of the tests: busybox and bash.
const IMAGE: &str = "localhost/hello:1";

/// Cases that belong together.
type Part = fn(&Cluster, &mut Wrong);

/// What is wrong, collected over all cases.
#[derive(Default)]
pub struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, right: bool, behaviour: &str, seen: impl std::fmt::Display) {
        if !right {
            self.0.push(format!("{behaviour}: {seen}"));
        }
    }

    /// What never came is wrong; its status tells.
    fn if_never(&mut self, seen: Result<Value, Value>, behaviour: &str) {
        if let Err(last) = seen {
            let status = last.get("status").cloned().unwrap_or(last);
            self.0.push(format!("{behaviour}: {status}"));
        }
    }
}

impl Drop for Wrong {
    /// A case that panics must not hide what was found before it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} behaviours differ:\n{}", self.0.len(), self.0.join("\n"));
        }
    }
}

#[test]
fn pods_behave_as_the_conformance_suite_asserts() {
    let Some(cluster) = Cluster::start() else { return };
    let mut wrong = Wrong::default();
    volumes::begin(&cluster);
    containers::begin(&cluster);
    statuses::begin(&cluster);
    let parts: [(&str, Part); 7] = [
        ("volumes", volumes::volumes_hold_what_their_sources_say),
        ("containers", containers::containers_run_as_their_specs_say),
        ("updates", updates::updates_are_reflected_in_volumes),
        ("pods", pods::pods_are_shown_changed_and_removed),
        ("hooks", hooks::hooks_and_probes_do_what_they_should),
        ("statuses", statuses::statuses_say_how_containers_ended),
        ("network", network::services_and_names_lead_to_pods),
    ];
    for (name, part) in parts {
        let begin = std::time::Instant::now();
        part(&cluster, &mut wrong);
        println!("{name}: {} s", begin.elapsed().as_secs());
    }
    assert!(wrong.0.is_empty(), "some behaviours differ");
}

/// A cluster of one node, and what the cases do with it.
pub struct Cluster {
    pub node: Node,
    /// Where Python and its libraries are on this host.
    python: Vec<String>,
}

impl Cluster {
    /// A Ready node with the images; nothing where such a test cannot run.
    fn start() -> Option<Self> {
        if let Some(reason) = unavailable() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let mut node = Node::new();
        prepare(&node);
        std::fs::write(node.images().join("entry.tar"), containers::entry_image()).unwrap();
        std::fs::copy(AGNHOST, node.dir().join("agnhost.py")).unwrap();
        let script = "import sys; print(sys.executable); print(sys.base_prefix)";
        let printed = Command::new("python3").args(["-c", script]).output().unwrap();
        let python = String::from_utf8(printed.stdout).unwrap().lines().map(str::to_owned).collect();
        node.start_server();
        node.wait_for_kubectl("the node is Ready", "get nodes --no-headers", |out| {
            out.split_whitespace().nth(1) == Some("Ready")
        });
        let account = "get serviceaccount default -o jsonpath={.metadata.name}";
        node.wait_for_kubectl("the account of pods is there", account, |out| out == "default");
        Some(Self { node, python })
    }

    /// Makes all objects in one go.
    pub fn create(&self, objects: &[Value]) {
        let file = self.node.dir().join("objects.json");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        std::fs::write(&file, list.to_string()).unwrap();
        self.node.kubectl(&["create", "-f", file.to_str().unwrap()]);
    }

    pub fn get(&self, what: &str) -> Value {
        let words = ["get"].into_iter().chain(what.split(' ')).chain(["-o", "json"]);
        serde_json::from_str(&self.node.kubectl(&words.collect::<Vec<_>>())).unwrap()
    }

    /// Asks until it is accepted; what was seen last where that never comes.
    pub fn until(&self, what: &str, accept: impl Fn(&Value) -> bool) -> Result<Value, Value> {
        let begin = std::time::Instant::now();
        loop {
            let output = self.node.shell(&format!("kubectl get {what} -o json"));
            let seen: Value = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|_| String::from_utf8_lossy(&output.stderr).into_owned().into());
            if accept(&seen) {
                return Ok(seen);
            }
            if begin.elapsed() > crate::node::PATIENCE {
                return Err(seen);
            }
        }
    }

    /// The pod as it is once it has ended.
    pub fn ended(&self, pod: &str) -> Value {
        let end = |pod: &Value| {
            ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default())
        };
        self.until(&format!("pod {pod}"), end).unwrap_or_else(|seen| seen)
    }

    /// The pod once it is Ready.
    pub fn ready(&self, pod: &str) -> Value {
        self.until(&format!("pod {pod}"), is_ready)
            .unwrap_or_else(|seen| panic!("{pod} is not ready: {}", seen["status"]))
    }

    pub fn logs(&self, pod: &str, container: &str) -> String {
        let output = self.node.shell(&format!("kubectl logs {pod} -c {container}"));
        crate::node::text(&output).lines().skip(1).collect::<Vec<_>>().join("\n")
    }

    /// What a command prints in a container; its errors too.
    pub fn exec(&self, pod: &str, script: &str) -> String {
        let output =
            self.node.finish(self.node.inside("kubectl").args(["exec", pod, "--", "sh", "-c", script]));
        crate::node::text(&output).lines().skip(1).collect::<Vec<_>>().join("\n")
    }

    /// What a pod of the test image gets from a URL, so many times.
    pub fn ask(&self, pod: &str, url: &str, times: usize) -> String {
        self.exec(pod, &format!("{} /agnhost.py ask {times} '{url}'", self.python[0]))
    }

    /// A pod that runs the program of upstream's test image.
    pub fn agnhost(&self, name: &str, words: &[&str]) -> Value {
        let (program, prefix) = (&self.python[0], &self.python[1]);
        let script = self.node.dir().join("agnhost.py").display().to_string();
        let command: Vec<&str> = [program.as_str(), "/agnhost.py"].iter().chain(words).copied().collect();
        let mut places = vec![(script.as_str(), "/agnhost.py"), ("/usr", "/usr")];
        if prefix != "/usr" {
            places.push((prefix, prefix));
        }
        let volumes: Vec<Value> = places
            .iter()
            .enumerate()
            .map(|(i, (host, _))| json!({"name": format!("h{i}"), "hostPath": {"path": host}}))
            .collect();
        let mounts: Vec<Value> = places
            .iter()
            .enumerate()
            .map(|(i, (_, path))| json!({"name": format!("h{i}"), "mountPath": path, "readOnly": true}))
            .collect();
        let container =
            json!({"name": "agnhost", "image": IMAGE, "command": command, "volumeMounts": mounts});
        pod(name, json!({"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0}))
    }
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

pub fn pod(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"name": name}}, "spec": spec})
}

/// A container that runs a shell script.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": IMAGE, "command": ["sh", "-c", script]})
}

/// `base` with the fields of `more`.
pub fn with(mut base: Value, more: Value) -> Value {
    for (field, value) in more.as_object().unwrap() {
        base[field] = value.clone();
    }
    base
}

/// A pod that runs a script once, with more in its spec.
pub fn once(name: &str, script: &str, more: Value) -> Value {
    pod(name, with(json!({"restartPolicy": "Never", "containers": [shell("a", script)]}), more))
}
