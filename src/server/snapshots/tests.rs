//! Snapshots are what they were made of, and are not taken for it when they are damaged.

use bytes::Bytes;

use super::*;
use crate::store::Entry;

fn config() -> DatastoreConfig {
    DatastoreConfig {
        datastore_endpoint: None,
        datastore_cafile: None,
        datastore_certfile: None,
        datastore_keyfile: None,
        datastore_quota_backend_bytes: 1 << 30,
    }
}

fn snapshots(folder: &Path, retention: usize) -> Snapshots {
    let config = SnapshotConfig {
        snapshot_dir: None,
        snapshot_name: "snapshot".to_owned(),
        snapshot_retention: retention,
    };
    Snapshots::new(&config, folder, "n1")
}

async fn filled(folder: &Path) -> Arc<SqliteStore> {
    let store = SqliteStore::open(&folder.join("db/state.db"), SqliteOptions::default()).unwrap();
    for i in 0..300 {
        let key = format!("/registry/pods/default/p{i:03}");
        let revision = store.create(&key, Bytes::from(vec![b'x'; i * 10]), None).await.unwrap();
        if i % 3 == 0 {
            store.update(&key, Bytes::from(format!("changed {i}")), revision, None).await.unwrap();
        } else if i % 7 == 0 {
            store.delete(&key, revision).await.unwrap();
        }
    }
    store
}

async fn all(store: &Arc<dyn Store>) -> Vec<Entry> {
    transfer::entries_in(store).await.unwrap().0
}

fn without_revisions(entries: &[Entry]) -> Vec<(Arc<str>, Bytes)> {
    entries.iter().map(|e| (e.key.clone(), e.value.clone())).collect()
}

#[tokio::test]
async fn a_restored_host_has_every_object_as_it_was() {
    let (folder, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store: Arc<dyn Store> = filled(folder.path()).await;
    let before = all(&store).await;
    let own = snapshots(folder.path(), 5);
    // While the store is open: through it, and from its file.
    let first = own.save(&Source::Store(store.clone())).await.unwrap();
    let second = own.save(&Source::open(&config(), folder.path()).await.unwrap()).await.unwrap();
    store.create("/registry/pods/default/later", Bytes::new(), None).await.unwrap();
    for name in [&first.name, &second.name] {
        let path = own.verified(name).unwrap();
        assert_eq!(restore(&config(), empty.path(), &path).await.unwrap(), before.len());
        let restored =
            SqliteStore::open(&empty.path().join("db/state.db"), SqliteOptions::default()).unwrap();
        let restored: Arc<dyn Store> = restored;
        assert_eq!(all(&restored).await, before);
        assert_eq!(restored.current_revision().await.unwrap().0, first.revision);
        restored.create("/registry/pods/default/new", Bytes::new(), None).await.unwrap();
        restored.shutdown().await;
    }
    let aside = fs::read_dir(empty.path().join("db")).unwrap();
    let aside =
        aside.filter(|f| f.as_ref().unwrap().file_name().to_str().unwrap().contains("before-restore"));
    assert!(aside.count() >= 1, "what was there before is kept");
}

#[tokio::test]
async fn a_running_server_is_not_restored_over() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = filled(folder.path()).await;
    let own = snapshots(folder.path(), 5);
    let made = own.save(&Source::Store(store.clone())).await.unwrap();
    let path = own.verified(&made.name).unwrap();
    let error = restore(&config(), folder.path(), &path).await.unwrap_err().to_string();
    assert!(error.contains("stop kube-lite"), "{error}");
    assert!(!all(&store).await.is_empty());
}

#[tokio::test]
async fn a_damaged_datastore_is_restored_and_a_damaged_snapshot_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = filled(folder.path()).await;
    let before = all(&store).await;
    let own = snapshots(folder.path(), 5);
    let good = own.save(&Source::Store(store.clone())).await.unwrap();
    let bad = own.save(&Source::Store(store.clone())).await.unwrap();
    store.shutdown().await;
    drop(store);
    let file = folder.path().join("db/state.db");
    fs::write(&file, vec![b'x'; 8192]).unwrap();
    let error = SqliteStore::open(&file, SqliteOptions::default()).unwrap_err().to_string();
    assert!(error.contains("kube-lite snapshot restore"), "{error}");
    let damaged = own.directory.join(&bad.name);
    let mut content = fs::read(&damaged).unwrap();
    content[5000] ^= 1;
    fs::write(&damaged, content).unwrap();
    assert!(own.verified(&bad.name).unwrap_err().to_string().contains("is damaged"));
    restore(&config(), folder.path(), &own.verified(&good.name).unwrap()).await.unwrap();
    let restored: Arc<dyn Store> = SqliteStore::open(&file, SqliteOptions::default()).unwrap();
    assert_eq!(all(&restored).await, before);
}

#[tokio::test]
async fn the_newest_snapshots_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = filled(folder.path()).await;
    let own = snapshots(folder.path(), 2);
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(own.save(&Source::Store(store.clone())).await.unwrap());
    }
    assert_eq!(own.list().unwrap(), made[2..]);
    let other =
        SnapshotConfig { snapshot_dir: None, snapshot_name: "mine".to_owned(), snapshot_retention: 1 };
    let other = Snapshots::new(&other, folder.path(), "n1");
    other.save(&Source::Store(store.clone())).await.unwrap();
    assert_eq!(own.list().unwrap().len(), 3, "another name has a retention of its own");
    own.delete(&made[3].name).unwrap();
    assert_eq!(own.list().unwrap().len(), 2);
    assert!(own.delete(&made[3].name).is_err());
    assert!(own.delete("../state.db").is_err());
}

/// An etcd of one member; it ends with the test.
struct Etcd {
    child: std::process::Child,
    endpoint: String,
    _folder: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Self {
        use std::process::{Command, Stdio};
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = (free(), free());
        let url = |port: &std::net::TcpListener| format!("http://{}", port.local_addr().unwrap());
        let (client, peer) = (url(&ports.0), url(&ports.1));
        drop(ports);
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--name", "m0", "--logger", "zap", "--data-dir"])
            .arg(folder.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m0={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd runs: apt-get install etcd-server");
        Self { child, endpoint: client, _folder: folder }
    }

    fn config(&self) -> DatastoreConfig {
        DatastoreConfig { datastore_endpoint: Some(self.endpoint.clone()), ..config() }
    }

    fn datastore(&self) -> Datastore {
        Datastore::Etcd(vec![self.endpoint.clone()])
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_moves_to_etcd_is_backed_up_there_and_moves_back() {
    let (folder, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (Etcd::start(), Etcd::start());
    let store: Arc<dyn Store> = filled(folder.path()).await;
    let expected = without_revisions(&all(&store).await);
    store.shutdown().await;
    drop(store);
    let sqlite = Datastore::Sqlite(folder.path().join("db/state.db"));
    let moved = migrate(&config(), &sqlite, &first.datastore()).await.unwrap();
    assert_eq!(moved, expected.len());
    let error = migrate(&config(), &sqlite, &first.datastore()).await.unwrap_err();
    assert!(format!("{error:#}").contains("not empty"), "{error:#}");
    // A snapshot of etcd, restored into another etcd and into the embedded datastore.
    let store = datastore::open_for_tool(&first.config(), &first.datastore()).await.unwrap();
    assert_eq!(without_revisions(&all(&store).await), expected);
    let gone = store.get("/registry/pods/default/p000", None).await.unwrap().unwrap();
    store.delete(&gone.key, gone.mod_revision).await.unwrap();
    let own = snapshots(folder.path(), 5);
    let made = own.save(&Source::open(&first.config(), folder.path()).await.unwrap()).await.unwrap();
    let path = own.verified(&made.name).unwrap();
    let before = all(&store).await;
    assert_eq!(transfer::entries_of(&path).unwrap().0, before);
    restore(&second.config(), folder.path(), &path).await.unwrap();
    let restored = datastore::open_for_tool(&second.config(), &second.datastore()).await.unwrap();
    assert_eq!(without_revisions(&all(&restored).await), without_revisions(&before));
    restore(&config(), back.path(), &path).await.unwrap();
    let restored = SqliteStore::open(&back.path().join("db/state.db"), SqliteOptions::default()).unwrap();
    let restored: Arc<dyn Store> = restored;
    assert_eq!(without_revisions(&all(&restored).await), without_revisions(&before));
}
