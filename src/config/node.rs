//! The flags that a server's own node and an agent have in common.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::{ConfigError, KubeletSettings};

/// What a node can be told, on a server and on an agent.
#[derive(Args, Debug, Clone)]
pub struct NodeConfig {
    /// Directory for everything that is kept
    #[arg(
        long,
        short = 'd',
        env = "KUBE_LITE_DATA_DIR",
        default_value = "/var/lib/kube-lite",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,

    /// Directory for sockets and what a reboot may take
    #[arg(
        long,
        env = "KUBE_LITE_RUN_DIR",
        default_value = "/run/kube-lite",
        value_name = "DIR",
        hide = true
    )]
    pub run_dir: PathBuf,

    /// Directory for the logs of containers
    #[arg(
        long,
        env = "KUBE_LITE_POD_LOG_DIR",
        default_value = "/var/log/pods",
        value_name = "DIR",
        hide = true
    )]
    pub pod_log_dir: PathBuf,

    /// Name of this node [default: the host name]
    #[arg(long, env = "KUBE_LITE_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// Addresses of this node inside the cluster's network [default: found on the host's links]
    #[arg(long, short = 'i', env = "KUBE_LITE_NODE_IP", value_delimiter = ',', value_name = "IP")]
    pub node_ip: Vec<IpAddr>,

    /// Addresses of this node for the outside
    #[arg(long, env = "KUBE_LITE_NODE_EXTERNAL_IP", value_delimiter = ',', value_name = "IP")]
    pub node_external_ip: Vec<IpAddr>,

    /// Labels that the node registers with
    #[arg(long, env = "KUBE_LITE_NODE_LABEL", value_delimiter = ',', value_name = "KEY=VALUE")]
    pub node_label: Vec<String>,

    /// Taints that the node registers with
    #[arg(long, env = "KUBE_LITE_NODE_TAINT", value_delimiter = ',', value_name = "KEY=VALUE:EFFECT")]
    pub node_taint: Vec<String>,

    /// File with the secret that keeps this node's name to this host
    #[arg(
        long,
        env = "KUBE_LITE_NODE_PASSWORD_FILE",
        default_value = "/etc/kube-lite/node/password",
        value_name = "FILE",
        hide = true
    )]
    pub node_password_file: PathBuf,

    /// Most pods that this node runs
    #[arg(long, env = "KUBE_LITE_MAX_PODS", default_value_t = 110, value_name = "COUNT", hide = true)]
    pub max_pods: u32,

    /// Directory of manifests whose pods run on this node whatever the API says [default: agent/pod-manifests]
    #[arg(long, env = "KUBE_LITE_POD_MANIFEST_PATH", value_name = "DIR")]
    pub pod_manifest_path: Option<PathBuf>,

    /// Control group below which pods live
    #[arg(long, env = "KUBE_LITE_CGROUP_ROOT", default_value = "/", value_name = "GROUP", hide = true)]
    pub cgroup_root: String,

    /// When pods are ended at once, as SIGNAL<AMOUNT [default: memory below 100Mi, space or inodes below 5%]
    #[arg(long, env = "KUBE_LITE_EVICTION_HARD", value_name = "LIST", hide = true)]
    pub eviction_hard: Option<String>,

    /// When pods are ended after a while, as SIGNAL<AMOUNT
    #[arg(long, env = "KUBE_LITE_EVICTION_SOFT", default_value = "", value_name = "LIST", hide = true)]
    pub eviction_soft: String,

    /// After how long, as SIGNAL=DURATION
    #[arg(
        long,
        env = "KUBE_LITE_EVICTION_SOFT_GRACE_PERIOD",
        default_value = "",
        value_name = "LIST",
        hide = true
    )]
    pub eviction_soft_grace_period: String,

    /// Port of the kubelet's HTTPS server
    #[arg(long, env = "KUBE_LITE_KUBELET_PORT", default_value_t = 10250, value_name = "PORT", hide = true)]
    pub kubelet_port: u16,

    /// Setting of the kubelet by the name of upstream's flag; `config=FILE` names a KubeletConfiguration
    #[arg(long, env = "KUBE_LITE_KUBELET_ARG", value_name = "NAME=VALUE")]
    pub kubelet_arg: Vec<String>,

    /// File with mirrors of registries, and how to talk to them
    #[arg(
        long,
        env = "KUBE_LITE_PRIVATE_REGISTRY",
        default_value = "/etc/kube-lite/registries.yaml",
        value_name = "FILE"
    )]
    pub private_registry: PathBuf,

    /// Socket of a container runtime that is already there [default: an own containerd]
    #[arg(long, env = "KUBE_LITE_CONTAINER_RUNTIME_ENDPOINT", value_name = "SOCKET")]
    pub container_runtime_endpoint: Option<String>,

    /// Image that holds a pod's namespaces [default: built in]
    #[arg(long, env = "KUBE_LITE_PAUSE_IMAGE", value_name = "IMAGE")]
    pub pause_image: Option<String>,

    /// Snapshotter of the own containerd [default: overlayfs, or native where that cannot work]
    #[arg(long, env = "KUBE_LITE_SNAPSHOTTER", value_name = "NAME")]
    pub snapshotter: Option<String>,

    /// resolv.conf that pods and the cluster DNS forward to [default: the host's]
    #[arg(long, env = "KUBE_LITE_RESOLV_CONF", value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,

    /// Run no Service proxy
    #[arg(long, env = "KUBE_LITE_DISABLE_KUBE_PROXY")]
    pub disable_kube_proxy: bool,
}

impl NodeConfig {
    /// Checks labels and taints, and makes the directories absolute.
    pub(super) fn check(mut self) -> Result<Self, ConfigError> {
        self.labels()?;
        for taint in self.kubelet()?.node_taints {
            check_taint(&taint)?;
        }
        for taint in &self.node_taint {
            check_taint(taint)?;
        }
        if let Some(name) = &self.node_name
            && !is_subdomain(name)
        {
            let rule = "a node's name is lower case letters, digits, '-' and '.', as a DNS name";
            return Err(ConfigError::value("node-name", name, rule.to_owned()));
        }
        for dir in [&mut self.data_dir, &mut self.run_dir, &mut self.pod_log_dir] {
            *dir = std::path::absolute(&*dir)
                .map_err(|source| ConfigError::Read { path: dir.clone(), source })?;
        }
        Ok(self)
    }

    /// The labels of `--node-label`, by key.
    pub fn labels(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        self.node_label
            .iter()
            .map(|label| match label.split_once('=') {
                Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
                _ => Err(ConfigError::value("node-label", label, "a label is KEY=VALUE".to_owned())),
            })
            .collect()
    }

    /// The settings of `--kubelet-arg`, with the files that it names.
    ///
    /// # Errors
    /// A value that its name does not take, or a file that cannot be used.
    pub fn kubelet(&self) -> Result<KubeletSettings, ConfigError> {
        KubeletSettings::load(&self.kubelet_arg)
    }

    /// `agent/` below the data directory.
    pub fn agent_dir(&self) -> PathBuf {
        self.data_dir.join("agent")
    }

    /// `server/` below the data directory.
    pub fn server_dir(&self) -> PathBuf {
        self.data_dir.join("server")
    }
}

fn check_taint(taint: &str) -> Result<(), ConfigError> {
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    match taint.rsplit_once(':') {
        Some((key, effect)) if !key.is_empty() && effects.contains(&effect) => Ok(()),
        _ => {
            let rule = format!("a taint is KEY[=VALUE]:EFFECT, the effects are {}", effects.join(", "));
            Err(ConfigError::value("node-taint", taint, rule))
        }
    }
}

fn is_subdomain(name: &str) -> bool {
    let part = |part: &str| {
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !part.is_empty() && part.chars().all(ok) && !part.starts_with('-') && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(part)
}
