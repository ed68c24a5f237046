//! What every controller is given.

use super::certificates::Signer;
use crate::client::{Clock, Informers, Recorder};
use kube::Client;
use std::{fmt, sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The settings of all controllers.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// Who this process is among candidates for the lease; best kept over restarts, so that they are instant.
    pub identity: String,
    /// The address ranges of pods, one per IP family, such as `10.42.0.0/16`.
    pub cluster_cidrs: Vec<String>,
    /// Length of a node's part of an IPv4 range.
    pub node_mask_v4: u8,
    /// Length of a node's part of an IPv6 range.
    pub node_mask_v6: u8,
    /// The CA bundle that pods use to check the API server.
    pub root_ca_pem: String,
    /// A node that has not been heard of for this long is unhealthy.
    pub node_monitor_grace: Duration,
    /// As many finished pods are kept.
    pub terminated_pod_threshold: usize,
    /// What signs approved CertificateSigningRequests; without it none are signed.
    pub signer: Option<Arc<dyn Signer>>,
    /// Names of controllers that are not to run.
    pub disabled: Vec<String>,
}

impl Default for ControllersConfig {
    fn default() -> Self {
        Self {
            identity: "kube-lite".to_owned(),
            cluster_cidrs: vec!["10.42.0.0/16".to_owned()],
            node_mask_v4: 24,
            node_mask_v6: 64,
            root_ca_pem: String::new(),
            node_monitor_grace: Duration::from_secs(50),
            terminated_pod_threshold: 12_500,
            signer: None,
            disabled: Vec::new(),
        }
    }
}

/// The user and the groups that a controller acts as, from its account: a service account in `kube-system`, or a user of
/// its own if its name begins with `system:`.
pub fn identity(account: &str) -> (String, Vec<&'static str>) {
    if account.starts_with("system:") {
        return (account.to_owned(), Vec::new());
    }
    let groups = vec!["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    (format!("system:serviceaccount:kube-system:{account}"), groups)
}

/// Makes the client of a controller: each acts as the service account `kube-system/<name>`, so that its rights are
/// its own.
#[derive(Clone)]
pub struct Clients(Arc<dyn Fn(&str) -> Client + Send + Sync>);

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

impl Clients {
    /// Clients made by `client_of`, which gets the name of a service account in `kube-system`.
    pub fn new(client_of: impl Fn(&str) -> Client + Send + Sync + 'static) -> Self {
        Self(Arc::new(client_of))
    }

    /// One client for all.
    pub fn shared(client: Client) -> Self {
        Self::new(move |_| client.clone())
    }

    /// The client of the service account `name`.
    pub fn of(&self, name: &str) -> Client {
        (self.0)(name)
    }
}

/// What a controller runs with.
#[derive(Clone)]
pub struct Context {
    /// A client with the controller's own identity.
    pub client: Client,
    /// The shared informers of the process.
    pub informers: Informers,
    /// Records events in the controller's name.
    pub recorder: Recorder,
    /// The time.
    pub clock: Clock,
    /// The settings.
    pub config: Arc<ControllersConfig>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("informers", &self.informers).finish_non_exhaustive()
    }
}

impl Context {
    /// The context of the controller that acts as the service account `account`.
    pub fn new(
        clients: &Clients,
        account: &str,
        informers: &Informers,
        config: &Arc<ControllersConfig>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let client = clients.of(account);
        let recorder = Recorder::start(client.clone(), account, "", tasks, stop.clone());
        Self { client, informers: informers.clone(), recorder, clock: Clock::System, config: config.clone() }
    }
}
