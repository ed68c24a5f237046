//! A small in-memory model of the API for tests of clients: enough of the rules (versions, preconditions, finalizers,
//! watches, terminating namespaces) for races and faults to be played through without a server.
//!
//! It is compiled for unit tests only. It knows no schemas: any group, version and plural is a collection of objects.

mod http;
mod model;

pub(crate) use model::{Kind, Status};

use self::http::Service;
use kube::{Client, Resource};
use model::{Collection, Model};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// The model and the ways to reach it.
pub(crate) struct FakeApi {
    model: Mutex<Model>,
    /// The revision, for watches that wait.
    revision: watch::Sender<u64>,
    /// Method and path of each request so far.
    log: Mutex<Vec<String>>,
    faults: Mutex<Vec<Fault>>,
}

struct Fault {
    method: String,
    path: String,
    status: Status,
    times: usize,
    /// The request is carried out, only its answer is lost.
    after: bool,
}

impl FakeApi {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            model: Mutex::new(Model::default()),
            revision: watch::Sender::new(0),
            log: Mutex::default(),
            faults: Mutex::default(),
        })
    }

    pub(crate) fn client(self: &Arc<Self>) -> Client {
        crate::client::from_service(Service(self.clone()), "default")
    }

    /// Puts an object in place as if somebody had created it.
    pub(crate) fn create<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(
        &self,
        object: &K,
    ) -> K {
        let mut value = serde_json::to_value(object).unwrap();
        value["apiVersion"] = K::api_version(&()).into();
        value["kind"] = K::kind(&()).into();
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        let created = self.change(|model| model.create(&collection::<K>(), &namespace, value)).unwrap();
        serde_json::from_value(created).unwrap()
    }

    /// Overwrites an object without any check, as if somebody had updated it.
    pub(crate) fn update<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
        edit: impl FnOnce(&mut K),
    ) {
        let mut object: K = self.get(namespace, name).unwrap();
        edit(&mut object);
        object.meta_mut().resource_version = None;
        let value = serde_json::to_value(object).unwrap();
        self.change(|model| model.replace_all(&collection::<K>(), namespace, name, value)).unwrap();
    }

    pub(crate) fn get<K: Resource<DynamicType = ()> + DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<K> {
        let value = self.model().get(&collection::<K>(), namespace, name).ok()?;
        Some(serde_json::from_value(value).unwrap())
    }

    pub(crate) fn list<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Vec<K> {
        let values = self.model().list(&collection::<K>(), "");
        values.into_iter().map(|value| serde_json::from_value(value).unwrap()).collect()
    }

    pub(crate) fn delete<K: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) {
        let options = serde_json::Value::Null;
        self.change(|model| model.delete(&collection::<K>(), namespace, name, &options)).unwrap();
    }

    /// What discovery shows.
    pub(crate) fn serve(&self, kinds: Vec<Kind>) {
        self.model().kinds = kinds;
    }

    /// Makes watches from before now fail as expired.
    pub(crate) fn compact(&self) {
        let mut model = self.model();
        model.oldest = model.revision;
    }

    /// Ends all watches, as a restart of the server would.
    pub(crate) fn cut_watches(&self) {
        self.model().cuts += 1;
        self.revision.send_modify(|_| {});
    }

    /// Answers the next `times` requests of this method whose path contains `path` with an error.
    pub(crate) fn fail(&self, method: &str, path: &str, times: usize, status: Status) {
        self.fault(method, path, times, status, false);
    }

    /// Carries out the next such requests, but answers with an error.
    pub(crate) fn lose_answer(&self, method: &str, path: &str, times: usize, status: Status) {
        self.fault(method, path, times, status, true);
    }

    fn fault(&self, method: &str, path: &str, times: usize, status: Status, after: bool) {
        let (method, path) = (method.to_owned(), path.to_owned());
        self.faults.lock().unwrap().push(Fault { method, path, status, times, after });
    }

    fn take_fault(&self, method: &str, path: &str) -> Option<(Status, bool)> {
        let mut faults = self.faults.lock().unwrap();
        let fault = faults
            .iter_mut()
            .find(|fault| fault.times > 0 && fault.method == method && path.contains(&fault.path))?;
        fault.times -= 1;
        Some((fault.status.clone(), fault.after))
    }

    /// Requests so far that start with `prefix`, such as `PATCH /api/v1`.
    pub(crate) fn requests(&self, prefix: &str) -> Vec<String> {
        self.log.lock().unwrap().iter().filter(|line| line.starts_with(prefix)).cloned().collect()
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    fn change<R>(&self, change: impl FnOnce(&mut Model) -> R) -> R {
        let (result, revision) = {
            let mut model = self.model();
            let result = change(&mut model);
            (result, model.revision)
        };
        self.revision.send_replace(revision);
        result
    }
}

fn collection<K: Resource<DynamicType = ()>>() -> Collection {
    Collection { group: K::group(&()).into_owned(), plural: K::plural(&()).into_owned() }
}

/// Waits until `check` holds on a paused clock; fails after ten minutes of it.
pub(crate) async fn eventually(what: &str, check: impl Fn() -> bool) {
    for _ in 0..6_000 {
        for _ in 0..20 {
            if check() {
                return;
            }
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("never happened: {what}");
}
