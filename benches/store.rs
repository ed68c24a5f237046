//! What storage costs, through the API of a whole server: durable creates, restarts, bytes that go to the disk, size of
//! the file under churn, memory of cached objects, and how soon a thousand watchers see a write.
//!
//! `cargo bench --bench store` runs all of it; names after `--` choose: `creates`, `etcd`, `restart`, `churn`,
//! `rewrite`, `watchers`.
//! `--scale 0.01` does a hundredth of the work, to try it. etcd is Debian's, one member, its data in the same kind of
//! directory. Every part starts a server of its own on an empty directory (`TMPDIR` says where).

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

#[path = "load/client.rs"]
#[allow(dead_code, reason = "other benchmarks need more of it")]
mod client;
#[path = "load/objects.rs"]
#[allow(dead_code, reason = "other benchmarks need more of it")]
mod objects;
#[path = "load/target.rs"]
#[allow(dead_code, reason = "other benchmarks need more of it")]
mod target;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;

use client::{Client, Figures, run};
use objects::{changed_config_map, collection, config_map};
use target::{Endpoint, Target};

const CLIENTS: usize = 64;
const CONNECTIONS: usize = 8;
const JSON: &str = "application/json";
/// The payload that makes a ConfigMap 1 KB when stored.
const PAYLOAD: usize = 700;
const CREATES: usize = 40_000;
const RESTART: usize = 50_000;
const LIVE: usize = 10_000;
const UPDATES: usize = 1_000_000;
const WATCHERS: usize = 1_000;
/// Connections that the watchers share.
const WATCHING: usize = 100;
const WRITES: usize = 3_000;
const WRITE_EVERY: Duration = Duration::from_millis(10);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let place = arguments.iter().position(|word| word == "--scale");
    let scale: f64 = place.map_or(1.0, |place| arguments[place + 1].parse().expect("--scale NUMBER"));
    let chosen: Vec<&String> = match place {
        Some(place) => arguments[..place].iter().chain(&arguments[place + 2..]).collect(),
        None => arguments.iter().collect(),
    };
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|word| *word == part);
    let of = |count: usize| ((count as f64 * scale) as usize).max(CLIENTS);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if wanted("creates") {
            creates("SQLite", &Target::kube_lite(&[]), of(CREATES)).await;
        }
        if wanted("etcd") {
            let etcd = Etcd::start();
            let target = Target::kube_lite(&["--datastore-endpoint".to_owned(), etcd.url.clone()]);
            creates("etcd, processor time of kube-lite alone", &target, of(CREATES)).await;
        }
        if wanted("restart") {
            restart(of(RESTART)).await;
        }
        if wanted("churn") {
            churn(of(LIVE), of(UPDATES), "of a label", config_map).await;
        }
        if wanted("rewrite") {
            churn(of(LIVE), of(UPDATES / 5), "of all data", changed_config_map).await;
        }
        if wanted("watchers") {
            watchers(of(WATCHERS), of(WRITES)).await;
        }
    });
}

/// One member; it ends with the benchmark.
struct Etcd {
    child: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Self {
        let url = || format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        let (client, peer, directory) = (url(), url(), tempfile::tempdir().unwrap());
        let child = Command::new("etcd")
            .args(["--name", "m0", "--logger", "zap", "--quota-backend-bytes", "8589934592"])
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m0={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd runs: apt-get install etcd-server");
        Self { child, url: client, _directory: directory }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn text(value: &serde_json::Value) -> Bytes {
    value.to_string().into()
}

async fn connect(target: &Target) -> Client {
    let client = Client::connect(&Endpoint::read(&target.kubeconfig), CONNECTIONS).await;
    let namespace = serde_json::json!({"metadata": {"name": objects::NAMESPACE}});
    client.send(Method::POST, "/api/v1/namespaces", JSON, text(&namespace)).await;
    client
}

fn tell(what: &str, target: &Target, figures: &Figures, written: u64) {
    println!(
        "{what}: {:.0}/s, p50 {:.1} ms, p99 {:.1} ms, CPU {:.0} µs each, {:.2} KB to disk each, resident {:.0} MiB",
        figures.per_second(),
        figures.percentile(0.5),
        figures.percentile(0.99),
        figures.cpu_micros(),
        (target.written() - written) as f64 / figures.requests as f64 / 1e3,
        target.memory(),
    );
}

/// Creates from 64 clients.
async fn fill(target: &Target, client: &Client, count: usize) -> Figures {
    fill_from(target, client, 0, count).await
}

async fn fill_from(target: &Target, client: &Client, from: usize, to: usize) -> Figures {
    let client = client.clone();
    run(target, to - from, CLIENTS, move |turn| {
        let client = client.clone();
        async move {
            let body = text(&config_map(&format!("load-{}", from + turn), PAYLOAD, "0"));
            client.expect(Method::POST, &collection("configmaps"), JSON, body).await;
        }
    })
    .await
}

async fn creates(what: &str, target: &Target, count: usize) {
    let client = connect(target).await;
    let written = target.written();
    let figures = fill(target, &client, count).await;
    tell(&format!("{count} durable creates of 1 KB, {CLIENTS} clients, {what}"), target, &figures, written);
}

/// Kills and starts the server with half of the objects, then with all: the difference is what objects cost, without what
/// a server has anyway. The result is its memory without files, in bytes.
async fn restarted(target: &mut Target) -> (f64, Duration) {
    let begin = Instant::now();
    target.restart();
    target.wait();
    let client = Client::connect(&Endpoint::read(&target.kubeconfig), 1).await;
    client.expect(Method::GET, "/readyz", JSON, "").await;
    (target.anonymous() * 1_048_576.0, begin.elapsed())
}

async fn restart(count: usize) {
    let mut target = Target::kube_lite(&[]);
    let mut figures = Vec::new();
    for (from, to) in [(0, count / 2), (count / 2, count)] {
        let client = connect(&target).await;
        fill_from(&target, &client, from, to).await;
        let listed = client.expect(Method::GET, &collection("configmaps"), JSON, "").await.len() as f64;
        let (memory, ready) = restarted(&mut target).await;
        figures.push((memory, ready, listed));
    }
    let ((half, _, half_listed), (full, ready, listed)) = (figures[0], figures[1]);
    let over = ((full - half) - (listed - half_listed)) / (count - count / 2) as f64;
    println!(
        "restart after kill -9 with {count} objects to /readyz: {:.2} s; memory {:.0} MiB with half of them, {:.0} MiB \
         with all, whose JSON has {:.0} MiB: {over:.0} bytes over its JSON for each object",
        ready.as_secs_f64(),
        half / 1_048_576.0,
        full / 1_048_576.0,
        listed / 1_048_576.0,
    );
}

async fn churn(live: usize, updates: usize, what: &str, object: fn(&str, usize, &str) -> serde_json::Value) {
    let target = Target::kube_lite(&[]);
    let client = connect(&target).await;
    fill(&target, &client, live).await;
    let listed = client.expect(Method::GET, &collection("configmaps"), JSON, "").await.len();
    let written = target.written();
    let peak = Arc::new(AtomicUsize::new(0));
    let target = Arc::new(target);
    let figures = run(&target, updates, CLIENTS, {
        let (client, target, peak) = (client.clone(), target.clone(), peak.clone());
        move |turn| {
            let (client, target, peak) = (client.clone(), target.clone(), peak.clone());
            async move {
                // Spread over all objects, never two writers on one.
                let name = format!("load-{}", turn.wrapping_mul(7919) % live);
                let body = text(&object(&name, PAYLOAD, &turn.to_string()));
                client.expect(Method::PUT, &format!("{}/{name}", collection("configmaps")), JSON, body).await;
                if turn.is_multiple_of(1_000) {
                    peak.fetch_max(target.database().0 as usize, Ordering::Relaxed);
                }
            }
        }
    })
    .await;
    tell(&format!("{updates} durable updates {what} of 1 KB, {CLIENTS} clients"), &target, &figures, written);
    let ((size, log), peak) = (target.database(), peak.load(Ordering::Relaxed));
    println!(
        "the datastore afterwards: {:.1} MB, at most {:.1} MB, for {:.1} MB of live data: {:.2} times as much; its \
         write-ahead log {:.1} MB",
        size as f64 / 1e6,
        peak as f64 / 1e6,
        listed as f64 / 1e6,
        size as f64 / listed as f64,
        log as f64 / 1e6,
    );
}

/// By how many watchers a write has been seen, and when by all.
struct Write {
    seen: AtomicUsize,
    all_seen: Mutex<Option<Instant>>,
}

async fn watchers(count: usize, writes: usize) {
    let target = Target::kube_lite(&[]);
    let client = connect(&target).await;
    fill(&target, &client, CLIENTS).await;
    let blank = || Write { seen: AtomicUsize::new(0), all_seen: Mutex::default() };
    let all: Arc<Vec<Write>> = Arc::new((0..writes).map(|_| blank()).collect());
    let watching = Client::connect(&Endpoint::read(&target.kubeconfig), WATCHING.min(count)).await;
    let listed = client.expect(Method::GET, &format!("{}?limit=1", collection("configmaps")), JSON, "").await;
    let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    let from = listed["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{}?watch=1&resourceVersion={from}", collection("configmaps"));
    let (done, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    for _ in 0..count {
        let mut body = watching.open(Method::GET, &path, JSON, Bytes::new()).await.into_body();
        let (all, done) = (all.clone(), done.clone());
        tokio::spawn(async move {
            let mut turn = 0;
            while let Some(Ok(frame)) = body.frame().await {
                let lines =
                    frame.data_ref().map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
                for _ in 0..lines {
                    let Some(write) = all.get(turn) else { return };
                    if write.seen.fetch_add(1, Ordering::Relaxed) + 1 == count {
                        *write.all_seen.lock().unwrap() = Some(Instant::now());
                    }
                    turn += 1;
                }
                if turn == all.len() {
                    return drop(done);
                }
            }
        });
    }
    drop(done);
    let (begin, cpu) = (Instant::now(), target.cpu());
    // Writes are sent when their time has come, whether or not those before them have been answered.
    let mut ticks = tokio::time::interval(WRITE_EVERY);
    let mut writers = tokio::task::JoinSet::new();
    for turn in 0..writes {
        ticks.tick().await;
        let client = client.clone();
        writers.spawn(async move {
            let name = format!("load-{}", turn % CLIENTS);
            let body = text(&config_map(&name, PAYLOAD, &format!("watched-{turn}")));
            let sent = Instant::now();
            let path = format!("{}/{name}", collection("configmaps"));
            let answer = client.expect(Method::PUT, &path, JSON, body).await;
            let answered = Instant::now();
            let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            let version = answer["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
            (version, sent, answered)
        });
    }
    let mut sent = writers.join_all().await;
    // As watchers see them.
    sent.sort();
    let writing = begin.elapsed();
    // Nothing is sent: it ends when every watcher has seen everything.
    tokio::time::timeout(Duration::from_secs(60), ended.recv())
        .await
        .expect("every watcher sees every write");
    let cpu = target.cpu() - cpu;
    let since = |from: Instant, write: &Write| {
        write.all_seen.lock().unwrap().unwrap().saturating_duration_since(from).as_secs_f64() * 1e3
    };
    let p99 = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[(times.len() - 1) * 99 / 100]
    };
    println!(
        "{count} watchers of one namespace, {:.0} writes/s: last delivery p99 {:.1} ms after the write was answered, \
         {:.1} ms after it was sent; CPU {:.1} µs for each delivery",
        writes as f64 / writing.as_secs_f64(),
        p99(sent.iter().zip(all.iter()).map(|((.., answered), write)| since(*answered, write)).collect()),
        p99(sent.iter().zip(all.iter()).map(|((_, sent, _), write)| since(*sent, write)).collect()),
        cpu.as_secs_f64() * 1e6 / (writes * count) as f64,
    );
}
