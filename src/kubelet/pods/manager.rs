//! Gives every pod of this node a worker, and every orphan of the runtime too.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::admission::{Rejection, admit, app_armor, under_pressure};
use super::relist;
use super::run::Worker;
use super::static_pods::{StaticPods, is_static, mirrored};
use super::table::{Desired, Handle, Snapshot, Table};
use crate::client::informer::{Change, Event, Informer};
use crate::kubelet::context::Context;
use crate::kubelet::spec;

const RETRY: Duration = Duration::from_secs(1);
/// How often pods are looked for that only the runtime or the disk knows.
const ORPHANS_PERIOD: Duration = Duration::from_secs(60);

/// Owner of the pod workers.
pub struct Manager {
    ctx: Arc<Context>,
    table: Table,
    statics: Vec<Arc<Pod>>,
    workers: JoinSet<String>,
    stop: CancellationToken,
}

impl Manager {
    /// A manager without workers.
    pub fn new(ctx: Arc<Context>, table: Table, stop: CancellationToken) -> Self {
        Self { ctx, table, statics: Vec::new(), workers: JoinSet::new(), stop }
    }

    /// Follows the API until `stop`; then waits for the workers, which leave their containers running.
    pub async fn run(mut self, pods: Informer<Pod>, mut statics: StaticPods) {
        self.take_statics(statics.borrow_and_update().clone(), &pods);
        let mut manifests = true;
        let (stop, ctx) = (self.stop.clone(), self.ctx.clone());
        let mut changes = pods.subscribe();
        let mut held: BoxFuture<'static, Vec<String>> = held_uids(ctx.clone()).boxed();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                event = changes.next() => self.take(event, &pods),
                changed = statics.changed(), if manifests => match changed {
                    Ok(()) => {
                        let now = statics.borrow_and_update().clone();
                        self.take_statics(now, &pods);
                    }
                    Err(_) => manifests = false,
                },
                Some(ended) = self.workers.join_next(), if !self.workers.is_empty() => self.ended(ended, &pods),
                uids = &mut held, if pods.has_synced() => {
                    self.end_orphans(uids, &pods);
                    // A runtime that was killed may find again what it was making for a pod that is long gone.
                    held = tokio::time::sleep(ORPHANS_PERIOD).then({
                        let ctx = ctx.clone();
                        |()| held_uids(ctx)
                    }).boxed();
                }
            }
        }
        while self.workers.join_next().await.is_some() {}
    }

    /// The static pods as they are now: new ones are started, those that are gone are stopped.
    fn take_statics(&mut self, now: Vec<Arc<Pod>>, pods: &Informer<Pod>) {
        let former = std::mem::replace(&mut self.statics, now.clone());
        for gone in former.iter().filter(|f| !now.iter().any(|n| spec::uid(n) == spec::uid(f))) {
            self.absent(gone);
        }
        for pod in now {
            let mirror = pods.list().into_iter().find(|p| mirrored(p) == Some(spec::uid(&pod)));
            self.present_static(pod, mirror);
        }
    }

    fn present_static(&mut self, pod: Arc<Pod>, mirror: Option<Arc<Pod>>) {
        let uid = spec::uid(&pod).to_owned();
        if let Some(handle) = self.table.get(&uid) {
            handle.desired.send_modify(|desired| {
                desired.pod = Some(pod);
                desired.mirror = mirror;
                desired.present = true;
            });
            return;
        }
        // The API turns none of them away, but processors of its own are there or not.
        let rejected = self.ctx.cpus.as_ref().and_then(|cpus| cpus.admit(&pod).err()).map(told);
        self.spawn(uid, Desired { pod: Some(pod), mirror, present: true, rejected, ..Desired::default() });
    }

    /// Tells the worker of a static pod what the API shows of it.
    fn take_mirror(&self, uid: &str, mirror: Option<Arc<Pod>>) {
        if let Some(handle) = self.table.get(uid) {
            handle.desired.send_modify(|desired| desired.mirror = mirror);
        }
    }

    fn take(&mut self, event: Event<Pod>, pods: &Informer<Pod>) {
        match event {
            Event::Resync => self.resync(pods),
            Event::Change(Change::Added(pod)) => self.present(pod),
            Event::Change(Change::Updated { old, new }) => {
                if old.metadata.uid != new.metadata.uid {
                    self.absent(&old);
                }
                self.present(new);
            }
            Event::Change(Change::Deleted(pod)) => self.absent(&pod),
        }
    }

    fn resync(&mut self, pods: &Informer<Pod>) {
        if !pods.has_synced() {
            return;
        }
        let mut present = pods.list();
        let known: Vec<Arc<Pod>> = self.table.snapshots().into_iter().filter_map(|s| s.pod).collect();
        for gone in known
            .iter()
            .filter(|k| !is_static(k) && !present.iter().any(|p| p.metadata.uid == k.metadata.uid))
        {
            self.absent(gone);
        }
        // Those that ran before come first, so that newer ones are admitted beside them and not before them.
        present.sort_by_key(|p| {
            p.status.as_ref().and_then(|s| s.start_time.clone()).map_or((1, None), |t| (0, Some(t)))
        });
        for pod in present {
            self.present(pod);
        }
    }

    fn present(&mut self, pod: Arc<Pod>) {
        if let Some(uid) = mirrored(&pod).map(str::to_owned) {
            return self.take_mirror(&uid, Some(pod));
        }
        let uid = spec::uid(&pod).to_owned();
        if let Some(handle) = self.table.get(&uid) {
            handle.desired.send_modify(|desired| {
                desired.pod = Some(pod);
                desired.present = true;
            });
            return;
        }
        let rejected = self.rejection(&pod);
        if let Some((reason, message)) = &rejected {
            self.ctx.events(&pod).warning(None, reason, message);
        }
        let rejected = rejected.map(told);
        self.spawn(uid, Desired { pod: Some(pod), present: true, rejected, ..Desired::default() });
    }

    /// Only pods that this node sees for the first time can be turned away.
    fn rejection(&self, pod: &Pod) -> Option<(String, String)> {
        let seen = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
        if seen || spec::is_terminal(pod) || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let node = self.ctx.node.borrow().clone();
        let running: Vec<Arc<Pod>> =
            self.table.snapshots().into_iter().filter(|s| s.active).filter_map(|s| s.pod).collect();
        let running: Vec<&Pod> = running.iter().map(AsRef::as_ref).collect();
        self.shutting_down()
            .or_else(|| under_pressure(pod, *self.ctx.pressure.borrow()))
            .or_else(|| admit(pod, &running, node.as_deref(), &self.ctx.config.allowed_unsafe_sysctls).err())
            .or_else(|| app_armor(pod, self.ctx.host.machine.app_armor()))
            .or_else(|| self.ctx.cpus.as_ref()?.admit(pod).err())
    }

    fn shutting_down(&self) -> Option<Rejection> {
        let message = "Pod was rejected as the node is shutting down.";
        self.ctx.shutdown.borrow().then(|| ("NodeShutdown".to_owned(), message.to_owned()))
    }

    fn absent(&mut self, pod: &Pod) {
        if let Some(uid) = mirrored(pod) {
            return self.take_mirror(uid, None);
        }
        if let Some(handle) = self.table.get(spec::uid(pod)) {
            handle.desired.send_modify(|desired| desired.present = false);
        }
    }

    fn spawn(&mut self, uid: String, desired: Desired) {
        let active =
            desired.rejected.is_none() && desired.pod.as_deref().is_some_and(|p| !spec::is_terminal(p));
        let first = Snapshot { pod: desired.pod.clone(), active, ..Snapshot::default() };
        let (desired_tx, desired) = watch::channel(desired);
        let (snapshot_tx, snapshot) = watch::channel(first);
        let wake = Arc::new(Notify::new());
        let handle = Handle { desired: desired_tx, wake: wake.clone(), snapshot };
        self.table.insert(&uid, Arc::new(handle));
        let worker =
            Worker::new(self.ctx.clone(), uid.clone(), desired, wake, snapshot_tx, self.table.clone());
        let stop = self.stop.clone();
        self.workers.spawn(async move {
            worker.run(stop).await;
            uid
        });
    }

    fn ended(&mut self, ended: Result<String, tokio::task::JoinError>, pods: &Informer<Pod>) {
        match ended {
            Ok(uid) => {
                self.table.remove(&uid);
                if let Some(pod) = self.statics.iter().find(|p| spec::uid(p) == uid).cloned() {
                    let mirror = pods.list().into_iter().find(|p| mirrored(p) == Some(&*uid));
                    return self.present_static(pod, mirror);
                }
                // It may have come back while the worker was ending.
                if let Some(pod) = pods.list().into_iter().find(|p| spec::uid(p) == uid) {
                    self.present(pod);
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "pod worker failed");
                let gone: Vec<String> = self.dead_workers();
                gone.iter().for_each(|uid| self.table.remove(uid));
                self.resync(pods);
            }
        }
    }

    /// Workers whose task is no more: nobody listens to what they should do.
    fn dead_workers(&self) -> Vec<String> {
        let snapshots = self.table.snapshots().into_iter().filter_map(|s| s.pod);
        let uids = snapshots.map(|p| spec::uid(&p).to_owned());
        uids.filter(|uid| self.table.get(uid).is_some_and(|h| h.desired.is_closed())).collect()
    }

    /// Pods that only the runtime or the disk knows are ended and cleaned up like deleted ones.
    fn end_orphans(&mut self, held: Vec<String>, pods: &Informer<Pod>) {
        let wanted: Vec<Arc<Pod>> = pods.list().into_iter().chain(self.statics.iter().cloned()).collect();
        for uid in held {
            if wanted.iter().any(|p| spec::uid(p) == uid) || self.table.get(&uid).is_some() {
                continue;
            }
            tracing::info!(pod = %uid, "pod is no longer known to the API and will be removed");
            self.spawn(uid, Desired::default());
        }
    }
}

/// A rejection as the pod's status tells it.
fn told((reason, message): Rejection) -> Rejection {
    (reason, format!("Pod was rejected: {message}"))
}

/// UIDs of the pods that the runtime or the disk holds something of; waits until the runtime answers.
async fn held_uids(ctx: Arc<Context>) -> Vec<String> {
    let listing = loop {
        match relist::list(&ctx.runtime).await {
            Ok(listing) => break listing,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "runtime not listed");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let on_disk = std::fs::read_dir(ctx.config.root_dir.join("pods")).into_iter().flatten().flatten();
    let on_disk = on_disk.filter_map(|e| e.file_name().into_string().ok());
    listing.into_keys().chain(on_disk).collect()
}
