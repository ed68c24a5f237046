//! Composition root of `kube-lite server`: builds the control plane and the node of this host, and stops them in order.

mod bundle;
mod control_plane;
mod datastore;
pub mod encryption;
mod role;
mod sharing;
mod signers;
pub mod snapshots;
mod storage_watch;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::agent::node::{self, Facts, Node, NodeIdentity};
use crate::agent::parts::Parts;
use crate::config::{self, ServerConfig};
use crate::host::Host;
use control_plane::ControlPlane;

/// A running server.
pub struct Server {
    control_plane: ControlPlane,
    parts: Parts,
}

impl Server {
    /// Starts everything; returns when the API answers. The node follows on its own.
    ///
    /// # Errors
    /// What is missing or in the way, before anything is made where that can be found out.
    pub async fn start(config: ServerConfig, stop: CancellationToken) -> anyhow::Result<Self> {
        let host = Host::real(config::program_directories());
        if !config.disable_agent {
            node::preflight(&config.node, &host)?;
        }
        let address = (config.bind_address, config.https_listen_port);
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!(
                "listen on {}:{}: another program has the port, or the address is not this host's \
                 (--https-listen-port, --bind-address)",
                address.0, address.1
            )
        })?;
        let place = node::Place::find(&config.node, &host).await?;
        let parts = Parts::new(stop);
        parts.spawn_upkeep();
        // The runtime takes longest to start: it does so while the control plane is built.
        let runtime = match config.disable_agent {
            true => None,
            false => Some(node::Runtime::start(&config.node, &host, &parts).await?),
        };
        let control_plane = ControlPlane::start(&config, &place, listener, &parts).await?;
        if let Some(runtime) = runtime {
            let client = control_plane.node_client(&place.name);
            let (owner, name) = (control_plane.administrator(), place.name.clone());
            let stop = parts.stop().clone();
            parts.spawn("node role", async move {
                role::keep(owner, name, stop).await;
                Ok(())
            });
            let identity = NodeIdentity {
                client_ca: control_plane.client_ca(),
                serving: control_plane.issue_kubelet_serving(&place)?,
            };
            let facts = Facts {
                cluster_cidr: config.cluster_cidr.to_string(),
                service_cidr: config.service_cidr.to_string(),
                cluster_dns: config.dns_address(),
                cluster_domain: config.cluster_domain.clone(),
                answer_dns: config.enabled("coredns"),
            };
            Node { config: config.node, place, facts, identity, client, runtime, host }.start(&parts);
        }
        info!(kubeconfig = %config.write_kubeconfig.display(), "the API server answers");
        Ok(Server { control_plane, parts })
    }

    /// Waits until every part has stopped; the containers stay.
    ///
    /// # Errors
    /// The failure that made the server stop, if it was one.
    pub async fn drain(self) -> anyhow::Result<()> {
        let ended = self.parts.drain().await;
        self.control_plane.close().await;
        ended
    }
}
