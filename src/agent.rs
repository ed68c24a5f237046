//! Composition root of `kube-lite agent`: joins a server and runs the node of this host.

mod check;
mod join;
pub(crate) mod node;
pub(crate) mod parts;
mod trust;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::client;
use crate::client::remote::{self, RemoteConfig};
use crate::config::{self, AgentConfig};
use crate::host::Host;
pub use check::{HostReport, check_host};
use join::{Applicant, Joined};
use node::{Facts, Node, NodeIdentity, Place, Runtime};
use parts::Parts;

/// Pauses between tries to join, the first and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// A running agent.
pub struct Agent {
    parts: Parts,
}

impl Agent {
    /// Joins the server, waiting for it as long as it takes, and starts the node.
    ///
    /// # Errors
    /// This host cannot be a node, or the token is wrong. A server that does not answer is asked again.
    pub async fn join(config: AgentConfig, stop: CancellationToken) -> anyhow::Result<Self> {
        let host = Host::real(config::program_directories());
        node::preflight(&config.node, &host)?;
        let place = Place::find(&config.node, &host).await?;
        let parts = Parts::new(stop.clone());
        parts.spawn_upkeep();
        let runtime = Runtime::start(&config.node, &host, &parts).await?;
        let applicant = Applicant {
            server_url: config.server_url(),
            token: config.join_token(),
            node_name: &place.name,
            node_ips: place.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            agent_dir: config.node.agent_dir(),
            password_file: &config.node.node_password_file,
        };
        let Some(joined) = join_patiently(&applicant, &stop).await? else { return Ok(Agent { parts }) };
        let client = remote_client(config.server_url(), &joined)?;
        let settings = joined.settings;
        let cluster_dns: IpAddr = settings.cluster_dns;
        let facts = Facts {
            cluster_cidr: settings.cluster_cidr,
            service_cidr: settings.service_cidr,
            cluster_dns,
            cluster_domain: settings.cluster_domain,
            answer_dns: true,
        };
        let identity = NodeIdentity { client_ca: settings.client_ca, serving: joined.serving };
        Node { config: config.node, place, facts, identity, client, runtime, host }.start(&parts);
        Ok(Agent { parts })
    }

    /// Waits until every part has stopped; the containers stay.
    ///
    /// # Errors
    /// The failure that made the agent stop, if it was one.
    pub async fn drain(self) -> anyhow::Result<()> {
        self.parts.drain().await
    }
}

/// Tries until it works; `None` when told to stop. What another try cannot change is an error at once.
async fn join_patiently(
    applicant: &Applicant<'_>,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Joined>> {
    let mut pause = FIRST_PAUSE;
    loop {
        let problem = match applicant.join().await {
            Ok(joined) => return Ok(Some(joined)),
            Err(problem) if join::is_final(&problem) => return Err(problem),
            Err(problem) => problem,
        };
        warn!(error = format!("{problem:#}"), again_in = ?pause, "joining failed");
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(None);
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn remote_client(server_url: &str, joined: &Joined) -> anyhow::Result<kube::Client> {
    let identity = remote::Identity::Certificate {
        cert_pem: joined.client.cert_pem.clone().into_bytes(),
        key_pem: joined.client.key_pem.clone().into_bytes(),
    };
    let config =
        RemoteConfig::new(vec![server_url.to_owned()], joined.server_ca.clone().into_bytes(), identity);
    client::remote(config).context("client of the server")
}
