//! The scheduler's loop: changes in, decisions out, effects in the background.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{Client, Resource};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error as log_error};

use super::SchedulerConfig;
use super::core::{Core, Effect};
use super::effects::Effector;
use super::plugins::Plugins;
use super::pod_info::PodInfo;
use crate::client::informer::HandlerGuard;
use crate::client::{Clock, Informer, Informers, Key, LeaderElection, Recorder};

/// Most bindings and reports under way at once; with more, decisions wait.
const IN_FLIGHT: usize = 128;
/// Decisions between two looks at what has changed.
const BATCH: usize = 32;

/// Schedules pods until `stop`, while this process holds the lease `kube-system/kube-scheduler`.
pub async fn run(client: Client, informers: Informers, config: SchedulerConfig, stop: CancellationToken) {
    let election = LeaderElection::new(client.clone(), "kube-system", "kube-scheduler", &config.identity);
    let tasks = TaskTracker::new();
    let recorder = Recorder::start(client.clone(), &config.scheduler_name, "", &tasks, stop.clone());
    let effector = Effector::new(client, recorder, Clock::System, &config.scheduler_name);
    let work = |leading: CancellationToken| schedule(&informers, &config, effector.clone(), leading);
    election.run(stop, work).await;
    tasks.close();
    tasks.wait().await;
}

/// Schedules pods until `stop`, without asking whether another process does too.
pub async fn schedule(
    informers: &Informers,
    config: &SchedulerConfig,
    effector: Effector,
    stop: CancellationToken,
) {
    let sources = Sources {
        pods: informers.get::<Pod>(),
        nodes: informers.get::<Node>(),
        namespaces: informers.get::<Namespace>(),
    };
    let inbox = Arc::new(Inbox::default());
    let _guards = [
        watch(&sources.nodes, &inbox, |changed| &mut changed.nodes),
        watch(&sources.namespaces, &inbox, |changed| &mut changed.namespaces),
        watch(&sources.pods, &inbox, |changed| &mut changed.pods),
    ];
    let synced = async {
        tokio::join!(sources.pods.synced(), sources.nodes.synced(), sources.namespaces.synced());
    };
    if stop.run_until_cancelled(synced).await.is_none() {
        return;
    }
    let core = Core::new(&config.scheduler_name, Plugins::default(), config.seed);
    let mut this = Loop { core, sources, inbox, effector, effects: JoinSet::new() };
    stop.run_until_cancelled(this.run()).await;
    this.effects.shutdown().await;
}

struct Sources {
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    namespaces: Informer<Namespace>,
}

/// Keys of what has changed, each once, in the order of the first change. Bounded by the number of objects.
#[derive(Debug, Default)]
struct Keys {
    order: Vec<Key>,
    known: HashSet<Key>,
}

impl Keys {
    fn add(&mut self, key: Key) {
        if self.known.insert(key.clone()) {
            self.order.push(key);
        }
    }
}

#[derive(Debug, Default)]
struct Changed {
    nodes: Keys,
    namespaces: Keys,
    pods: Keys,
}

#[derive(Debug, Default)]
struct Inbox {
    changed: Mutex<Changed>,
    arrived: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watch<K: Resource + Send + Sync + 'static>(
    informer: &Informer<K>,
    inbox: &Arc<Inbox>,
    keys: fn(&mut Changed) -> &mut Keys,
) -> HandlerGuard {
    let inbox = inbox.clone();
    informer.add_handler(move |change| {
        keys(&mut inbox.lock()).add(Key::of(change.object().as_ref()));
        inbox.arrived.notify_one();
    })
}

/// A binding that has ended; `None` for a report.
type Ended = Option<(Arc<PodInfo>, bool)>;

struct Loop {
    core: Core,
    sources: Sources,
    inbox: Arc<Inbox>,
    effector: Effector,
    effects: JoinSet<Ended>,
}

impl Loop {
    async fn run(&mut self) {
        loop {
            self.apply_changes();
            self.core.tick(Instant::now());
            while let Some(ended) = self.effects.try_join_next() {
                self.ended(ended);
            }
            if self.decide_some() {
                tokio::task::yield_now().await;
            } else {
                self.wait().await;
            }
        }
    }

    fn apply_changes(&mut self) {
        let changed = std::mem::take(&mut *self.inbox.lock());
        let now = Instant::now();
        for key in changed.namespaces.order {
            self.core.namespace(key.name(), self.sources.namespaces.get(&key).as_deref());
        }
        for key in changed.nodes.order {
            self.core.node(key.name(), self.sources.nodes.get(&key), now);
        }
        for key in changed.pods.order {
            self.core.pod(&key, self.sources.pods.get(&key), now);
        }
    }

    /// Makes some decisions; true if there may be more to make.
    fn decide_some(&mut self) -> bool {
        for _ in 0..BATCH {
            if self.effects.len() >= IN_FLIGHT {
                return false;
            }
            let Some(effect) = self.core.next(Instant::now()) else { return false };
            self.perform(effect);
        }
        true
    }

    fn perform(&mut self, effect: Effect) {
        let effector = self.effector.clone();
        match effect {
            Effect::Bind { pod, node } => {
                debug!(pod = %pod.key, %node, "node chosen");
                self.effects.spawn(async move {
                    let bound = effector.bind(&pod, &node).await;
                    Some((pod, bound))
                });
            }
            Effect::Report { pod, message, preemption } => {
                debug!(pod = %pod.key, message, "no node fits");
                self.effects.spawn(async move {
                    effector.report(&pod, &message, preemption.as_ref()).await;
                    None
                });
            }
        }
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(Some((pod, bound))) => self.core.bound(&pod, bound, Instant::now()),
            Ok(None) => {}
            Err(failure) => log_error!(error = %failure, "a binding ended abnormally"),
        }
    }

    /// Waits for a change, the end of an effect, or the time at which a pod is due.
    async fn wait(&mut self) {
        let due = self.core.next_due();
        let at_due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.inbox.arrived.notified() => {}
            Some(ended) = self.effects.join_next() => self.ended(ended),
            () = at_due => {}
        }
    }
}
