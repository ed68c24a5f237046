//! Histories: many clients do random things through the API while servers and etcd's members are killed and cut off
//! under them; what they saw must be what one correct store would have shown.
//!
//! `checker` judges what `clients` recorded; that it finds broken stores is a test of its own. A failed run prints its
//! seed. `KUBE_LITE_HISTORY_SEED` repeats the choices of a run, `KUBE_LITE_HISTORY_ROUNDS` asks for more kills than the
//! few that every run of the tests makes.

mod checker;
mod clients;
mod faults;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use kube_lite::store::sqlite::{SqliteOptions, SqliteStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::members::Members;
use crate::process::Process;
use crate::server::TestServer;
use checker::{Operation, Violation, check};
use clients::{Run, THE_END, client, follow, jump, object};
use faults::{Fault, Faulty};

/// Longest that anything here may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[allow(clippy::disallowed_methods, reason = "tests are configured by their environment alone")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seed() -> u64 {
    let seed = setting("KUBE_LITE_HISTORY_SEED").unwrap_or_else(|| rand::rng().random());
    println!("KUBE_LITE_HISTORY_SEED={seed} repeats these choices");
    seed
}

fn rounds(usual: u64) -> u64 {
    setting("KUBE_LITE_HISTORY_ROUNDS").unwrap_or(usual)
}

/// Clients and watches at work on some servers.
struct AtWork {
    run: Run,
    start: u64,
    apis: Vec<Api<ConfigMap>>,
    clients: Vec<tokio::task::JoinHandle<Vec<Operation>>>,
    watches: Vec<tokio::task::JoinHandle<Vec<checker::Segment>>>,
}

impl AtWork {
    async fn begin(servers: Vec<kube::Client>, clients: u64, seed: u64) -> Self {
        let apis: Vec<_> = servers.into_iter().map(|client| Api::namespaced(client, "default")).collect();
        let api = |i: u64| -> Api<ConfigMap> { apis[i as usize % apis.len()].clone() };
        let list = api(0).list(&ListParams::default()).await.unwrap();
        let start = list.metadata.resource_version.unwrap().parse().unwrap();
        let run = Run::new(start);
        let mut watches: Vec<_> =
            (0..2).map(|i| tokio::spawn(follow(api(i), start, seed + i, run.clone()))).collect();
        watches.push(tokio::spawn(jump(api(1), start, seed, run.clone())));
        let clients = (0..clients).map(|i| tokio::spawn(client(api(i), i, seed, run.clone()))).collect();
        Self { run, start, clients, watches, apis }
    }

    /// Waits until so many more operations have been answered.
    async fn proceed(&self, operations: u64) {
        let mut answered = self.run.answered.subscribe();
        let target = *answered.borrow() + operations;
        let wait = answered.wait_for(|count| *count >= target);
        drop(tokio::time::timeout(PATIENCE, wait).await.expect("clients get answers").expect("a run"));
    }

    /// Stops everything; how many operations there were, and the verdict on what was seen. A watch that has not shown
    /// the end after `patience` never will.
    async fn end(self, patience: Duration) -> (usize, Result<(), Violation>) {
        self.run.stop.send_replace(true);
        let mut history = Vec::new();
        for client in self.clients {
            history.extend(tokio::time::timeout(PATIENCE, client).await.expect("clients end").unwrap());
        }
        let end = async {
            // One whose outcome was unknown may have made it.
            let exists = |e: &kube::Error| matches!(e, kube::Error::Api(s) if s.reason == "AlreadyExists");
            while let Err(error) =
                self.apis[0].create(&PostParams::default(), &object(THE_END, 0, None)).await
            {
                if exists(&error) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, end).await.expect("the store comes back");
        let mut segments = Vec::new();
        for mut watch in self.watches {
            match tokio::time::timeout(patience, &mut watch).await {
                Ok(seen) => segments.extend(seen.unwrap()),
                Err(_) => {
                    watch.abort();
                    return (history.len(), Err(Violation::WatchNeverEnds));
                }
            }
        }
        (history.len(), check(self.start, &history, &segments))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_are_linearizable_while_the_embedded_server_is_killed() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let rounds = rounds(6);
    let mut server = Process::start(&[]).await;
    let work = AtWork::begin(vec![server.admin().await], 12, seed).await;
    for _ in 0..rounds {
        // All other clients are in the middle of something when the last of these is answered.
        work.proceed(random.random_range(50..250)).await;
        server.kill().await;
        work.run.up.send_replace(false);
        server.revive().await;
        work.run.up.send_replace(true);
    }
    work.proceed(100).await;
    let (operations, verdict) = work.end(PATIENCE).await;
    verdict.unwrap();
    assert!(operations as u64 > rounds * 50, "{operations}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_are_linearizable_while_the_only_etcd_member_is_killed() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut etcd = Members::start(1).await;
    let servers = [etcd.server().await, etcd.server().await];
    let work = AtWork::begin(servers.iter().map(TestServer::admin).collect(), 8, seed).await;
    for _ in 0..rounds(4) {
        work.proceed(random.random_range(50..200)).await;
        etcd.kill(0);
        etcd.revive(0);
    }
    work.proceed(100).await;
    let (operations, verdict) = work.end(PATIENCE).await;
    verdict.unwrap();
    assert!(operations > 200, "{operations}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_are_linearizable_while_members_of_three_are_killed_and_cut_off() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut etcd = Members::start(3).await;
    let servers = [etcd.server().await, etcd.server().await];
    let work = AtWork::begin(servers.iter().map(TestServer::admin).collect(), 8, seed).await;
    let first = random.random_range(0..3);
    for round in 0..rounds(4) {
        work.proceed(random.random_range(50..150)).await;
        let member = (first + round as usize) % 3;
        // Two of three go on.
        if round % 2 == 0 {
            etcd.isolate(member);
            work.proceed(100).await;
            etcd.heal();
        } else {
            etcd.kill(member);
            work.proceed(100).await;
            etcd.revive(member);
        }
    }
    work.proceed(100).await;
    let (operations, verdict) = work.end(PATIENCE).await;
    verdict.unwrap();
    assert!(operations > 500, "{operations}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_stores_are_found_out() {
    let seed = seed();
    for fault in Fault::ALL {
        let folder = tempfile::tempdir().unwrap();
        let inner = SqliteStore::open(&folder.path().join("state.db"), SqliteOptions::default()).unwrap();
        let store = Arc::new(Faulty::new(inner, fault));
        let server = TestServer::over(store.clone(), folder).await;
        let work = AtWork::begin(vec![server.admin()], 6, seed).await;
        store.begin();
        work.proceed(500).await;
        for _ in 0..200 {
            if store.had_its_chance() {
                break;
            }
            work.proceed(50).await;
        }
        let (_, verdict) = work.end(Duration::from_secs(5)).await;
        println!("{fault:?}: {verdict:?}");
        assert!(verdict.is_err(), "{fault:?} was not noticed");
    }
}
