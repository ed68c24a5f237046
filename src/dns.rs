//! Cluster DNS, answered on the node itself.
//!
//! Names below the cluster's domain follow the "Kubernetes DNS-Based Service Discovery" specification, version 1.1.0,
//! and are answered from Services and EndpointSlices in memory, also while the API server is away. Everything else is
//! forwarded to the resolvers of the host.

mod answer;
mod listen;
mod remembered;
mod upstream;
mod view;
mod zone;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::client::Informers;
use answer::Responder;
use upstream::Upstreams;
use view::View;
use zone::Zone;

/// What the DNS must be told.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Where to answer, over UDP and TCP: the cluster DNS address of this node.
    pub listen: Vec<SocketAddr>,
    /// Domain of the cluster, such as `cluster.local`.
    pub domain: String,
    /// The host's resolver file; its servers get what is not the cluster's.
    pub resolv_conf: PathBuf,
}

/// Why the DNS cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The domain is not a DNS name.
    #[error("--cluster-domain {domain:?} is not a DNS name")]
    Domain {
        /// What was given.
        domain: String,
    },
    /// An address cannot be listened on.
    #[error("listen for DNS on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Answers queries until `stop`.
///
/// # Errors
/// The domain is no name, or an address cannot be bound; a query that fails is answered with an error code instead.
pub async fn run(config: DnsConfig, informers: &Informers, stop: CancellationToken) -> Result<(), DnsError> {
    let zone = Zone::new(&config.domain).ok_or_else(|| DnsError::Domain { domain: config.domain.clone() })?;
    let upstreams = Upstreams::from_resolv_conf(&config.resolv_conf, &config.listen);
    let responder = Arc::new(Responder::new(zone, View::new(informers), upstreams));
    let listeners = listen::bind(&config.listen).await?;
    info!(domain = %config.domain, addresses = ?config.listen, "cluster DNS answers");
    listen::serve(listeners, responder, stop).await;
    Ok(())
}
