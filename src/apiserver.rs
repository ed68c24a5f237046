//! The HTTP side of the API server: TLS, request info, authentication, authorization, handlers, discovery, OpenAPI and
//! streaming.
//!
//! Every request, from a TLS connection ([`serve()`]) or from the same process ([`in_process::Service`]), goes through
//! [`ApiServer::handle`]: request info → authentication → impersonation → flow control → authorization → handler.
//! What a verb does to an object is the registry's; this room turns HTTP into calls of it and answers into HTTP.

mod aggregation;
pub mod audit;
pub mod authentication;
pub mod authorization;
mod body;
mod cached;
mod changes;
mod discovery;
mod documented;
mod flow_control;
mod handlers;
mod health;
pub mod in_process;
pub mod join;
mod kubelet;
mod metrics;
mod negotiate;
mod oidc;
pub mod openapi;
mod pipeline;
pub(crate) mod request_info;
mod respond;
mod reviews;
mod routes;
mod secret_tokens;
mod serve;
mod started;
pub(crate) mod streaming;
mod subresources;
pub mod tls;
mod upkeep;
mod usage;
mod webhooks;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pki::ClusterPki;
use crate::pki::token::JoinSecrets;
use crate::registry::{Hooks, Registry};
use authentication::ServiceAccountTokens;
use authorization::Authorizer;
pub use health::Checks;
pub use serve::{DRAIN_TIMEOUT, serve};
pub use tls::Tls;

/// What the API server must know about the cluster.
#[derive(Clone, Debug)]
pub struct ApiServerConfig {
    /// Domain of the cluster, such as `cluster.local`.
    pub cluster_domain: String,
    /// Addresses of pods.
    pub cluster_cidr: String,
    /// Addresses of Services.
    pub service_cidr: String,
    /// Address of the cluster DNS.
    pub cluster_dns: IpAddr,
    /// The address of this server, as discovery tells it to clients: `host:port`.
    pub advertise: String,
    /// Answer `metrics.k8s.io` from the kubelets' figures; otherwise it is left to an extension.
    pub usage: bool,
    /// Requests that run at a time, beyond the long-running ones: this many, and
    pub max_requests_in_flight: usize,
    /// this many more. Flow control shares the sum out.
    pub max_mutating_requests_in_flight: usize,
    /// Take requests without credentials for those of `system:anonymous`; refuse them otherwise.
    pub anonymous_auth: bool,
    /// What of requests is recorded, and where.
    pub audit: audit::AuditOptions,
}

impl Default for ApiServerConfig {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".to_owned(),
            cluster_cidr: "10.42.0.0/16".to_owned(),
            service_cidr: "10.43.0.0/16".to_owned(),
            cluster_dns: IpAddr::from([10, 43, 0, 10]),
            advertise: "127.0.0.1:6443".to_owned(),
            usage: true,
            max_requests_in_flight: 400,
            max_mutating_requests_in_flight: 200,
            anonymous_auth: true,
            audit: audit::AuditOptions::default(),
        }
    }
}

/// Why the API server cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ApiServerError {
    /// The certificates with which kubelets are called cannot be used.
    #[error("client for kubelets")]
    KubeletClient(#[from] kubelet::KubeletClientError),
    /// The certificate with which other API servers are called cannot be used.
    #[error("client for aggregated APIs")]
    Aggregation(#[from] aggregation::ClientError),
    /// Requests cannot be recorded.
    #[error("audit")]
    Audit(#[from] audit::AuditError),
}

/// The API server.
pub struct ApiServer {
    config: ApiServerConfig,
    registry: Arc<Registry>,
    tokens: Arc<ServiceAccountTokens>,
    authorizer: Arc<Authorizer>,
    objects: Arc<cached::CachedObjects>,
    join: join::Join,
    kubelets: kubelet::KubeletClient,
    flow_control: flow_control::FlowControl,
    checks: Checks,
    audit: audit::Audit,
    aggregation: aggregation::Aggregation,
    discovery: discovery::Discovery,
    /// The documents of the rows of one time, and of what other servers serve then; two numbers name them.
    openapi: Mutex<((u64, u64), Arc<openapi::OpenApi>)>,
    metrics: metrics::RequestMetrics,
    /// Loops, and tunnels to kubelets, which outlive the requests that opened them.
    tunnels: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Builds the server over a registry, whose hooks (tokens, reviews, privileges) it provides.
    ///
    /// `stop` ends watches and tunnels; it should be the signal that also stops [`serve()`].
    pub fn new(
        registry: Arc<Registry>,
        pki: Arc<ClusterPki>,
        secrets: JoinSecrets,
        config: ApiServerConfig,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, ApiServerError> {
        let objects = Arc::new(cached::CachedObjects::new(registry.clone()));
        let tokens =
            Arc::new(ServiceAccountTokens::new(pki.clone(), &config.cluster_domain, objects.clone()));
        let authorizer = Arc::new(Authorizer::new(
            authorization::node::NodeAuthorizer::new(objects.clone()),
            authorization::rbac::Rbac::new(objects.clone()),
        ));
        let webhooks = Arc::new(webhooks::Webhooks::default());
        let tunnels = TaskTracker::new();
        registry.set_hooks(Hooks {
            tokens: Some(tokens.clone()),
            reviews: Some(Arc::new(reviews::Reviews::new(tokens.clone(), authorizer.clone()))),
            bind: Some(Arc::new(authorization::escalation::Privileges::new(authorizer.clone()))),
            webhooks: Some(webhooks.clone()),
        });
        let server = Arc::new(Self {
            join: join::Join::new(pki.clone(), registry.clone(), secrets, &config),
            kubelets: kubelet::KubeletClient::new(&pki)?,
            flow_control: flow_control::FlowControl::new(
                registry.clone(),
                config.max_requests_in_flight + config.max_mutating_requests_in_flight,
            ),
            checks: checks_of(&registry, stop.clone()),
            aggregation: aggregation::Aggregation::new(&pki)?,
            discovery: discovery::Discovery::new(&registry, &config.advertise, config.usage),
            openapi: Mutex::new((
                (0, 0),
                Arc::new(documented::open_api(registry.catalog().iter(), &aggregation::Learned::default())),
            )),
            metrics: metrics::RequestMetrics::new(),
            audit: audit::Audit::new(&config.audit, &tunnels)?,
            tunnels,
            config,
            registry,
            tokens,
            authorizer,
            objects,
            stop,
        });
        webhooks.connect(&server);
        server.start_loops();
        Ok(server)
    }

    /// The loops of the API server itself; [`Self::drain`] waits for them.
    fn start_loops(self: &Arc<Self>) {
        let keeper = self.registry.clone().keep_custom_resources(self.stop.clone());
        self.tunnels.spawn(keeper);
        self.tunnels.spawn(self.registry.clone().keep_policies(self.stop.clone()));
        self.tunnels.spawn(self.clone().keep_aggregation());
        if let Some(uses) = self.objects.uses() {
            self.tunnels.spawn(self.clone().note_uses(uses));
        }
        for (kinds, round) in upkeep::LOOPS {
            self.tunnels.spawn(self.clone().keep(kinds, round));
        }
    }

    /// The OpenAPI documents of what is served now.
    fn openapi(&self) -> Arc<openapi::OpenApi> {
        let (rows_version, rows) = self.registry.rows();
        let learned = self.aggregation.learned();
        let version = (rows_version, learned.version);
        let mut known = self.openapi.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != version {
            *known = (version, Arc::new(documented::open_api(rows.iter(), &learned)));
        }
        known.1.clone()
    }

    /// The registry below.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// What `/livez` and `/readyz` ask; other parts add their own checks.
    pub fn checks(&self) -> &Checks {
        &self.checks
    }

    /// Waits until every tunnel to a kubelet has ended; call it after the listener has drained.
    pub async fn drain(&self) {
        self.tunnels.close();
        self.audit.close();
        self.tunnels.wait().await;
    }
}

/// `etcd` is what upstream calls the check of the store, whatever the store is.
fn checks_of(registry: &Arc<Registry>, stop: CancellationToken) -> Checks {
    let checks = Checks::new(stop);
    checks.add("log", health::Asked::Always, || Ok(()));
    let of_store = [
        ("etcd", health::Asked::Always),
        ("etcd-readiness", health::Asked::ForReadiness),
        ("informer-sync", health::Asked::ForReadiness),
        ("poststarthook/generic-apiserver-start-informers", health::Asked::ForReadiness),
        ("poststarthook/crd-informer-synced", health::Asked::ForReadiness),
    ];
    for (name, asked) in of_store {
        let registry = Arc::downgrade(registry);
        checks.add(name, asked, move || {
            registry.upgrade().map_or(Ok(()), |registry| registry.storage_health())
        });
    }
    started::add(&checks, registry);
    checks
}
