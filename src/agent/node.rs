//! The node of this host: runtime, kubelet, pod network, Service proxy and DNS. The same in a server and in an agent.

mod settings;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Node as ApiNode, Taint};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::parts::Parts;
use crate::client::{Informers, Selection};
use crate::cni::{self, PodNetwork};
use crate::config::{NodeConfig, ROOT_DIR};
use crate::cri;
use crate::dns::{self, DnsConfig};
use crate::host::firewall::Family;
use crate::host::netlink::Uplink;
use crate::host::preflight::{self, Needs};
use crate::host::{Host, cgroups};
use crate::kubelet::containerd::{Containerd, ContainerdConfig, Registries};
use crate::kubelet::images::import::{ImportConfig, Importer};
use crate::kubelet::thresholds::{self, Threshold};
use crate::kubelet::{CgroupDriver, ImageMounts, Kubelet, KubeletConfig, ServerConfig as KubeletServer};
use crate::network::{self, NetworkConfig, PeerNode, sync_routes};
use crate::pki;
use crate::proxy::{self, ProxyConfig};

/// Port of the cluster DNS.
const DNS_PORT: u16 = 53;
/// How long a runtime that others start may take to answer, and how often it is asked.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(10);
const RUNTIME_RETRY: Duration = Duration::from_millis(200);
/// File below the agent's directory that lists the images of archives.
const IMAGE_RECORD: &str = "images.imported";

/// Says what this host lacks, before anything is made.
pub(crate) fn preflight(config: &NodeConfig, host: &Host) -> anyhow::Result<()> {
    let own = config.container_runtime_endpoint.is_none();
    let settings = ContainerdConfig::new(config.agent_dir(), &config.run_dir);
    let needs = Needs { containerd: own, firewall: true, cni_directories: settings.cni_bin_dirs() };
    eviction(config)?;
    let kubelet = config.kubelet()?;
    settings::reserved_processors(&kubelet).map_err(|why| anyhow::anyhow!("reservedSystemCPUs: {why}"))?;
    if kubelet.fail_swap_on == Some(true) && host.machine.info().swap > 0 {
        bail!("this host has swap and failSwapOn is true: switch it off, or leave failSwapOn away");
    }
    Registries::read(&config.private_registry)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("a node needs root, to mount, to route and to start containers; use sudo, or --disable-agent");
    }
    let problems = preflight::check(host, &needs);
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// The eviction thresholds of the flags.
fn eviction(config: &NodeConfig) -> anyhow::Result<Vec<Threshold>> {
    let read = |flag: &'static str, text: &str, graces: &str| {
        thresholds::parse(text, graces).map_err(|why| anyhow::anyhow!("--{flag}: {why}"))
    };
    let settings = config.kubelet()?;
    let joined = |map: &Option<BTreeMap<String, String>>, sign: &str| {
        let entries = map.iter().flatten().map(|(signal, value)| format!("{signal}{sign}{value}"));
        entries.collect::<Vec<_>>().join(",")
    };
    let mut all = match (&config.eviction_hard, &settings.eviction_hard) {
        (Some(text), _) => read("eviction-hard", text, "")?,
        (None, hard @ Some(_)) => read("eviction-hard", &joined(hard, "<"), "")?,
        (None, None) => thresholds::defaults(),
    };
    if settings.merge_default_eviction_settings == Some(true) {
        let unnamed = |t: &Threshold| !all.iter().any(|known| known.signal == t.signal);
        let more: Vec<_> = thresholds::defaults().into_iter().filter(unnamed).collect();
        all.extend(more);
    }
    let own = !config.eviction_soft.is_empty() || settings.eviction_soft.is_none();
    let soft = match own {
        true => read("eviction-soft", &config.eviction_soft, &config.eviction_soft_grace_period)?,
        false => {
            let graces = joined(&settings.eviction_soft_grace_period, "=");
            read("eviction-soft", &joined(&settings.eviction_soft, "<"), &graces)?
        }
    };
    if let Some(bare) = soft.iter().find(|t| t.grace.is_none()) {
        bail!("--eviction-soft: {:?} needs a time in --eviction-soft-grace-period", bare.signal);
    }
    all.extend(soft);
    thresholds::set_reclaims(&mut all, &settings.eviction_minimum_reclaim)
        .map_err(|why| anyhow::anyhow!("evictionMinimumReclaim: {why}"))?;
    Ok(all)
}

/// Where this host is: its name and addresses.
pub(crate) struct Place {
    pub(crate) name: String,
    /// At least one; the first is the node's main address.
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) uplink: Uplink,
}

impl Place {
    pub(crate) async fn find(config: &NodeConfig, host: &Host) -> anyhow::Result<Self> {
        let name = match &config.node_name {
            Some(name) => name.clone(),
            None => host_name()?,
        };
        let uplink = network::uplink(host, config.node_ip.first().copied()).await?;
        let ips = match config.node_ip.is_empty() {
            true => vec![uplink.ip],
            false => config.node_ip.clone(),
        };
        Ok(Place { name, ips, uplink })
    }
}

fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("read the host's name (or set --node-name)")?;
    let name = name.into_string().ok().map(|name| name.to_lowercase());
    name.filter(|name| !name.is_empty()).context("the host has no usable name: set --node-name")
}

/// What a node must know of its cluster.
pub(crate) struct Facts {
    pub(crate) cluster_cidr: String,
    pub(crate) service_cidr: String,
    pub(crate) cluster_dns: IpAddr,
    pub(crate) cluster_domain: String,
    pub(crate) answer_dns: bool,
}

/// The kubelet's certificates.
pub(crate) struct NodeIdentity {
    pub(crate) client_ca: String,
    pub(crate) serving: pki::Identity,
}

/// The container runtime, as it starts.
pub(crate) struct Runtime {
    client: Arc<dyn cri::Runtime>,
    driver: CgroupDriver,
    importer: Option<Importer>,
    ready: Option<Arc<Containerd>>,
}

impl Runtime {
    /// Starts the own containerd, or prepares to talk to the one that the flags name.
    pub(crate) async fn start(config: &NodeConfig, host: &Host, parts: &Parts) -> anyhow::Result<Self> {
        if let Some(endpoint) = &config.container_runtime_endpoint {
            let client: Arc<dyn cri::Runtime> = Arc::new(cri::Client::connect(endpoint)?);
            if let Some(own) = driver_of(&client).await {
                host.cgroups.use_driver(own);
            }
            let driver = driver(host.cgroups.driver());
            return Ok(Runtime { client, driver, importer: None, ready: None });
        }
        let mut settings = ContainerdConfig::new(config.agent_dir(), &config.run_dir);
        settings.snapshotter.clone_from(&config.snapshotter);
        settings.registries = Registries::read(&config.private_registry)?;
        if let Some(image) = &config.pause_image {
            settings.pause_image.clone_from(image);
        }
        let containerd = Containerd::start(settings, host, parts.stop().clone()).await?;
        let client: Arc<dyn cri::Runtime> = Arc::new(cri::Client::connect(&containerd.endpoint())?);
        let import = ImportConfig {
            images_dir: config.agent_dir().join("images"),
            record: config.agent_dir().join(IMAGE_RECORD),
            containerd_socket: containerd.socket().to_owned(),
            snapshotter: containerd.snapshotter().to_owned(),
        };
        let importer = Importer::new(import, host.processes.clone(), client.clone());
        let driver = driver(containerd.cgroup_driver());
        Ok(Runtime { client, driver, importer: Some(importer), ready: Some(Arc::new(containerd)) })
    }

    /// Waits until pods can be started, then imports images as they appear.
    async fn serve_images(
        importer: Importer,
        ready: Arc<Containerd>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        if stop.run_until_cancelled(ready.ready()).await != Some(true) {
            return Ok(());
        }
        if let Err(error) = importer.ensure_pause().await {
            warn!(error = &error as &dyn std::error::Error, "the image for a pod's namespaces is not there");
        }
        importer.run(stop).await;
        Ok(())
    }
}

/// The driver of a runtime that others have started; nothing when it does not say, or does not answer in time.
async fn driver_of(runtime: &Arc<dyn cri::Runtime>) -> Option<cgroups::Driver> {
    let ask = async {
        loop {
            match runtime.runtime_config().await {
                Ok(config) => return config.linux,
                Err(cri::CriError::Unreachable { .. }) => tokio::time::sleep(RUNTIME_RETRY).await,
                // Runtimes of old do not know the question.
                Err(_) => return None,
            }
        }
    };
    let Ok(answer) = tokio::time::timeout(RUNTIME_PATIENCE, ask).await else {
        warn!("the container runtime does not answer; its control groups are taken to be the host's");
        return None;
    };
    Some(match answer?.cgroup_driver() {
        cri::v1::CgroupDriver::Systemd => cgroups::Driver::Systemd,
        cri::v1::CgroupDriver::Cgroupfs => cgroups::Driver::Cgroupfs,
    })
}

fn driver(driver: cgroups::Driver) -> CgroupDriver {
    match driver {
        cgroups::Driver::Systemd => CgroupDriver::Systemd,
        cgroups::Driver::Cgroupfs => CgroupDriver::Cgroupfs,
    }
}

/// Everything that the parts of a node are made of.
pub(crate) struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) place: Place,
    pub(crate) facts: Facts,
    pub(crate) identity: NodeIdentity,
    /// The node's own identity.
    pub(crate) client: kube::Client,
    pub(crate) runtime: Runtime,
    pub(crate) host: Host,
}

impl Node {
    /// Starts the parts.
    pub(crate) fn start(self, parts: &Parts) {
        let stop = parts.stop().clone();
        let informers = Informers::new(self.client.clone(), stop.clone());
        let resolv_conf =
            self.config.resolv_conf.clone().unwrap_or_else(|| PathBuf::from("/etc/resolv.conf"));
        if let (Some(importer), Some(ready)) = (self.runtime.importer.clone(), self.runtime.ready.clone()) {
            parts.spawn("images", Runtime::serve_images(importer, ready, stop.clone()));
        }
        let kubelet = Kubelet::new(
            self.kubelet_config(&resolv_conf),
            self.client.clone(),
            self.runtime.client.clone(),
            self.host.clone(),
        );
        parts.spawn("kubelet", {
            let stop = stop.clone();
            async move { Ok(kubelet.run(stop).await?) }
        });
        parts.spawn("network", self.network(resolv_conf, informers, parts.clone()));
    }

    fn kubelet_config(&self, resolv_conf: &std::path::Path) -> KubeletConfig {
        // Checked before anything was made.
        let settings = self.config.kubelet().unwrap_or_default();
        let everywhere = std::net::Ipv4Addr::UNSPECIFIED.into();
        let port = settings.port.unwrap_or(self.config.kubelet_port);
        let address = SocketAddr::new(settings.address.unwrap_or(everywhere), port);
        let server = KubeletServer {
            address,
            cert_pem: self.identity.serving.cert_pem.clone().into_bytes(),
            key_pem: self.identity.serving.key_pem.clone().into_bytes(),
            client_ca_pem: self.identity.client_ca.clone().into_bytes(),
        };
        let root = settings.root_dir.clone().unwrap_or_else(|| PathBuf::from(ROOT_DIR));
        let mut kubelet = KubeletConfig::new(&self.place.name, self.place.ips[0], root, server);
        kubelet.node_ips.clone_from(&self.place.ips);
        kubelet.node_external_ips.clone_from(&self.config.node_external_ip);
        kubelet.log_dir = settings.pod_logs_dir.clone().unwrap_or_else(|| self.config.pod_log_dir.clone());
        kubelet.cluster_dns = settings.cluster_dns.clone().unwrap_or_else(|| vec![self.facts.cluster_dns]);
        let domain = settings.cluster_domain.clone().filter(|domain| !domain.is_empty());
        kubelet.cluster_domain = domain.unwrap_or_else(|| self.facts.cluster_domain.clone());
        kubelet.resolv_conf = settings.resolv_conf.clone().unwrap_or_else(|| resolv_conf.to_owned());
        kubelet.max_pods = settings.max_pods.unwrap_or(self.config.max_pods);
        kubelet.eviction = eviction(&self.config).unwrap_or_else(|_| thresholds::defaults());
        let own_root = settings.cgroup_root.clone().filter(|root| !root.is_empty());
        kubelet.cgroup_root = Some(own_root.unwrap_or_else(|| self.config.cgroup_root.clone()));
        let manifests = self.config.pod_manifest_path.clone().or_else(|| settings.static_pod_path.clone());
        kubelet.manifest_dir =
            Some(manifests.unwrap_or_else(|| self.config.agent_dir().join("pod-manifests")));
        kubelet.labels.clone_from(&settings.node_labels);
        kubelet.labels.extend(self.config.labels().unwrap_or_default());
        let taints = settings.node_taints.iter().chain(&self.config.node_taint);
        kubelet.taints = taints.map(|text| taint(text)).collect();
        let own_id = || format!("kube-lite://{}", self.place.name);
        kubelet.provider_id = Some(settings.provider_id.clone().unwrap_or_else(own_id));
        settings::apply(&settings, &self.host, &mut kubelet);
        kubelet.cgroup_driver = self.runtime.driver;
        if let Some(containerd) = &self.runtime.ready {
            kubelet.image_record = Some(self.config.agent_dir().join(IMAGE_RECORD));
            kubelet.image_mounts = Some(ImageMounts {
                socket: containerd.socket().to_owned(),
                snapshotter: containerd.snapshotter().to_owned(),
            });
        }
        kubelet
    }

    /// Rules and addresses of this node, then the parts that need them, then the routes to other nodes.
    async fn network(self, resolv_conf: PathBuf, informers: Informers, parts: Parts) -> anyhow::Result<()> {
        let stop = parts.stop().clone();
        let cidrs = vec![self.facts.cluster_cidr.clone()];
        let config = NetworkConfig { cluster_cidrs: cidrs.clone(), dns: self.facts.cluster_dns };
        network::setup(&config, &self.host).await.context("set up the node's network")?;
        network::service_route(&self.host, &self.place.uplink, &self.facts.service_cidr)
            .await
            .context("route to Services")?;
        if self.facts.answer_dns {
            let dns = DnsConfig {
                listen: vec![SocketAddr::new(self.facts.cluster_dns, DNS_PORT)],
                domain: self.facts.cluster_domain.clone(),
                resolv_conf,
            };
            let (informers, stop) = (informers.clone(), stop.clone());
            parts.spawn("DNS", async move { Ok(dns::run(dns, &informers, stop).await?) });
        }
        if !self.config.disable_kube_proxy {
            let proxy = ProxyConfig {
                node_name: self.place.name.clone(),
                cluster_cidrs: cidrs.clone(),
                families: vec![family_of(self.place.ips[0])],
            };
            let (informers, firewall, stop) = (informers.clone(), self.host.firewall.clone(), stop.clone());
            parts.spawn("Service proxy", async move {
                proxy::run(proxy, &informers, firewall, stop).await;
                Ok(())
            });
        }
        self.follow_nodes(&cidrs, stop).await;
        Ok(())
    }

    /// Writes the pod network's configuration once this node has its range, and keeps the routes to other nodes.
    async fn follow_nodes(&self, cluster_cidrs: &[String], stop: CancellationToken) {
        // An informer of their own: the nodes are watched by nobody else here.
        let informers = Informers::new(self.client.clone(), stop.clone());
        let nodes = informers.select::<ApiNode>(Selection::default());
        let mut changes = nodes.subscribe();
        while stop.run_until_cancelled(changes.next()).await.is_some() {
            let all = nodes.list();
            let (own, others): (Vec<_>, Vec<_>) =
                all.iter().partition(|node| node.metadata.name.as_deref() == Some(&self.place.name));
            let own_cidrs = own.first().map(|node| pod_cidrs(node)).unwrap_or_default();
            if own_cidrs.is_empty() {
                continue;
            }
            self.write_pod_network(&own_cidrs);
            let peers: Vec<_> = others.iter().filter_map(|node| peer(node)).collect();
            let synced = sync_routes(&self.host, &self.place.uplink, cluster_cidrs, &own_cidrs, &peers).await;
            if let Err(error) = synced {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "routes to the pods of other nodes are not set"
                );
            }
        }
    }

    fn write_pod_network(&self, pod_cidrs: &[String]) {
        let network = PodNetwork {
            pod_cidrs: pod_cidrs.to_vec(),
            mtu: self.place.uplink.mtu,
            state_dir: self.config.run_dir.join("cni"),
        };
        let settings = ContainerdConfig::new(self.config.agent_dir(), &self.config.run_dir);
        match cni::write(&settings.cni_conf_dir(), &network) {
            Ok(true) => info!(?pod_cidrs, "pod network configured"),
            Ok(false) => {}
            Err(error) => warn!(error = &error as &dyn std::error::Error, "pods get no network"),
        }
    }
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn pod_cidrs(node: &ApiNode) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    match &spec.pod_cidrs {
        Some(all) if !all.is_empty() => all.clone(),
        _ => spec.pod_cidr.iter().cloned().collect(),
    }
}

fn peer(node: &ApiNode) -> Option<PeerNode> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().find(|address| address.type_ == "InternalIP")?;
    Some(PeerNode {
        name: node.metadata.name.clone()?,
        ip: internal.address.parse().ok()?,
        pod_cidrs: pod_cidrs(node),
    })
}

/// `KEY[=VALUE]:EFFECT`, which the configuration has checked.
fn taint(text: &str) -> Taint {
    let (rest, effect) = text.rsplit_once(':').unwrap_or((text, ""));
    let (key, value) = match rest.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (rest, None),
    };
    Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_have_a_key_and_an_effect() {
        let full = taint("dedicated=gpu:NoSchedule");
        assert_eq!(
            (full.key.as_str(), full.value.as_deref(), full.effect.as_str()),
            ("dedicated", Some("gpu"), "NoSchedule")
        );
        let short = taint("spot:NoExecute");
        assert_eq!((short.key.as_str(), short.value, short.effect.as_str()), ("spot", None, "NoExecute"));
    }

    #[test]
    fn peers_have_an_address_and_their_ranges() {
        let node: ApiNode = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "b"}, "spec": {"podCIDR": "10.42.1.0/24"},
            "status": {"addresses": [{"type": "Hostname", "address": "b"}, {"type": "InternalIP", "address": "192.0.2.2"}]},
        }))
        .unwrap();
        let peer = peer(&node).unwrap();
        assert_eq!((peer.name.as_str(), peer.ip.to_string().as_str()), ("b", "192.0.2.2"));
        assert_eq!(peer.pod_cidrs, ["10.42.1.0/24"]);
        assert!(super::peer(&ApiNode::default()).is_none());
    }
}
