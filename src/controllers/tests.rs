//! All controllers against the real API server in this process, over a temporary store: each as its own service
//! account, so that the built-in roles are tried too.

use super::*;
use crate::{
    apiserver::{ApiServer, ApiServerConfig, in_process},
    cache::Cache,
    client::{Informers, from_service},
    pki::{ClusterPki, token::JoinSecrets},
    registry::{Registry, RegistryConfig, UserInfo, bootstrap},
    store::sqlite::{SqliteOptions, SqliteStore},
};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Event, Namespace, Node, Pod, ServiceAccount},
    rbac::v1::ClusterRole,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams, PropagationPolicy},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{future::Future, sync::Arc, time::Duration};
use tokio_util::sync::{CancellationToken, DropGuard};

struct Cluster {
    server: Arc<ApiServer>,
    stop: CancellationToken,
    _end: DropGuard,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let store = SqliteStore::open(&dir.path().join("state.db"), SqliteOptions::default()).unwrap();
        let cache = Cache::new(store.clone());
        let registry = Registry::new(store, cache.clone(), RegistryConfig::default()).unwrap();
        tokio::spawn(cache.run(stop.clone()));
        registry.ready().await.unwrap();
        let pki = Arc::new(ClusterPki::load_or_create(&dir.path().join("tls"), &[]).unwrap());
        let secrets = JoinSecrets::new("server", "agent");
        let config = ApiServerConfig::default();
        let server = ApiServer::new(registry.clone(), pki, secrets, config, stop.clone()).unwrap();
        bootstrap::run(&registry).await.unwrap();
        Self { server, stop: stop.clone(), _end: stop.drop_guard(), _dir: dir }
    }

    fn client(&self, name: &str, groups: &[&str]) -> Client {
        let groups = groups.iter().map(ToString::to_string).collect();
        let user = UserInfo { name: name.to_owned(), groups, ..UserInfo::default() };
        from_service(in_process::Service::new(self.server.clone(), user), "default")
    }

    fn admin(&self) -> Client {
        self.client("admin", &["system:masters"])
    }

    fn account(server: &Arc<ApiServer>, name: &str) -> Client {
        let (name, groups) = identity(name);
        let groups = groups.iter().map(ToString::to_string).collect();
        let user = UserInfo { name, groups, ..UserInfo::default() };
        from_service(in_process::Service::new(server.clone(), user), "default")
    }

    /// The controllers under their lease, as the server runs them. The task ends after `stop`.
    fn control(&self, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
        let client = self.client("system:kube-controller-manager", &[]);
        let server = self.server.clone();
        let clients = Clients::new(move |name| Self::account(&server, name));
        let informers = Informers::new(client.clone(), self.stop.clone());
        let config = ControllersConfig { root_ca_pem: "the root".into(), ..ControllersConfig::default() };
        tokio::spawn(manager::run(client, clients, informers, config, stop.clone()))
    }
}

fn parse<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Asks until the answer is yes; fails after a while.
async fn eventually<Fut: Future<Output = bool>>(what: &str, check: impl Fn() -> Fut) {
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    let asking = async {
        while !check().await {
            pause.tick().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), asking).await.is_ok(), "never happened: {what}");
}

async fn count<K>(client: &Client, namespace: &str) -> usize
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    Api::<K>::namespaced(client.clone(), namespace).list(&ListParams::default()).await.unwrap().items.len()
}

async fn create<K>(client: &Client, namespace: &str, object: Value) -> K
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + serde::Serialize,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &parse(object)).await.unwrap()
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "example/web"}]},
            },
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_are_furnished_and_emptied() {
    let cluster = Cluster::start().await;
    let stop = CancellationToken::new();
    let running = cluster.control(&stop);
    let admin = cluster.admin();
    let namespaces = Api::<Namespace>::all(admin.clone());
    namespaces.create(&PostParams::default(), &parse(json!({"metadata": {"name": "demo"}}))).await.unwrap();
    let furnished = || async {
        let accounts = Api::<ServiceAccount>::namespaced(admin.clone(), "demo");
        let maps = Api::<ConfigMap>::namespaced(admin.clone(), "demo");
        let bundle = maps.get_opt("kube-root-ca.crt").await.unwrap().and_then(|map| map.data);
        accounts.get_opt("default").await.unwrap().is_some()
            && bundle.is_some_and(|data| data.get("ca.crt").is_some_and(|pem| pem == "the root"))
    };
    eventually("account and bundle are there", furnished).await;
    create::<ConfigMap>(&admin, "demo", json!({"metadata": {"name": "m"}, "data": {"a": "b"}})).await;
    create::<Deployment>(&admin, "demo", deployment()).await;
    eventually("the deployment has its pods", || async { count::<Pod>(&admin, "demo").await == 2 }).await;
    namespaces.delete("demo", &DeleteParams::default()).await.unwrap();
    eventually("the namespace has gone", || async { namespaces.get_opt("demo").await.unwrap().is_none() })
        .await;
    for left in [count::<Pod>(&admin, "demo").await, count::<ConfigMap>(&admin, "demo").await] {
        assert_eq!(left, 0);
    }
    assert!(namespaces.get_opt("default").await.unwrap().is_some());
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_take_their_dependents_with_them_or_leave_them() {
    let cluster = Cluster::start().await;
    let stop = CancellationToken::new();
    let running = cluster.control(&stop);
    let admin = cluster.admin();
    let deployments = Api::<Deployment>::namespaced(admin.clone(), "default");
    let family =
        || async { (count::<ReplicaSet>(&admin, "default").await, count::<Pod>(&admin, "default").await) };
    for policy in [PropagationPolicy::Background, PropagationPolicy::Foreground] {
        create::<Deployment>(&admin, "default", deployment()).await;
        eventually("set and pods are there", || async { family().await == (1, 2) }).await;
        let params = DeleteParams { propagation_policy: Some(policy.clone()), ..DeleteParams::default() };
        deployments.delete("web", &params).await.unwrap();
        eventually("all have gone", || async {
            family().await == (0, 0) && deployments.get_opt("web").await.unwrap().is_none()
        })
        .await;
    }
    create::<Deployment>(&admin, "default", deployment()).await;
    eventually("set and pods are there", || async { family().await == (1, 2) }).await;
    deployments.delete("web", &DeleteParams::orphan()).await.unwrap();
    eventually("the deployment has gone", || async { deployments.get_opt("web").await.unwrap().is_none() })
        .await;
    let sets = Api::<ReplicaSet>::namespaced(admin.clone(), "default");
    let set = sets.list(&ListParams::default()).await.unwrap().items.remove(0);
    assert!(set.metadata.owner_references.is_none_or(|owners| owners.is_empty()));
    assert_eq!(family().await, (1, 2));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_get_ranges_and_roles_get_rules_under_the_lease() {
    let cluster = Cluster::start().await;
    let stop = CancellationToken::new();
    let running = cluster.control(&stop);
    let admin = cluster.admin();
    let nodes = Api::<Node>::all(admin.clone());
    nodes.create(&PostParams::default(), &parse(json!({"metadata": {"name": "n1"}}))).await.unwrap();
    eventually("the node has a range", || async {
        let spec = nodes.get("n1").await.unwrap().spec.unwrap_or_default();
        spec.pod_cidr.as_deref() == Some("10.42.0.0/24")
            && spec.pod_cidrs == Some(vec!["10.42.0.0/24".into()])
    })
    .await;
    let roles = Api::<ClusterRole>::all(admin.clone());
    eventually("admin has the rules of view", || async {
        let rules = roles.get("admin").await.unwrap().rules.unwrap_or_default();
        rules.iter().any(|rule| rule.resources.iter().flatten().any(|resource| resource == "endpointslices"))
    })
    .await;
    let events = Api::<Event>::all(admin.clone());
    eventually("the node's registration is told", || async {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        all.iter().any(|event| event.reason.as_deref() == Some("RegisteredNode"))
    })
    .await;
    let leases = Api::<Lease>::namespaced(admin.clone(), "kube-system");
    let holder = || async { leases.get(manager::LEASE).await.unwrap().spec.unwrap().holder_identity };
    assert_eq!(holder().await.as_deref(), Some("kube-lite"));
    stop.cancel();
    running.await.unwrap();
    assert_eq!(holder().await, None, "a clean stop gives the lease up");
}
