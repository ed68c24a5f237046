//! The loop: reads the signals, decides, ends one pod a round.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Pressure;
use super::rank::{Candidate, Use, message, rank};
use super::storage::{self, OnDisk};
use super::thresholds::{Signal, Supplies, Supply, Threshold, Watch};
use crate::client::EventType;
use crate::kubelet::containers::resources;
use crate::kubelet::containers::sandbox::cgroup_path;
use crate::kubelet::context::Context;
use crate::kubelet::groups;
use crate::kubelet::node::upkeep;
use crate::kubelet::pods::static_pods::is_static;
use crate::kubelet::pods::table::{Eviction, Table};
use crate::kubelet::spec;
use crate::kubelet::stats::{self, ContainerUse};

const PERIOD: Duration = Duration::from_secs(10);
/// A pod that is ended at once still gets its SIGTERM first.
const AT_ONCE: Duration = Duration::from_secs(1);
/// From this priority on a pod is the node's own.
const CRITICAL: i32 = 2_000_000_000;

/// Watches the node until `stop`.
pub async fn run(
    ctx: Arc<Context>,
    table: Table,
    pressure: watch::Sender<Pressure>,
    stop: CancellationToken,
) {
    let watch = Watch::new(ctx.config.eviction_transition);
    let mut manager = Manager { ctx, table, pressure, watch, shares: None };
    stop.run_until_cancelled(async {
        loop {
            manager.round().await;
            tokio::time::sleep(PERIOD).await;
        }
    })
    .await;
}

struct Manager {
    ctx: Arc<Context>,
    table: Table,
    pressure: watch::Sender<Pressure>,
    watch: Watch,
    shares: Option<u64>,
}

impl Manager {
    async fn round(&mut self) {
        let pods = self.active();
        groups::weigh(&self.ctx, &pods, &mut self.shares).await;
        self.own_limits(&pods).await;
        let (act, pressure) = self.look().await;
        self.tell(pressure);
        let Some(first) = act.first().copied() else { return };
        if let Some(node) = self.ctx.node.borrow().as_deref() {
            let text = format!("Attempting to reclaim {}", first.signal.resource());
            self.ctx.recorder.event(node, EventType::Warning, "EvictionThresholdMet", text);
        }
        if first.signal.is_disk() {
            upkeep::collect_unused(&self.ctx).await;
            let (again, pressure) = self.look().await;
            self.tell(pressure);
            let Some(first) = again.first() else { return };
            return self.evict(*first, &pods).await;
        }
        self.evict(first, &pods).await;
    }

    fn tell(&self, pressure: Pressure) {
        self.pressure.send_if_modified(|known| std::mem::replace(known, pressure) != pressure);
    }

    fn active(&self) -> Vec<Arc<Pod>> {
        self.table.snapshots().into_iter().filter(|s| s.active).filter_map(|s| s.pod).collect()
    }

    async fn look(&mut self) -> (Vec<Threshold>, Pressure) {
        let supplies = supplies(&self.ctx).await;
        self.watch.observe(&self.ctx.config.eviction, &supplies, self.ctx.now())
    }

    /// Ends pods that have more on disk than they may.
    async fn own_limits(&self, pods: &[Arc<Pod>]) {
        let limited: Vec<Arc<Pod>> = pods.iter().filter(|p| storage::limited(p)).cloned().collect();
        if limited.is_empty() {
            return;
        }
        let usage = stats::containers(&self.ctx.runtime).await.unwrap_or_default();
        for (pod, on_disk) in measured(&self.ctx, limited, usage).await {
            if let Some(message) = storage::excess(&pod, &on_disk) {
                self.end(&pod, message, AT_ONCE);
            }
        }
    }

    async fn evict(&self, threshold: Threshold, pods: &[Arc<Pod>]) {
        let pods: Vec<Arc<Pod>> = pods.iter().filter(|p| !critical(p)).cloned().collect();
        let usage = stats::containers(&self.ctx.runtime).await.unwrap_or_default();
        let mut candidates = match threshold.signal {
            Signal::Memory => pods.iter().map(|p| by_memory(p, &usage)).collect(),
            Signal::Pids => pods.iter().map(|p| by_pids(&self.ctx, p)).collect(),
            signal => {
                let measured = measured(&self.ctx, pods.clone(), usage).await;
                let inodes = matches!(signal, Signal::NodeInodes | Signal::ImageInodes);
                measured.iter().map(|(p, on_disk)| by_disk(p, on_disk, inodes)).collect::<Vec<_>>()
            }
        };
        rank(threshold.signal, &mut candidates);
        let supply = supplies(&self.ctx).await.get(&threshold.signal).copied().unwrap_or_default();
        let Some(first) = candidates.first() else {
            tracing::warn!(
                resource = threshold.signal.resource(),
                "the node is short of a resource and has no pod to end"
            );
            return;
        };
        let Some(pod) = pods.iter().find(|p| spec::uid(p) == first.uid) else { return };
        let grace = match threshold.grace {
            None => AT_ONCE,
            Some(_) => spec::spec_grace(pod).min(self.ctx.config.eviction_max_grace).max(AT_ONCE),
        };
        self.end(pod, message(&threshold, supply, first), grace);
    }

    fn end(&self, pod: &Pod, message: String, grace: Duration) {
        let Some(handle) = self.table.get(spec::uid(pod)) else { return };
        if handle.desired.borrow().evicted.is_some() {
            return;
        }
        tracing::info!(pod = spec::name(pod), namespace = spec::namespace(pod), %message, "pod is evicted");
        self.ctx.events(pod).warning(None, "Evicted", &message);
        handle
            .desired
            .send_modify(|desired| desired.evicted = Some(Eviction { reason: "Evicted", message, grace }));
    }
}

/// Static pods and those of the system stay.
pub fn critical(pod: &Pod) -> bool {
    is_static(pod) || spec::pod_spec(pod).priority.is_some_and(|p| p >= CRITICAL)
}

async fn supplies(ctx: &Context) -> Supplies {
    let machine = &ctx.host.machine;
    let capacity = u64::try_from(ctx.memory).unwrap_or(0);
    let mut out: Supplies =
        [(Signal::Memory, Supply { available: machine.memory_available(), capacity })].into();
    let ids = machine.process_ids();
    out.insert(Signal::Pids, Supply { available: ids.most.saturating_sub(ids.used), capacity: ids.most });
    let images = ctx.runtime.image_fs_info().await.ok();
    let images =
        images.and_then(|i| i.image_filesystems.into_iter().find_map(|f| f.fs_id)).map(|id| id.mountpoint);
    let places = [
        (Some(ctx.config.root_dir.clone()), Signal::NodeSpace, Signal::NodeInodes),
        (images.map(|m| Path::new(&m).to_owned()), Signal::ImageSpace, Signal::ImageInodes),
    ];
    for (path, space, inodes) in places {
        if let Some(usage) = path.and_then(|p| ctx.host.filesystems.usage(&p).ok()) {
            out.insert(space, Supply { available: usage.available, capacity: usage.capacity });
            out.insert(inodes, Supply { available: usage.inodes_free, capacity: usage.inodes });
        }
    }
    out
}

/// Looks at the pods' files, off the threads that serve others.
async fn measured(
    ctx: &Arc<Context>,
    pods: Vec<Arc<Pod>>,
    usage: Vec<ContainerUse>,
) -> Vec<(Arc<Pod>, OnDisk)> {
    let config = ctx.config.clone();
    let work = move || {
        pods.into_iter()
            .map(|p| {
                let on_disk = storage::measure(&config, &p, &usage);
                (p, on_disk)
            })
            .collect()
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

fn request(c: &Container, name: &str) -> u64 {
    let milli = resources::amount(c, false, name).or_else(|| resources::amount(c, true, name)).unwrap_or(0);
    u64::try_from(milli / 1000).unwrap_or(0)
}

fn candidate(pod: &Pod, resource: &str, used: &BTreeMap<&str, u64>, shared: u64) -> Candidate {
    let containers = spec::all_containers(pod).filter_map(|(_, c)| {
        let used = used.get(c.name.as_str()).copied()?;
        Some(Use { used, requested: request(&c, resource), name: c.name.clone() })
    });
    Candidate {
        uid: spec::uid(pod).to_owned(),
        priority: spec::pod_spec(pod).priority.unwrap_or(0),
        containers: containers.collect(),
        shared,
    }
}

fn by_memory(pod: &Pod, usage: &[ContainerUse]) -> Candidate {
    let own = usage.iter().filter(|u| u.uid == spec::uid(pod));
    candidate(pod, "memory", &own.map(|u| (u.name.as_str(), u.working_set)).collect(), 0)
}

fn by_disk(pod: &Pod, on_disk: &OnDisk, inodes: bool) -> Candidate {
    if inodes {
        return candidate(pod, "inodes", &BTreeMap::new(), on_disk.inodes);
    }
    let used = on_disk.containers.iter().map(|(name, used)| (name.as_str(), *used)).collect();
    candidate(pod, "ephemeral-storage", &used, on_disk.volumes.iter().map(|(_, used)| used).sum())
}

fn by_pids(ctx: &Context, pod: &Pod) -> Candidate {
    let usage = cgroup_path(pod, &ctx.config).and_then(|path| ctx.host.cgroups.usage(&path).ok());
    candidate(pod, "pids", &BTreeMap::new(), usage.map_or(0, |u| u.pids))
}
