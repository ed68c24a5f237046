//! A load generator for any Kubernetes API server: requests per second, latencies, and the server's processor time for
//! each request.
//!
//! `cargo bench --bench api` measures `kube-lite server` on an empty directory, and the floor: axum and rustls with a
//! static answer. `cargo bench --bench api -- --kubeconfig FILE --pids PID,PID` measures a server that runs already, such
//! as upstream's with its etcd; the processor time is that of the processes named. Arguments after `--server` go to
//! `kube-lite server`. Two thousand objects, 32 clients, 4 HTTP/2 connections, mutual TLS.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

#[path = "load/client.rs"]
mod client;
#[path = "load/floor.rs"]
mod floor;
#[path = "load/objects.rs"]
#[allow(dead_code, reason = "other benchmarks need more of it")]
mod objects;
#[path = "load/target.rs"]
#[allow(dead_code, reason = "other benchmarks need more of it")]
mod target;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use tokio::sync::Notify;

use client::{Client, Figures, run};
use objects::{collection, config_map, pod};
use target::{Endpoint, Target};

const OBJECTS: usize = 2_000;
const READS: usize = 20_000;
const LISTS: usize = 40;
const MANY: usize = 20_000;
const CLIENTS: usize = 32;
const CONNECTIONS: usize = 4;
const WATCHERS: usize = 100;
const EVENTS: usize = 500;
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
/// The payload that makes a ConfigMap 1.4 KB when stored.
const PAYLOAD: usize = 1_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let value = |flag: &str| {
        let place = arguments.iter().position(|word| word == flag)?;
        arguments.get(place + 1).cloned()
    };
    if let Some(size) = value("--serve-floor") {
        let kubeconfig = value("--kubeconfig").expect("--kubeconfig");
        return runtime.block_on(floor::serve(&kubeconfig, size.parse().expect("a size")));
    }
    if let Some(kubeconfig) = value("--kubeconfig") {
        let target = Target::other(&kubeconfig, &value("--pids").unwrap_or_default());
        return runtime.block_on(measure(&target));
    }
    let server = arguments.iter().position(|word| word == "--server");
    let target = Target::kube_lite(server.map_or(&[][..], |place| &arguments[place + 1..]));
    let listed = runtime.block_on(async {
        measure(&target).await;
        let client = Client::connect(&Endpoint::read(&target.kubeconfig), 1).await;
        client.expect(Method::GET, &collection("pods"), JSON, "").await.len()
    });
    drop(target);
    for (what, size, requests) in [("GET of 1.4 KB", 1_400, READS), ("a list", listed, LISTS)] {
        let figures = runtime.block_on(measure_floor(size, requests));
        row(&format!("floor: {what} ({size} bytes)"), &figures);
    }
}

fn row(what: &str, figures: &Figures) {
    println!(
        "| {what} | {:.0} | {:.2} | {:.2} | {:.0} |",
        figures.per_second(),
        figures.percentile(0.5),
        figures.percentile(0.99),
        figures.cpu_micros(),
    );
}

/// Runs every operation once and prints a row for each.
async fn measure(target: &Target) {
    let client = Client::connect(&Endpoint::read(&target.kubeconfig), CONNECTIONS).await;
    prepare(&client).await;
    println!("| operation | requests/s | p50 ms | p99 ms | server CPU µs/request |");
    println!("| --- | --- | --- | --- | --- |");
    config_maps(target, &client).await;
    let plain = watched(target, &client, 0).await;
    let watched = watched(target, &client, WATCHERS).await;
    pods(target, &client).await;
    let extra = (watched.cpu.as_secs_f64() - plain.cpu.as_secs_f64()).max(0.0);
    println!();
    println!(
        "one watch event to one of {WATCHERS} watchers: {:.1} µs",
        extra * 1e6 / (EVENTS * WATCHERS) as f64
    );
    memory(target, &client).await;
}

async fn prepare(client: &Client) {
    let namespace = serde_json::json!({"metadata": {"name": objects::NAMESPACE}}).to_string();
    client.send(Method::POST, "/api/v1/namespaces", JSON, namespace.into()).await;
    let account = serde_json::json!({"metadata": {"name": "default"}}).to_string();
    client.send(Method::POST, &collection("serviceaccounts"), JSON, account.into()).await;
    for plural in ["pods", "configmaps"] {
        client
            .expect(Method::DELETE, &format!("{}?gracePeriodSeconds=0", collection(plural)), JSON, "")
            .await;
    }
}

/// One request for each of `requests` objects.
async fn each<B: Fn(usize) -> Bytes + Clone + Send + Sync + 'static>(
    target: &Target,
    client: &Client,
    (requests, clients): (usize, usize),
    (method, plural, kind): (Method, &'static str, &'static str),
    body: B,
) -> Figures {
    let client = client.clone();
    run(target, requests, clients, move |turn| {
        let (client, method, body) = (client.clone(), method.clone(), body(turn));
        async move {
            let path = match method {
                Method::POST => collection(plural),
                _ => format!("{}/load-{}", collection(plural), turn % OBJECTS),
            };
            client.expect(method, &path, kind, body).await;
        }
    })
    .await
}

fn text(value: &serde_json::Value) -> Bytes {
    value.to_string().into()
}

async fn config_maps(target: &Target, client: &Client) {
    let plural = "configmaps";
    let load = (OBJECTS, CLIENTS);
    let object = |round: &'static str| move |turn| text(&config_map(&format!("load-{turn}"), PAYLOAD, round));
    row("create ConfigMap", &each(target, client, load, (Method::POST, plural, JSON), object("1")).await);
    let read = (Method::GET, plural, JSON);
    row("GET ConfigMap", &each(target, client, (READS, CLIENTS), read, |_| Bytes::new()).await);
    row("update ConfigMap", &each(target, client, load, (Method::PUT, plural, JSON), object("2")).await);
    let patch = |_| text(&serde_json::json!({"metadata": {"labels": {"round": "3"}}}));
    row("merge patch ConfigMap", &each(target, client, load, (Method::PATCH, plural, MERGE), patch).await);
    let delete = (Method::DELETE, plural, JSON);
    row("delete ConfigMap", &each(target, client, load, delete, |_| Bytes::new()).await);
    let small = |turn| text(&config_map(&format!("load-{turn}"), 700, "1"));
    let durable = each(target, client, (OBJECTS * 5, 64), (Method::POST, plural, JSON), small).await;
    row("create of 1 KB, 64 clients", &durable);
}

async fn pods(target: &Target, client: &Client) {
    let make = |turn| text(&pod(&format!("load-{turn}")));
    let create = (Method::POST, "pods", JSON);
    row("create Pod", &each(target, client, (OBJECTS, CLIENTS), create, make).await);
    let reader = client.clone();
    let lists = run(target, LISTS, 4, move |_| {
        let client = reader.clone();
        async move { drop(client.expect(Method::GET, &collection("pods"), JSON, "").await) }
    });
    row("list of 2,000 pods", &lists.await);
}

/// Updates one ConfigMap while `watchers` watch it; the figures hold what the watches cost, too.
async fn watched(target: &Target, client: &Client, watchers: usize) -> Figures {
    let path =
        format!("{}?watch=1&fieldSelector=metadata.name=load-0&resourceVersion=0", collection("configmaps"));
    let (seen, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (expected, mut tasks) = (watchers * EVENTS, Vec::new());
    for _ in 0..watchers {
        let mut body = client.open(Method::GET, &path, JSON, Bytes::new()).await.into_body();
        let (seen, all) = (seen.clone(), all.clone());
        // The first event tells that the watch is there; it is not one of those counted.
        let first = body.frame().await;
        assert!(first.is_some_and(|frame| frame.is_ok()), "a watch");
        tasks.push(tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                let lines =
                    frame.data_ref().map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
                if seen.fetch_add(lines, Ordering::Relaxed) + lines >= expected {
                    all.notify_one();
                }
            }
        }));
    }
    let writer = client.clone();
    let begin = Instant::now();
    let before = target.cpu();
    let mut figures = run(target, EVENTS, 1, move |turn| {
        let client = writer.clone();
        async move {
            let patch = text(&serde_json::json!({"metadata": {"labels": {"turn": turn.to_string()}}}));
            client.expect(Method::PATCH, &format!("{}/load-0", collection("configmaps")), MERGE, patch).await;
        }
    })
    .await;
    if watchers > 0 {
        all.notified().await;
    }
    figures.wall = begin.elapsed();
    figures.cpu = target.cpu() - before;
    row(&format!("merge patch, {watchers} watchers"), &figures);
    tasks.iter().for_each(|task| task.abort());
    figures
}

async fn memory(target: &Target, client: &Client) {
    let before = target.memory();
    let make = |turn: usize| text(&pod(&format!("many-{turn}")));
    each(target, client, (MANY, CLIENTS), (Method::POST, "pods", JSON), make).await;
    let after = target.memory();
    println!("resident memory: {before:.0} MiB, with {MANY} more pods {after:.0} MiB");
}

async fn measure_floor(size: usize, requests: usize) -> Figures {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig").display().to_string();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--serve-floor", &size.to_string(), "--kubeconfig", &kubeconfig])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    while !std::path::Path::new(&kubeconfig).exists() {
        assert!(child.try_wait().unwrap().is_none(), "the floor has ended");
        tokio::task::yield_now().await;
    }
    let target = Target::other(&kubeconfig, &child.id().to_string());
    let client = Client::connect(&Endpoint::read(&target.kubeconfig), CONNECTIONS).await;
    let clients = if requests == LISTS { 4 } else { CLIENTS };
    let figures = run(&target, requests, clients, move |_| {
        let client = client.clone();
        async move { drop(client.expect(Method::GET, "/", JSON, "").await) }
    })
    .await;
    child.kill().ok();
    child.wait().ok();
    figures
}
