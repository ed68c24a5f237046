//! The control plane: store, cache, registry, API server, controllers and scheduler, handed to each other.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::agent::node::Place;
use crate::agent::parts::Parts;
use crate::apiserver::audit::AuditOptions;
use crate::apiserver::{self, ApiServer, ApiServerConfig, Tls, in_process};
use crate::cache::Cache;
use crate::client::events::Recorder;
use crate::client::{self, Informers};
use crate::config::ServerConfig;
use crate::controllers::{self, Clients, ControllersConfig};
use crate::pki::{self, ClusterPki, files, kubeconfig};
use crate::registry::{Registry, RegistryConfig, UserInfo, bootstrap};
use crate::scheduler::{self, SchedulerConfig};
use crate::store::Store;

use super::sharing::Own;
use super::signers::Signers;
use super::snapshots::{self, Snapshots};
use super::storage_watch;

/// The parts that others need again.
pub(super) struct ControlPlane {
    api: Arc<ApiServer>,
    pki: Arc<ClusterPki>,
    store: Arc<dyn Store>,
    /// Stops the watch cache when it is dropped.
    cache_stop: DropGuard,
    cache_task: JoinHandle<()>,
}

impl ControlPlane {
    /// Builds it and serves the API on `listener`.
    pub(super) async fn start(
        config: &ServerConfig,
        place: &Place,
        listener: TcpListener,
        parts: &Parts,
    ) -> anyhow::Result<Self> {
        let directory = config.node.server_dir();
        files::make_private_dir(&directory)?;
        let (sans, advertise) = (names(config, place), advertised(config, place));
        let store = super::datastore::open(config, parts).await?;
        let own = Own {
            directory: &directory,
            token: config.token.as_deref(),
            agent_token: config.agent_token.as_deref(),
            names: &sans,
            encrypt: config.secrets_encryption,
        };
        let (pki, secrets) = super::sharing::settle(&store, &own).await?;
        let pki = Arc::new(pki);
        let raw = store;
        let encrypted = super::encryption::apply(raw.clone(), &directory, config.secrets_encryption).await?;
        parts.spawn(
            "encryption keys",
            super::encryption::follow(encrypted.clone(), raw, directory.clone(), parts.stop().clone()),
        );
        let store: Arc<dyn Store> = encrypted;
        if let Some(schedule) = config.snapshot_schedule()? {
            let snapshots = Snapshots::new(&config.snapshots, &directory, &place.name);
            let (source, stop) = (snapshots::Source::Store(store.clone()), parts.stop().clone());
            parts.spawn("snapshots", async move {
                snapshots.run(source, schedule, stop).await;
                Ok(())
            });
        }
        let cache = Cache::with_window(store.clone(), config.watch_cache_window_bytes);
        let registry = Registry::new(store.clone(), cache.clone(), registry_config(config, advertise))?;
        // Outlives the other parts: what they write at their end, such as giving up a lease, passes through it.
        let cache_stop = CancellationToken::new();
        let cache_task = tokio::spawn(cache.run(cache_stop.clone()));
        let cache_stop = cache_stop.drop_guard();
        let api = ApiServer::new(
            registry.clone(),
            pki.clone(),
            secrets,
            api_config(config, advertise),
            parts.stop().clone(),
        )?;
        registry.ready().await.context("load the cluster's state")?;
        bootstrap::run(&registry).await.context("make the first objects of the cluster")?;
        write_kubeconfig(config, &pki)?;
        let tls = Tls::new(pki.apiserver_serving(), pki.client_ca())?;
        parts.spawn("API server", {
            let (api, stop) = (api.clone(), parts.stop().clone());
            async move {
                apiserver::serve(listener, tls, api.clone(), stop).await;
                api.drain().await;
                Ok(())
            }
        });
        let watched = (store.clone(), registry.cache().clone());
        let control_plane = ControlPlane { api, pki, store, cache_stop, cache_task };
        control_plane.watch_storage(watched, place, parts);
        control_plane.start_loops(config, place, parts);
        Ok(control_plane)
    }

    /// Warns of limits of the datastore, as Events.
    fn watch_storage(&self, (store, cache): (Arc<dyn Store>, Arc<Cache>), place: &Place, parts: &Parts) {
        let (node, stop) = (place.name.clone(), parts.stop().clone());
        let client = self.client_as("system:apiserver", &["system:masters"]);
        parts.spawn("datastore watch", async move {
            let tasks = tokio_util::task::TaskTracker::new();
            let recorder = Recorder::start(client, "kube-lite", &node, &tasks, stop.clone());
            storage_watch::run(store, cache, recorder, node, stop).await;
            tasks.close();
            tasks.wait().await;
            Ok(())
        });
    }

    /// Controllers and scheduler: ordinary clients, which share what they watch.
    fn start_loops(&self, config: &ServerConfig, place: &Place, parts: &Parts) {
        let stop = parts.stop().clone();
        let shared = self.client_as("system:kube-controller-manager", &[]);
        let informers = Informers::new(shared.clone(), stop.clone());
        if !config.disable_controller_manager {
            let settings = ControllersConfig {
                identity: place.name.clone(),
                cluster_cidrs: vec![config.cluster_cidr.to_string()],
                root_ca_pem: self.pki.server_ca().cert_pem().to_owned(),
                disabled: config.disable.clone(),
                signer: Some(Arc::new(Signers(self.pki.clone()))),
                ..ControllersConfig::default()
            };
            let api = self.api.clone();
            let clients = Clients::new(move |account| account_client(&api, account));
            let (informers, stop) = (informers.clone(), stop.clone());
            parts.spawn("controllers", async move {
                controllers::manager::run(shared, clients, informers, settings, stop).await;
                Ok(())
            });
        }
        if !config.disable_scheduler {
            let client = self.client_as("system:kube-scheduler", &[]);
            let settings = SchedulerConfig { identity: place.name.clone(), ..SchedulerConfig::default() };
            parts.spawn("scheduler", async move {
                scheduler::run(client, informers, settings, stop).await;
                Ok(())
            });
        }
    }

    /// A client that is the kubelet of that node.
    pub(super) fn node_client(&self, node: &str) -> kube::Client {
        self.client_as(&format!("system:node:{node}"), &["system:nodes"])
    }

    /// A client that may do everything, for what no other identity of ours may.
    pub(super) fn administrator(&self) -> kube::Client {
        self.client_as("system:kube-lite", &["system:masters"])
    }

    fn client_as(&self, user: &str, groups: &[&str]) -> kube::Client {
        client_as(&self.api, user, groups)
    }

    /// The authority of client certificates, PEM.
    pub(super) fn client_ca(&self) -> String {
        self.pki.client_ca().cert_pem().to_owned()
    }

    /// A serving certificate for the kubelet of this host.
    pub(super) fn issue_kubelet_serving(&self, place: &Place) -> anyhow::Result<pki::Identity> {
        let names: Vec<String> =
            std::iter::once(place.name.clone()).chain(place.ips.iter().map(ToString::to_string)).collect();
        Ok(self.pki.issue_server(&format!("system:node:{}", place.name), &names)?)
    }

    /// Closes the store, after everything that writes has stopped.
    pub(super) async fn close(self) {
        drop(self.api);
        drop(self.cache_stop);
        if let Err(error) = self.cache_task.await {
            tracing::warn!(%error, "the watch cache ended abnormally");
        }
        self.store.shutdown().await;
    }
}

fn client_as(api: &Arc<ApiServer>, user: &str, groups: &[&str]) -> kube::Client {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let user = UserInfo { name: user.to_owned(), groups, ..UserInfo::default() };
    client::from_service(in_process::Service::new(api.clone(), user), "default")
}

/// A client that is a controller.
fn account_client(api: &Arc<ApiServer>, account: &str) -> kube::Client {
    let (user, groups) = controllers::identity(account);
    client_as(api, &user, &groups)
}

/// Where other nodes and pods find this server.
fn advertised(config: &ServerConfig, place: &Place) -> IpAddr {
    let bound = Some(config.bind_address).filter(|address| !address.is_unspecified());
    config.advertise_address.or(bound).unwrap_or(place.ips[0])
}

/// The names and addresses under which clients reach this server, beyond the built-in ones.
fn names(config: &ServerConfig, place: &Place) -> Vec<String> {
    let mut names = config.tls_san.clone();
    names.push(place.name.clone());
    names.push(format!("kubernetes.default.svc.{}", config.cluster_domain));
    let mut addresses = vec![config.service_cidr.nth(1), advertised(config, place)];
    addresses.extend(&place.ips);
    addresses.extend(&config.node.node_external_ip);
    addresses.extend(Some(config.bind_address).filter(|address| !address.is_unspecified()));
    names.extend(addresses.iter().map(ToString::to_string));
    names
}

fn registry_config(config: &ServerConfig, advertise: IpAddr) -> RegistryConfig {
    RegistryConfig {
        service_cidr: config.service_cidr.to_string(),
        node_ports: (config.service_node_port_range.low, config.service_node_port_range.high),
        advertise,
        secure_port: config.https_listen_port,
        local_storage: config.enabled("local-storage"),
    }
}

fn api_config(config: &ServerConfig, advertise: IpAddr) -> ApiServerConfig {
    ApiServerConfig {
        cluster_domain: config.cluster_domain.clone(),
        cluster_cidr: config.cluster_cidr.to_string(),
        service_cidr: config.service_cidr.to_string(),
        cluster_dns: config.dns_address(),
        usage: config.enabled("metrics-server"),
        advertise: std::net::SocketAddr::new(advertise, config.https_listen_port).to_string(),
        audit: AuditOptions {
            policy_file: config.audit.audit_policy_file.clone(),
            log_path: config.audit.audit_log_path.clone(),
            max_age_days: config.audit.audit_log_maxage,
            max_backups: config.audit.audit_log_maxbackup,
            max_size_megabytes: config.audit.audit_log_maxsize,
        },
        anonymous_auth: config.anonymous_auth,
        ..ApiServerConfig::default()
    }
}

fn write_kubeconfig(config: &ServerConfig, pki: &ClusterPki) -> anyhow::Result<()> {
    let local = match config.bind_address {
        address if !address.is_unspecified() => address,
        IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
    };
    let url = format!("https://{}", std::net::SocketAddr::new(local, config.https_listen_port));
    let path = &config.write_kubeconfig;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    kubeconfig::write(path, config.write_kubeconfig_mode, &url, pki.server_ca().cert_pem(), pki.admin())?;
    Ok(())
}
