//! Tests of the watch cache over an embedded store.

mod follows;
mod reads;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    Cache, CacheError, Consistency, EventType, ResourceCache, ResourceSpec, SelectableField, Selection,
    WatchEvent, WatchFrom, WatchRequest, WatchStream,
};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{Revision, Store};

const PATIENCE: Duration = Duration::from_secs(30);

/// A store in a temporary folder with a running cache of pods and nodes.
struct World {
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    pods: Arc<ResourceCache>,
    nodes: Arc<ResourceCache>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

fn pods() -> ResourceSpec {
    ResourceSpec {
        prefix: "/registry/pods/".into(),
        namespaced: true,
        api_version: "v1".into(),
        kind: "Pod".into(),
        resource: "pods".into(),
        fields: vec![SelectableField::at("spec.nodeName"), SelectableField::at("status.phase")],
    }
}

fn nodes() -> ResourceSpec {
    ResourceSpec {
        prefix: "/registry/minions/".into(),
        namespaced: false,
        api_version: "v1".into(),
        kind: "Node".into(),
        resource: "nodes".into(),
        fields: Vec::new(),
    }
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("state.db"), SqliteOptions::default()).unwrap();
        Self::over(store, folder).await
    }

    async fn over(store: Arc<dyn Store>, folder: tempfile::TempDir) -> Self {
        // A small window, so that a test can write more than it holds.
        let cache = Cache::with_window(store.clone(), 1 << 10);
        let (pods, nodes) = (cache.register(pods()), cache.register(nodes()));
        let stop = CancellationToken::new();
        let task = tokio::spawn(cache.clone().run(stop.clone()));
        within(cache.ready()).await.unwrap();
        Self { store, cache, pods, nodes, stop, task, _folder: folder }
    }

    async fn create_pod(&self, key: &str, node: &str) -> Revision {
        self.store.create(&format!("/registry/pods/{key}"), pod(key, node), None).await.unwrap()
    }

    async fn update_pod(&self, key: &str, node: &str) -> Revision {
        let key_in_store = format!("/registry/pods/{key}");
        let entry = self.store.get(&key_in_store, None).await.unwrap().unwrap();
        self.store.update(&key_in_store, pod(key, node), entry.mod_revision, None).await.unwrap()
    }

    async fn delete_pod(&self, key: &str) -> Revision {
        let key = format!("/registry/pods/{key}");
        let entry = self.store.get(&key, None).await.unwrap().unwrap();
        self.store.delete(&key, entry.mod_revision).await.unwrap()
    }

    async fn keys(&self, at: Consistency) -> Vec<String> {
        let snapshot = within(self.pods.snapshot(at)).await.unwrap();
        snapshot.iter(None, None).map(|o| o.key().to_owned()).collect()
    }

    async fn watch(&self, from: WatchFrom, selection: Selection) -> WatchStream {
        let request = WatchRequest { from, selection, bookmarks: false, mark_initial_end: false };
        within(self.pods.watch(request)).await.unwrap()
    }
}

/// A pod whose label `node` repeats the node.
fn pod(key: &str, node: &str) -> Bytes {
    let (namespace, name) = key.split_once('/').unwrap();
    serde_json::json!({
        "metadata": { "name": name, "namespace": namespace, "uid": key, "labels": { "node": node } },
        "spec": { "nodeName": node },
    })
    .to_string()
    .into()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("done in time")
}

async fn next(watch: &mut WatchStream) -> WatchEvent {
    within(watch.next()).await.expect("the watch goes on").unwrap()
}

async fn error(watch: &mut WatchStream) -> CacheError {
    loop {
        if let Err(error) = within(watch.next()).await.expect("an error before the end") {
            return error;
        }
    }
}

/// `TYPE key revision` of the next event.
async fn say(watch: &mut WatchStream) -> String {
    let event = next(watch).await;
    let line: serde_json::Value = serde_json::from_slice(&event.line()).unwrap();
    assert_eq!(line["type"], event.event_type().as_str());
    assert_eq!(line["object"]["metadata"]["resourceVersion"], event.revision().to_string());
    match event.object() {
        Some(object) => format!("{} {} {}", event.event_type().as_str(), object.key(), event.revision()),
        None => format!("BOOKMARK {}", event.revision()),
    }
}

fn in_namespace(namespace: &str) -> Selection {
    Selection { namespace: Some(namespace.into()), ..Selection::default() }
}

fn on_node(node: &str) -> Selection {
    Selection { field: Some(("spec.nodeName".into(), node.into())), ..Selection::default() }
}
