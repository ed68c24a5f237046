//! What a one-node cluster costs: time to start, time to the first pods, memory and processor time when idle.
//!
//! `cargo bench --bench one_node` (as root) prints a table; `docs/benchmarks.md` keeps the figures. The node lives in
//! namespaces of its own, as in the host tests.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[path = "../tests/host/node.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod node;

use node::{Node, text, unavailable};

const ROUNDS: usize = 5;
const IDLE: Duration = Duration::from_secs(60);

fn main() {
    if let Some(reason) = unavailable() {
        println!("skipped: {reason}");
        return;
    }
    let mut starts: Vec<Start> = (1..ROUNDS).map(|_| start().0).collect();
    let (last, node) = start();
    starts.push(last);
    let apply = apply(&node);
    let (cpu, memory) = idle(&node);
    let binary = std::fs::metadata(env!("CARGO_BIN_EXE_kube-lite")).map_or(0, |file| file.len());
    println!("| what | must reach | reached |");
    println!("| --- | --- | --- |");
    let median_of = |pick: fn(&Start) -> Duration| median(starts.iter().map(pick).collect());
    println!(
        "| empty directory to `/readyz` ok, median of {ROUNDS} | 1.0 s | {:.2} s |",
        median_of(|s| s.api)
    );
    println!("| the same to node Ready, median of {ROUNDS} | 3.0 s | {:.2} s |", median_of(|s| s.node));
    println!("| apply of hello.yaml to 3 pods Ready | 2.0 s | {:.2} s |", apply.as_secs_f64());
    println!("| resident memory, idle, hello.yaml running | 64 MiB | {memory:.1} MiB |");
    println!("| CPU, idle, over {} s, hello.yaml running | 2 % | {cpu:.2} % |", IDLE.as_secs());
    println!("| release binary | 40 MiB | {:.1} MiB |", binary as f64 / 1048576.0);
}

struct Start {
    api: Duration,
    node: Duration,
}

/// Starts a server on an empty directory and measures until it answers and until its node is Ready.
fn start() -> (Start, Node) {
    let mut node = Node::new();
    std::fs::create_dir_all(node.images()).expect("the images directory");
    std::fs::write(node.dir().join("config.yaml"), "").expect("a configuration file");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/hello-image.sh");
    let built = Command::new(script).arg(node.images().join("hello.tar")).output().expect("the image");
    assert!(built.status.success(), "{}", text(&built));
    let begin = Instant::now();
    node.start_server();
    until(&node, "curl -sk --max-time 1 https://127.0.0.1:6443/readyz | grep -q '^ok'");
    let api = begin.elapsed();
    let ask = as_admin(node.dir(), "/api/v1/nodes/node-1");
    until(
        &node,
        &format!(
            "{ask} | tr -d ' \\n' | grep -o '{{[^{{}}]*\"type\":\"Ready\"[^{{}}]*}}' | grep -q '\"status\":\"True\"'"
        ),
    );
    (Start { api, node: begin.elapsed() }, node)
}

fn as_admin(dir: &Path, path: &str) -> String {
    let tls = dir.join("data/server/tls");
    let tls = tls.display();
    format!(
        "curl -s --max-time 1 --cacert {tls}/server-ca.crt --cert {tls}/client-admin.crt --key {tls}/client-admin.key \
         https://127.0.0.1:6443{path}"
    )
}

/// Tries a shell condition every 10 ms until it holds.
fn until(node: &Node, condition: &str) {
    let script = format!("for turn in $(seq 6000); do {condition} && exit 0; sleep 0.01; done; exit 1");
    let output = node.shell(&script);
    assert!(output.status.success(), "{condition}: {}", text(&output));
}

fn apply(node: &Node) -> Duration {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/hello.yaml");
    let begin = Instant::now();
    node.kubectl(&["apply", "-f", example]);
    let ask = as_admin(node.dir(), "/apis/apps/v1/namespaces/default/deployments/hello");
    until(node, &format!("{ask} | tr -d ' \\n' | grep -q '\"readyReplicas\":3'"));
    begin.elapsed()
}

/// Processor time in percent of one core, and resident memory in MiB, of the kube-lite process over a quiet minute.
fn idle(node: &Node) -> (f64, f64) {
    let output = node.shell("pgrep -x kube-lite | head -n 1");
    let pid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let ticks = || -> f64 {
        let output = node.shell(&format!("cut -d' ' -f14,15 /proc/{pid}/stat"));
        String::from_utf8_lossy(&output.stdout).split_whitespace().filter_map(|n| n.parse::<f64>().ok()).sum()
    };
    node.shell("sleep 20");
    let before = ticks();
    node.shell(&format!("sleep {}", IDLE.as_secs()));
    // The kernel counts 100 ticks a second: ticks over seconds are percent.
    let cpu = (ticks() - before) / IDLE.as_secs_f64();
    let output = node.shell(&format!("awk '/VmRSS/ {{ print $2 }}' /proc/{pid}/status"));
    let memory = String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().unwrap_or(f64::NAN) / 1024.0;
    (cpu, memory)
}

fn median(mut values: Vec<Duration>) -> f64 {
    values.sort();
    values[values.len() / 2].as_secs_f64()
}
