//! `kube-lite server`: its flags, their defaults and environment names, as k3s has them.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::audit::AuditConfig;
use super::cidr::Cidr;
use super::cron::Schedule;
use super::datastore::{Datastore, DatastoreConfig};
use super::node::NodeConfig;
use super::snapshots::SnapshotConfig;
use super::{ConfigError, PortRange, check_dns_in_range};

/// Everything that `kube-lite server` can be told.
#[derive(Args, Debug, Clone)]
pub struct ServerConfig {
    /// Address that the API server listens on
    #[arg(long, env = "KUBE_LITE_BIND_ADDRESS", default_value = "0.0.0.0", value_name = "IP")]
    pub bind_address: IpAddr,

    /// Port that the API server listens on
    #[arg(long, env = "KUBE_LITE_HTTPS_LISTEN_PORT", default_value_t = 6443, value_name = "PORT")]
    pub https_listen_port: u16,

    /// Address of the API server that other nodes and pods are told [default: the node's address]
    #[arg(long, env = "KUBE_LITE_ADVERTISE_ADDRESS", value_name = "IP")]
    pub advertise_address: Option<IpAddr>,

    /// More host names or addresses for the API server's certificate
    #[arg(long, env = "KUBE_LITE_TLS_SAN", value_delimiter = ',', value_name = "NAME")]
    pub tls_san: Vec<String>,

    /// Addresses of pods
    #[arg(long, env = "KUBE_LITE_CLUSTER_CIDR", default_value = "10.42.0.0/16", value_name = "CIDR")]
    pub cluster_cidr: Cidr,

    /// Addresses of Services
    #[arg(long, env = "KUBE_LITE_SERVICE_CIDR", default_value = "10.43.0.0/16", value_name = "CIDR")]
    pub service_cidr: Cidr,

    /// Ports that Services of type NodePort are given
    #[arg(
        long,
        env = "KUBE_LITE_SERVICE_NODE_PORT_RANGE",
        default_value = "30000-32767",
        value_name = "LOW-HIGH"
    )]
    pub service_node_port_range: PortRange,

    /// Address of the cluster DNS [default: the tenth address of --service-cidr]
    #[arg(long, env = "KUBE_LITE_CLUSTER_DNS", value_name = "IP")]
    pub cluster_dns: Option<IpAddr>,

    /// Domain of the cluster
    #[arg(long, env = "KUBE_LITE_CLUSTER_DOMAIN", default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,

    /// Secret that servers and agents join with [default: made at the first start, kept in server/token]
    #[arg(long, short = 't', env = "KUBE_LITE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,

    /// File that holds the token
    #[arg(long, env = "KUBE_LITE_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,

    /// Secret that only agents may join with [default: the token]
    #[arg(long, env = "KUBE_LITE_AGENT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub agent_token: Option<String>,

    /// File that holds the agent token
    #[arg(long, env = "KUBE_LITE_AGENT_TOKEN_FILE", value_name = "FILE", conflicts_with = "agent_token")]
    pub agent_token_file: Option<PathBuf>,

    /// File that the administrator's kubeconfig is written to
    #[arg(
        long,
        short = 'o',
        env = "KUBE_LITE_KUBECONFIG_OUTPUT",
        default_value = "/etc/kube-lite/kube-lite.yaml",
        value_name = "FILE"
    )]
    pub write_kubeconfig: PathBuf,

    /// Mode of that file, in octal
    #[arg(long, env = "KUBE_LITE_KUBECONFIG_MODE", default_value = "0600", value_name = "MODE", value_parser = super::parse_mode)]
    pub write_kubeconfig_mode: u32,

    /// Where the cluster's state is kept.
    #[command(flatten)]
    pub datastore: DatastoreConfig,

    /// Where its snapshots are kept.
    #[command(flatten)]
    pub snapshots: SnapshotConfig,

    /// Take requests without credentials for those of system:anonymous, who may see health and version
    #[arg(
        long,
        env = "KUBE_LITE_ANONYMOUS_AUTH",
        default_value_t = true,
        num_args = 0..=1,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    pub anonymous_auth: bool,

    /// What is recorded of requests.
    #[command(flatten)]
    pub audit: AuditConfig,

    /// Encrypt secrets where they are stored
    #[arg(long, env = "KUBE_LITE_SECRETS_ENCRYPTION")]
    pub secrets_encryption: bool,

    /// When snapshots are made, as five fields of cron in UTC; empty for never
    #[arg(
        long,
        env = "KUBE_LITE_SNAPSHOT_SCHEDULE_CRON",
        default_value = "0 */12 * * *",
        value_name = "CRON"
    )]
    pub snapshot_schedule_cron: String,

    /// Most bytes of past changes that are kept in memory for watches
    #[arg(long, env = "KUBE_LITE_WATCH_CACHE_WINDOW_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    pub watch_cache_window_bytes: usize,

    /// Parts to leave out: coredns (the built-in DNS), servicelb (load balancers at node addresses), local-storage (volumes
    /// on nodes' disks), metrics-server (the built-in metrics.k8s.io)
    #[arg(long, env = "KUBE_LITE_DISABLE", value_delimiter = ',', value_name = "PART")]
    pub disable: Vec<String>,

    /// Run no scheduler
    #[arg(long, env = "KUBE_LITE_DISABLE_SCHEDULER")]
    pub disable_scheduler: bool,

    /// Run no controllers
    #[arg(long, env = "KUBE_LITE_DISABLE_CONTROLLER_MANAGER")]
    pub disable_controller_manager: bool,

    /// Run no node on this host
    #[arg(long, env = "KUBE_LITE_DISABLE_AGENT")]
    pub disable_agent: bool,

    /// The node on this host.
    #[command(flatten)]
    pub node: NodeConfig,
}

/// What `--disable` may name: the parts that exist, and those of k3s that do not exist here.
const DISABLEABLE: &[&str] =
    &["coredns", "servicelb", "traefik", "local-storage", "metrics-server", "runtimes"];

impl ServerConfig {
    /// Checks what one flag alone cannot show, and fills the token from its file.
    pub(super) fn check(mut self) -> Result<Self, ConfigError> {
        self.token = super::secret("token-file", self.token.take(), self.token_file.as_deref())?;
        self.agent_token =
            super::secret("agent-token-file", self.agent_token.take(), self.agent_token_file.as_deref())?;
        if let Some(part) = self.disable.iter().find(|part| !DISABLEABLE.contains(&part.as_str())) {
            return Err(ConfigError::value(
                "disable",
                part,
                format!("the parts are {}", DISABLEABLE.join(", ")),
            ));
        }
        self.datastore()?;
        self.snapshot_schedule()?;
        if self.cluster_cidr.overlaps(&self.service_cidr) {
            return Err(ConfigError::value(
                "service-cidr",
                &self.service_cidr.to_string(),
                format!("it overlaps --cluster-cidr {}", self.cluster_cidr),
            ));
        }
        if let Some(dns) = self.cluster_dns {
            check_dns_in_range(dns, &self.service_cidr)?;
        }
        self.node = self.node.check()?;
        Ok(self)
    }

    /// When snapshots are made; `None` for never.
    ///
    /// # Errors
    /// What is no schedule.
    pub fn snapshot_schedule(&self) -> Result<Option<Schedule>, ConfigError> {
        let text = self.snapshot_schedule_cron.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = |rule| ConfigError::value("snapshot-schedule-cron", text, rule);
        Schedule::parse(text).map(Some).map_err(wrong)
    }

    /// The datastore that the flags choose.
    ///
    /// # Errors
    /// An endpoint that is neither SQLite's nor etcd's.
    pub fn datastore(&self) -> Result<Datastore, ConfigError> {
        self.datastore.datastore(&self.node.server_dir())
    }

    /// The address that the cluster DNS answers on.
    pub fn dns_address(&self) -> IpAddr {
        self.cluster_dns.unwrap_or_else(|| self.service_cidr.nth(10))
    }

    /// Whether the built-in part of that name is wanted.
    pub fn enabled(&self, part: &str) -> bool {
        !self.disable.iter().any(|name| name == part)
    }
}
