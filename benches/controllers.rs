//! What the controllers do in which time: all of them with the API server in this process, over a temporary SQLite store,
//! with simulated kubelets that mark pods Running and Ready at once.
//!
//! `cargo bench --bench controllers` prints a table; `docs/benchmarks.md` keeps the figures. Pods are made for one node
//! by their template, so that the scheduler has no part in it. The processor time of an idle cluster is that of the
//! whole process: API server, controllers and simulated kubelets.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use kube_lite::apiserver::{ApiServer, ApiServerConfig, in_process};
use kube_lite::cache::Cache;
use kube_lite::client::{Change, Event, Informers, from_service};
use kube_lite::controllers::{self, Clients, ControllersConfig};
use kube_lite::pki::{ClusterPki, token::JoinSecrets};
use kube_lite::registry::{Registry, RegistryConfig, UserInfo, bootstrap};
use kube_lite::store::sqlite::{SqliteOptions, SqliteStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PODS: usize = 5_000;
const ROLLED: usize = 1_000;
const OBJECTS: usize = 5_000;
const SERVICES: usize = 1_000;
const SAMPLES: usize = 500;
const DEPLOYMENTS: usize = 1_000;
const PODS_EACH: usize = 10;
const IDLE: Duration = Duration::from_secs(60);
/// Requests of the benchmark that run at the same time.
const AT_ONCE: usize = 16;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    println!("| what | must reach | reached |\n| --- | --- | --- |");
    let row = |what: &str, goal: &str, reached: String| println!("| {what} | {goal} | {reached} |");
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let cluster = Cluster::start().await;
    let floor = cluster.create_alone().await;
    let scaled = cluster.scale().await;
    let reached = format!("{} ({} for the creates alone)", seconds(scaled), seconds(floor));
    row(&format!("Deployment scaled 0 → {PODS}: all pods created"), "15 s", reached);
    row(&format!("rolling update of {ROLLED} pods"), "10 s", seconds(cluster.roll().await));
    row(&format!("namespace with {OBJECTS} objects deleted"), "10 s", seconds(cluster.empty().await));
    let (median, p99) = Cluster::start().await.slices().await;
    let reached = format!("{:.1} ms (median {:.1} ms)", p99 * 1e3, median * 1e3);
    row(&format!("slice after a pod's readiness, p99, {SERVICES} services"), "50 ms", reached);
    let idle = Cluster::start().await.idle().await;
    let what = format!("CPU, idle, {DEPLOYMENTS} deployments, {} pods", DEPLOYMENTS * PODS_EACH);
    row(&what, "1 % of a core", format!("{idle:.2} %"));
}

struct Cluster {
    client: Client,
    informers: Informers,
    _stop: tokio_util::sync::DropGuard,
    _directory: tempfile::TempDir,
}

fn client_of(server: &Arc<ApiServer>, user: &str, groups: &[&str]) -> Client {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let user = UserInfo { name: user.to_owned(), groups, ..UserInfo::default() };
    from_service(in_process::Service::new(server.clone(), user), "default")
}

fn parse<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn deployment(name: &str, replicas: usize, image: &str) -> Deployment {
    parse(json!({"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {
            "nodeName": "n0", "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": image}]}},
    }}))
}

impl Cluster {
    async fn start() -> Self {
        let (directory, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let store = SqliteStore::open(&directory.path().join("state.db"), SqliteOptions::default()).unwrap();
        let cache = Cache::new(store.clone());
        let registry = Registry::new(store, cache.clone(), RegistryConfig::default()).unwrap();
        tokio::spawn(cache.run(stop.clone()));
        registry.ready().await.unwrap();
        bootstrap::run(&registry).await.unwrap();
        let pki = Arc::new(ClusterPki::load_or_create(&directory.path().join("tls"), &[]).unwrap());
        let secrets = JoinSecrets::new("server", "agent");
        let server =
            ApiServer::new(registry, pki, secrets, ApiServerConfig::default(), stop.clone()).unwrap();
        let manager = client_of(&server, "system:kube-controller-manager", &[]);
        let informers = Informers::new(manager, stop.clone());
        let accounts = server.clone();
        let clients = Clients::new(move |account| {
            let (user, groups) = controllers::identity(account);
            client_of(&accounts, &user, &groups)
        });
        let (of_controllers, until) = (informers.clone(), stop.clone());
        tokio::spawn(async move {
            let config = Arc::new(ControllersConfig::default());
            controllers::manager::run_all(&clients, &of_controllers, &config, until).await;
        });
        let client = client_of(&server, "admin", &["system:masters"]);
        tokio::spawn(kubelets(client.clone(), informers.clone(), stop.clone()));
        tokio::spawn(node(client.clone(), stop.clone()));
        let cluster = Self { client, informers, _stop: stop.drop_guard(), _directory: directory };
        let namespaces = cluster.informers.get::<Namespace>();
        until_true(|| async { !namespaces.is_empty() }).await;
        cluster
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create_all<K>(&self, namespace: &str, objects: Vec<K>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let create = |object: K| {
            let api = api.clone();
            async move { api.create(&PostParams::default(), &object).await.unwrap() }
        };
        stream::iter(objects).map(create).buffer_unordered(AT_ONCE).for_each(|_| async {}).await;
    }

    /// The floor: as many pods, made by nobody but this client.
    async fn create_alone(&self) -> Duration {
        let template = deployment("alone", 1, "v1").spec.unwrap().template;
        let pod = |index| Pod {
            metadata: kube::api::ObjectMeta { name: Some(format!("alone-{index}")), ..Default::default() },
            spec: template.spec.clone(),
            status: None,
        };
        let began = Instant::now();
        self.create_all("default", (0..PODS).map(pod).collect()).await;
        let took = began.elapsed();
        self.api::<Pod>()
            .delete_collection(&DeleteParams::default().grace_period(0), &Default::default())
            .await
            .unwrap();
        self.pods(0).await;
        took
    }

    async fn pods(&self, count: usize) {
        let pods = self.informers.get::<Pod>();
        until_true(|| async { pods.len() == count }).await;
    }

    async fn scale(&self) -> Duration {
        self.create_all("default", vec![deployment("big", 0, "v1")]).await;
        let began = Instant::now();
        self.patch("big", json!({"spec": {"replicas": PODS}})).await;
        self.pods(PODS).await;
        let took = began.elapsed();
        self.patch("big", json!({"spec": {"replicas": 0}})).await;
        self.pods(0).await;
        took
    }

    async fn patch(&self, name: &str, patch: Value) {
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        self.api::<Deployment>().patch(name, &parameters, &patch).await.unwrap();
    }

    /// Waits until all pods of a deployment are updated and available.
    async fn rolled_out(&self, name: &str, replicas: usize) {
        let deployments = self.informers.get::<Deployment>();
        let wanted = i32::try_from(replicas).unwrap();
        until_true(|| async {
            let Some(found) = deployments.find("default", name) else { return false };
            let status = found.status.clone().unwrap_or_default();
            status.observed_generation == found.metadata.generation
                && [status.replicas, status.updated_replicas, status.available_replicas] == [Some(wanted); 3]
        })
        .await;
    }

    async fn roll(&self) -> Duration {
        self.create_all("default", vec![deployment("rolled", ROLLED, "v1")]).await;
        self.rolled_out("rolled", ROLLED).await;
        let template = deployment("rolled", ROLLED, "v2").spec.unwrap().template;
        let began = Instant::now();
        self.patch("rolled", json!({"spec": {"template": template}})).await;
        until_true(|| async {
            let pods = self.informers.get::<Pod>().list();
            let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone();
            pods.len() == ROLLED && pods.iter().all(|pod| image(pod).as_deref() == Some("v2"))
        })
        .await;
        self.rolled_out("rolled", ROLLED).await;
        began.elapsed()
    }

    async fn empty(&self) -> Duration {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let name = "full";
        namespaces.create(&PostParams::default(), &parse(json!({"metadata": {"name": name}}))).await.unwrap();
        let map = |index| parse::<ConfigMap>(json!({"metadata": {"name": format!("m{index}")}}));
        self.create_all(name, (0..OBJECTS).map(map).collect()).await;
        let began = Instant::now();
        namespaces.delete(name, &DeleteParams::default()).await.unwrap();
        let known = self.informers.get::<Namespace>();
        until_true(|| async { known.find("", name).is_none() }).await;
        began.elapsed()
    }

    /// Median and 99th percentile, in seconds, from the answer to a change of a pod to the event of its slice.
    async fn slices(&self) -> (f64, f64) {
        let name = |index: usize| format!("s{index}");
        let service = |index| {
            let spec = json!({"selector": {"app": name(index)}, "ports": [{"port": 80}]});
            parse::<Service>(json!({"metadata": {"name": name(index)}, "spec": spec}))
        };
        let pod = |index| {
            let template = deployment(&name(index), 1, "v1").spec.unwrap().template;
            let meta = json!({"name": name(index), "labels": {"app": name(index)}});
            parse::<Pod>(json!({"metadata": meta, "spec": template.spec}))
        };
        self.create_all("default", (0..SERVICES).map(service).collect()).await;
        self.create_all("default", (0..SERVICES).map(pod).collect()).await;
        let slices = self.informers.get::<EndpointSlice>();
        let ready = |slice: &EndpointSlice| {
            let endpoint = slice.endpoints.iter().flatten().next();
            endpoint.and_then(|endpoint| endpoint.conditions.as_ref()?.ready)
        };
        until_true(|| async {
            slices.list().iter().filter(|slice| ready(slice) == Some(true)).count() >= SERVICES
        })
        .await;
        let mut times = Vec::new();
        for index in 0..SAMPLES {
            let (service, mut changes) = (name(index % SERVICES), slices.subscribe());
            changes.next().await;
            let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
            let patch = Patch::Strategic(not_ready);
            self.api::<Pod>().patch_status(&service, &PatchParams::default(), &patch).await.unwrap();
            let began = Instant::now();
            loop {
                let Event::Change(Change::Updated { new, .. }) = changes.next().await else { continue };
                let labels = new.metadata.labels.clone().unwrap_or_default();
                if labels.get("kubernetes.io/service-name") == Some(&service) && ready(&new) == Some(false) {
                    break;
                }
            }
            times.push(began.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[times.len() * 99 / 100])
    }

    /// Per cent of a core that the process takes when nothing changes.
    async fn idle(&self) -> f64 {
        let all = (0..DEPLOYMENTS).map(|index| deployment(&format!("d{index}"), PODS_EACH, "v1"));
        self.create_all("default", all.collect()).await;
        self.pods(DEPLOYMENTS * PODS_EACH).await;
        self.rolled_out(&format!("d{}", DEPLOYMENTS - 1), PODS_EACH).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        let before = processor_seconds();
        tokio::time::sleep(IDLE).await;
        (processor_seconds() - before) / IDLE.as_secs_f64() * 100.0
    }
}

/// Processor time of this process so far.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// Asks until the answer is yes.
async fn until_true<Fut: Future<Output = bool>>(check: impl Fn() -> Fut) {
    let mut pause = tokio::time::interval(Duration::from_millis(2));
    while !check().await {
        pause.tick().await;
    }
}

/// The node of all pods: it is Ready, and renews its Lease as a kubelet does.
async fn node(client: Client, stop: CancellationToken) {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let now = k8s_openapi::jiff::Timestamp::now();
    let node = json!({"metadata": {"name": "n0"}, "status": {"conditions": [{"type": "Ready", "status": "True",
        "reason": "KubeletReady", "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
    let status = Patch::Merge(json!({"status": node["status"]}));
    nodes.create(&PostParams::default(), &parse(node)).await.unwrap();
    nodes.patch_status("n0", &PatchParams::default(), &status).await.unwrap();
    let lease =
        json!({"metadata": {"name": "n0"}, "spec": {"holderIdentity": "n0", "leaseDurationSeconds": 40}});
    leases.create(&PostParams::default(), &parse(lease)).await.unwrap();
    let mut pause = tokio::time::interval(Duration::from_secs(10));
    while stop.run_until_cancelled(pause.tick()).await.is_some() {
        let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let renewal = Patch::Merge(json!({"spec": {"renewTime": now}}));
        leases.patch("n0", &PatchParams::default(), &renewal).await.unwrap();
    }
}

/// Marks pods Running and Ready, and removes those that are being deleted.
async fn kubelets(client: Client, informers: Informers, stop: CancellationToken) {
    let pods = informers.get::<Pod>();
    let (queue, mut changes) = tokio::sync::mpsc::unbounded_channel::<Arc<Pod>>();
    let _guard = pods.add_handler(move |change: &Change<Pod>| {
        if let Some(pod) = change.after() {
            // The receiver ends with the cluster.
            let _ended = queue.send(pod.clone());
        }
    });
    let work = async {
        let next = stream::poll_fn(|context| changes.poll_recv(context));
        let sync = |pod: Arc<Pod>| {
            let client = client.clone();
            async move { sync(&client, &pod).await }
        };
        next.map(sync).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
    };
    stop.run_until_cancelled(work).await;
}

async fn sync(client: &Client, pod: &Pod) {
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap());
    let name = pod.metadata.name.as_deref().unwrap();
    if pod.metadata.deletion_timestamp.is_some() {
        api.delete(name, &DeleteParams::default().grace_period(0)).await.ok();
        return;
    }
    if pod.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Pending") {
        return;
    }
    let number: u32 = rand::random();
    let ip = format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255);
    let now = k8s_openapi::jiff::Timestamp::now();
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now,
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await.ok();
}
