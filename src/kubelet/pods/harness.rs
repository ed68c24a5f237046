//! Pod workers under test: real planner, volumes and status, a model of the API's pod endpoints, any runtime.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::manager::Manager;
use super::relist;
use super::table::{Eviction, Table};
use crate::api::patch::strategic_merge_patch;
use crate::api::schema::Schemas;
use crate::client::fake::{FakeApi, eventually};
use crate::client::informer::{Informer, Writer};
use crate::client::{Key, Recorder};
use crate::cri::Runtime;
use crate::host::Host;
use crate::kubelet::config::KubeletConfig;
use crate::kubelet::context::Context;
use crate::kubelet::cpus::CpuManager;
use crate::kubelet::devices::Devices;
use crate::kubelet::images::Images;
use crate::kubelet::pods::fixture;
use crate::kubelet::volumes::Volumes;
use crate::kubelet::volumes::fresh::Watches;

/// Longer than anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// The API's pods, ConfigMaps and Secrets, by path.
#[derive(Clone)]
pub struct Api {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    version: Arc<watch::Sender<u64>>,
    pods: Writer<Pod>,
}

impl Api {
    fn put(&self, path: &str, mut object: Value) -> Value {
        let mut objects = self.objects.lock().unwrap();
        let version = *self.version.borrow() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        objects.insert(path.to_owned(), object.clone());
        if path.contains("/pods/") {
            self.pods.apply(serde_json::from_value(object.clone()).unwrap());
        }
        self.version.send_replace(version);
        object
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(path).cloned()
    }

    fn delete(&self, path: &str) {
        let gone = self.objects.lock().unwrap().remove(path);
        if let Some(pod) = gone.filter(|_| path.contains("/pods/")) {
            let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
            self.pods.delete(&Key::new("default", &name), None);
        }
        self.version.send_modify(|v| *v += 1);
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        let missing = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "gone"});
        let object_path = path.strip_suffix("/status").unwrap_or(path);
        match (method, self.get(object_path)) {
            (_, None) => (StatusCode::NOT_FOUND, missing),
            (&Method::PATCH, Some(mut live)) => {
                let schema = Schemas::builtin().for_gvk("", "v1", "Pod").unwrap();
                strategic_merge_patch(&mut live, body, schema).unwrap();
                (StatusCode::OK, self.put(object_path, live))
            }
            (&Method::DELETE, Some(live)) => {
                self.delete(object_path);
                (StatusCode::OK, live)
            }
            (_, Some(live)) => (StatusCode::OK, live),
        }
    }
}

impl tower::Service<Request<kube::client::Body>> for Api {
    type Response = Response<Full<bytes::Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            let (code, answer) = api.answer(&parts.method, parts.uri.path(), body);
            let mut response = Response::new(Full::from(answer.to_string()));
            *response.status_mut() = code;
            Ok(response)
        })
    }
}

/// A kubelet's pod side over any runtime.
pub struct Harness {
    /// The API.
    pub api: Api,
    /// Where events go.
    pub events: Arc<FakeApi>,
    /// Directory of the kubelet.
    pub root: std::path::PathBuf,
    pods: Informer<Pod>,
    table: Table,
    statics: watch::Sender<Vec<Arc<Pod>>>,
    ctx: Arc<Context>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    _dir: Option<tempfile::TempDir>,
}

impl Harness {
    /// A fresh kubelet in a directory of its own.
    pub fn new(runtime: Arc<dyn Runtime>, host: Host) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = fixture::config();
        config.root_dir = dir.path().join("kubelet");
        config.log_dir = dir.path().join("logs");
        Self::with(runtime, host, config, Some(dir))
    }

    /// A kubelet with this configuration.
    pub fn with(
        runtime: Arc<dyn Runtime>,
        host: Host,
        config: KubeletConfig,
        dir: Option<tempfile::TempDir>,
    ) -> Self {
        Self::build(runtime, host, config, dir, None)
    }

    /// A fresh kubelet that gives processors to containers.
    pub fn new_with_cpus(runtime: Arc<dyn Runtime>, host: Host, cpus: Arc<CpuManager>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = fixture::config();
        config.root_dir = dir.path().join("kubelet");
        config.log_dir = dir.path().join("logs");
        Self::build(runtime, host, config, Some(dir), Some(cpus))
    }

    fn build(
        runtime: Arc<dyn Runtime>,
        host: Host,
        config: KubeletConfig,
        dir: Option<tempfile::TempDir>,
        cpus: Option<Arc<CpuManager>>,
    ) -> Self {
        let (pods, writer) = Informer::detached();
        writer.replace(Vec::new(), 1);
        let (services, service_writer) = Informer::<Service>::detached();
        service_writer.replace(Vec::new(), 1);
        let api = Api { objects: Arc::default(), version: Arc::new(watch::Sender::new(1)), pods: writer };
        let client = kube::Client::new(api.clone(), "default");
        let events = FakeApi::new();
        let config = Arc::new(config);
        let ctx = Arc::new(Context {
            devices: Devices::new(&config.root_dir),
            users: Default::default(),
            probes: Default::default(),
            volumes: Arc::new(Volumes::new(config.clone(), client.clone(), host.clone(), Default::default())),
            watches: Arc::new(Watches::new(client.clone(), TaskTracker::new())),
            services,
            config: config.clone(),
            client,
            runtime,
            host,
            recorder: Recorder::start(
                events.client(),
                "kubelet",
                "n1",
                &TaskTracker::new(),
                CancellationToken::new(),
            ),
            images: Images::new(5, None),
            node: watch::channel(None).1,
            pressure: watch::channel(Default::default()).1,
            runtime_name: "containerd".to_owned(),
            memory: 1 << 30,
            limits: Default::default(),
            cpus,
            shutdown: watch::channel(false).1,
        });
        let mut harness = Self {
            api,
            events,
            root: config.root_dir.clone(),
            pods,
            table: Table::default(),
            statics: watch::Sender::new(Vec::new()),
            ctx,
            stop: CancellationToken::new(),
            tasks: Vec::new(),
            _dir: dir,
        };
        harness.start();
        harness
    }

    fn start(&mut self) {
        let table = Table::default();
        self.table = table.clone();
        let manager = Manager::new(self.ctx.clone(), table.clone(), self.stop.clone());
        self.tasks.push(tokio::spawn(manager.run(self.pods.clone(), self.statics.subscribe())));
        self.tasks.push(tokio::spawn(relist::run(self.ctx.runtime.clone(), table, self.stop.clone())));
    }

    /// Ends the kubelet as a kill would, without touching containers, and starts a new one.
    pub async fn restart(&mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
        self.stop = CancellationToken::new();
        self.start();
    }

    /// Ends the kubelet.
    pub async fn end(mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
    }

    fn path(name: &str) -> String {
        format!("/api/v1/namespaces/default/pods/{name}")
    }

    /// Puts a pod on the node.
    pub fn create(&self, name: &str, spec: Value) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")}});
        self.api.put(&Self::path(name), pod);
    }

    /// Puts another object into the namespace.
    pub fn create_object(&self, plural: &str, name: &str, mut object: Value) {
        object["metadata"] = json!({"name": name, "namespace": "default"});
        self.api.put(&format!("/api/v1/namespaces/default/{plural}/{name}"), object);
    }

    /// Puts any object into the API, by its path.
    pub fn put_object(&self, path: &str, object: Value) {
        self.api.put(path, object);
    }

    /// Any object of the API, by its path.
    pub fn object(&self, path: &str) -> Option<Value> {
        self.api.get(path)
    }

    /// The volumes of the node.
    pub fn volumes(&self) -> &Volumes {
        &self.ctx.volumes
    }

    /// What everything shares, and the workers.
    pub fn parts(&self) -> (Arc<Context>, Table) {
        (self.ctx.clone(), self.table.clone())
    }

    /// Puts a whole pod into the API.
    pub fn put(&self, pod: Value) {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        self.api.put(&Self::path(&name), pod);
    }

    /// Sets the pods that manifests describe.
    pub fn set_static(&self, pods: Vec<Value>) {
        let pods = pods.into_iter().map(|p| Arc::new(serde_json::from_value(p).unwrap())).collect();
        self.statics.send_replace(pods);
    }

    /// Evicts a pod as the node does when it runs out of something.
    pub fn evict(&self, uid: &str, message: &str) {
        let eviction =
            Eviction { reason: "Evicted", message: message.to_owned(), grace: Duration::from_secs(1) };
        let handle = self.table.get(uid).unwrap();
        handle.desired.send_modify(|desired| desired.evicted = Some(eviction));
    }

    /// Changes a pod as its author.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut pod = self.api.get(&Self::path(name)).unwrap();
        change(&mut pod);
        self.api.put(&Self::path(name), pod);
    }

    /// Asks for deletion with this grace period.
    pub fn delete(&self, name: &str, grace: u64) {
        let mut pod = self.api.get(&Self::path(name)).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.api.put(&Self::path(name), pod);
    }

    /// Removes the object as a forced deletion does.
    pub fn forget(&self, name: &str) {
        self.api.delete(&Self::path(name));
    }

    /// Waits until the pod is as the closure wants it, and returns it. `Null` stands for a pod that is gone.
    pub async fn wait(&self, name: &str, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let mut version = self.api.version.subscribe();
        let look = async {
            loop {
                let pod = self.api.get(&Self::path(name)).unwrap_or_default();
                if good(&pod) {
                    return pod;
                }
                version.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(pod) => pod,
            Err(_) => panic!("{what}: {:#}", self.api.get(&Self::path(name)).unwrap_or_default()["status"]),
        }
    }

    /// Waits until there is an event of this reason; its message.
    pub async fn told(&self, reason: &str) -> String {
        let find = || {
            let all = self.events.list::<k8s_openapi::api::core::v1::Event>();
            all.into_iter().find(|event| event.reason.as_deref() == Some(reason))
        };
        eventually(reason, || find().is_some()).await;
        find().and_then(|event| event.message).unwrap_or_default()
    }

    /// Waits until the pod's `Ready` condition is true.
    pub async fn ready(&self, name: &str) -> Value {
        self.wait(name, "pod gets ready", |pod| condition(pod, "Ready") == "True").await
    }

    /// Waits until the pod is gone from the API.
    pub async fn gone(&self, name: &str) {
        self.wait(name, "pod goes", Value::is_null).await;
    }
}

/// Status of one of the pod's conditions.
pub fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let list = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().find(|c| c["type"] == kind).and_then(|c| c["status"].as_str()).unwrap_or_default()
}
