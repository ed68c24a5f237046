//! The worker of one pod: looks, decides (see `state` and `plan`), acts, reports, waits.
//!
//! Everything slow (pulls, starts, stops, API requests) runs in tasks of the worker's own, so that the worker always
//! answers to a deletion. At most one sequence of starts runs at a time; stops run side by side.

mod resizing;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::plan::{Action, Input, Kill, Memory, Plan, StartFailure, completed, plan};
use super::publish::{self, Sent};
use super::sandbox::{self, SandboxError, chain};
use super::start::{Job, start};
use super::state::{Facts, Life};
use super::table::{Desired, Snapshot, Table};
use super::watch_probes::Probes;
use super::{end, housekeeping, kill, static_pods};
use crate::kubelet::context::Context;
use crate::kubelet::observed::{ObservedContainer, ObservedPod, ObservedSandbox};
use crate::kubelet::status::derive::{View, derive};
use crate::kubelet::volumes::fresh::keep_fresh;
use crate::kubelet::{runtime, spec};

/// Wait before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// A clock that is so far from where it should be was set.
const CLOCK_SET: SignedDuration = SignedDuration::from_secs(2);
/// Longest wait after failed sandboxes.
const MAX_SANDBOX_RETRY: Duration = Duration::from_secs(10);

/// How a task of the worker ended.
enum Done {
    Sandbox(Result<Option<ObservedSandbox>, SandboxError>),
    Starts(Vec<Started>),
    Killed { id: String },
    Published(Sent),
    Deleted(bool),
    Released(bool),
    Removed(bool),
    Swept,
    NoLongerFresh,
    Resized(resizing::Outcome),
}

/// How one start ended: name of the container, and what the runtime says of it.
type Started = (String, Result<Option<ObservedContainer>, StartFailure>);

/// What the API and the probes see of a pod while containers are being started.
///
/// As upstream's kubelet, which reports before it starts a pod's containers and again when all are started, their
/// postStart hooks included, and probes what it has reported.
struct Held {
    observed: Arc<ObservedPod>,
    failures: HashMap<String, StartFailure>,
    crash_loop: BTreeMap<String, String>,
}

struct KillUnderWay {
    task: AbortHandle,
    deadline: Timestamp,
}

/// Work that is done at most once at a time.
#[derive(Default)]
struct Busy {
    publishing: bool,
    deleting: bool,
    releasing: bool,
    removing: bool,
    sweeping: bool,
}

/// What has been given back.
#[derive(Default)]
struct GivenBack {
    released: bool,
    deleted: bool,
    removed: bool,
}

/// The worker of one pod.
pub struct Worker {
    ctx: Arc<Context>,
    uid: String,
    desired: watch::Receiver<Desired>,
    wake: Arc<Notify>,
    snapshot: watch::Sender<Snapshot>,
    /// The other pods of the node.
    table: Table,
    /// The pod as the API has it.
    raw: Option<Arc<Pod>>,
    /// What the API shows of a static pod.
    mirror: Option<Arc<Pod>>,
    /// The pod with the resources that it was promised.
    pod: Option<Arc<Pod>>,
    resizing: resizing::Resizing,
    life: Life,
    observed: Arc<ObservedPod>,
    /// It has to be read again.
    dirty: bool,
    /// Something happened in the runtime while containers were being started.
    missed: bool,
    memory: Memory,
    probes: Probes,
    unready: HashSet<String>,
    tasks: JoinSet<Done>,
    starting: Option<AbortHandle>,
    held: Option<Held>,
    /// Containers that waited out a back-off at the last look, with what their status says.
    crash_loop: BTreeMap<String, String>,
    kills: HashMap<String, KillUnderWay>,
    busy: Busy,
    given_back: GivenBack,
    fresh: Option<watch::Sender<Arc<Pod>>>,
    sandbox_failures: u32,
    retry_at: Option<Timestamp>,
    /// The time, and the steady time, of the last look.
    clock: (Timestamp, Instant),
    /// Hash of what the API was told last.
    last_patch: Option<u64>,
    /// The version that what it was told has become, until the informer shows it.
    written: Option<u64>,
}

impl Worker {
    /// A worker that knows nothing yet.
    pub fn new(
        ctx: Arc<Context>,
        uid: String,
        desired: watch::Receiver<Desired>,
        wake: Arc<Notify>,
        snapshot: watch::Sender<Snapshot>,
        table: Table,
    ) -> Self {
        let pod = desired.borrow().pod.clone();
        let mirror = desired.borrow().mirror.clone();
        let pod = pod.map(|pod| with_status_of(pod, mirror.as_deref()));
        let clock = (ctx.now(), Instant::now());
        let mut probes = Probes::default();
        if let Some(pod) = &pod {
            probes.adopt(pod);
        }
        Self {
            ctx,
            uid,
            desired,
            wake,
            snapshot,
            table,
            raw: pod.clone(),
            mirror,
            pod,
            resizing: resizing::Resizing::default(),
            life: Life::Active,
            observed: Arc::default(),
            dirty: true,
            missed: false,
            memory: Memory::default(),
            probes,
            unready: HashSet::new(),
            tasks: JoinSet::new(),
            starting: None,
            held: None,
            crash_loop: BTreeMap::new(),
            kills: HashMap::new(),
            busy: Busy::default(),
            given_back: GivenBack::default(),
            fresh: None,
            sandbox_failures: 0,
            retry_at: None,
            clock,
            last_patch: None,
            written: None,
        }
    }

    /// Runs until nothing of the pod is left, or until `stop`, which leaves its containers running.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            // Boxed, like all that a task needs only now and then: there is a task for every pod of the node.
            if self.dirty && !Box::pin(self.observe(&stop)).await {
                return;
            }
            let Some(wake_at) = self.turn() else { return };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.wait(wake_at) => {}
            }
        }
    }

    /// Reads the runtime, for as long as it takes; false when asked to stop.
    async fn observe(&mut self, stop: &CancellationToken) -> bool {
        loop {
            match runtime::observe(&self.ctx.runtime, &self.uid, &self.observed).await {
                Ok(observed) => {
                    self.observed = Arc::new(observed);
                    self.dirty = false;
                    return true;
                }
                Err(error) => {
                    tracing::warn!(pod = %self.uid, error = &error as &dyn std::error::Error, "runtime not readable");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// One look at everything; `None` ends the worker.
    fn turn(&mut self) -> Option<Option<Timestamp>> {
        let now = self.ctx.now();
        self.follow_clock(now);
        if let Some(pod) = self.pod.clone() {
            let shown = self.shown();
            self.unready = self.probes.judge(&pod, &shown, &mut self.memory);
        }
        let was_active = self.life == Life::Active;
        let facts = self.facts(now);
        self.life = self.life.clone().step(&facts, now);
        if self.life == Life::Gone {
            return None;
        }
        if was_active && self.life != Life::Active {
            self.stop_starting();
            // What was under way may have been all that was alive.
            let facts = self.facts(now);
            self.life = self.life.clone().step(&facts, now);
        }
        let table = self.table.clone();
        let resize_at = self.resize(&table, now);
        self.memory.starting = self.starting.is_some();
        self.memory.killing = self.kills.keys().cloned().collect();
        let plan = self.plan(now);
        self.act(&plan, now);
        self.probes.sync(&self.ctx, self.pod.as_deref(), &self.shown(), &self.life);
        self.keep_fresh();
        let wake_at = plan.wake_at;
        let status = self.derive(plan, now);
        self.publish(status);
        self.give_back();
        self.sweep();
        let retry = self.retry_at.take();
        Some([wake_at, resize_at, self.deadline().filter(|d| *d > now), retry].into_iter().flatten().min())
    }

    /// Notices when somebody set the clock, and moves what waits for a time.
    fn follow_clock(&mut self, now: Timestamp) {
        let steady = Instant::now();
        let (former, before) = std::mem::replace(&mut self.clock, (now, steady));
        let passed = SignedDuration::try_from(steady - before).unwrap_or(SignedDuration::ZERO);
        let set = now.duration_since(former).saturating_sub(passed);
        if set.abs() < CLOCK_SET {
            return;
        }
        tracing::debug!(pod = %self.uid, by = %set, "the clock was set");
        self.life.shift(set);
        self.memory.shift(set);
        let kills = self.kills.values_mut().map(|kill| &mut kill.deadline);
        for at in kills.chain(&mut self.retry_at) {
            *at = at.saturating_add(set).unwrap_or(*at);
        }
    }

    fn facts(&self, now: Timestamp) -> Facts {
        let desired = self.desired.borrow();
        let pod = self.pod.as_deref();
        let overdue = self.deadline().is_some_and(|d| d <= now).then(|| {
            let text = "Pod was active on the node longer than the specified deadline";
            ("DeadlineExceeded".to_owned(), text.to_owned())
        });
        let evicted = desired.evicted.as_ref().map(|e| (e.reason.to_owned(), e.message.clone()));
        let orphan_grace = || {
            let graces = self.observed.containers.iter().filter_map(|c| c.grace);
            graces.max().unwrap_or(Duration::from_secs(30))
        };
        Facts {
            present: desired.present,
            deletion: pod.and_then(spec::deletion_grace),
            spec_grace: pod.map_or_else(orphan_grace, spec::spec_grace),
            terminal: pod.is_some_and(spec::is_terminal),
            // What is being started comes to its end first.
            completed: self.starting.is_none() && pod.is_some_and(|p| completed(p, &self.observed)),
            failed: desired.rejected.clone().or(evicted).or(overdue),
            failed_grace: desired.evicted.as_ref().map(|e| e.grace),
            alive: self.observed.alive().next().is_some()
                || self.starting.is_some()
                || !self.kills.is_empty(),
            cleaned: self.given_back.removed,
        }
    }

    /// When `activeDeadlineSeconds` is over.
    fn deadline(&self) -> Option<Timestamp> {
        let pod = self.pod.as_deref()?;
        let seconds = u64::try_from(spec::pod_spec(pod).active_deadline_seconds?).ok()?;
        let start = pod.status.as_ref()?.start_time.as_ref()?.0;
        start.checked_add(Duration::from_secs(seconds)).ok()
    }

    fn plan(&self, now: Timestamp) -> Plan {
        let input = Input {
            pod: self.pod.as_deref(),
            observed: &self.observed,
            memory: &self.memory,
            now,
            longest_wait: self.ctx.config.max_restart_wait,
        };
        plan(&self.life, input)
    }

    fn stop_starting(&mut self) {
        if let Some(task) = self.starting.take() {
            self.held = None;
            task.abort();
            self.dirty = true;
        }
    }

    fn act(&mut self, plan: &Plan, now: Timestamp) {
        let mut sequence = Vec::new();
        for action in &plan.actions {
            match action {
                Action::Kill(kill) => self.kill(kill, now),
                // A stopped pod's sandboxes are stopped when everything is given back.
                Action::StopSandbox { .. } if self.life != Life::Active => {}
                Action::CreateSandbox { .. }
                | Action::StopSandbox { .. }
                | Action::Start(_)
                | Action::Remove { .. } => sequence.push(action.clone()),
            }
        }
        if !sequence.is_empty() && self.starting.is_none() {
            // Those whose wait is over show it until they run.
            let mut crash_loop = std::mem::take(&mut self.crash_loop);
            crash_loop.extend(plan.crash_loop.clone());
            self.begin(sequence, crash_loop);
        }
    }

    /// What the API shows of the runtime.
    fn shown(&self) -> Arc<ObservedPod> {
        self.held.as_ref().map_or_else(|| self.observed.clone(), |held| held.observed.clone())
    }

    fn begin(&mut self, sequence: Vec<Action>, crash_loop: BTreeMap<String, String>) {
        let (observed, failures) = (self.observed.clone(), self.memory.failures.clone());
        self.held = Some(Held { observed, failures, crash_loop });
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        let observed = self.observed.clone();
        // What is taken away is seen by reading everything again.
        self.missed =
            sequence.iter().any(|action| !matches!(action, Action::CreateSandbox { .. } | Action::Start(_)));
        let task = async move {
            let mut started = Vec::new();
            for action in sequence {
                if let Some(sandbox) = perform(&ctx, pod.as_ref(), &observed, action, &mut started).await {
                    return Done::Sandbox(sandbox);
                }
            }
            Done::Starts(started)
        };
        self.starting = Some(self.tasks.spawn(task));
        self.memory.starting = true;
    }

    fn kill(&mut self, wanted: &Kill, now: Timestamp) {
        let deadline = now.checked_add(wanted.grace).unwrap_or(now);
        let mut with_hook = true;
        if let Some(former) = self.kills.get(&wanted.id) {
            let shorter = deadline.checked_add(RETRY).is_ok_and(|d| d < former.deadline);
            if !shorter {
                return;
            }
            former.task.abort();
            with_hook = false;
        }
        let Some(container) = self.observed.containers.iter().find(|c| c.id == wanted.id) else {
            return;
        };
        let noted = container.pre_stop.clone();
        let (ctx, pod, wanted) = (self.ctx.clone(), self.pod.clone(), wanted.clone());
        let ip = self.observed.ready_sandbox().and_then(|s| s.ips.first().cloned()).unwrap_or_default();
        let id = wanted.id.clone();
        let task = self.tasks.spawn(async move {
            let id = wanted.id.clone();
            if !kill::kill(ctx, pod, noted, wanted, ip, with_hook).await {
                tokio::time::sleep(RETRY).await;
            }
            Done::Killed { id }
        });
        self.kills.insert(id, KillUnderWay { task, deadline });
    }

    fn derive(&mut self, plan: Plan, now: Timestamp) -> Option<PodStatus> {
        let pod = self.pod.as_deref()?;
        if self.held.is_none() {
            for (name, _) in
                plan.crash_loop.iter().filter(|(name, text)| self.crash_loop.get(*name) != Some(text))
            {
                let text = format!("Back-off restarting failed container {name} in pod {}", spec::named(pod));
                self.ctx.events(pod).warning(Some(name), "BackOff", &text);
            }
            self.crash_loop = plan.crash_loop;
        }
        let (crash_loop, failures) = match &self.held {
            Some(held) => (&held.crash_loop, &held.failures),
            None => (&self.crash_loop, &self.memory.failures),
        };
        Some(derive(&View {
            pod,
            life: &self.life,
            observed: &self.shown(),
            crash_loop,
            failures,
            started: &self.memory.started,
            unready: &self.unready,
            actuated: &self.resizing.actuated(&self.observed.containers),
            resize: &self.resizing.conditions(now),
            node_ips: &self.ctx.config.node_ips,
            runtime_name: &self.ctx.runtime_name,
            now,
        }))
    }

    fn publish(&mut self, status: Option<PodStatus>) {
        let present = self.desired.borrow().present;
        let status = status.unwrap_or_default();
        // A static pod's status is its mirror's, once there is one.
        let shown = match self.pod.as_deref().is_some_and(static_pods::is_static) {
            true => self.mirror.clone(),
            false => self.pod.clone(),
        };
        let pending = shown.as_ref().filter(|_| present).and_then(|p| publish::pending(p, &status));
        let active = self.life == Life::Active && self.pod.as_deref().is_some_and(|p| !spec::is_terminal(p));
        self.snapshot.send_replace(Snapshot {
            pod: self.pod.clone(),
            observed: self.observed.clone(),
            active,
            starting: self.starting.is_some(),
        });
        let Some((patch, pod)) = pending.zip(shown).filter(|_| !self.busy.publishing) else {
            return;
        };
        let hash = Some(hash(&patch));
        if self.last_patch == hash {
            // The API took it and still shows something else; saying it again would not help.
            return;
        }
        self.busy.publishing = true;
        self.last_patch = hash;
        let client = self.ctx.client.clone();
        self.tasks.spawn(async move { Done::Published(publish::send(client, pod, patch).await) });
    }

    /// A stopped pod gives back what it holds: first what running needs, then, when the API agrees, the rest.
    fn give_back(&mut self) {
        if !matches!(self.life, Life::Stopped(_)) {
            return;
        }
        let present = self.desired.borrow().present;
        let (ctx, uid) = (self.ctx.clone(), self.uid.clone());
        if !self.given_back.released {
            if !std::mem::replace(&mut self.busy.releasing, true) {
                self.fresh = None;
                let (observed, pod) = (self.observed.clone(), self.pod.clone());
                self.tasks.spawn(async move {
                    Done::Released(end::release(&ctx, &uid, pod.as_deref(), &observed).await)
                });
            }
        } else if !present {
            if !std::mem::replace(&mut self.busy.removing, true) {
                let observed = self.observed.clone();
                self.tasks.spawn(async move { Done::Removed(end::remove(&ctx, &uid, &observed).await) });
            }
        } else if let Some(pod) = self.pod.clone()
            && pod.metadata.deletion_timestamp.is_some()
            && !self.busy.publishing
            && !self.given_back.deleted
            && !std::mem::replace(&mut self.busy.deleting, true)
        {
            let client = self.ctx.client.clone();
            self.tasks.spawn(async move { Done::Deleted(publish::delete(client, pod).await) });
        }
    }

    /// Files that come from the API follow it while the pod lives.
    fn keep_fresh(&mut self) {
        let Some(pod) = self.pod.clone().filter(|_| self.life == Life::Active) else { return };
        if let Some(sender) = &self.fresh {
            sender.send_if_modified(|known| {
                let changed = known.metadata.resource_version != pod.metadata.resource_version;
                *known = pod;
                changed
            });
            return;
        }
        if self.observed.ready_sandbox().is_none() {
            return;
        }
        let adopted = !self.observed.containers.is_empty();
        let (sender, receiver) = watch::channel(pod);
        let (ctx, snapshots) = (self.ctx.clone(), self.snapshot.subscribe());
        let facts_ctx = ctx.clone();
        let facts = move || {
            let ips = snapshots.borrow().observed.ready_sandbox().map(|s| s.ips.clone());
            facts_ctx.facts(ips.unwrap_or_default())
        };
        self.tasks.spawn(async move {
            keep_fresh(ctx.volumes.clone(), ctx.watches.clone(), receiver, facts, adopted).await;
            Done::NoLongerFresh
        });
        self.fresh = Some(sender);
    }

    fn sweep(&mut self) {
        let garbage = housekeeping::garbage(&self.observed);
        if garbage == housekeeping::Garbage::default() || self.busy.sweeping || self.life != Life::Active {
            return;
        }
        self.busy.sweeping = true;
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        self.tasks.spawn(async move {
            end::sweep(&ctx, pod.as_deref(), garbage).await;
            Done::Swept
        });
    }

    /// Waits for whatever comes first and takes it in.
    async fn wait(&mut self, wake_at: Option<Timestamp>) {
        let sleep =
            wake_at.map(|at| Duration::try_from(at.duration_since(self.ctx.now())).unwrap_or_default());
        tokio::select! {
            changed = self.desired.changed() => self.take_desired(changed.is_ok()),
            () = self.wake.notified() => match self.starting {
                Some(_) => self.missed = true,
                None => self.dirty = true,
            },
            Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => match done {
                Ok(done) => self.take_done(done),
                Err(error) if error.is_cancelled() => {}
                Err(error) => self.take_panic(&error),
            },
            verdict = self.probes.next() => self.probes.note(verdict),
            () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
        }
    }

    fn take_desired(&mut self, alive: bool) {
        if !alive {
            return;
        }
        let Desired { pod, mirror, .. } = self.desired.borrow_and_update().clone();
        self.mirror = match (self.mirror.take(), mirror) {
            (Some(known), Some(new)) if known.metadata.uid == new.metadata.uid => {
                Some(publish::newer(known, new))
            }
            (_, new) => new,
        };
        if let Some(pod) = pod {
            self.learn(pod);
        }
        self.settle();
    }

    /// What the API was told is over when the informer shows it.
    fn settle(&mut self) {
        let shown = self.mirror.as_deref().or(self.raw.as_deref());
        if self.written.is_some_and(|written| shown.and_then(publish::version) >= Some(written)) {
            self.written = None;
            self.busy.publishing = false;
        }
    }

    /// A state of the pod that may be newer than the one known.
    fn learn(&mut self, pod: Arc<Pod>) {
        let pod = with_status_of(pod, self.mirror.as_deref());
        let raw = match self.raw.take() {
            Some(known) => publish::newer(known, pod),
            None => pod,
        };
        self.pod = Some(self.resizing.shown(&raw));
        self.raw = Some(raw);
    }

    fn take_started(&mut self, (name, outcome): Started) {
        match outcome {
            Ok(container) => {
                self.memory.failures.remove(&name);
                match container {
                    Some(container) => {
                        let observed = Arc::make_mut(&mut self.observed);
                        observed.containers.retain(|c| c.id != container.id);
                        observed.containers.push(container);
                        observed.sort();
                    }
                    None => self.missed = true,
                }
            }
            Err(failure) => {
                tracing::debug!(pod = %self.uid, container = %name, reason = %failure.reason, "container not started");
                self.memory.failures.insert(name, failure);
                // It may have left something behind.
                self.missed = true;
            }
        }
    }

    fn take_done(&mut self, done: Done) {
        let dirty = std::mem::replace(&mut self.dirty, true);
        match done {
            Done::Sandbox(outcome) => {
                self.take_sandbox(outcome);
                self.started_all(dirty);
            }
            Done::Starts(started) => {
                started.into_iter().for_each(|one| self.take_started(one));
                self.started_all(dirty);
            }
            Done::Killed { id } => drop(self.kills.remove(&id)),
            Done::Published(sent) => {
                // Nothing happened in the runtime.
                self.dirty = dirty;
                self.take_published(sent);
            }
            Done::Deleted(ok) => {
                self.busy.deleting = false;
                self.given_back.deleted = ok;
                self.retry_unless(ok);
            }
            Done::Released(ok) => {
                self.busy.releasing = false;
                self.given_back.released = ok;
                self.retry_unless(ok);
            }
            Done::Removed(ok) => {
                self.busy.removing = false;
                self.given_back.removed = ok;
                self.retry_unless(ok);
            }
            Done::Swept => self.busy.sweeping = false,
            Done::NoLongerFresh => self.dirty = dirty,
            Done::Resized(outcome) => self.take_resized(outcome, self.ctx.now()),
        }
    }

    /// What the starts said is all that happened, unless something else did.
    fn started_all(&mut self, dirty: bool) {
        self.starting = None;
        self.held = None;
        self.dirty = dirty || std::mem::take(&mut self.missed);
    }

    /// A bug in one task must not leave the worker waiting for it for ever.
    fn take_panic(&mut self, error: &tokio::task::JoinError) {
        tracing::error!(pod = %self.uid, error = error as &dyn std::error::Error, "task of the pod worker failed");
        self.started_all(true);
        self.kills.clear();
        self.busy = Busy::default();
        self.dirty = true;
        self.retry_unless(false);
    }

    fn retry_unless(&mut self, ok: bool) {
        if !ok {
            self.retry_at = self.ctx.now().checked_add(RETRY).ok();
        }
    }

    fn take_sandbox(&mut self, outcome: Result<Option<ObservedSandbox>, SandboxError>) {
        self.missed |= !matches!(outcome, Ok(Some(_)));
        match outcome {
            Ok(made) => {
                let observed = Arc::make_mut(&mut self.observed);
                observed.sandboxes.extend(made);
                observed.sort();
                self.sandbox_failures = 0;
                self.memory.retry_sandbox_at = None;
            }
            Err(error) => {
                tracing::info!(pod = %self.uid, error = %chain(&error), "pod sandbox not made");
                let wait = (RETRY * 2u32.saturating_pow(self.sandbox_failures.min(8))).min(MAX_SANDBOX_RETRY);
                self.sandbox_failures += 1;
                self.memory.retry_sandbox_at = self.ctx.now().checked_add(wait).ok();
            }
        }
    }

    fn take_published(&mut self, sent: Sent) {
        match sent {
            Sent::Done(written @ Some(_)) => {
                self.written = written;
                self.settle();
            }
            // The informer tells when the object is gone; until then there is nothing to say to it.
            Sent::Done(None) | Sent::Gone => self.busy.publishing = false,
            Sent::Failed => {
                self.busy.publishing = false;
                self.last_patch = None;
                self.retry_unless(false);
            }
        }
    }
}

/// A static pod has no status of its own: its mirror keeps it.
fn with_status_of(pod: Arc<Pod>, mirror: Option<&Pod>) -> Arc<Pod> {
    match mirror {
        Some(mirror) if static_pods::is_static(&pod) && pod.status != mirror.status => {
            Arc::new(Pod { status: mirror.status.clone(), ..(*pod).clone() })
        }
        _ => pod,
    }
}

fn hash(patch: &serde_json::Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    patch.hash(&mut hasher);
    hasher.finish()
}

/// Performs one action of a sequence; a sandbox ends it.
async fn perform(
    ctx: &Arc<Context>,
    pod: Option<&Arc<Pod>>,
    observed: &Arc<ObservedPod>,
    action: Action,
    started: &mut Vec<Started>,
) -> Option<Result<Option<ObservedSandbox>, SandboxError>> {
    match (action, pod) {
        (Action::CreateSandbox { attempt }, Some(pod)) => Some(sandbox::create(ctx, pod, attempt).await),
        (Action::StopSandbox { id }, _) => {
            if let Err(error) = ctx.runtime.stop_pod_sandbox(&id).await {
                tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "sandbox not stopped");
            }
            None
        }
        (Action::Start(wanted), Some(pod)) => {
            let name = wanted.name.clone();
            let job = Job { pod: pod.clone(), start: wanted, observed: observed.clone() };
            started.push((name, start(ctx, &job).await));
            None
        }
        (Action::Remove { id }, _) => {
            if let Err(error) = ctx.runtime.remove_container(&id).await {
                tracing::warn!(container = %id, error = &error as &dyn std::error::Error, "container not removed");
            }
            None
        }
        (Action::CreateSandbox { .. } | Action::Start(_), None) | (Action::Kill(_), _) => None,
    }
}
