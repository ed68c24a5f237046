//! The node agent: pod workers, status, probes, volumes, images, node status and the kubelet's HTTPS server.
//!
//! The kubelet is an ordinary API client. What it knows is in the API objects and in the runtime (labels and
//! annotations on sandboxes and containers); it may be killed at any moment and goes on where it was.

mod config;
pub mod containerd;
mod containers;
mod context;
mod events;
pub mod images;
mod labels;
mod logs;
mod node;
mod observed;
mod pods;
mod probes;
mod runtime;
pub mod server;
mod spec;
mod status;
mod volumes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Informers, Recorder, Selection};
use crate::cri::{Runtime, v1};
use crate::host::Host;
use context::Context;
use node::describe::Machine;
use node::heartbeat::Heartbeat;
use pods::manager::Manager;
use pods::table::Table;
use server::{Server, ServerError, Sources};

pub use config::{CgroupDriver, ImageMounts, KubeletConfig, ServerConfig};

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
}

/// The node agent.
pub struct Kubelet {
    config: Arc<KubeletConfig>,
    client: kube::Client,
    runtime: Arc<dyn Runtime>,
    host: Host,
}

impl Kubelet {
    /// A kubelet that talks to the API with the identity of `client` (`system:node:<name>`).
    pub fn new(config: KubeletConfig, client: kube::Client, runtime: Arc<dyn Runtime>, host: Host) -> Self {
        Self { config: Arc::new(config), client, runtime, host }
    }

    /// Registers the node and runs its pods until `stop`. Containers keep running afterwards.
    ///
    /// # Errors
    /// A directory cannot be made, the certificates are unusable, or the port is taken.
    pub async fn run(self, stop: CancellationToken) -> Result<(), KubeletError> {
        self.make_directories()?;
        let tasks = TaskTracker::new();
        // Everything below ends with this token: with the caller's, or when the kubelet cannot go on.
        let stop = stop.child_token();
        let ending = stop.clone().drop_guard();
        let informers = Informers::new(self.client.clone(), stop.clone());
        let mine = format!("spec.nodeName={}", self.config.node_name);
        let pods = informers.select::<Pod>(Selection::fields(mine));
        let sources = Sources {
            runtime: self.runtime.clone(),
            pods: pods.clone(),
            client: self.client.clone(),
            node_name: self.config.node_name.clone(),
        };
        let server = Server::bind(&self.config.server, sources, stop.clone()).await?;
        let port = server.address().map_or(self.config.server.address.port(), |a| a.port());
        tasks.spawn(server.run());
        if let Some(version) = stop.run_until_cancelled(self.runtime_version()).await {
            self.start(version, port, &informers, &tasks, &stop).run(pods).await;
        }
        drop(ending);
        tasks.close();
        tasks.wait().await;
        informers.closed().await;
        Ok(())
    }

    fn make_directories(&self) -> Result<(), KubeletError> {
        let root = &self.config.root_dir;
        for path in [root.join("pods"), root.join("seccomp"), self.config.log_dir.clone()] {
            std::fs::create_dir_all(&path).map_err(|source| KubeletError::Directory { path, source })?;
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
        version: v1::VersionResponse,
        port: u16,
        informers: &Informers,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Manager {
        let Self { mut config, client, runtime, host } = self;
        if volumes::image::runtime_can(&version.runtime_name, &version.runtime_version) {
            Arc::make_mut(&mut config).image_mounts = None;
        }
        let recorder = Recorder::start(client.clone(), "kubelet", &config.node_name, tasks, stop.clone());
        let info = host.machine.info();
        let memory = i64::try_from(info.memory).unwrap_or(i64::MAX);
        let disk = host.filesystems.usage(&config.root_dir).map_or(0, |u| u.capacity);
        let runtime_name = version.runtime_name.clone();
        let machine = Machine { info, disk, runtime: version };
        let (node_tx, node) = watch::channel(None::<Arc<Node>>);
        let ctx = Arc::new(Context {
            volumes: Arc::new(volumes::Volumes::new(config.clone(), client.clone(), host.clone())),
            watches: Arc::new(volumes::fresh::Watches::new(client.clone(), tasks.clone())),
            services: informers.get::<Service>(),
            config: config.clone(),
            client: client.clone(),
            runtime: runtime.clone(),
            host: host.clone(),
            recorder: recorder.clone(),
            images: images::Images::default(),
            node,
            runtime_name,
            memory,
        });
        let heartbeat = Heartbeat {
            config,
            client,
            runtime: runtime.clone(),
            host,
            machine,
            port,
            recorder,
            node: node_tx,
        };
        tasks.spawn(heartbeat.run(stop.clone()));
        let table = Table::default();
        tasks.spawn(pods::relist::run(runtime, table.clone(), stop.clone()));
        tasks.spawn(node::upkeep::run(ctx.clone(), table.clone(), stop.clone()));
        Manager::new(ctx, table, stop.clone())
    }
}
