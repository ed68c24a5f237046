//! Datastores that run out of room or are damaged, as clients and operators see it: errors that say so, a server that
//! is not ready, nothing lost, and work that goes on once there is room again.

use std::process::{Command, Stdio};
use std::time::Duration;

use kube_lite::store::Store;
use kube_lite::store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::{Value, json};

use crate::members::Members;
use crate::process::Process;
use crate::server::TestServer;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PATIENCE: Duration = Duration::from_secs(30);

/// A file system of its own with room for so many bytes; `None` where this test may not make one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={bytes},mode=0700");
        let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
        nix::mount::mount(none, folder.path(), Some("tmpfs"), flags, Some(&*options)).ok()?;
        Some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

/// Creates ConfigMaps of so many bytes until one is refused; the names of those that were acknowledged, and the refusal.
async fn fill(server: &TestServer, bytes: usize) -> (Vec<String>, u16, Value) {
    let mut names = Vec::new();
    loop {
        let name = format!("c{:05}", names.len());
        let body = json!({ "metadata": { "name": name }, "data": { "x": "y".repeat(bytes) } });
        match server.send("POST", CONFIG_MAPS, Some(body)).await {
            (201, _) => names.push(name),
            (code, answer) => return (names, code, answer),
        }
    }
}

async fn listed(server: &TestServer) -> Vec<String> {
    let (code, list) = server.send("GET", CONFIG_MAPS, None).await;
    assert_eq!(code, 200, "{list}");
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    list["items"].as_array().unwrap().iter().map(name).filter(|name| name.starts_with('c')).collect()
}

async fn becomes_ready(server: &TestServer) {
    let ready = async {
        while server.send("GET", "/readyz", None).await.0 != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("the server becomes ready again by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_to_clients_and_loses_nothing() {
    let Some(disk) = SmallDisk::new(12 << 20) else {
        eprintln!("skipped: only root may mount a small disk");
        return;
    };
    let path = disk.0.path().join("db/state.db");
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 4 << 20]).unwrap();
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let server = TestServer::over(store.clone(), tempfile::tempdir().unwrap()).await;
    let (kept, code, refusal) = fill(&server, 100_000).await;
    assert_eq!(code, 500, "{refusal}");
    assert!(refusal["message"].as_str().unwrap().contains("no space left"), "{refusal}");
    assert_eq!(server.send("GET", "/readyz", None).await.0, 500);
    // Reads go on, and show exactly what was acknowledged.
    assert_eq!(listed(&server).await, kept);
    std::fs::remove_file(&ballast).unwrap();
    becomes_ready(&server).await;
    let body = json!({ "metadata": { "name": "later" } });
    assert_eq!(server.send("POST", CONFIG_MAPS, Some(body)).await.0, 201);
    store.shutdown().await;
    drop((server, store));
    let again = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let server = TestServer::over(again, tempfile::tempdir().unwrap()).await;
    assert_eq!(listed(&server).await, kept);
}

fn etcdctl(etcd: &Members, arguments: &[&str]) -> String {
    let output = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &etcd.endpoints()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("etcdctl runs: apt-get install etcd-client");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_without_space_is_told_to_clients_until_its_alarm_is_disarmed() {
    let etcd = Members::start_with(1, &["--quota-backend-bytes", "16777216"]).await;
    let store = etcd.store().await;
    let server = TestServer::over(store.clone(), tempfile::tempdir().unwrap()).await;
    let (kept, code, refusal) = fill(&server, 900_000).await;
    assert_eq!(code, 500, "{refusal}");
    assert!(refusal["message"].as_str().unwrap().contains("no space left"), "{refusal}");
    // Reads succeed all the while, and do not make it look healthy.
    assert_eq!(listed(&server).await, kept);
    assert_eq!(server.send("GET", "/readyz", None).await.0, 500);
    let usage = store.usage().await.unwrap();
    assert!(usage.alarms.iter().any(|alarm| alarm.contains("NOSPACE")), "{usage:?}");
    // Another server learns of it without a write of its own.
    let other = etcd.server().await;
    other.api.registry().store().usage().await.unwrap();
    assert_eq!(other.send("GET", "/readyz", None).await.0, 500);
    for name in &kept[..kept.len() - 1] {
        assert_eq!(server.send("DELETE", &format!("{CONFIG_MAPS}/{name}"), None).await.0, 200);
    }
    let revision = store.current_revision().await.unwrap();
    etcdctl(&etcd, &["compact", &revision.to_string(), "--physical"]);
    etcdctl(&etcd, &["defrag"]);
    etcdctl(&etcd, &["alarm", "disarm"]);
    assert!(store.usage().await.unwrap().alarms.is_empty());
    becomes_ready(&server).await;
    let body = json!({ "metadata": { "name": "later" } });
    assert_eq!(server.send("POST", CONFIG_MAPS, Some(body)).await.0, 201);
    assert_eq!(listed(&server).await, kept[kept.len() - 1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_found_at_the_start_and_a_snapshot_restores_it() {
    let mut server = Process::start(&[]).await;
    let made = server.snapshot("save", &[]);
    assert!(made.status.success(), "{made:?}");
    server.stop().await;
    let path = server.place("data/server/db/state.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes[2048..half].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let told = server.refuses().await;
    assert!(
        told.contains("the database is damaged") && told.contains("kube-lite snapshot restore"),
        "{told}"
    );
    let list = String::from_utf8(server.snapshot("list", &[]).stdout).unwrap();
    let name =
        list.split_whitespace().find(|word| word.starts_with("snapshot-")).expect("a snapshot").to_owned();
    let restored = server.snapshot("restore", &[&name]);
    assert!(restored.status.success(), "{restored:?}");
    server.revive().await;
    server.admin().await.apiserver_version().await.unwrap();
}
