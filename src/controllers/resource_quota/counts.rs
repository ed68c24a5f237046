//! How many objects of any kind each namespace has: watched once some quota asks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Client;
use kube::api::{DynamicObject, PartialObjectMeta};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::quota::count_name;
use crate::client::informer::Sink;
use crate::client::{Informers, Key};
use crate::controllers::discovery::{self, ResourceType};

/// The objects of one kind.
struct Counted {
    keys: Mutex<HashMap<String, HashSet<Key>>>,
    listed: watch::Sender<bool>,
}

/// The sink of one kind's watch.
struct Counting {
    counted: Arc<Counted>,
    changed: Arc<dyn Fn(&str) + Send + Sync>,
}

/// The counts of all kinds that were asked for so far.
pub(super) struct Counts {
    client: Client,
    informers: Informers,
    stop: CancellationToken,
    kinds: Mutex<BTreeMap<String, Arc<Counted>>>,
    changed: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Counts {
    /// `changed` is called with the namespace that lost an object.
    pub(super) fn new(
        client: Client,
        informers: Informers,
        stop: CancellationToken,
        changed: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        Self { client, informers, stop, kinds: Mutex::default(), changed: Arc::new(changed) }
    }

    /// How many objects of the kind that `resource` (`secrets`, `count/deployments.apps`) names are in the namespace;
    /// `None` if it names no kind of the server's.
    ///
    /// # Errors
    /// The server's kinds could not be asked for.
    pub(super) async fn of(&self, resource: &str, namespace: &str) -> kube::Result<Option<usize>> {
        let name =
            if resource.starts_with("count/") { resource.to_owned() } else { format!("count/{resource}") };
        let known = self.kinds().get(&name).cloned();
        let counted = match known {
            Some(counted) => counted,
            None => {
                let found = discovery::discover(&self.client).await?;
                let named =
                    |row: &ResourceType| count_name(&row.resource.group, &row.resource.plural) == name;
                let Some(row) = found.types.into_iter().find(|row| row.namespaced && named(row)) else {
                    return Ok(None);
                };
                self.watch(name, &row)
            }
        };
        // The sender lives in `counted`, so waiting cannot fail.
        let mut listed = counted.listed.subscribe();
        let _sender_is_alive = listed.wait_for(|listed| *listed).await.is_ok();
        let keys = counted.keys.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(keys.get(namespace).map_or(0, HashSet::len)))
    }

    fn watch(&self, name: String, row: &ResourceType) -> Arc<Counted> {
        let mut kinds = self.kinds();
        if let Some(known) = kinds.get(&name) {
            return known.clone();
        }
        let counted = Arc::new(Counted { keys: Mutex::default(), listed: watch::Sender::new(false) });
        let sink = Counting { counted: counted.clone(), changed: self.changed.clone() };
        self.informers.metadata(&row.resource, sink, &self.stop);
        kinds.insert(name, counted.clone());
        counted
    }

    fn kinds(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Counted>>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counting {
    fn keys(&self) -> MutexGuard<'_, HashMap<String, HashSet<Key>>> {
        self.counted.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Object = PartialObjectMeta<DynamicObject>;

fn key(object: &Object) -> Key {
    let meta = &object.metadata;
    Key::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

impl Sink<Object> for Counting {
    fn apply(&self, object: Object) {
        let key = key(&object);
        let namespace = key.namespace().to_owned();
        if self.keys().entry(namespace.clone()).or_default().insert(key) {
            (self.changed)(&namespace);
        }
    }

    fn delete(&self, key: &Key, _: Option<Object>) {
        let namespace = key.namespace();
        let mut all = self.keys();
        if let Some(keys) = all.get_mut(namespace) {
            keys.remove(key);
            // Namespaces come and go: nothing of them stays.
            if keys.is_empty() {
                all.remove(namespace);
            }
        }
        drop(all);
        (self.changed)(namespace);
    }

    fn replace(&self, objects: Vec<Object>, _: u64) {
        let mut keys: HashMap<String, HashSet<Key>> = HashMap::new();
        for key in objects.iter().map(key) {
            keys.entry(key.namespace().to_owned()).or_default().insert(key);
        }
        let before = std::mem::replace(&mut *self.keys(), keys);
        self.counted.listed.send_replace(true);
        for namespace in before.keys() {
            (self.changed)(namespace);
        }
    }

    fn bookmark(&self, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_namespace_that_lost_its_last_object_leaves_nothing_behind() {
        let counted = Arc::new(Counted { keys: Mutex::default(), listed: watch::Sender::new(false) });
        let told = Arc::new(Mutex::new(Vec::new()));
        let changes = told.clone();
        let changed = Arc::new(move |namespace: &str| changes.lock().unwrap().push(namespace.to_owned()));
        let sink = Counting { counted: counted.clone(), changed };
        let object = |name: &str| -> Object {
            let metadata = json!({"namespace": "ns", "name": name});
            serde_json::from_value(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}))
                .unwrap()
        };
        let count = || counted.keys.lock().unwrap().get("ns").map(HashSet::len);
        for name in ["a", "b", "b"] {
            sink.apply(object(name));
        }
        assert_eq!((count(), told.lock().unwrap().len()), (Some(2), 2), "each counts once");
        sink.delete(&Key::new("ns", "a"), None);
        assert_eq!(count(), Some(1));
        sink.delete(&Key::new("ns", "b"), None);
        assert_eq!((count(), told.lock().unwrap().len()), (None, 4));
    }
}
