//! A cluster in memory: store, API server, controllers, scheduler, and simulated kubelets.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::faulty::{Dice, Faulty};
use crate::apiserver::in_process::Service;
use crate::apiserver::{ApiServer, ApiServerConfig};
use crate::cache::Cache;
use crate::client::informer::{Change, Event, HandlerGuard};
use crate::client::{Informers, from_service};
use crate::controllers::certificates::{Order, Refusal, Signer};
use crate::controllers::{Clients, ControllersConfig, manager};
use crate::pki::token::JoinSecrets;
use crate::pki::{ClusterPki, Grant};
use crate::registry::{Registry, RegistryConfig, UserInfo, bootstrap};
use crate::scheduler::{self, SchedulerConfig};
use crate::store::sqlite::{SqliteOptions, SqliteStore};

/// How long the world may take to get where a test wants it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Cluster {
    server: Arc<ApiServer>,
    informers: Informers,
    pki: Arc<ClusterPki>,
    _stop: DropGuard,
    _directory: tempfile::TempDir,
}

impl Cluster {
    /// A cluster with `nodes` nodes of 4 CPUs.
    pub(super) async fn start(nodes: usize) -> Self {
        Self::build(nodes, None).await
    }

    /// The same, but the controllers' and the scheduler's own calls fail, get lost, come late or arrive twice.
    pub(super) async fn start_faulty(nodes: usize, seed: u64) -> Self {
        Self::build(nodes, Some(Dice::new(seed))).await
    }

    async fn build(nodes: usize, dice: Option<Dice>) -> Self {
        let (directory, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let store = SqliteStore::open(&directory.path().join("state.db"), SqliteOptions::default()).unwrap();
        let cache = Cache::new(store.clone());
        let registry = Registry::new(store, cache.clone(), RegistryConfig::default()).unwrap();
        tokio::spawn(cache.run(stop.clone()));
        registry.ready().await.unwrap();
        bootstrap::run(&registry).await.unwrap();
        let pki = Arc::new(ClusterPki::load_or_create(&directory.path().join("tls"), &[]).unwrap());
        let secrets = JoinSecrets::new("server", "agent");
        let config = ApiServerConfig::default();
        let server = ApiServer::new(registry, pki.clone(), secrets, config, stop.clone()).unwrap();
        let informers = Informers::new(client(&server, "system:kube-controller-manager", &[]), stop.clone());
        let cluster =
            Self { server, informers, pki, _stop: stop.clone().drop_guard(), _directory: directory };
        cluster.start_control_plane(&stop, dice);
        for index in 0..nodes {
            cluster.add_node(&format!("n{index}"), "4").await;
        }
        tokio::spawn(kubelets(cluster.admin(), cluster.informers.clone(), stop));
        cluster
    }

    fn start_control_plane(&self, stop: &CancellationToken, dice: Option<Dice>) {
        let server = self.server.clone();
        let client_of = move |user: &str, groups: &[&str]| match &dice {
            None => client(&server, user, groups),
            Some(dice) => {
                let service = Service::new(server.clone(), user_info(user, groups));
                from_service(Faulty::new(service, dice.clone()), "default")
            }
        };
        let scheduler = client_of("system:kube-scheduler", &[]);
        let clients = Clients::new(move |name| {
            let (user, groups) = crate::controllers::identity(name);
            client_of(&user, &groups)
        });
        let signer = Some(Arc::new(Authorities(self.pki.clone())) as _);
        let config = Arc::new(ControllersConfig { signer, ..ControllersConfig::default() });
        let informers = self.informers.clone();
        let stop_controllers = stop.clone();
        tokio::spawn(async move { manager::run_all(&clients, &informers, &config, stop_controllers).await });
        let informers = Informers::new(client(&self.server, "system:kube-scheduler", &[]), stop.clone());
        tokio::spawn(scheduler::run(scheduler, informers, SchedulerConfig::default(), stop.clone()));
    }

    /// Waits until pods can be created in `default` by anybody.
    pub(super) async fn furnished(&self) {
        self.eventually::<ServiceAccount>("a default account", |all| !all.is_empty()).await;
    }

    /// Somebody else.
    pub(super) fn client_as(&self, user: &str, groups: &[&str]) -> Client {
        client(&self.server, user, groups)
    }

    pub(super) fn admin(&self) -> Client {
        client(&self.server, "admin", &["system:masters"])
    }

    /// The objects of a kind in `default`, as an administrator reaches them.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.admin(), "default")
    }

    pub(super) async fn add_node(&self, name: &str, cpu: &str) {
        let resources = json!({"cpu": cpu, "memory": "8Gi", "pods": "110"});
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"capacity": resources, "allocatable": resources,
                       "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]},
        }))
        .unwrap();
        let nodes: Api<Node> = Api::all(self.admin());
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let status = Patch::Merge(json!({"status": node.status}));
        nodes.patch_status(name, &PatchParams::default(), &status).await.unwrap();
    }

    /// What the controllers see of a kind in `default`.
    pub(super) fn list<K>(&self) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.informers.get::<K>().in_namespace("default")
    }

    /// Shows every change of the pods in `default` to `look`, until the guard is dropped.
    pub(super) fn watch_pods(&self, look: impl Fn(&[Arc<Pod>]) + Send + Sync + 'static) -> HandlerGuard {
        let pods = self.informers.get::<Pod>();
        let all = pods.clone();
        pods.add_handler(move |_| look(&all.in_namespace("default")))
    }

    /// Calls `look` with every change of a pod, until the guard is dropped.
    pub(super) fn on_pods(&self, look: impl Fn(&Change<Pod>) + Send + Sync + 'static) -> HandlerGuard {
        self.informers.get::<Pod>().add_handler(look)
    }

    /// Waits until the objects of a kind in `default` are as wanted.
    pub(super) async fn eventually<K>(&self, what: &str, wanted: impl Fn(&[Arc<K>]) -> bool)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.arrive(what, || self.list::<K>(), wanted).await;
    }

    /// Waits until the objects of a kind in all namespaces are as wanted.
    pub(super) async fn eventually_anywhere<K>(&self, what: &str, wanted: impl Fn(&[Arc<K>]) -> bool)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.arrive(what, || self.informers.get::<K>().list(), wanted).await;
    }

    async fn arrive<K>(&self, what: &str, list: impl Fn() -> Vec<Arc<K>>, wanted: impl Fn(&[Arc<K>]) -> bool)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let mut changes = self.informers.get::<K>().subscribe();
        let arrives = async {
            while !wanted(&list()) {
                changes.next().await;
            }
        };
        if tokio::time::timeout(PATIENCE, arrives).await.is_err() {
            panic!("no {what}: {:#?}", list());
        }
    }
}

fn client(server: &Arc<ApiServer>, user: &str, groups: &[&str]) -> Client {
    from_service(Service::new(server.clone(), user_info(user, groups)), "default")
}

fn user_info(user: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    UserInfo { name: user.to_owned(), uid: String::new(), groups, extra: BTreeMap::new() }
}

/// Signs everything with the authority of clients.
#[derive(Debug)]
struct Authorities(Arc<ClusterPki>);

impl Signer for Authorities {
    fn sign(&self, order: &Order<'_>) -> Result<String, Refusal> {
        let Order { organizations, usages, lifetime, .. } = *order;
        let now = time::OffsetDateTime::now_utc();
        let signed =
            self.0.client_ca().grant(order.request_pem, &Grant { organizations, usages, lifetime }, now);
        signed.map_err(|failure| Refusal(failure.to_string()))
    }
}

/// Plays the kubelets of all nodes. A container of the image `restarts` fails once and succeeds when it is restarted.
async fn kubelets(client: Client, informers: Informers, stop: CancellationToken) {
    let mut changes = informers.get::<Pod>().subscribe();
    let mut address = 0_u32;
    let work = async {
        loop {
            let pods = match changes.next().await {
                Event::Resync => informers.get::<Pod>().list(),
                Event::Change(change) => change.after().cloned().into_iter().collect(),
            };
            for pod in pods {
                address += 1;
                sync(&client, &pod, address).await;
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// How the pod ends at once, by its image: `succeeds`, `succeeds@<index>` (others run on), `fails:<exit code>`, or
/// `fails:<exit code>@<indexes>` (others succeed).
fn outcome(image: &str, pod: &Pod) -> Option<(&'static str, i32)> {
    let labels = pod.metadata.labels.as_ref();
    let index = labels.and_then(|labels| labels.get("batch.kubernetes.io/job-completion-index"));
    if image == "succeeds"
        || image.strip_prefix("succeeds@").is_some_and(|one| index.is_some_and(|i| i == one))
    {
        return Some(("Succeeded", 0));
    }
    let (code, indexes) =
        image.strip_prefix("fails:")?.split_once('@').unwrap_or((&image["fails:".len()..], ""));
    let hit = indexes.is_empty() || index.is_some_and(|index| indexes.split(',').any(|one| one == index));
    Some(if hit { ("Failed", code.parse().unwrap()) } else { ("Succeeded", 0) })
}

async fn sync(client: &Client, pod: &Pod, address: u32) {
    let spec = pod.spec.as_ref().unwrap();
    if spec.node_name.is_none() {
        return;
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap());
    let name = pod.metadata.name.as_deref().unwrap();
    if pod.metadata.deletion_timestamp.is_some() {
        // It may be gone already.
        api.delete(name, &DeleteParams::default().grace_period(0)).await.ok();
        return;
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let image = spec.containers[0].image.as_deref().unwrap_or_default();
    if phase == Some("Running") && image == "restarts" {
        let ended = Patch::Strategic(json!({"status": {"phase": "Succeeded"}}));
        api.patch_status(name, &PatchParams::default(), &ended).await.ok();
    }
    if phase != Some("Pending") || image == "broken" {
        return;
    }
    if let Some((phase, code)) = outcome(image, pod) {
        let ended = json!({"status": {"phase": phase, "containerStatuses": [{
            "name": spec.containers[0].name, "image": image, "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code}},
        }]}});
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(ended)).await.ok();
        return;
    }
    let ip = format!("10.42.{}.{}", address / 250, address % 250 + 1);
    let now = k8s_openapi::jiff::Timestamp::now();
    let status = json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now,
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
        "containerStatuses": [{"name": spec.containers[0].name, "image": image, "imageID": "", "ready": true,
            "restartCount": i32::from(image == "restarts"), "state": {"running": {"startedAt": now}}}],
    }});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await.ok();
}
