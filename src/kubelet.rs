//! The node agent: pod workers, status, probes, volumes, images, node status and the kubelet's HTTPS server.
//!
//! The kubelet is an ordinary API client. What it knows is in the API objects and in the runtime (labels and
//! annotations on sandboxes and containers); it may be killed at any moment and goes on where it was.

mod config;
pub mod containerd;
mod containers;
mod context;
mod cpus;
mod devices;
mod events;
mod eviction;
mod groups;
pub mod images;
mod labels;
mod logs;
mod node;
mod observed;
mod plugins;
mod pod_resources;
mod pods;
mod probes;
mod runtime;
pub mod server;
mod shutdown;
mod spec;
mod stats;
mod status;
mod volumes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Informer, Informers, Recorder, Selection};
use crate::cri::{Runtime, v1};
use crate::host::Host;
use crate::host::mounts::{MountError, MountKind, Mounts};
use containers::resources::{self, NodeLimits};
use context::Context;
use cpus::CpuManager;
use images::providers::NodeCredentials;
use node::describe::Machine;
use node::heartbeat::Heartbeat;
use pods::manager::Manager;
use pods::static_pods::StaticPods;
use pods::table::Table;
use server::{Server, ServerError, Sources};

pub use config::{
    CgroupDriver, CpuManagerConfig, ImageMounts, KubeletConfig, LimitRules, ServerConfig, ShutdownPeriod,
    SwapRule,
};
pub use eviction::thresholds;

/// Wait between questions to a runtime that does not answer yet.
const RUNTIME_RETRY: Duration = Duration::from_millis(100);

/// Why the kubelet cannot start.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// A directory of its own cannot be made.
    #[error("make directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The HTTPS server cannot start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Credential providers cannot be asked.
    #[error("credential providers")]
    Credentials(#[from] images::providers::ProvidersError),
    /// Processors cannot be given to containers.
    #[error("CPU manager")]
    Cpus(#[from] cpus::CpuManagerError),
}

/// The node agent.
pub struct Kubelet {
    config: Arc<KubeletConfig>,
    client: kube::Client,
    runtime: Arc<dyn Runtime>,
    host: Host,
    probes: Arc<probes::counts::Counts>,
}

/// What there is before the runtime answers, and its answer.
struct Begun {
    version: v1::VersionResponse,
    /// Port of the server.
    port: u16,
    cpus: Option<Arc<CpuManager>>,
    drivers: plugins::Drivers,
    credentials: NodeCredentials,
}

impl Kubelet {
    /// A kubelet that talks to the API with the identity of `client` (`system:node:<name>`).
    pub fn new(config: KubeletConfig, client: kube::Client, runtime: Arc<dyn Runtime>, host: Host) -> Self {
        Self { config: Arc::new(config), client, runtime, host, probes: Arc::default() }
    }

    /// Registers the node and runs its pods until `stop`. Containers keep running afterwards.
    ///
    /// # Errors
    /// A directory cannot be made, the certificates are unusable, or the port is taken.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), KubeletError> {
        self.make_directories()?;
        if let Err(error) = groups::make(&self.host, &self.config).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "pods have no control groups of their own: the host does not allow it"
            );
            Arc::make_mut(&mut self.config).cgroup_root = None;
        }
        self.settle_swap();
        let cpus = self.cpu_manager()?;
        let providers = self.config.credential_providers.as_ref();
        let credentials =
            NodeCredentials::new(&self.config.root_dir, providers, self.host.processes.clone())?;
        let tasks = TaskTracker::new();
        // Everything below ends with this token: with the caller's, or when the kubelet cannot go on.
        let stop = stop.child_token();
        let ending = stop.clone().drop_guard();
        let informers = Informers::new(self.client.clone(), stop.clone());
        let mine = format!("spec.nodeName={}", self.config.node_name);
        let pods = informers.select::<Pod>(Selection::fields(mine));
        let drivers = plugins::Drivers::default();
        let sources = Sources {
            probes: self.probes.clone(),
            runtime: self.runtime.clone(),
            pods: pods.clone(),
            client: self.client.clone(),
            node_name: self.config.node_name.clone(),
            config: self.config.clone(),
            root_dir: self.config.root_dir.clone(),
            host: self.host.clone(),
            rates: Arc::default(),
            volumes: Arc::new(volumes::figures::VolumeFigures::new(
                self.client.clone(),
                drivers.clone(),
                self.host.clone(),
                self.config.root_dir.clone(),
            )),
            started: i64::try_from(self.host.clock.now().as_nanosecond()).unwrap_or(0),
        };
        let server = Server::bind(&self.config.server, sources, stop.clone()).await?;
        let port = server.address().map_or(self.config.server.address.port(), |a| a.port());
        tasks.spawn(server.run());
        if let Some(version) = stop.run_until_cancelled(self.runtime_version()).await {
            let begun = Begun { version, port, cpus, drivers, credentials };
            let (manager, statics) = self.start(begun, &informers, &pods, &tasks, &stop);
            manager.run(pods, statics).await;
        }
        drop(ending);
        tasks.close();
        tasks.wait().await;
        informers.closed().await;
        Ok(())
    }

    /// A host whose groups cannot limit swap is told nothing about it.
    fn settle_swap(&mut self) {
        let limited = groups::all_pods(&self.config).is_some_and(|all| self.host.cgroups.limits_swap(&all));
        if !limited {
            Arc::make_mut(&mut self.config).limits.swap = SwapRule::Unsaid;
        }
    }

    fn cpu_manager(&self) -> Result<Option<Arc<CpuManager>>, KubeletError> {
        let Some(config) = self.config.cpu_manager.clone() else { return Ok(None) };
        let reserved = self.config.reserved.get("cpu").map(|q| resources::milli(&Quantity(q.clone())));
        let topology = self.host.machine.processors();
        let manager = CpuManager::new(config, topology, reserved.unwrap_or(0), &self.config.root_dir)?;
        Ok(Some(Arc::new(manager)))
    }

    fn make_directories(&self) -> Result<(), KubeletError> {
        let root = &self.config.root_dir;
        for path in [root.join("pods"), root.join("seccomp"), self.config.log_dir.clone()] {
            std::fs::create_dir_all(&path).map_err(|source| KubeletError::Directory { path, source })?;
        }
        if let Err(error) = share(self.host.mounts.as_ref(), root) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what pods mount with Bidirectional propagation does not reach other pods"
            );
        }
        Ok(())
    }

    /// Waits for the runtime, which may be starting at the same time.
    async fn runtime_version(&self) -> v1::VersionResponse {
        loop {
            match self.runtime.version().await {
                Ok(version) => return version,
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "waiting for the container runtime"
                    );
                    tokio::time::sleep(RUNTIME_RETRY).await;
                }
            }
        }
    }

    /// Starts everything but the pod workers, whose manager it returns.
    fn start(
        self,
        begun: Begun,
        informers: &Informers,
        pods: &Informer<Pod>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> (Manager, StaticPods) {
        let Self { mut config, client, runtime, host, probes } = self;
        let Begun { version, port, cpus, drivers, credentials } = begun;
        if volumes::image::runtime_can(&version.runtime_name, &version.runtime_version) {
            Arc::make_mut(&mut config).image_mounts = None;
        }
        let nodes =
            informers.select::<Node>(Selection::fields(format!("metadata.name={}", config.node_name)));
        let recorder = Recorder::start(client.clone(), "kubelet", &config.node_name, tasks, stop.clone());
        let info = host.machine.info();
        let memory = i64::try_from(info.memory).unwrap_or(i64::MAX);
        let limits = node_limits(&host, &config, memory);
        let disk = host.filesystems.usage(&config.root_dir).map_or(0, |u| u.capacity);
        let runtime_name = version.runtime_name.clone();
        let machine = Machine { info, disk, runtime: version };
        let (node_tx, node) = watch::channel(None::<Arc<Node>>);
        let (pressure_tx, pressure) = watch::channel(eviction::Pressure::default());
        let (shutdown_tx, shutdown) = watch::channel(false);
        let devices = devices::Devices::new(&config.root_dir);
        let ctx = Arc::new(Context {
            devices: devices.clone(),
            users: Default::default(),
            probes,
            volumes: Arc::new(volumes::Volumes::new(config.clone(), client.clone(), host.clone(), drivers)),
            watches: Arc::new(volumes::fresh::Watches::new(client.clone(), tasks.clone())),
            services: informers.get::<Service>(),
            config: config.clone(),
            client: client.clone(),
            runtime: runtime.clone(),
            host: host.clone(),
            recorder: recorder.clone(),
            images: images::Images::new(config.parallel_pulls, Some(credentials)),
            node,
            runtime_name,
            memory,
            limits,
            cpus: cpus.clone(),
            shutdown: shutdown.clone(),
            pressure: pressure.clone(),
        });
        let heartbeat = Heartbeat {
            config,
            client,
            runtime: runtime.clone(),
            host,
            machine,
            port,
            recorder,
            nodes,
            node: node_tx,
            pressure,
            devices: devices.counts(),
            shutdown,
        };
        tasks.spawn(devices::run(devices, stop.clone()));
        tasks.spawn(heartbeat.run(stop.clone()));
        let table = Table::default();
        if let Some(cpus) = cpus {
            tasks.spawn(cpus.run(runtime.clone(), table.clone(), stop.clone()));
        }
        tasks.spawn(pods::relist::run(runtime, table.clone(), stop.clone()));
        tasks.spawn(pod_resources::run(ctx.clone(), table.clone(), stop.clone()));
        tasks.spawn(shutdown::run(ctx.clone(), table.clone(), shutdown_tx, stop.clone()));
        tasks.spawn(eviction::run(ctx.clone(), table.clone(), pressure_tx, stop.clone()));
        tasks.spawn(plugins::run(ctx.clone(), stop.clone()));
        let csi = ctx.volumes.csi().clone();
        tasks.spawn(csi.follow_growth(ctx.recorder.clone(), stop.clone()));
        tasks.spawn(node::upkeep::run(ctx.clone(), table.clone(), stop.clone()));
        let statics = static_pods(&ctx, pods, tasks, stop);
        (Manager::new(ctx, table, stop.clone()), statics)
    }
}

/// What of the node decides about the limits of containers.
fn node_limits(host: &Host, config: &KubeletConfig, memory: i64) -> NodeLimits {
    let limited = host.cgroups.controllers().iter().any(|controller| controller == "hugetlb");
    let pools = host.machine.info().huge_pages;
    let page_sizes = pools.into_iter().map(|(size, _)| size).filter(|_| limited).collect();
    NodeLimits { memory, rules: config.limits, page_sizes }
}

/// Makes mounts that pods (CSI drivers above all) make below the root reach the host and other pods.
fn share(mounts: &dyn Mounts, root: &std::path::Path) -> Result<(), MountError> {
    let all = mounts.list()?;
    let around = all.iter().filter(|mount| root.starts_with(&mount.target));
    match around.max_by_key(|mount| mount.target.components().count()) {
        Some(mount) if mount.shared => return Ok(()),
        Some(mount) if mount.target == root => {}
        _ => mounts.mount(root, &MountKind::Bind { source: root.to_owned(), read_only: false })?,
    }
    mounts.make_shared(root)
}

/// Starts what reads manifests and shows their pods in the API; without a directory there are none.
fn static_pods(
    ctx: &Arc<Context>,
    pods: &Informer<Pod>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> StaticPods {
    let node = ctx.config.node_name.clone();
    let first = ctx.config.manifest_dir.as_deref().map(|dir| pods::static_pods::read(dir, &node));
    let (sender, statics) = watch::channel(first.unwrap_or_default());
    if let Some(directory) = ctx.config.manifest_dir.clone() {
        tasks.spawn(pods::static_pods::follow(directory, node, sender, stop.clone()));
    }
    tasks.spawn(pods::static_pods::mirror(ctx.clone(), statics.clone(), pods.clone(), stop.clone()));
    statics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeMounts;

    #[test]
    fn the_root_is_shared_once_with_whoever_mounts_below_it() {
        let (mounts, root) = (FakeMounts::default(), std::path::Path::new("/var/lib/kubelet"));
        for _ in 0..2 {
            share(&mounts, root).unwrap();
        }
        assert_eq!(mounts.targets(), [root.to_owned()]);
        assert!(mounts.list().unwrap()[0].shared);
    }
}
