//! Keeps a running pod's files up to date: watches what they come from, renews tokens in time.
//!
//! ConfigMaps and Secrets are watched one by one, each once per node however many pods use it. Nothing is polled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{Client, Resource};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::manager::Volumes;
use super::payload::{self, Objects};
use crate::client::informer::{ApiSource, HandlerGuard, Informer, Selection, reflect};
use crate::kubelet::containers::field_ref::NodeFacts;
use crate::kubelet::spec;

/// A failed renewal or rewrite is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// One object that is watched while somebody holds it.
struct Watched<K> {
    informer: Informer<K>,
    _stop: DropGuard,
}

/// Watches of single objects, shared by the pods of this node.
pub struct Watches {
    client: Client,
    tasks: TaskTracker,
    config_maps: Shared<ConfigMap>,
    secrets: Shared<Secret>,
}

type Shared<K> = Mutex<HashMap<(String, String), Weak<Watched<K>>>>;

impl Watches {
    /// No watch yet; `tasks` owns those to come.
    pub fn new(client: Client, tasks: TaskTracker) -> Self {
        Self { client, tasks, config_maps: Mutex::default(), secrets: Mutex::default() }
    }

    fn watch<K>(&self, shared: &Shared<K>, namespace: &str, name: &str) -> Arc<Watched<K>>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(watched) = shared.get(&key).and_then(Weak::upgrade) {
            return watched;
        }
        shared.retain(|_, weak| weak.strong_count() > 0);
        let (informer, writer) = Informer::detached();
        let stop = CancellationToken::new();
        let selection = Selection {
            namespace: Some(namespace.to_owned()),
            ..Selection::fields(format!("metadata.name={name}"))
        };
        let source = ApiSource::<K>::new(self.client.clone(), selection);
        let what = format!("{} {namespace}/{name}", K::kind(&()));
        self.tasks.spawn(reflect(source, writer, what, stop.clone()));
        let watched = Arc::new(Watched { informer, _stop: stop.drop_guard() });
        shared.insert(key, Arc::downgrade(&watched));
        watched
    }
}

struct Held {
    config_maps: Vec<(String, Arc<Watched<ConfigMap>>)>,
    secrets: Vec<(String, Arc<Watched<Secret>>)>,
    _handlers: Vec<HandlerGuard>,
}

fn hold(watches: &Watches, pod: &Pod, changed: &Arc<Notify>) -> Held {
    let references = payload::references(pod);
    let namespace = spec::namespace(pod);
    let mut handlers = Vec::new();
    let mut config_maps = Vec::new();
    for name in references.config_maps {
        let watched = watches.watch(&watches.config_maps, namespace, &name);
        let notify = changed.clone();
        handlers.push(watched.informer.add_handler(move |_| notify.notify_one()));
        config_maps.push((name, watched));
    }
    let mut secrets = Vec::new();
    for name in references.secrets {
        let watched = watches.watch(&watches.secrets, namespace, &name);
        let notify = changed.clone();
        handlers.push(watched.informer.add_handler(move |_| notify.notify_one()));
        secrets.push((name, watched));
    }
    Held { config_maps, secrets, _handlers: handlers }
}

impl Held {
    /// What is known by now; objects whose watch has not listed yet are left out and fetched.
    fn objects(&self, namespace: &str) -> Objects {
        let mut out = Objects::default();
        for (name, watched) in self.config_maps.iter().filter(|(_, w)| w.informer.has_synced()) {
            let object = watched.informer.find(namespace, name).map(|o| (*o).clone());
            out.config_maps.insert(name.clone(), object);
        }
        for (name, watched) in self.secrets.iter().filter(|(_, w)| w.informer.has_synced()) {
            let object = watched.informer.find(namespace, name).map(|o| (*o).clone());
            out.secrets.insert(name.clone(), object);
        }
        out
    }
}

/// Rewrites the pod's files whenever something they show has changed, until the future is dropped. The files of an
/// adopted pod may be old, so they are written at once.
pub async fn keep_fresh(
    volumes: Arc<Volumes>,
    watches: Arc<Watches>,
    mut pod: watch::Receiver<Arc<Pod>>,
    facts: impl Fn() -> NodeFacts + Send,
    adopted: bool,
) {
    let first = pod.borrow_and_update().clone();
    if !spec::pod_spec(&first).volumes.iter().flatten().any(payload::is_projected) {
        return;
    }
    let changed = Arc::new(Notify::new());
    let held = hold(&watches, &first, &changed);
    let uid = spec::uid(&first).to_owned();
    let follows_pod = payload::follows_the_pod(&first);
    drop(first);
    let mut failed = false;
    if adopted {
        changed.notify_one();
    }
    loop {
        let renewal = volumes.tokens().next_renewal(&uid);
        let until =
            renewal.map(|at| Duration::try_from(at.duration_since(volumes.now())).unwrap_or_default());
        let wait = if failed { Some(RETRY) } else { until };
        tokio::select! {
            () = changed.notified() => {}
            alive = pod.changed(), if follows_pod => if alive.is_err() { return },
            () = sleep(wait), if wait.is_some() => {}
        }
        let pod = pod.borrow().clone();
        let objects = held.objects(spec::namespace(&pod));
        match Box::pin(volumes.refresh(&pod, &facts(), &objects)).await {
            Ok(_) => failed = false,
            Err(error) => {
                tracing::debug!(pod = %uid, error = &error as &dyn std::error::Error, "volume not refreshed");
                failed = true;
            }
        }
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
